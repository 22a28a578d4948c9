"""The shell on a real broker: killed between any two calls, every output is there once."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from typing import Any

import pytest
from tests.simulation.counting import CountingCore
from tests.simulation.faults import Fuse, Killed, MortalBus

from regate.config.settings import Bus as BusSettings
from regate.config.settings import Settings, Shell
from regate.daemon.bus.kafka import KafkaBus
from regate.daemon.bus.port import OutRecord, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.shell.runner import Runner

pytestmark = pytest.mark.kafka
PARTITIONS = 3


class Sink:
    def put(self, name: str, data: bytes) -> str:
        return name


def outputs(bus: KafkaBus, topics: Topics) -> dict[str, list[int]]:
    reader = bus.reader()
    found: dict[str, list[int]] = defaultdict(list)
    for number in range(2):
        partition = TopicPartition(topics.name("findings"), number)
        for record in reader.read(partition, 0, reader.end(partition)):
            said = json.loads(record.value or b"")
            found[said["shard"]].append(said["count"])
    reader.close()
    return found


def until_killed(runner: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        runner.cycle(0.05)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_between_calls_on_kafka_every_output_appears_once(
    kafka_bus: KafkaBus, topic_prefix: str, seed: int
) -> None:
    draw = random.Random(seed)
    settings = Settings(
        bus=BusSettings(
            prefix=topic_prefix, telemetry_topic=f"{topic_prefix}-in", labels_topic=f"{topic_prefix}-l", partitions=2
        ),
        shell=Shell(snapshot_seconds=0.5, step_seconds=0.05),
        instance="a",
    )
    topics = Topics(settings.bus)
    admin = kafka_bus.admin()
    admin.create(topics.specs(PARTITIONS, 1))
    admin.close()
    writer = kafka_bus.writer()
    sent: dict[str, int] = defaultdict(int)
    dead: list[Runner] = []
    for _ in range(5):
        for _ in range(100):
            partition = draw.randrange(PARTITIONS)
            writer.send(OutRecord(topics.name("telemetry"), b"1", partition=partition))
            sent[f"telemetry-{partition}"] += 1
        writer.flush()
        mortal = MortalBus(kafka_bus, Fuse(draw.randrange(20, 120), after=draw.random() < 0.5))
        dead.append(Runner(mortal, topics, CountingCore(), settings, Sink()))
        with pytest.raises(Killed):
            until_killed(dead[-1], 60.0)
        mortal.fuse.calls = None
    runner = Runner(kafka_bus, topics, CountingCore(), settings, Sink())
    deadline = time.monotonic() + 60
    while sum(len(counts) for counts in outputs(kafka_bus, topics).values()) < sum(sent.values()):
        assert time.monotonic() < deadline, f"seed {seed}: {sent} not drained"
        runner.cycle(0.05)
    writer.close(5.0)
    for ended in (*dead, runner):
        ended.close()  # only now: a killed process closes nothing
    assert outputs(kafka_bus, topics) == {shard: list(range(1, count + 1)) for shard, count in sent.items()}


@pytest.mark.parametrize("anew", [False, True])
def test_r13_r14_a_log_that_was_cut_or_made_anew_gives_a_gap_and_work_goes_on(
    kafka_bus: KafkaBus, topic_prefix: str, *, anew: bool
) -> None:
    settings = Settings(
        bus=BusSettings(
            prefix=topic_prefix, telemetry_topic=f"{topic_prefix}-in", labels_topic=f"{topic_prefix}-l", partitions=2
        ),
        shell=Shell(snapshot_seconds=0.1, step_seconds=0.05),
        instance="a",
    )
    topics = Topics(settings.bus)
    admin = kafka_bus.admin()
    admin.create(topics.specs(1, 1))
    name = topics.name("telemetry")
    writer = kafka_bus.writer()

    def send(count: int) -> None:
        for _ in range(count):
            writer.send(OutRecord(name, b"1", partition=0))
        writer.flush()

    def until(runner: Runner, wanted: int) -> None:
        deadline = time.monotonic() + 60
        while len(told("count")) < wanted:
            assert time.monotonic() < deadline, f"{told('count')} of {wanted}, gaps {told('gap')}"
            runner.cycle(0.05)

    def told(what: str) -> list[Any]:
        reader = kafka_bus.reader()
        partition = TopicPartition(topics.name("findings"), 0)
        said = [json.loads(r.value or b"") for r in reader.read(partition, 0, reader.end(partition))]
        reader.close()
        return [one[what] for one in said if what in one]

    send(10)
    first = Runner(kafka_bus, topics, CountingCore(), settings, Sink())
    until(first, 10)
    first.close()
    if anew:
        admin.delete([name])
        deadline = time.monotonic() + 30
        while admin.partitions(name):
            assert time.monotonic() < deadline, "the topic stays"
        admin.create([spec for spec in topics.specs(1, 1) if spec.name == name])
        writer.close(5.0)
        writer = kafka_bus.writer()
        send(4)
    else:
        send(8)
        admin.forget(TopicPartition(name, 0), 14)
    second = Runner(kafka_bus, topics, CountingCore(), settings, Sink())
    until(second, 14)
    assert told("gap") == [["recreated", 10, 0] if anew else ["truncated", 10, 14]]
    assert told("count") == list(range(1, 15))
    writer.close(5.0)
    second.close()
    admin.close()
