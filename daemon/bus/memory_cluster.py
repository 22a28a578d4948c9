"""The broker's part of the in-memory bus: topics, transactions, groups, one lock, one clock, faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from regate.config.errors import ConfigError, FatalError, FencedError, RetryableError
from regate.daemon.bus.memory_group import Group
from regate.daemon.bus.memory_log import PartitionLog, Transaction
from regate.daemon.bus.placement import murmur2_partition
from regate.daemon.bus.port import OutRecord, Record, TopicPartition, TopicSpec

CommitFault = Literal["", "before", "after"]


@dataclass
class Faults:
    """What goes wrong, decided by the test. All off by default; nothing is ever lost or doubled silently.

    :param commit: asked with the transactional id at each commit; the connection drops ``before`` the commit took
        effect (the transaction stays open), or ``after`` it. Both look the same to the caller: outcome unknown.
    :param refuse: asked with each record; True refuses it, which shows at the commit or flush.
    :param delay: asked with a partition at each poll; True keeps its records back.
    :param down: the broker is away: polls are empty, everything else raises `RetryableError`.
    """

    commit: Callable[[str], CommitFault] = lambda _: ""
    refuse: Callable[[OutRecord], bool] = lambda _: False
    delay: Callable[[TopicPartition], bool] = lambda _: False
    down: bool = False


@dataclass(eq=False)
class Topic:
    """One topic."""

    spec: TopicSpec
    logs: list[PartitionLog]
    round_robin: int = 0  # the next partition of a record without a key


@dataclass(eq=False)
class MemoryCluster:
    """All state of one in-memory bus. Every method expects `lock` to be held."""

    clock: Callable[[], float] | None
    session_seconds: float
    max_poll_seconds: float
    transaction_seconds: float
    faults: Faults = field(default_factory=Faults)
    lock: threading.Condition = field(default_factory=threading.Condition)
    topics: dict[str, Topic] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    open: dict[str, Transaction] = field(default_factory=dict)

    def now(self) -> float:
        """Return seconds since the epoch, by the injected clock if there is one."""
        return time.time() if self.clock is None else self.clock()

    def wait(self, seconds: float) -> bool:
        """Wait for a change at most so long. Under an injected clock nothing waits: return False at once."""
        return self.clock is None and seconds > 0 and self.lock.wait(seconds)

    def reachable(self) -> None:
        """Refuse everything while the broker is away, and let time do its work otherwise."""
        if self.faults.down:
            raise RetryableError("the broker is away", hint="wait and recover")
        now = self.now()
        for owner, transaction in list(self.open.items()):
            if now - transaction.started >= self.transaction_seconds:
                self.epochs[owner] += 1  # the broker fences whom it times out
                self.end(owner, "aborted")
        for group in self.groups.values():
            group.expire(now)

    def topic(self, name: str) -> Topic:
        """Return a topic; none is created by accident."""
        try:
            return self.topics[name]
        except KeyError:
            raise ConfigError(f"these topics do not exist: {name}", hint="run: regate topics create") from None

    def require(self, names: Iterable[str]) -> None:
        """Refuse topics that do not exist."""
        for name in names:
            self.topic(name)

    def log(self, partition: TopicPartition) -> PartitionLog:
        """Return the log of one partition."""
        logs = self.topic(partition.topic).logs
        if not 0 <= partition.partition < len(logs):
            raise RetryableError(f"{partition.topic} has no partition {partition.partition}", hint="grow the topic")
        return logs[partition.partition]

    def counts(self) -> dict[str, int]:
        """Return topic -> number of partitions."""
        return {name: len(topic.logs) for name, topic in self.topics.items()}

    def group(self, name: str) -> Group:
        """Return a group, made at first use."""
        if name not in self.groups:
            self.groups[name] = Group(name, self.session_seconds, self.max_poll_seconds)
        return self.groups[name]

    def place(self, record: OutRecord) -> TopicPartition:
        """Return where a record goes: its own partition, else murmur2 of its key, else each in turn."""
        topic = self.topic(record.topic)
        if record.partition is not None:
            partition = record.partition
        elif record.key is not None:
            partition = murmur2_partition(record.key, len(topic.logs))
        else:
            partition = topic.round_robin % len(topic.logs)
            topic.round_robin += 1
        return TopicPartition(record.topic, partition)

    def append(self, record: OutRecord, transaction: Transaction | None) -> None:
        """Write one record.

        :raises FatalError: when it is larger than its topic allows, or has neither key nor value.
        :raises RetryableError: when a fault refuses it.
        """
        if record.value is None and record.key is None:
            raise FatalError("a record has neither key nor value", hint="a tombstone needs a key")
        partition = self.place(record)
        log = self.log(partition)
        settings = dict(self.topic(record.topic).spec.config)
        size = len(record.key or b"") + len(record.value or b"")
        if size > int(settings.get("max.message.bytes", 1_048_588)):
            raise FatalError(f"{size} bytes are too many for {record.topic}", hint="see max.message.bytes")
        if self.faults.refuse(record):
            raise RetryableError(f"a record to {record.topic} was refused", hint="recover")
        stamp = int(self.now() * 1000) if record.timestamp_ms is None else record.timestamp_ms
        stored = Record(*partition, 0, stamp, record.key, record.value, tuple(record.headers))
        log.append(stored, transaction)

    def init(self, transactional_id: str) -> int:
        """Abort what an older producer left open, fence it, return the new epoch."""
        if transactional_id in self.open:
            self.end(transactional_id, "aborted")
        self.epochs[transactional_id] = self.epochs.get(transactional_id, -1) + 1
        return self.epochs[transactional_id]

    def check_epoch(self, transactional_id: str, epoch: int) -> None:
        """Refuse a producer whose id was initialised again."""
        current = self.epochs[transactional_id]
        if epoch != current:
            raise FencedError(
                f"epoch {epoch} of {transactional_id} is over, it is {current} now",
                hint="a newer producer has this id; if the shard is still mine: new producer, recover",
            )

    def end(self, transactional_id: str, state: Literal["committed", "aborted"]) -> None:
        """Commit or abort the open transaction: offsets and records at once."""
        transaction = self.open.pop(transactional_id)
        transaction.state = state
        for partition, first in transaction.partitions.items():
            if partition.topic in self.topics:  # it may have been deleted meanwhile
                self.log(partition).settle(first)
        if state == "committed" and transaction.group is not None:
            self.group(transaction.group.group).offsets.update(transaction.offsets)
        self.lock.notify_all()

    def unstable(self, group: str, partition: TopicPartition) -> bool:
        """Return whether an open transaction is about to move this offset."""
        return any(
            partition in transaction.offsets and transaction.group is not None and transaction.group.group == group
            for transaction in self.open.values()
        )
