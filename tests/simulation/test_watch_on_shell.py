"""The watch roles on the shell and a bus: killed anywhere, they say what an undisturbed run says, once."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
import pytest
from tests.simulation.faults import Fuse, Killed, MortalBus
from tests.telemetry_streams import (
    CONFIG,
    START_US,
    event_json,
    label_json,
    profile,
    shifted,
    telemetry,
    wronged,
)

from regate.config.settings import Bus as BusSettings
from regate.config.settings import Settings, Shell
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

PARTITIONS, SHARDS = 3, 2
ROWS, CHANGE = 3_000, 1_600
EVENTS, LABELS = telemetry(ROWS, seed=31)
EVENTS = wronged(shifted(EVENTS, CHANGE, by=1.5), CHANGE, 0.5)
SOURCES = [f"telemetry-{number}" for number in range(PARTITIONS)] + ["labels-0"]


class Sink:
    def put(self, name: str, data: bytes) -> str:
        return name


class World:
    """A bus with telemetry that arrives as time goes on, and watch processes that may be killed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.settings = Settings(
            bus=BusSettings(partitions=SHARDS), shell=Shell(snapshot_seconds=self.random.choice([2.0, 20.0]))
        )
        self.clock = ManualClock(START_US // 1000)
        self.bus = MemoryBus(lambda: self.clock.now_ms() / 1000)
        self.topics = Topics(self.settings.bus)
        self.bus.admin().create(self.topics.specs(PARTITIONS, 1))
        self.owner = np.random.default_rng(seed).integers(0, PARTITIONS, ROWS)
        self.events = self.labels = 0
        writer = self.bus.writer()
        for record in [document_record(CONFIG, 1), *profile_records(profile(), 1)]:
            name = self.topics.name(record.topic)
            writer.send(OutRecord(name, record.value, record.key, record.headers, record.partition))
        writer.flush()
        self.writer = writer

    def produce(self) -> None:
        """Write what has arrived by now, stamped with its own arrival."""
        now_us = self.clock.now_ms() * 1000
        telemetry_topic, labels_topic = self.topics.name("telemetry"), self.topics.name("labels")
        while self.events < ROWS and EVENTS.arrival_us[self.events] <= now_us:
            row = self.events
            at_ms = int(EVENTS.arrival_us[row]) // 1000
            value = event_json(EVENTS, row)
            self.writer.send(OutRecord(telemetry_topic, value, partition=int(self.owner[row]), timestamp_ms=at_ms))
            self.events += 1
        while self.labels < ROWS and LABELS.arrival_us[self.labels] <= now_us:
            row = self.labels
            at_ms = int(LABELS.arrival_us[row]) // 1000
            self.writer.send(OutRecord(labels_topic, label_json(LABELS, row), partition=0, timestamp_ms=at_ms))
            self.labels += 1
        self.writer.flush()

    def runner(self, role: str, bus: Any = None) -> Runner:
        core = ObserveCore(SHARDS, sources=SOURCES) if role == "observe" else DecideCore(SHARDS)
        return Runner(bus or self.bus, self.topics, core, self.settings, Sink(), clock=self.clock)

    def run(self, lives: int) -> list[Finding]:
        """Run both roles to the end; each of the first ``lives`` lives of a role ends at a random call."""
        left = {"observe": lives, "decide": lives}
        running: dict[str, Runner] = {}
        end_ms = int(LABELS.arrival_us[-1]) // 1000 + 45_000  # until all partitions are proven empty
        while self.clock.now_ms() < end_ms:
            self.produce()
            for role in ("observe", "decide"):
                if role not in running:
                    bus = self.bus
                    if left[role] > 0:
                        fuse = Fuse(self.random.randrange(20, 900), after=self.random.random() < 0.5)
                        bus = MortalBus(self.bus, fuse)
                    running[role] = self.runner(role, bus)
                try:
                    running[role].cycle(0.0)
                except Killed:
                    left[role] -= 1
                    del running[role]
            self.clock.advance(0.3)
        assert self.events == self.labels == ROWS
        return self.findings()

    def findings(self) -> list[Finding]:
        reader = self.bus.reader()
        found = []
        for number in range(SHARDS):
            partition = TopicPartition(self.topics.name("findings"), number)
            for record in reader.read(partition, 0, reader.end(partition)):
                found.append(decode_event(record.value, "finding", Finding))
        return [finding for finding in found if finding.kind != "silence"]


@cache
def undisturbed() -> list[str]:
    return [finding.model_dump_json() for finding in World(seed=1).run(lives=0)]


def test_the_change_and_the_harm_are_found_on_the_bus() -> None:
    found = [Finding.model_validate_json(text) for text in undisturbed()]
    assert {(finding.kind, finding.subject) for finding in found} == {("change", "income"), ("harm", "error")}


@pytest.mark.parametrize("seed", [2, 3, 4])
def test_r27_killed_at_random_points_the_findings_are_the_same_and_once(seed: int) -> None:
    found = World(seed).run(lives=6)
    assert [finding.model_dump_json() for finding in found] == undisturbed(), f"seed {seed}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 40))
def test_r27_killed_often(seed: int) -> None:
    found = World(seed).run(lives=30)
    assert [finding.model_dump_json() for finding in found] == undisturbed(), f"seed {seed}"
