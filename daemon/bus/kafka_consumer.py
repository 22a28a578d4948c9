"""Reading from Kafka as a member of a group: range assignment, static membership, committed records only."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from kafka import ConsumerRebalanceListener
from kafka import KafkaConsumer as Client
from kafka import TopicPartition as KafkaTopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.structs import MemberState

from regate.config.errors import FencedError, RetryableError
from regate.daemon.bus import kafka_bulk
from regate.daemon.bus.bounded import bounded
from regate.daemon.bus.kafka_client import Cluster
from regate.daemon.bus.kafka_errors import mapped
from regate.daemon.bus.port import Changes, GroupMetadata, Record, TopicPartition
from regate.daemon.bus.records import Records, joined

log = structlog.get_logger(__name__)

# How long one inner poll waits, so that an assignment is handed over at once although no record comes.
POLL_SLICE_SECONDS = 0.1
# Larger answers mean fewer round trips while catching up; they are copied in one piece, and two of them wait in memory.
PARTITION_FETCH_BYTES = 2 << 20


def fetch_settings(cluster: Cluster) -> dict[str, Any]:
    """Return the settings of every reading client. No deserializer: one that raises makes `poll` spin for ever."""
    return {
        **cluster.streaming_settings(),
        "isolation_level": "read_committed",
        "enable_auto_commit": False,
        "allow_auto_create_topics": False,
        "max_partition_fetch_bytes": PARTITION_FETCH_BYTES,
        "fetch_max_wait_ms": 100,
    }


def records_of(partition: TopicPartition, batch: list[Any]) -> Sequence[Record]:
    """Return what the client gave as the port's: pieces of `Records` where `kafka_bulk` is installed, else records."""
    if isinstance(batch[0], Records):
        return joined(batch)
    topic, number = partition
    make = tuple.__new__  # half the time of Record(...), which parses its arguments
    return [
        make(Record, (topic, number, offset, timestamp, key, value, tuple(headers) if headers else ()))
        for _, _, _, offset, timestamp, _, key, value, headers, _, _, _, _ in batch
    ]


