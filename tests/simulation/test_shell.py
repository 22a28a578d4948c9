"""The shell on the in-memory bus: every output once, whatever dies where; recovery equals never having died."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from typing import Any

import pytest
from tests.simulation.counting import CountingCore
from tests.simulation.faults import Freeze, Fuse, Killed, MortalBus

from regate.config.settings import Bus as BusSettings
from regate.config.settings import Settings, Shell
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.port import OutRecord, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.shell import journal, snapshots
from regate.daemon.shell.clock import ManualClock
from regate.daemon.shell.runner import Runner
from regate.daemon.shell.shards import journal_partition, snapshot_partition

PARTITIONS = 3


class Sink:
    def put(self, name: str, data: bytes) -> str:
        return name


class World:
    """A bus with topics, a clock, and processes that may be killed."""

    def __init__(self, snapshot_seconds: float = 2.0) -> None:
        self.settings = Settings(
            bus=BusSettings(partitions=2), shell=Shell(snapshot_seconds=snapshot_seconds), instance="a"
        )
        self.clock = ManualClock()
        self.bus = MemoryBus(lambda: self.clock.now_ms() / 1000)
        self.topics = Topics(self.settings.bus)
        self.bus.admin().create(self.topics.specs(PARTITIONS, 1))
        self.sent: dict[int, list[int]] = defaultdict(list)

    def produce(self, partition: int, values: list[int]) -> None:
        writer = self.bus.writer()
        for value in values:
            writer.send(OutRecord(self.topics.name("telemetry"), str(value).encode(), partition=partition))
            self.sent[partition].append(value)
        writer.flush()
        writer.close(1)

    def runner(self, instance: str = "a", bus: Any = None) -> Runner:
        settings = self.settings.model_copy(update={"instance": instance})
        return Runner(bus or self.bus, self.topics, CountingCore(), settings, Sink(), clock=self.clock)

    def outputs(self) -> dict[str, list[dict[str, Any]]]:
        reader = self.bus.reader()
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for number in range(2):
            partition = TopicPartition(self.topics.name("findings"), number)
            for record in reader.read(partition, 0, reader.end(partition)):
                said = json.loads(record.value or b"")
                found[said["shard"]].append(said)
        return found

    def expected(self) -> dict[str, list[dict[str, Any]]]:
        return {
            f"telemetry-{p}": [
                {"shard": f"telemetry-{p}", "count": i + 1, "total": sum(values[: i + 1])} for i in range(len(values))
            ]
            for p, values in self.sent.items()
        }

    def run(self, runner: Runner, cycles: int) -> None:
        for _ in range(cycles):
            runner.cycle(0.0)
            self.clock.advance(0.3)

    def drain(self, runner: Runner, cycles: int = 400) -> None:
        wanted = sum(len(values) for values in self.sent.values())
        for _ in range(cycles):
            runner.cycle(0.0)
            self.clock.advance(0.3)
            if sum(len(said) for said in self.outputs().values()) >= wanted:
                return
        pytest.fail(f"not drained: {self.outputs()} of {wanted}")


def test_every_record_is_counted_once_in_order() -> None:
    world = World()
    for partition in range(PARTITIONS):
        world.produce(partition, list(range(1, 8)))
    runner = world.runner()
    world.drain(runner)
    assert world.outputs() == world.expected()


@pytest.mark.parametrize("seed", range(8))
def test_outputs_do_not_depend_on_how_the_stream_is_cut(seed: int) -> None:
    draw = random.Random(seed)
    world = World()
    runner = world.runner()
    for _ in range(20):
        for partition in range(PARTITIONS):
            world.produce(partition, [draw.randrange(100) for _ in range(draw.randrange(4))])
        runner.cycle(0.0)
        world.clock.advance(draw.random())
    world.drain(runner)
    assert world.outputs() == world.expected()


@pytest.mark.parametrize("seed", range(40))
def test_killed_at_any_call_every_output_appears_once(seed: int) -> None:
    draw = random.Random(seed)
    world = World(snapshot_seconds=draw.choice([0.1, 1.0, 30.0]))
    for _ in range(12):
        for partition in range(PARTITIONS):
            world.produce(partition, [draw.randrange(1000) for _ in range(draw.randrange(5))])
        mortal = MortalBus(world.bus, Fuse(draw.randrange(2, 60), after=draw.random() < 0.5))
        runner = world.runner(bus=mortal)
        with pytest.raises(Killed):
            world.run(runner, 200)
    world.drain(world.runner())
    assert world.outputs() == world.expected(), f"seed {seed}"


def test_journal_steps_again_to_the_same_bytes() -> None:
    world = World(snapshot_seconds=1e6)
    world.produce(0, [3, 1, 4, 1, 5])
    runner = world.runner()
    world.drain(runner)
    world.produce(0, [9, 2, 6])
    world.drain(runner)
    core, name = CountingCore(), "telemetry-0"
    before = core.dump(runner.shards[name].state)
    again = world.runner(instance="a")
    for _ in range(20):
        again.cycle(0.0)
        world.clock.advance(0.3)
    after = json.loads(core.dump(again.shards[name].state)["count"])
    assert after == json.loads(before["count"]) == [8, 31]


def test_two_processes_share_and_the_rest_is_taken_over_with_state() -> None:
    world = World()
    for partition in range(PARTITIONS):
        world.produce(partition, [1, 2, 3])
    first = world.runner("a")
    world.drain(first)
    second = world.runner("b")
    for _ in range(30):
        first.cycle(0.0)
        second.cycle(0.0)
        world.clock.advance(0.3)
    assert set(first.shards) | set(second.shards) == {"telemetry-0", "telemetry-1", "telemetry-2"}
    assert not set(first.shards) & set(second.shards)
    for partition in range(PARTITIONS):
        world.produce(partition, [10, 20])
    for _ in range(30):
        second.cycle(0.0)
        first.cycle(0.0)
        world.clock.advance(0.3)
    second.close()
    for partition in range(PARTITIONS):
        world.produce(partition, [7])
    world.drain(first)
    assert world.outputs() == world.expected()


def test_a_frozen_process_is_fenced_when_it_wakes_and_nothing_is_doubled() -> None:
    world = World()
    first = world.runner("a")
    for _ in range(10):
        first.cycle(0.0)
        world.clock.advance(0.3)
    first.close()
    for partition in range(PARTITIONS):
        world.produce(partition, [1, 2, 3])

    def taken_over() -> None:
        world.clock.advance(120.0)  # past the session, the poll interval and the transaction
        world.drain(world.runner("b"))

    frozen = world.runner("a", bus=MortalBus(world.bus, Freeze(taken_over)))
    for _ in range(40):
        frozen.cycle(0.0)
        world.clock.advance(0.3)
    assert frozen.counters.restarts >= 1
    assert world.outputs() == world.expected()


def test_only_changed_chunks_are_written_and_a_damaged_one_is_refused_by_name() -> None:
    world = World(snapshot_seconds=0.1)
    world.produce(0, [5])
    runner = world.runner()
    world.drain(runner)
    for _ in range(5):
        runner.cycle(0.0)
        world.clock.advance(1.1)
    reader = world.bus.reader()
    partition = snapshot_partition(world.topics, "observe", "telemetry-0")
    keys = [record.key for record in reader.read(partition, 0, reader.end(partition))]
    assert keys.count(b"telemetry-0/count") == 1  # no new events: the count chunk stays as it is
    assert keys.count(b"telemetry-0/manifest") > 1
    writer = world.bus.writer()
    writer.send(OutRecord(partition.topic, b"damaged", key=b"telemetry-0/count", partition=partition.partition))
    writer.flush()
    snapshot = snapshots.read(reader, partition, "telemetry-0")
    assert snapshot is not None
    assert snapshot.refused == ("count",)
    assert set(snapshot.chunks) == {"rest"}


def test_control_takes_effect_once_per_shard_at_a_journalled_offset() -> None:
    world = World()
    writer = world.bus.writer()
    for number in range(3):
        writer.send(OutRecord(world.topics.name("control"), b"{}", key=str(number).encode(), partition=0))
    writer.flush()
    runner = world.runner()
    for _ in range(10):
        runner.cycle(0.0)
        world.clock.advance(1.1)
    assert [shard.state["control"] for shard in runner.shards.values()] == [3, 3, 3]
    reader = world.bus.reader()
    entries = journal.read(reader, journal_partition(world.topics, "observe", "telemetry-1"), "telemetry-1", 0, 0)
    assert [entry.control for entry in entries if entry.control[0] != entry.control[1]] == [(0, 3)]
