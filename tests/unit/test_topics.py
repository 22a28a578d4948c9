"""The topic table, and bringing a cluster in line with it."""

from __future__ import annotations

import pytest

from regate.config.errors import ConfigError, FatalError
from regate.config.settings import Bus as BusSettings
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.port import TopicSpec
from regate.daemon.bus.provision import Difference, differences, provision, refuse_compacted_inputs
from regate.daemon.bus.topics import TABLE, Topics

SETTINGS = BusSettings(prefix="acme", partitions=4, telemetry_topic="served", labels_topic="outcomes")


@pytest.fixture
def topics() -> Topics:
    return Topics(SETTINGS)


def test_names_go_both_ways_and_the_users_topics_keep_theirs(topics: Topics) -> None:
    names = {logical: topics.name(logical) for logical in TABLE}
    assert names["telemetry"] == "served"
    assert names["labels"] == "outcomes"
    assert names["gate-state"] == "acme.gate-state.v1"
    assert names["journal.observe-labels"] == "acme.journal.observe-labels.v1"
    assert len(set(names.values())) == len(names)
    assert {topics.logical(name) for name in names.values()} == set(TABLE)
    with pytest.raises(FatalError, match="nonsense"):
        topics.name("nonsense")
    with pytest.raises(FatalError, match="foreign"):
        topics.logical("foreign")


def test_partitions_follow_the_inputs_or_the_settings(topics: Topics) -> None:
    specs = {topics.logical(spec.name): spec for spec in topics.specs(24, 3)}
    assert set(specs) == set(TABLE)
    assert specs["control"].partitions == 1
    for tail, count in (("observe-telemetry", 24), ("observe-labels", 3), ("decide", 4), ("gate", 4), ("validate", 4)):
        assert specs[f"journal.{tail}"].partitions == specs[f"snapshots.{tail}"].partitions == count
    assert {specs[name].partitions for name in ("cells", "findings", "commands", "heartbeats", "clock")} == {4}


def test_what_must_be_compacted_is_and_nothing_else(topics: Topics) -> None:
    compacted = {
        topics.logical(spec.name) for spec in topics.specs(1, 1) if dict(spec.config)["cleanup.policy"] == "compact"
    }
    assert compacted == {"control", "gate-state", *(name for name in TABLE if name.startswith("snapshots."))}


def test_no_input_of_a_role_is_kept_shorter_than_the_users(topics: Topics) -> None:
    kept = {topics.logical(s.name): dict(s.config).get("retention.ms") for s in topics.specs(1, 1)}
    least = int(kept["telemetry"] or 0)
    for name, retention in kept.items():
        assert retention is None or int(retention) == -1 or int(retention) >= least, name


def test_two_copies_must_acknowledge_when_there_are_three() -> None:
    for replication, expected in ((1, "1"), (2, "1"), (3, "2")):
        specs = Topics(BusSettings(replication=replication)).specs(1, 1)
        assert {dict(spec.config)["min.insync.replicas"] for spec in specs} == {expected}
        assert {spec.replication for spec in specs} == {replication}


def test_provision_creates_once_and_grows_journals_with_the_inputs(topics: Topics) -> None:
    admin = MemoryBus().admin()
    assert set(provision(admin, topics, 6, 3).created) == {topics.name(logical) for logical in TABLE}
    assert provision(admin, topics, 6, 3) == provision(admin, topics) == type(provision(admin, topics))((), ())
    admin.add_partitions("served", 8)
    grown = dict(provision(admin, topics).grown)
    assert grown == {"acme.journal.observe-telemetry.v1": 8, "acme.snapshots.observe-telemetry.v1": 8}
    assert admin.partitions("acme.journal.observe-labels.v1") == 3
    assert differences(admin, topics) == []


def test_placed_topics_never_grow_by_a_changed_setting(topics: Topics) -> None:
    admin = MemoryBus().admin()
    provision(admin, topics, 2, 2)
    other = Topics(SETTINGS.model_copy(update={"partitions": 5}))
    with pytest.raises(ConfigError, match="has 4 partitions, the settings say 5"):
        provision(admin, other)


def test_differences_are_named(topics: Topics) -> None:
    admin = MemoryBus().admin()
    provision(admin, topics, 2, 2)
    admin.delete(["acme.runs.v1", "acme.gate-state.v1"])
    admin.create([TopicSpec("acme.gate-state.v1", 4, 1, (("cleanup.policy", "delete"),))])
    found = differences(admin, topics)
    assert Difference("acme.runs.v1", "exists", "yes", "no") in found
    assert Difference("acme.gate-state.v1", "cleanup.policy", "compact", "delete") in found
    assert {difference.topic for difference in found} == {"acme.runs.v1", "acme.gate-state.v1"}


def test_compacted_inputs_are_refused(topics: Topics) -> None:
    admin = MemoryBus().admin()
    refuse_compacted_inputs(admin, topics)
    admin.create([TopicSpec("outcomes", 1, 1, (("cleanup.policy", "compact,delete"),))])
    with pytest.raises(ConfigError, match="outcomes is compacted"):
        refuse_compacted_inputs(admin, topics)
