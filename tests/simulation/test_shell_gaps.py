"""R13 to R15: what the log no longer holds is an input that says so, once, and work goes on behind it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.simulation.test_shell import PARTITIONS, World

from regate.daemon.bus.port import OutRecord, TopicPartition
from regate.daemon.shell import snapshots
from regate.daemon.shell.shards import snapshot_partition

KEPT = ("count", "total", "gaps")


class Gapped(World):
    @property
    def first(self) -> TopicPartition:
        return TopicPartition(self.topics.name("telemetry"), 0)

    def forget(self, before: int) -> None:
        self.bus.admin().forget(self.first, before)

    def anew(self) -> None:
        admin = self.bus.admin()
        name = self.topics.name("telemetry")
        admin.delete([name])
        admin.create([spec for spec in self.topics.specs(PARTITIONS, 1) if spec.name == name])

    def said(self) -> tuple[list[Any], list[int]]:
        """Return the gaps and the counts of shard 0."""
        reader = self.bus.reader()
        gaps, counts = [], []
        for number in range(2):
            partition = TopicPartition(self.topics.name("findings"), number)
            for record in reader.read(partition, 0, reader.end(partition)):
                told = json.loads(record.value or b"")
                if told["shard"] == "telemetry-0":
                    gaps += [told["gap"]] if "gap" in told else []
                    counts += [told["count"]] if "count" in told else []
        return gaps, counts


def test_r13_what_retention_took_while_we_were_away_is_a_gap() -> None:
    world = Gapped(snapshot_seconds=0.1)
    world.produce(0, [1, 2, 3])
    first = world.runner()
    world.run(first, 20)
    first.close()
    world.produce(0, [4, 5, 6, 7])
    world.forget(5)
    world.run(world.runner(), 40)
    assert world.said() == ([["truncated", 3, 5]], [1, 2, 3, 4, 5])


def test_r13_what_retention_takes_under_our_eyes_is_a_gap() -> None:
    world = Gapped()
    world.produce(0, [1, 2, 3])
    runner = world.runner()
    world.run(runner, 20)
    world.produce(0, [4, 5, 6, 7])
    world.forget(6)
    world.run(runner, 20)
    assert world.said() == ([["truncated", 3, 6]], [1, 2, 3, 4])


@pytest.mark.parametrize("away", [True, False])
def test_r14_a_topic_that_was_made_anew_is_a_gap_and_is_read_from_its_beginning(*, away: bool) -> None:
    world = Gapped(snapshot_seconds=0.1)
    for partition in range(PARTITIONS):
        world.produce(partition, [1, 2, 3])
    runner = world.runner()
    world.run(runner, 20)
    if away:
        runner.close()
        runner = world.runner()
    world.anew()
    world.produce(0, [9])
    world.run(runner, 200)
    gaps, counts = world.said()
    assert gaps == [["recreated", 3, 0]]
    assert counts == [1, 2, 3, 4]


def test_a_recovery_that_can_read_only_a_part_again_says_what_its_state_lacks() -> None:
    world = Gapped(snapshot_seconds=1e6)
    world.produce(0, [1, 2, 3, 4])
    runner = world.runner()
    world.run(runner, 20)
    world.forget(2)  # no snapshot: all four are still to be read again
    world.run(world.runner(), 40)
    world.produce(0, [5])
    world.run(world.runner(), 40)
    gaps, counts = world.said()
    assert gaps[0] == ["unread", 0, 2]
    assert counts[-1] == 3  # 3 and 4 again, and 5: the first two are not known any more


def test_a_gap_is_journalled_and_stepped_again() -> None:
    world = Gapped(snapshot_seconds=0.1)
    world.produce(0, [1, 2, 3])
    runner = world.runner()
    world.run(runner, 20)
    runner.shards["telemetry-0"].snapshot_due = 1e12  # what comes now is in the journal alone
    world.produce(0, [4, 5, 6])
    world.forget(5)
    world.run(runner, 20)
    again = world.runner()
    world.run(again, 40)
    before, after = (one.shards["telemetry-0"].state for one in (runner, again))
    assert [after[name] for name in KEPT] == [before[name] for name in KEPT] == [4, 12, 1]


def test_r28_a_snapshot_chunk_that_is_damaged_is_a_gap_of_the_state() -> None:
    world = Gapped(snapshot_seconds=0.1)
    world.produce(0, [1, 2, 3])
    runner = world.runner()
    world.run(runner, 20)
    runner.close()
    partition = snapshot_partition(world.topics, "observe", "telemetry-0")
    reader = world.bus.reader()
    manifest = snapshots.read(reader, partition, "telemetry-0")
    assert manifest is not None
    damaged = [r for r in reader.read(partition, 0, reader.end(partition)) if b"count" in (r.key or b"")][-1]
    writer = world.bus.writer()
    writer.send(OutRecord(partition.topic, b"damaged", damaged.key, damaged.headers, partition.partition))
    writer.flush()
    world.run(world.runner(), 40)
    gaps, _ = world.said()
    assert gaps == [["state", 0, 0]]


def test_r15_a_partition_that_is_added_is_read_from_its_beginning_without_a_gap() -> None:
    world = Gapped()
    runner = world.runner()
    world.run(runner, 5)
    admin = world.bus.admin()
    for logical in ("telemetry", "journal.observe-telemetry", "snapshots.observe-telemetry"):
        admin.add_partitions(world.topics.name(logical), PARTITIONS + 1)
    world.produce(PARTITIONS, [1, 2])
    runner.close()
    world.run(world.runner(), 60)
    assert world.outputs()[f"telemetry-{PARTITIONS}"] == world.expected()[f"telemetry-{PARTITIONS}"]
    assert world.said()[0] == []
