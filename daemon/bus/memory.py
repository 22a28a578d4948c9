"""The in-memory bus: Kafka's semantics without Kafka, for simulation and tests, with faults on demand.

Partitions, keys, groups, generations, transactions with offsets and fencing, read-committed reading (an open
transaction hides what was committed behind it), compaction and retention follow `port`; the same contract tests
run on it and on a real Kafka. Driven from one thread under an injected clock it is deterministic: nothing waits.
"""

from __future__ import annotations

from collections.abc import Callable

from regate.daemon.bus.memory_cluster import Faults, MemoryCluster
from regate.daemon.bus.memory_consumer import MemoryConsumer, MemoryReader
from regate.daemon.bus.memory_producer import MemoryAdmin, MemoryTransactions, MemoryWriter


class MemoryBus:
    """One cluster in memory (port: `Bus`).

    :param clock: seconds since the epoch. None takes the real clock and waits like Kafka; a given clock never waits.
    :param session_seconds: a crashed or closed static member's partitions are taken over after this.
    :param max_poll_seconds: a member that does not poll loses its partitions after this.
    :param transaction_seconds: an abandoned transaction is aborted after this.
    """

    def __init__(
        self,
        clock: Callable[[], float] | None = None,
        *,
        session_seconds: float = 30.0,
        max_poll_seconds: float = 60.0,
        transaction_seconds: float = 15.0,
    ) -> None:
        self._cluster = MemoryCluster(clock, session_seconds, max_poll_seconds, transaction_seconds)

    @property
    def faults(self) -> Faults:
        """Return the switches of what goes wrong."""
        return self._cluster.faults

    def consumer(self, group: str, instance_id: str | None = None) -> MemoryConsumer:
        """Return a group member."""
        return MemoryConsumer(self._cluster, group, instance_id)

    def reader(self) -> MemoryReader:
        """Return a group-free reader."""
        return MemoryReader(self._cluster)

    def producer(self, transactional_id: str) -> MemoryTransactions:
        """Return an initialised transactional producer; fences older ones with the same id."""
        return MemoryTransactions(self._cluster, transactional_id)

    def writer(self) -> MemoryWriter:
        """Return a plain producer."""
        return MemoryWriter(self._cluster)

    def admin(self) -> MemoryAdmin:
        """Return the administration client."""
        return MemoryAdmin(self._cluster)

    def compact(self, topic: str, *, drop_tombstones: bool = False) -> None:
        """Compact every partition of a topic now."""
        with self._cluster.lock:
            for log in self._cluster.topic(topic).logs:
                log.compact(drop_tombstones=drop_tombstones)

    def close(self) -> None:
        """Nothing to release."""
