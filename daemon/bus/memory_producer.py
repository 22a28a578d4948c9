"""The writing clients of the in-memory bus, and its administration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from regate.config.errors import ConfigError, FatalError, RegateError, RetryableError
from regate.daemon.bus.memory_cluster import MemoryCluster, Topic
from regate.daemon.bus.memory_log import PartitionLog, Transaction
from regate.daemon.bus.port import GroupMetadata, OutRecord, TopicPartition, TopicSpec

# What Kafka answers for a setting that nobody gave; the few that regate looks at.
DEFAULT_CONFIG = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "max.message.bytes": "1048588",
    "min.insync.replicas": "1",
}


class MemoryTransactions:
    """One transactional producer (port: `Producer`). Any failure breaks it for good: create a new one."""

    def __init__(self, cluster: MemoryCluster, transactional_id: str) -> None:
        self._cluster = cluster
        self._id = transactional_id
        self._broken = self._begun = False
        self._failed: RegateError | None = None
        with cluster.lock:
            cluster.reachable()
            self._epoch = cluster.init(transactional_id)

    def begin(self) -> None:
        """Open a transaction (known to the broker at its first record, as on Kafka)."""
        self._refuse_broken()
        if self._begun:
            self._broken = True
            raise RetryableError(f"{self._id} has an open transaction", hint="commit or abort it")
        self._begun, self._failed = True, None

    def send(self, record: OutRecord) -> None:
        """Add a record to the open transaction. A refusal only shows at the commit, as on Kafka."""
        self._refuse_broken()
        if not self._begun:
            self._broken = True
            raise RetryableError(f"{self._id} has no open transaction", hint="begin one")
        with self._cluster.lock:
            self._cluster.require((record.topic,))
            try:
                self._cluster.append(record, self._transaction())
            except RegateError as error:
                self._failed = self._failed or error

    def _transaction(self) -> Transaction:
        """Return the open transaction as the broker knows it."""
        self._cluster.reachable()
        self._cluster.check_epoch(self._id, self._epoch)
        if self._id not in self._cluster.open:
            self._cluster.open[self._id] = Transaction(self._id, self._cluster.now())
        return self._cluster.open[self._id]

    def commit(self, offsets: Mapping[TopicPartition, int], group: GroupMetadata | None) -> None:
        """Check every send, add the input offsets under the generation, commit."""
        self._refuse_broken()
        if group is not None and not offsets:
            raise FatalError(
                "a commit under a group carries no offsets", hint="send the position of every held partition"
            )
        with self._cluster.lock:
            try:
                self._commit(offsets, group)
            except RegateError:
                self._broken = True
                raise
        self._begun = False

    def _commit(self, offsets: Mapping[TopicPartition, int], group: GroupMetadata | None) -> None:
        if not self._begun:
            raise RetryableError(f"{self._id} has no open transaction", hint="begin one")
        if self._failed is not None:
            raise self._failed
        transaction = self._transaction()
        if group is not None:
            self._cluster.group(group.group).check(group)
            transaction.group = group
            transaction.offsets.update(offsets)
        fault = self._cluster.faults.commit(self._id)
        if fault != "before":
            self._cluster.end(self._id, "committed")
        if fault:
            raise RetryableError(f"commit {self._id}: the connection dropped", hint="the outcome is unknown; recover")

    def abort(self) -> None:
        """Abort the open transaction; after a failure the broker's timeout, or the next init, does it."""
        if self._broken or not self._begun:
            return
        with self._cluster.lock:
            try:
                self._transaction()
            except RegateError:
                self._broken = True
                raise
            self._cluster.end(self._id, "aborted")
        self._begun = False

    def close(self, deadline_seconds: float) -> None:  # noqa: ARG002  (memory needs no deadline)
        """Close; an open transaction stays open until its timeout or the next init, as on Kafka."""
        self._broken = True

    def _refuse_broken(self) -> None:
        if self._broken:
            raise RetryableError(f"producer {self._id} is used up", hint="create a new one and recover")


class MemoryWriter:
    """A plain producer (port: `Writer`)."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self._failed: list[RegateError] = []

    def send(self, record: OutRecord) -> None:
        """Queue a record; a refusal shows at `flush`."""
        with self._cluster.lock:
            self._cluster.reachable()
            self._cluster.require((record.topic,))
            try:
                self._cluster.append(record, None)
            except RegateError as error:
                self._failed.append(error)
            self._cluster.lock.notify_all()

    def flush(self, timeout_seconds: float = 30.0) -> None:  # noqa: ARG002  (memory is written at once)
        """Raise if any record was refused."""
        failed, self._failed = self._failed, []
        if failed:
            raise failed[0]

    def close(self, deadline_seconds: float) -> None:  # noqa: ARG002
        """Flush."""
        self.flush()


class MemoryAdmin:
    """The administration client (port: `Admin`)."""

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster

    def create(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create the topics that do not exist; return their names."""
        with self._cluster.lock:
            self._cluster.reachable()
            created = []
            for spec in specs:
                if spec.partitions < 1:
                    raise ConfigError(f"{spec.name}: {spec.partitions} partitions", hint="a topic needs one at least")
                if spec.name not in self._cluster.topics:
                    logs = [PartitionLog() for _ in range(spec.partitions)]
                    self._cluster.topics[spec.name] = Topic(spec, logs)
                    created.append(spec.name)
            return created

    def partitions(self, topic: str) -> int:
        """Return the number of partitions; 0 when the topic does not exist."""
        with self._cluster.lock:
            self._cluster.reachable()
            return self._cluster.counts().get(topic, 0)

    def topics(self) -> list[str]:
        """Return the names of all topics."""
        with self._cluster.lock:
            self._cluster.reachable()
            return sorted(self._cluster.topics)

    def config(self, topic: str) -> dict[str, str]:
        """Return the topic's settings."""
        with self._cluster.lock:
            self._cluster.reachable()
            return {**DEFAULT_CONFIG, **dict(self._cluster.topic(topic).spec.config)}

    def add_partitions(self, topic: str, total: int) -> None:
        """Grow the topic to ``total`` partitions."""
        with self._cluster.lock:
            self._cluster.reachable()
            logs = self._cluster.topic(topic).logs
            if total <= len(logs):
                raise ConfigError(f"{topic} has {len(logs)} partitions, {total} is not more", hint="topics only grow")
            logs.extend(PartitionLog() for _ in range(total - len(logs)))
            self._cluster.lock.notify_all()

    def delete(self, topics: Sequence[str]) -> None:
        """Delete topics, and what groups had committed on them."""
        with self._cluster.lock:
            self._cluster.reachable()
            for name in topics:
                self._cluster.topics.pop(name, None)
            for group in self._cluster.groups.values():
                group.offsets = {tp: offset for tp, offset in group.offsets.items() if tp.topic not in topics}

    def forget(self, partition: TopicPartition, before: int) -> None:
        """Drop the records below ``before``, as retention does."""
        with self._cluster.lock:
            self._cluster.reachable()
            self._cluster.log(partition).trim(before)

    def close(self) -> None:
        """Nothing to release."""
