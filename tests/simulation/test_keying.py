"""How producers key telemetry, and over how many partitions, changes nothing about what is found."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
from tests.integration.chaos import Stream, drifting, essence, partition_for
from tests.telemetry_streams import CONFIG, START_US, profile

from regate.config.settings import Bus as BusSettings
from regate.config.settings import Settings
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.port import OutRecord, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.control import document_record, profile_records
from regate.daemon.roles.decide import DecideCore
from regate.daemon.roles.observe import ObserveCore
from regate.daemon.shell.clock import ManualClock
from regate.daemon.shell.runner import Runner
from regate.daemon.wire.cloudevents import decode_event
from regate.detectors.finding import Finding

TELEMETRY, LABELS, SHARDS = 6, 3, 2
SOURCES = [f"telemetry-{n}" for n in range(TELEMETRY)] + [f"labels-{n}" for n in range(LABELS)]
SEED = 41


class Sink:
    def put(self, name: str, data: bytes) -> str:
        return name


@cache
def stream() -> Stream:
    return drifting(4_000, seed=SEED, start_us=START_US)


def found(keying: str, seed: int) -> list[Finding]:
    """Run the watch role over the stream as it arrives; after its end no partition says another word."""
    clock = ManualClock(START_US // 1000)
    bus = MemoryBus(lambda: clock.now_ms() / 1000)
    settings = Settings(bus=BusSettings(partitions=SHARDS))
    topics = Topics(settings.bus)
    bus.admin().create(topics.specs(TELEMETRY, LABELS))
    writer = bus.writer()
    for record in [document_record(CONFIG, 1), *profile_records(profile(), 1)]:
        writer.send(OutRecord(topics.name(record.topic), record.value, record.key, record.headers, record.partition))
    cores: tuple[Any, ...] = (ObserveCore(SHARDS, sources=SOURCES), DecideCore(SHARDS))
    runners = [Runner(bus, topics, core, settings, Sink(), clock=clock) for core in cores]
    draw = random.Random(seed)
    left = list(reversed(stream().messages))
    count = {"telemetry": TELEMETRY, "labels": LABELS}
    end_ms = left[0].arrival_us // 1000 + 45_000  # until all partitions are proven empty
    while clock.now_ms() < end_ms:
        while left and left[-1].arrival_us <= clock.now_ms() * 1000:
            message = left.pop()
            number = partition_for(keying, message, count[message.topic], draw)
            at_ms = message.arrival_us // 1000
            writer.send(OutRecord(topics.name(message.topic), message.value, partition=number, timestamp_ms=at_ms))
        writer.flush()
        for runner in runners:
            runner.cycle(0.0)
        clock.advance(0.5)
    reader = bus.reader()
    said = []
    for number in range(SHARDS):
        partition = TopicPartition(topics.name("findings"), number)
        said += [decode_event(r.value, "finding", Finding) for r in reader.read(partition, 0, reader.end(partition))]
    for runner in runners:
        runner.close()
    return said


@pytest.mark.parametrize("keying", ["model", "client", "none"])
def test_keyed_by_model_by_client_or_not_at_all_the_findings_are_the_same(keying: str) -> None:
    said = essence(found(keying, seed=7))
    assert {(one["kind"], one["subject"]) for one in said} == {("change", "income"), ("harm", "error")}
    assert said == essence(stream().reference()), f"seed {SEED}"
