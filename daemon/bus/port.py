"""The bus port: what the shell needs of a log with consumer groups and transactions.

Two implementations pass the same contract tests: `regate.daemon.bus.kafka.KafkaBus` and
`regate.daemon.bus.memory.MemoryBus`. Semantics are Kafka's; where a client is allowed to be
vague (group callbacks, hanging calls), the port is not:

* `GroupConsumer.poll` returns records in offset order per partition; rebalances are only *noted*
  and handed over by `take_changes`, so that recovery runs in the caller's loop.
* `Producer.commit` checks the future of every send before it commits, and sends the group's
  generation with the input offsets, which fences zombies. Any exception other than `FencedError`
  is a `RetryableError` and means: outcome unknown, drop state, new producer, recover.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Headers = tuple[tuple[str, bytes], ...]


class TopicPartition(NamedTuple):
    """One partition of one topic, by the topic's full name on the bus."""

    topic: str
    partition: int


class Record(NamedTuple):
    """One record as read; ``timestamp_ms`` is the bus's own (create or append) time.

    A tuple: a frozen dataclass costs four times as much to make. Kafka's consumer returns many as
    `regate.daemon.bus.records.Records`, which makes them only for who asks.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class OutRecord:
    """One record to write. ``partition`` None lets the bus place by murmur2 of the key."""

    topic: str
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int | None = None
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class GroupMetadata:
    """What fences a zombie: sent with the input offsets of every transaction."""

    group: str
    generation: int
    member_id: str
    instance_id: str | None


@dataclass(frozen=True, slots=True)
class Changes:
    """Assignment changes since they were last taken. ``lost`` partitions were taken without a chance to commit."""

    assigned: frozenset[TopicPartition] = frozenset()
    revoked: frozenset[TopicPartition] = frozenset()
    lost: frozenset[TopicPartition] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.assigned or self.revoked or self.lost)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic with its settings (``config`` uses Kafka's names, values as strings)."""

    name: str
    partitions: int
    replication: int = 1
    config: tuple[tuple[str, str], ...] = ()


class GroupConsumer(Protocol):
    """A member of a consumer group, reading committed records; range assignment, static membership."""

    def subscribe(self, topics: Sequence[str]) -> None:
        """Join the group for these topics (all must exist)."""

    def poll(self, timeout_seconds: float, max_records: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """Return what is there, waiting at most ``timeout_seconds`` for the first record."""

    def take_changes(self) -> Changes:
        """Return and clear the assignment changes noted since the last call."""

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions held now."""

    def metadata(self) -> GroupMetadata:
        """Return the group generation for the transaction."""

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return stable committed offsets; a partition without one is absent."""

    def position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record that `poll` will return."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Set the offset of the next record."""

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop fetching from these partitions; membership goes on."""

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Fetch from these partitions again."""

    def close(self, deadline_seconds: float) -> None:
        """Leave, within the deadline."""


class Reader(Protocol):
    """Group-free, read-committed reading by explicit position."""

    def read(self, partition: TopicPartition, start: int, stop: int, timeout_seconds: float = 30.0) -> list[Record]:
        """Return the committed records with ``start <= offset < stop``.

        :raises RetryableError: when the range cannot be read to its end in time.
        :raises FatalError: when the log no longer holds the start of the range.
        """

    def beginning(self, partition: TopicPartition) -> int:
        """Return the first offset that the log still holds."""

    def end(self, partition: TopicPartition) -> int:
        """Return the read-committed end offset (last stable offset)."""

    def ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the read-committed end offsets of many partitions in one request."""

    def at_time(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """Return the first offset whose record is not older than the time, or the end."""

    def close(self) -> None:
        """Release the connection."""


class Producer(Protocol):
    """A transactional producer: one per role and process. Create a new one after any error."""

    def begin(self) -> None:
        """Open a transaction."""

    def send(self, record: OutRecord) -> None:
        """Add a record to the open transaction."""

    def commit(self, offsets: Mapping[TopicPartition, int], group: GroupMetadata | None) -> None:
        """Flush, check every send, add the input offsets under the generation, commit.

        :raises FencedError: when the generation or the producer's epoch is stale.
        :raises RetryableError: in every other failure: the outcome is unknown.
        """

    def abort(self) -> None:
        """Abort the open transaction; a failure to abort is left to the timeout of the transaction."""

    def close(self, deadline_seconds: float) -> None:
        """Close within the deadline."""


class Writer(Protocol):
    """A plain idempotent producer for commands, telemetry and tests."""

    def send(self, record: OutRecord) -> None:
        """Queue a record."""

    def flush(self, timeout_seconds: float = 30.0) -> None:
        """Wait for all queued records; raise if any was refused."""

    def close(self, deadline_seconds: float) -> None:
        """Flush and close within the deadline."""


class Admin(Protocol):
    """Topics: created from one table, never by accident."""

    def create(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create the topics that do not exist; return their names."""

    def partitions(self, topic: str) -> int:
        """Return the number of partitions; 0 when the topic does not exist."""

    def topics(self) -> list[str]:
        """Return the names of all topics."""

    def config(self, topic: str) -> dict[str, str]:
        """Return the topic's settings."""

    def add_partitions(self, topic: str, total: int) -> None:
        """Grow the topic to ``total`` partitions."""

    def delete(self, topics: Sequence[str]) -> None:
        """Delete topics (tests and demos)."""

    def forget(self, partition: TopicPartition, before: int) -> None:
        """Drop the records below ``before``, as retention does (tests and drills)."""

    def close(self) -> None:
        """Release the connection."""


class Bus(Protocol):
    """A factory of the parts above, on one cluster."""

    def consumer(self, group: str, instance_id: str | None = None) -> GroupConsumer:
        """Return a group member."""

    def reader(self) -> Reader:
        """Return a group-free reader."""

    def producer(self, transactional_id: str) -> Producer:
        """Return an initialised transactional producer; fences older ones with the same id."""

    def writer(self) -> Writer:
        """Return a plain producer."""

    def admin(self) -> Admin:
        """Return the administration client."""