class _Notes(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Notes assignment changes. It runs on the client's I/O thread and must not do more: heartbeats wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._assigned: set[TopicPartition] = set()
        self._revoked: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        with self._lock:
            self._assigned |= {TopicPartition(*tp) for tp in assigned}

    def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        self._gone(revoked, self._revoked)

    def on_partitions_lost(self, lost: Iterable[Any]) -> None:
        self._gone(lost, self._lost)

    def _gone(self, partitions: Iterable[Any], into: set[TopicPartition]) -> None:
        with self._lock:
            for tp in map(TopicPartition._make, partitions):
                # Never handed over: nobody holds state for it, so there is nothing to take back.
                if tp in self._assigned:
                    self._assigned.discard(tp)
                else:
                    into.add(tp)

    def fresh(self) -> set[TopicPartition]:
        """Return the partitions that were assigned and not handed over yet."""
        with self._lock:
            return set(self._assigned)

    def pending(self) -> bool:
        with self._lock:
            return bool(self._assigned or self._revoked or self._lost)

    def take(self) -> Changes:
        with self._lock:
            changes = Changes(frozenset(self._assigned), frozenset(self._revoked), frozenset(self._lost))
            self._assigned, self._revoked, self._lost = set(), set(), set()
        return changes


class KafkaGroupConsumer:
    """A member of a consumer group (port: `GroupConsumer`). One thread owns it."""

    def __init__(self, cluster: Cluster, group: str, instance_id: str | None) -> None:
        self._cluster = cluster
        self._group = group
        self._instance_id = instance_id
        self._notes = _Notes()
        timeouts = cluster.timeouts
        settings = fetch_settings(cluster)
        with mapped(f"join group {group}"):
            self._client = Client(
                **settings,
                group_id=group,
                group_instance_id=instance_id,
                auto_offset_reset="earliest",
                # Range only: cooperative-sticky once gave one process all telemetry and the other all labels.
                partition_assignment_strategy=(RangePartitionAssignor,),
                session_timeout_ms=int(timeouts.session * 1000),
                heartbeat_interval_ms=int(timeouts.heartbeat * 1000),
                max_poll_interval_ms=int(timeouts.max_poll_interval * 1000),
            )
        kafka_bulk.install(self._client)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Join the group for these topics (all must exist)."""
        self._cluster.require(topics)
        with mapped(f"subscribe in group {self._group}"):
            self._client.subscribe(topics=list(topics), listener=self._notes)
            # Joining before the metadata is there assigns nothing, and costs a second rebalance.
            bounded(
                lambda: [self._client.partitions_for_topic(topic) for topic in topics],
                self._cluster.timeouts.block,
                "read the metadata of the inputs",
            )

    def _finish_interrupted_join(self) -> None:
        """Let the client take in a join that outlived the poll that began it.

        A join that new metadata caused (a grown topic, or metadata that came late) is forgotten by kafka-python
        3.0.12 when the poll that began it ends before it: the reason to join is gone by then, so nobody asks for
        its result, the partitions never come, and heartbeats stay off. Asking again consumes the waiting result.
        """
        coordinator = self._client._coordinator  # noqa: SLF001  (no public way; the version is pinned)
        if coordinator._join_task is not None:  # noqa: SLF001
            coordinator.request_rejoin()

    def _refuse_taken_identity(self) -> None:
        """Say that another process has this instance id: the client only stops its heartbeats and reads on.

        :raises FencedError: when the group has given the place away; there is no way back but another identity.
        """
        coordinator = self._client._coordinator  # noqa: SLF001  (as above)
        heartbeats_stopped = not coordinator._heartbeat_enabled and coordinator._join_task is None  # noqa: SLF001
        if heartbeats_stopped and coordinator.state == MemberState.STABLE:
            raise FencedError(
                f"another process is {self._instance_id} in {self._group} now",
                hint="give every process its own instance name",
            )

    def poll(self, timeout_seconds: float, max_records: int) -> dict[TopicPartition, Sequence[Record]]:
        """Return what is there, waiting at most ``timeout_seconds`` for the first record.

        Returns early and empty when the assignment changed. A partition gives records only after
        `take_changes` has handed it over, so that its state is recovered before its first record is read.
        A new partition starts at its committed offset, else its beginning; one that was given up and came back in
        one rebalance is where it was: whoever recovers state seeks.
        """
        deadline = time.monotonic() + timeout_seconds
        with mapped(f"poll in group {self._group}"):
            while True:
                left = max(deadline - time.monotonic(), 0.0)
                wait_ms = int(min(left, POLL_SLICE_SECONDS) * 1000)
                self._finish_interrupted_join()
                self._refuse_taken_identity()
                polled = self._client.poll(timeout_ms=wait_ms, max_records=max_records)
                if polled:
                    found = self._converted(polled)
                    if found:
                        return found
                if left <= 0 or self._notes.pending():
                    return {}

    def _converted(self, polled: dict[Any, list[Any]]) -> dict[TopicPartition, Sequence[Record]]:
        fresh = self._notes.fresh() if self._notes.pending() else set()
        found: dict[TopicPartition, Sequence[Record]] = {}
        for key, batch in polled.items():
            partition = TopicPartition(*key)
            records = records_of(partition, batch)
            if partition in fresh:
                self._client.seek(key, records[0].offset)
            else:
                found[partition] = records
        return found

    def take_changes(self) -> Changes:
        """Return and clear the assignment changes noted since the last call."""
        return self._notes.take()

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions held now."""
        return frozenset(TopicPartition(*tp) for tp in self._client.assignment())

    def metadata(self) -> GroupMetadata:
        """Return the group generation for the transaction."""
        found = self._client.group_metadata()
        return GroupMetadata(found.group_id, found.generation_id, found.member_id, found.group_instance_id)

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return stable committed offsets; a partition without one is absent."""
        timeout_ms = int(self._cluster.timeouts.block * 1000)
        with mapped(f"read committed offsets of {self._group}"):
            found = {tp: self._client.committed(KafkaTopicPartition(*tp), timeout_ms=timeout_ms) for tp in partitions}
        return {tp: offset for tp, offset in found.items() if offset is not None}

    def position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record that `poll` will return."""
        with mapped(f"read the position of {partition.topic}-{partition.partition}"):
            found = self._client.position(
                KafkaTopicPartition(*partition), timeout_ms=int(self._cluster.timeouts.block * 1000)
            )
        if found is None:
            raise RetryableError(f"{partition.topic}-{partition.partition} has no position yet", hint="poll again")
        return int(found)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Set the offset of the next record."""
        with mapped(f"seek {partition.topic}-{partition.partition}"):
            self._client.seek(KafkaTopicPartition(*partition), offset)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop fetching from these partitions; membership goes on."""
        with mapped("pause"):
            self._client.pause(*(KafkaTopicPartition(*tp) for tp in partitions))

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Fetch from these partitions again."""
        with mapped("resume"):
            self._client.resume(*(KafkaTopicPartition(*tp) for tp in partitions))

    def close(self, deadline_seconds: float) -> None:
        """Leave within the deadline. A static member's partitions stay its own until its session ends."""
        close_client(self._client, deadline_seconds, self._group)


def close_client(client: Any, seconds: float, name: str) -> None:
    """Close a reading client; one that fails or hangs leaves a daemon thread, and is said."""
    try:
        bounded(lambda: client.close(autocommit=False, timeout_ms=int(seconds * 1000)), seconds + 1.0, f"close {name}")
    except Exception as error:  # noqa: BLE001  (nothing depends on it: offsets are committed by transactions only)
        log.warning("consumer_close_failed", consumer=name, error=type(error).__name__, detail=str(error))
