"""Which shards a process holds, and under which generation it commits: what keeps two owners out of one journal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.simulation.counting import CountingCore

from regate.config.settings import Bus as BusSettings
from regate.config.settings import Settings
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.port import Changes, OutRecord, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.shell.clock import ManualClock
from regate.daemon.shell.runner import Runner
from regate.daemon.shell.shards import complete


class Sink:
    def put(self, name: str, data: bytes) -> str:
        return name


def running() -> tuple[Any, Topics, Any]:
    """A runner that has stepped, its topics and a writer of its telemetry."""
    clock = ManualClock()
    bus = MemoryBus(lambda: clock.now_ms() / 1000)
    settings = Settings(bus=BusSettings(partitions=2))
    topics = Topics(settings.bus)
    bus.admin().create(topics.specs(2, 1))
    runner: Any = Runner(bus, topics, CountingCore(), settings, Sink(), clock=clock)
    for _ in range(5):
        clock.advance(1.1)
        runner.cycle(0.0)
    assert {"telemetry-0", "telemetry-1"} <= set(runner.shards)
    return runner, topics, bus.writer()


def test_a_shard_without_partitions_does_not_run() -> None:
    core = CountingCore()
    assert not complete(core, "telemetry-3", [])
    assert complete(core, "telemetry-3", [TopicPartition("telemetry", 3)])


def test_a_generation_that_comes_after_the_assignment_was_taken_is_not_used() -> None:
    runner, topics, writer = running()
    held, steps = runner._consumer.metadata(), runner.counters.steps
    used = []
    commit = runner._producer.commit
    runner._producer.commit = lambda offsets, group: (used.append(group), commit(offsets, group))
    runner._consumer.metadata = lambda: replace(held, generation=held.generation + 1)
    writer.send(OutRecord(topics.name("telemetry"), b"1", partition=0))
    writer.flush()
    runner.cycle(0.0)
    assert runner.counters.steps == steps + 1
    assert used == [held]


def test_what_an_assignment_leaves_out_is_dropped_although_nobody_said_revoked() -> None:
    runner, topics, _ = running()
    first = TopicPartition(topics.name("telemetry"), 0)
    runner._consumer.take_changes = lambda: Changes(assigned=frozenset({first}))
    runner._consumer.assignment = lambda: frozenset({first})
    runner._take_changes()
    assert set(runner.shards) == set()
    assert set(runner._waiting) == {"telemetry-0"}


def test_while_a_rebalance_is_under_way_the_assignment_of_before_is_not_recovered() -> None:
    runner, _, _ = running()
    everything = runner._consumer.assignment()
    runner._consumer.take_changes = lambda: Changes(revoked=everything)
    runner._take_changes()
    assert set(runner.shards) | set(runner._waiting) == set()
