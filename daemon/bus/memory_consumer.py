"""The reading clients of the in-memory bus: group member and reader."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from regate.config.errors import FatalError, FencedError, RetryableError
from regate.daemon.bus.memory_cluster import MemoryCluster
from regate.daemon.bus.memory_group import Group, Member
from regate.daemon.bus.port import Changes, GroupMetadata, Record, TopicPartition

# How long a real-clock wait sleeps at most before it looks again (sessions end without a notification).
LOOK_AGAIN_SECONDS = 0.05


class MemoryConsumer:
    """A member of a consumer group (port: `GroupConsumer`)."""

    def __init__(self, cluster: MemoryCluster, group: str, instance_id: str | None) -> None:
        self._cluster = cluster
        self._group_name = group
        self._instance_id = instance_id
        self._topics: frozenset[str] = frozenset()
        self._member: Member | None = None
        self._generation = -1
        self._held: frozenset[TopicPartition] = frozenset()
        self._positions: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self._turn = 0
        self._assigned: set[TopicPartition] = set()
        self._revoked: set[TopicPartition] = set()
        self._lost: set[TopicPartition] = set()
        self._closed = False

    @property
    def _group(self) -> Group:
        return self._cluster.group(self._group_name)

    def subscribe(self, topics: Sequence[str]) -> None:
        """Join the group for these topics (all must exist)."""
        with self._cluster.lock:
            self._cluster.reachable()
            self._cluster.require(topics)
            self._topics = frozenset(topics)
            if self._member is not None:
                self._member.topics = self._topics
                self._group.open_rebalance()

    def poll(self, timeout_seconds: float, max_records: int) -> dict[TopicPartition, list[Record]]:
        """Return what is there; early and empty when the assignment changed; see `KafkaGroupConsumer.poll`."""
        if self._closed:
            raise RetryableError("the consumer is closed", hint="create a new one")
        deadline = time.monotonic() + timeout_seconds
        with self._cluster.lock:
            while True:
                if not self._cluster.faults.down:
                    self._cluster.reachable()
                    self._keep_membership()
                    found = self._fetch(max_records)
                    if found or self._assigned or self._revoked or self._lost:
                        return found
                left = deadline - time.monotonic()
                if left <= 0 or self._cluster.clock is not None:
                    return {}
                self._cluster.wait(min(left, LOOK_AGAIN_SECONDS))

    def _keep_membership(self) -> None:
        """Poll as the coordinator sees it: stay, give up for a rebalance, join, or take a new assignment."""
        if not self._topics:
            return
        cluster, group, counts = self._cluster, self._group, self._cluster.counts()
        member = self._member
        if member is not None and group.members.get(member.member_id) is not member:
            self._thrown_out()
            member = None
        if member is None:
            member = self._member = group.join(self._instance_id, self._topics, cluster.now())
            self._generation = -1
        member.polled = cluster.now()
        group.notice_growth(counts)
        if group.rebalancing and not member.joined:
            self._give_up(self._revoked)
            member.joined = True
        if group.try_assign(counts):
            cluster.lock.notify_all()
        if not group.rebalancing and self._generation != group.generation:
            self._generation = group.generation
            self._held = member.assigned
            self._assigned |= member.assigned
            # As kafka-python: what was given up and came back is where it was, everything else starts afresh.
            self._positions = {tp: offset for tp, offset in self._positions.items() if tp in self._held}
            self._paused &= self._held

    def _thrown_out(self) -> None:
        taken = any(m.instance_id == self._instance_id for m in self._group.members.values())
        self._give_up(self._lost)
        self._positions.clear()
        self._paused.clear()
        self._member = None
        if self._instance_id is not None and taken:
            self._closed = True
            raise FencedError(
                f"another process is {self._instance_id} in {self._group_name} now",
                hint="give every process its own instance name",
            )

    def _give_up(self, into: set[TopicPartition]) -> None:
        # What was never handed over needs no taking back: nobody holds state for it.
        into |= self._held - self._assigned
        self._assigned.clear()
        self._held = frozenset()

    def _resolved(self, partition: TopicPartition) -> int | None:
        """Return the position: sought, else committed, else the beginning. None while a transaction may move it."""
        if partition not in self._positions:
            if self._cluster.unstable(self._group_name, partition):
                return None
            start = self._cluster.log(partition).start
            self._positions[partition] = self._group.offsets.get(partition, start)
        return self._positions[partition]

    def _fetch(self, max_records: int) -> dict[TopicPartition, list[Record]]:
        held = sorted(self._held - self._assigned - self._paused)
        found: dict[TopicPartition, list[Record]] = {}
        left = max_records
        self._turn += 1  # nobody is always last
        for place in range(len(held)):
            partition = held[(place + self._turn) % len(held)]
            position = self._resolved(partition)
            if left <= 0 or position is None or self._cluster.faults.delay(partition):
                continue
            log = self._cluster.log(partition)
            if position > log.end:  # the topic was made anew: as Kafka's consumer, go on at the beginning
                position = log.start
            records, self._positions[partition] = log.committed(max(position, log.start), sys.maxsize, left)
            if records:
                found[partition] = records
                left -= len(records)
        return found

    def take_changes(self) -> Changes:
        """Return and clear the assignment changes noted since the last call."""
        with self._cluster.lock:
            changes = Changes(frozenset(self._assigned), frozenset(self._revoked), frozenset(self._lost))
            self._assigned, self._revoked, self._lost = set(), set(), set()
        return changes

    def assignment(self) -> frozenset[TopicPartition]:
        """Return the partitions held now."""
        return self._held

    def metadata(self) -> GroupMetadata:
        """Return the group generation for the transaction."""
        member_id = "" if self._member is None else self._member.member_id
        return GroupMetadata(self._group_name, self._generation, member_id, self._instance_id)

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return stable committed offsets; waits while an open transaction may still move one."""
        deadline = time.monotonic() + self._cluster.transaction_seconds * 2
        with self._cluster.lock:
            self._cluster.reachable()
            while any(self._cluster.unstable(self._group_name, tp) for tp in partitions):
                if time.monotonic() > deadline or self._cluster.clock is not None:
                    raise RetryableError("an open transaction may move these offsets", hint="read them again")
                self._cluster.wait(LOOK_AGAIN_SECONDS)
                self._cluster.reachable()
            offsets = self._group.offsets
            return {tp: offsets[tp] for tp in partitions if tp in offsets}

    def position(self, partition: TopicPartition) -> int:
        """Return the offset of the next record that `poll` will return."""
        with self._cluster.lock:
            self._require_held(partition)
            found = self._resolved(partition)
        if found is None:
            raise RetryableError(f"{partition.topic}-{partition.partition} has no position yet", hint="poll again")
        return found

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Set the offset of the next record."""
        with self._cluster.lock:
            self._require_held(partition)
            self._positions[partition] = offset

    def _require_held(self, partition: TopicPartition) -> None:
        if partition not in self._held:
            raise RetryableError(f"{partition.topic}-{partition.partition} is not assigned", hint="take the changes")

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop fetching from these partitions; membership goes on."""
        for partition in partitions:
            self._require_held(partition)
        self._paused |= set(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Fetch from these partitions again."""
        for partition in partitions:
            self._require_held(partition)
        self._paused -= set(partitions)

    def close(self, deadline_seconds: float) -> None:  # noqa: ARG002  (memory needs no deadline)
        """Leave. A static member's partitions stay its own until its session ends, as on Kafka."""
        with self._cluster.lock:
            if self._member is not None and self._instance_id is None:
                self._group.leave(self._member)
            self._stop_heartbeats()

    def crash(self) -> None:
        """Stop without a word, as a killed process does: the session runs out."""
        with self._cluster.lock:
            self._stop_heartbeats()

    def _stop_heartbeats(self) -> None:
        self._closed = True
        if self._member is not None and self._member.gone is None:
            self._member.gone = self._cluster.now()
        self._held = frozenset()
        self._cluster.lock.notify_all()


class MemoryReader:
    """Group-free, read-committed reading by explicit position (port: `Reader`)."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster

    def read(self, partition: TopicPartition, start: int, stop: int, timeout_seconds: float = 30.0) -> list[Record]:
        """Return the committed records with ``start <= offset < stop``."""
        if stop <= start:
            return []
        name = f"{partition.topic}-{partition.partition}"
        deadline = time.monotonic() + timeout_seconds
        with self._cluster.lock:
            self._cluster.reachable()
            log = self._cluster.log(partition)
            if log.start > start:
                raise FatalError(
                    f"{name} begins at {log.start}, offset {start} is gone", hint="lengthen the topic's retention"
                )
            while log.stable_end < stop:
                left = deadline - time.monotonic()
                if left <= 0 or self._cluster.clock is not None:
                    raise RetryableError(f"{name} is not readable up to {stop} in {timeout_seconds:g} s")
                self._cluster.wait(min(left, LOOK_AGAIN_SECONDS))
                self._cluster.reachable()
            return log.committed(start, stop, sys.maxsize)[0]

    def beginning(self, partition: TopicPartition) -> int:
        """Return the first offset that the log still holds."""
        with self._cluster.lock:
            self._cluster.reachable()
            return self._cluster.log(partition).start

    def end(self, partition: TopicPartition) -> int:
        """Return the read-committed end offset (last stable offset)."""
        return self.ends((partition,))[partition]

    def ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the read-committed end offsets of many partitions."""
        with self._cluster.lock:
            self._cluster.reachable()
            return {tp: self._cluster.log(tp).stable_end for tp in partitions}

    def at_time(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """Return the first offset whose record is not older than the time, or the end."""
        with self._cluster.lock:
            self._cluster.reachable()
            return self._cluster.log(partition).at_time(timestamp_ms)

    def close(self) -> None:
        """Nothing to release."""
