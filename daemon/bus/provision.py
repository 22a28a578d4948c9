"""Bringing the topics of a cluster in line with the table, and saying where they are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from regate.config.errors import ConfigError
from regate.daemon.bus.port import Admin, TopicSpec
from regate.daemon.bus.topics import Topics


class Difference(NamedTuple):
    """One setting of one topic that is not what the table says."""

    topic: str
    setting: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What was done: created topics, and (topic, partitions) that grew."""

    created: tuple[str, ...]
    grown: tuple[tuple[str, int], ...]


def actual_specs(
    admin: Admin, topics: Topics, telemetry_partitions: int | None = None, label_partitions: int | None = None
) -> list[TopicSpec]:
    """Return the table for the input topics as they are; the arguments count where an input does not exist yet."""
    telemetry, labels = topics.inputs
    return topics.specs(
        admin.partitions(telemetry) or telemetry_partitions or 1, admin.partitions(labels) or label_partitions or 1
    )


def provision(
    admin: Admin, topics: Topics, telemetry_partitions: int | None = None, label_partitions: int | None = None
) -> Provisioned:
    """Create what is missing and grow regate's own topics; users' topics are never changed.

    Observe calls it before it reads a partition that is new: its journal must be there first.

    :raises ConfigError: when a placed topic has more partitions than the settings say: a model would move to another
        shard, away from its state.
    """
    specs = actual_specs(admin, topics, telemetry_partitions, label_partitions)
    created = admin.create(specs)
    grown: list[tuple[str, int]] = []
    for spec in specs:
        if spec.name in created or spec.name in topics.inputs:
            continue
        partitions = admin.partitions(spec.name)
        follows_input = "observe" in topics.logical(spec.name)
        if partitions != spec.partitions and not follows_input:
            raise ConfigError(
                f"{spec.name} has {partitions} partitions, the settings say {spec.partitions}",
                hint="set bus.partitions to what is there: models would change their shard",
            )
        if partitions < spec.partitions:
            admin.add_partitions(spec.name, spec.partitions)
            grown.append((spec.name, spec.partitions))
    return Provisioned(tuple(created), tuple(grown))


def differences(admin: Admin, topics: Topics) -> list[Difference]:
    """Return where the cluster differs from the table. Users' topics are only asked not to be compacted."""
    found: list[Difference] = []
    for spec in actual_specs(admin, topics):
        partitions = admin.partitions(spec.name)
        if not partitions:
            found.append(Difference(spec.name, "exists", "yes", "no"))
            continue
        actual = admin.config(spec.name)
        if spec.name in topics.inputs:
            if "compact" in actual["cleanup.policy"]:
                found.append(Difference(spec.name, "cleanup.policy", "delete", actual["cleanup.policy"]))
            continue
        if partitions != spec.partitions:
            found.append(Difference(spec.name, "partitions", str(spec.partitions), str(partitions)))
        for name, expected in spec.config:
            if actual.get(name) != expected:
                found.append(Difference(spec.name, name, expected, actual.get(name, "")))
    return found


def refuse_compacted_inputs(admin: Admin, topics: Topics) -> None:
    """Refuse to start on compacted inputs: the offsets that a journal names would lose their records.

    :raises ConfigError: naming the topic.
    """
    for name in topics.inputs:
        if admin.partitions(name) and "compact" in admin.config(name)["cleanup.policy"]:
            raise ConfigError(
                f"input topic {name} is compacted, so nothing read from it could be replayed",
                hint=f"set cleanup.policy=delete on {name}, or name another topic",
            )
