"""What a shard is, where its journal and snapshots stand, and which input partitions feed it.

A shard is one input partition of observe (``telemetry-3``, ``labels-0``: users choose those partition
counts, and telemetry and labels need not agree), or one partition number of decide, gate or validate
(``3``), whose topics all have the same number of partitions and are placed by model.
"""

from __future__ import annotations

from collections.abc import Iterable

from regate.daemon.bus.port import TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.shell.core import RoleCore

# Observe's inputs are users' topics: each partition stands alone. Elsewhere partition k of all inputs is one shard.
ALONE = {"telemetry", "labels"}


def shard_of(topic: str, partition: int) -> str:
    """Return the shard that partition ``partition`` of logical topic ``topic`` feeds.

    >>> shard_of("telemetry", 3), shard_of("cells", 3)
    ('telemetry-3', '3')
    """
    return f"{topic}-{partition}" if topic in ALONE else str(partition)


def number_of(shard: str) -> int:
    """Return the partition number of a shard's journal and snapshots."""
    return int(shard.rpartition("-")[2])


def journal_name(role: str, shard: str) -> str:
    """Return the logical name of the journal topic of a shard; snapshots use the same tail.

    >>> journal_name("observe", "labels-2"), journal_name("gate", "0")
    ('journal.observe-labels', 'journal.gate')
    """
    kind = shard.rpartition("-")[0]
    return f"journal.{role}-{kind}" if kind else f"journal.{role}"


def journal_partition(topics: Topics, role: str, shard: str) -> TopicPartition:
    """Return where the shard's journal is written."""
    return TopicPartition(topics.name(journal_name(role, shard)), number_of(shard))


def snapshot_partition(topics: Topics, role: str, shard: str) -> TopicPartition:
    """Return where the shard's snapshots are written."""
    name = journal_name(role, shard).replace("journal.", "snapshots.", 1)
    return TopicPartition(topics.name(name), number_of(shard))


def group_by_shard(topics: Topics, partitions: Iterable[TopicPartition]) -> dict[str, list[TopicPartition]]:
    """Return the input partitions of each shard, in a fixed order."""
    shards: dict[str, list[TopicPartition]] = {}
    for partition in sorted(partitions):
        shards.setdefault(shard_of(topics.logical(partition.topic), partition.partition), []).append(partition)
    return dict(sorted(shards.items()))


def complete(core: RoleCore, shard: str, partitions: list[TopicPartition]) -> bool:
    """Tell whether all inputs of a shard are held, so that it may run (during a rebalance some are not)."""
    wanted = 1 if shard.rpartition("-")[0] in ALONE else len(core.inputs)
    return len(partitions) == wanted
