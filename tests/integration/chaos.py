"""The daemon as a process of its own on a real broker: feed it, kill it, wait for it, judge what it wrote."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import yaml
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaTopicPartition
from tests.telemetry_streams import CONFIG, alone, event_json, label_json, profile, shifted, telemetry, wronged

from regate.config.model import ModelConfig
from regate.config.policy import Policy
from regate.config.settings import Settings
from regate.daemon.apply import apply_documents
from regate.daemon.build import version
from regate.daemon.bus.kafka import KafkaBus
from regate.daemon.bus.placement import murmur2
from regate.daemon.bus.port import OutRecord, Record, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.gate.events import Build, GateDecision
from regate.daemon.roles.decide import DecideCore
from regate.daemon.roles.gate import GateCore
from regate.daemon.roles.observe import ObserveCore
from regate.daemon.roles.validate import ValidateCore
from regate.daemon.shell import journal
from regate.daemon.shell.core import RoleCore
from regate.daemon.shell.recovery import ControlTail, replay_entry
from regate.daemon.shell.shards import journal_partition
from regate.daemon.wire.cloudevents import decode_event
from regate.detectors.finding import Finding
from regate.detectors.profile import Profile

ROLES = ("observe", "decide", "gate", "validate")
WRITTEN = ("cells", "heartbeats", "findings", "gates", "validations", "runs", "dead-letters")
COMPACTED = ("gate-state",)
FEEDS = {"decide": "cells", "gate": "findings"}  # what proves that a role is through
LAST_WORD_US = 60_000_000  # so far after the stream comes one event a partition, which closes its last cells


class Message(NamedTuple):
    """One record of the stream: when it arrives, where, whose it is, what it says."""

    arrival_us: int
    topic: str  # telemetry or labels
    client: str
    value: bytes


@dataclass(frozen=True)
class Stream:
    """A seeded stream in the order of arrival, and one last word for each partition."""

    messages: tuple[Message, ...]
    event: Callable[[int], bytes]  # the last word as telemetry, for a partition
    label: Callable[[int], bytes]
    end_us: int
    reference: Callable[[], list[Finding]]  # what the cores say in this process, in one slice


def drifting(rows: int, *, seed: int, start_us: int, per_second: float = 50.0) -> Stream:
    """A stream with two real changes: an input moves at a half, one prediction in three errs from two thirds on."""
    events, labels = telemetry(rows, seed=seed, start_us=start_us, per_second=per_second)
    events = wronged(shifted(events, rows // 2), rows * 2 // 3, 0.35)
    draw = random.Random(seed)
    clients = [f"c{draw.randrange(40)}" for _ in range(rows)]
    found = []
    for row in range(rows):
        value = json.loads(event_json(events, row)) | {"client": clients[row]}
        found.append(Message(int(events.arrival_us[row]), "telemetry", clients[row], json.dumps(value).encode()))
        found.append(Message(int(labels.arrival_us[row]), "labels", clients[row], label_json(labels, row)))
    found.sort()
    end_us = found[-1].arrival_us + LAST_WORD_US

    def last(content: bytes, name: str) -> bytes:
        return json.dumps(json.loads(content) | {"event_id": name, "event_time": end_us / 1e6}).encode()

    return Stream(
        tuple(found),
        lambda number: last(event_json(events, 0), f"last-{number}"),
        lambda number: last(label_json(labels, 0), f"last-label-{number}"),
        end_us,
        lambda: alone(events, labels).findings,
    )


def partition_for(keying: str, message: Message, count: int, draw: random.Random) -> int:
    """Where a producer puts a message: by the model, by the client, or anywhere."""
    if keying == "none":
        return draw.randrange(count)
    return (murmur2(b"loan" if keying == "model" else message.client.encode()) & 0x7FFFFFFF) % count


class Ground:
    """Telemetry and label topics on a broker, which any number of daemons read, each under its own prefix."""

    def __init__(self, bus: KafkaBus, bootstrap: str, folder: Path, name: str, telemetry: int = 3, labels: int = 2):
        self.bus, self.bootstrap, self.folder, self.name = bus, bootstrap, folder, name
        self.counts = {"telemetry": telemetry, "labels": labels}
        self.sent: Counter[TopicPartition] = Counter()

    def topic(self, logical: str) -> str:
        return f"{self.name}.{logical}"

    def world(
        self,
        prefix: str,
        *,
        partitions: int = 2,
        config: ModelConfig = CONFIG,
        profiles: Sequence[Profile] | None = None,
        policy: Policy | None = None,
        bus: dict[str, Any] | None = None,
        **changes: Any,
    ) -> World:
        """Create the topics of one daemon, apply configuration and profile, write its settings."""
        settings = Settings.model_validate(
            {
                "bus": {
                    "bootstrap_servers": self.bootstrap,
                    "prefix": f"{self.name}-{prefix}",
                    "telemetry_topic": self.topic("telemetry"),
                    "labels_topic": self.topic("labels"),
                    "partitions": partitions,
                    **(bus or {}),
                },
                "shell": {"snapshot_seconds": 2.0},
                "schedule": {"heartbeat_seconds": 1.0, "renew_seconds": 2.0},
                "artefacts": str(self.folder / prefix / "artefacts"),
                "instance": prefix,
                **changes,
            }
        )
        found = World(self, settings)
        found.folder.mkdir(parents=True, exist_ok=True)
        admin = self.bus.admin()
        admin.create(found.topics.specs(self.counts["telemetry"], self.counts["labels"]))
        admin.close()
        apply_documents(
            self.bus,
            found.topics,
            [config, *([policy] if policy else [])],
            [profile()] if profiles is None else profiles,
        )
        found.file.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        return found

    def send(
        self,
        stream: Stream,
        seconds: float,
        *,
        keying: str = "none",
        seed: int = 1,
        part: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        """Write a part of the stream, spread evenly over so many seconds; after the end its last words."""
        draw = random.Random(seed)
        writer = self.bus.writer()
        began = time.monotonic()
        first, stop = (int(share * len(stream.messages)) for share in part)
        for index, message in enumerate(stream.messages[:stop]):
            number = partition_for(keying, message, self.counts[message.topic], draw)
            if index < first:
                continue
            if index % 20 == 0 and seconds:
                writer.flush()
                time.sleep(max(0.0, began + seconds * (index - first) / (stop - first) - time.monotonic()))
            self.write(writer, message.topic, number, message.value, message.arrival_us // 1000)
        if stop == len(stream.messages):
            self.last_words(writer, stream)
        writer.close(30.0)

    def last_words(self, writer: Any, stream: Stream) -> None:
        for topic, write in (("telemetry", stream.event), ("labels", stream.label)):
            for number in range(self.counts[topic]):
                self.write(writer, topic, number, write(number), stream.end_us // 1000)

    def write(self, writer: Any, topic: str, number: int, value: bytes | None, at_ms: int | None = None) -> None:
        key = b"gone" if value is None else None  # the client refuses a tombstone of nothing
        writer.send(OutRecord(self.topic(topic), value, key, partition=number, timestamp_ms=at_ms))
        self.sent[TopicPartition(self.topic(topic), number)] += 1


@dataclass
class Daemon:
    """One `regate run` as a child."""

    command: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0
    born_at: int = 0  # where the log of this life begins

    def start(self) -> Self:
        self.born_at = self.log.stat().st_size if self.log.exists() else 0
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, env=environment)
        self.lives += 1
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL; a daemon that had already ended by itself is a failure."""
        assert self.process is not None
        assert self.process.poll() is None, f"ended by itself with {self.process.returncode}: {self.said()}"
        self.process.kill()
        self.process.wait(10)

    def end(self, deadline: float = 20.0) -> int:
        """SIGTERM; return the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait(deadline)

    def wait(self, deadline: float) -> int:
        assert self.process is not None
        return self.process.wait(deadline)

    def said(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of its log with this event, in this life."""
        with self.log.open("rb") as log:
            log.seek(self.born_at)
            lines = [line for line in log.read().split(b"\n")[:-1] if line.startswith(b"{")]
        return [found for line in lines if (found := json.loads(line)).get("event") == name]

    def rss(self) -> int:
        """Resident bytes now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


@dataclass
class World:
    """One daemon's topics and settings on a ground, and what can be read there afterwards."""

    ground: Ground
    settings: Settings
    topics: Topics = field(init=False)

    def __post_init__(self) -> None:
        self.topics = Topics(self.settings.bus)
        self.folder = self.ground.folder / self.settings.instance
        self.file = self.folder / "regate.yaml"

    def daemon(self, instance: str | None = None, role: str = "all") -> Daemon:
        name = instance or self.settings.instance
        command = [sys.executable, "-m", "regate.daemon.cli.main", "run", "--settings", str(self.file)]
        command += ["--instance", name, "--role", role]
        return Daemon(command, self.folder / f"{name}.log")

    def findings(self) -> list[Finding]:
        return [decode_event(record.value, "finding", Finding) for record in self.records("findings")]

    def decisions(self) -> list[GateDecision]:
        return [decode_event(record.value, "gate-decision", GateDecision) for record in self.records("gates")]

    def records(self, logical: str) -> list[Record]:
        """All committed records of a placed topic, partition by partition."""
        reader = self.ground.bus.reader()
        try:
            return [
                record
                for number in range(self.settings.bus.partitions)
                for partition in [TopicPartition(self.topics.name(logical), number)]
                for record in reader.read(partition, reader.beginning(partition), reader.end(partition))
            ]
        finally:
            reader.close()

    def committed(self, role: str, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        consumer = self.ground.bus.consumer(f"{self.topics.prefix}.{role}")
        try:
            return consumer.committed(partitions)
        finally:
            consumer.close(2.0)

    def drained(
        self, daemons: Sequence[Daemon], seconds: float = 60.0, roles: Sequence[str] = ("observe", "decide", "gate")
    ) -> None:
        """Wait until all that was sent went through these roles."""
        for role in roles:
            ends = dict(self.ground.sent) if role == "observe" else self._ends(FEEDS[role])
            self._reached(role, ends, daemons, seconds)

    def _ends(self, logical: str) -> dict[TopicPartition, int]:
        # Uncommitted ends: the offsets of a transaction may show before its records do.
        name = self.topics.name(logical)
        client = KafkaConsumer(bootstrap_servers=self.ground.bootstrap, isolation_level="read_uncommitted")
        try:
            wanted = [KafkaTopicPartition(name, number) for number in range(self.settings.bus.partitions)]
            return {TopicPartition(*tp): end for tp, end in client.end_offsets(wanted).items()}
        finally:
            client.close()

    @property
    def shards(self) -> int:
        """How many shards all roles have together."""
        return sum(self.ground.counts.values()) + 3 * self.settings.bus.partitions

    def _reached(self, role: str, ends: dict[TopicPartition, int], daemons: Sequence[Daemon], seconds: float) -> None:
        ends = {partition: end for partition, end in ends.items() if end}
        consumer = self.ground.bus.consumer(f"{self.topics.prefix}.{role}")
        deadline = time.monotonic() + seconds
        try:
            while True:
                found = consumer.committed(list(ends))
                behind = {partition: end for partition, end in ends.items() if found.get(partition, 0) < end}
                if not behind:
                    return
                for daemon in daemons:
                    assert daemon.process is not None
                    assert daemon.process.poll() is None, f"ended by itself: {daemon.said()}"
                said = f"{role} stands at {found}, wanted {ends}: {daemons[0].said() if daemons else ''}"
                assert time.monotonic() < deadline, said
                time.sleep(0.1)  # an offset on a broker cannot be awaited
        finally:
            consumer.close(2.0)


def essence(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """What two runs over the same events must agree on: everything but silence, which wall time decides."""
    dumps = [finding.model_dump(mode="json") for finding in findings if finding.family != "silence"]
    return sorted(dumps, key=lambda dump: (dump["detected_us"], dump["id"]))


def outline(decisions: Sequence[GateDecision]) -> list[tuple[Any, ...]]:
    """What two gates over the same story must agree on; renewals, staleness and silence hang on wall time."""
    return [
        (
            f"{one.scope.tenant}/{one.scope.model}/{one.scope.deployment}",
            one.effective_verdict,
            one.transition,
            tuple(reason.code for reason in one.reasons),
        )
        for one in decisions
        if one.transition not in {"renew", "expire"}
        and one.trigger.kind != "staleness"
        and {reason.code for reason in one.reasons} != {"finding_silence"}
    ]


def hunt(daemon: Daemon, shards: int, kills: int, seed: int, feed: Callable[[float, float], None]) -> list[float]:
    """Kill a daemon so many times and start it again at once; return the seconds from each start to its work.

    Most kills come while it works (all shards recovered), one in five while it starts or recovers. The stream is
    fed in step with the kills, one share a life, so that there is work in every life on any machine.
    """
    draw = random.Random(seed)
    back = []
    for life in range(kills + 1):
        feeder = threading.Thread(target=feed, args=(life / (kills + 1), (life + 1) / (kills + 1)))
        feeder.start()
        began = time.monotonic()
        early = 0 < life < kills and draw.random() < 0.2
        if early:
            time.sleep(draw.uniform(0.3, 3.0))
        else:
            recovered(daemon, shards)
            back.append(time.monotonic() - began)
        if life < kills:
            time.sleep(draw.uniform(0.05, 2.5))
            daemon.kill()
            daemon.start()
        feeder.join(60)
    return back


def recovered(daemon: Daemon, shards: int, seconds: float = 60.0) -> None:
    """Wait until this life of the daemon has recovered so many shards."""
    deadline = time.monotonic() + seconds
    while sum(line["shard"] != "" for line in daemon.events("recovered")) < shards:
        assert daemon.process is not None
        assert daemon.process.poll() is None, f"ended by itself with {daemon.process.returncode}: {daemon.said()}"
        assert time.monotonic() < deadline, f"{shards} shards not recovered: {daemon.said()}"
        time.sleep(0.02)  # a line in the log of another process cannot be awaited


class Replayed(NamedTuple):
    """What a whole replay found: steps and outputs stepped again, and every difference to what stands on the bus."""

    steps: int
    outputs: int
    differences: list[str]


Written = tuple[str, int | None, bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]


def replay(world: World) -> Replayed:
    """Step every journal again from nothing, and compare each output with the records on the bus: each once.

    Snapshots take no part: the state that the daemon loaded from them must be the one that stepping reaches.
    """
    expected: Counter[Written] = Counter()
    latest: dict[tuple[str, int | None, bytes | None], bytes | None] = {}
    differences: list[str] = []
    steps = 0
    reader = world.ground.bus.reader()
    control = ControlTail(reader, world.topics)
    control.refresh()
    try:
        for role in ROLES:
            for shard in _shards(world, role):
                count, outputs, wrong = _replay_shard(world, role, shard, reader, control)
                steps += count
                differences += wrong
                for output in outputs:
                    expected[output] += 1
                    latest[output[:3]] = output[3]
        actual: Counter[Written] = Counter()
        for logical in WRITTEN:
            for record in world.records(logical):
                actual[logical, record.partition, record.key, record.value, tuple(record.headers)] += 1
        for logical in COMPACTED:
            standing = {(logical, r.partition, r.key): r.value for r in world.records(logical)}
            if standing != {key: value for key, value in latest.items() if key[0] == logical}:
                differences.append(f"{logical}: the latest values differ")
    finally:
        reader.close()
    expected = Counter({key: count for key, count in expected.items() if key[0] in WRITTEN})
    differences += [f"missing {count} x {_short(key)}" for key, count in (expected - actual).items()]
    differences += [f"too many {count} x {_short(key)}" for key, count in (actual - expected).items()]
    return Replayed(steps, sum(actual.values()), differences)


def _short(written: Written) -> str:
    return f"{written[0]}-{written[1]} {(written[3] or b'')[:300]!r}"


def _shards(world: World, role: str) -> list[str]:
    if role != "observe":
        return [str(number) for number in range(world.settings.bus.partitions)]
    return [f"{topic}-{n}" for topic, count in world.ground.counts.items() for n in range(count)]


def _core(world: World, role: str, build: str) -> RoleCore:
    placed = world.settings.bus.partitions
    if role == "observe":
        return ObserveCore(placed, world.settings.limits, tuple(_shards(world, "observe")))
    if role == "decide":
        return DecideCore(placed)
    if role == "gate":
        return GateCore(placed, Build(version=version(), digest=build))
    return ValidateCore()


def _replay_shard(
    world: World, role: str, shard: str, reader: Any, control: ControlTail
) -> tuple[int, Iterator[Written], list[str]]:
    entries = journal.read(reader, journal_partition(world.topics, role, shard), shard, 0, 0)
    wrong = []
    position: dict[tuple[str, int], int] = {}
    for entry in entries:
        for taken in entry.inputs:
            key = (taken.topic, taken.partition)
            if position.get(key, taken.first) != taken.first:
                wrong.append(f"{role} {shard}: {key} jumps from {position[key]} to {taken.first}")
            position[key] = taken.next
    read = {
        (topic, number): reader.read(TopicPartition(world.topics.name(topic), number), 0, end)
        for (topic, number), end in position.items()
        if end
    }
    return len(entries), _stepped(world, role, shard, entries, read, control), wrong


def _stepped(
    world: World, role: str, shard: str, entries: Sequence[journal.Entry], read: Any, control: ControlTail
) -> Iterator[Written]:
    cores: dict[str, RoleCore] = {}
    state: Any = None
    for entry in entries:
        core = cores.setdefault(entry.build, _core(world, role, entry.build))
        state = core.initial(shard) if state is None else state
        for output in core.step(state, replay_entry(entry, read, control)):
            if isinstance(output, OutRecord):
                yield output.topic, output.partition, output.key, output.value, tuple(output.headers)
