"""Observe and decide as roles: records in, findings out, through control, garbage, ticks and restarts."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from tests.telemetry_streams import (
    CONFIG,
    KEY,
    START_US,
    event_json,
    label_json,
    profile,
    shifted,
    telemetry,
    wronged,
)

from regate.daemon.bus.placement import partition_of
from regate.daemon.bus.port import OutRecord, Record
from regate.daemon.control import acceptance_record, document_record, profile_records
from regate.daemon.roles.decide import DecideCore
from regate.daemon.roles.observe import ObserveCore
from regate.daemon.shell.core import Artefact, Batch, Gap, StepInput, Tick
from regate.daemon.wire.cloudevents import decode_event
from regate.daemon.wire.internal import Acceptance, Heartbeat
from regate.detectors.arrays import unpack
from regate.detectors.columns import Labels, Slice
from regate.detectors.finding import Finding

PARTITIONS = 4
HOME = partition_of(KEY.placement, PARTITIONS)
ROWS, CHANGE = 6_000, 3_500
EVENTS, LABELS = telemetry(ROWS, seed=23)
EVENTS = wronged(shifted(EVENTS, CHANGE), CHANGE, 0.35)
CONTROL = tuple(
    Record("regate.control.v1", 0, offset, 0, record.key, record.value, record.headers)
    for offset, record in enumerate([document_record(CONFIG, 1), *profile_records(profile(), 1)])
)


def event(row: int) -> bytes:
    return event_json(EVENTS, row)


def label(row: int) -> bytes:
    return label_json(LABELS, row)


def log(part: Slice | Labels, write: Any, partitions: int, owner: np.ndarray, topic: str) -> dict[str, list[Record]]:
    logs: dict[str, list[Record]] = {f"{topic}-{number}": [] for number in range(partitions)}
    for row in range(part.n):
        shard = logs[f"{topic}-{owner[row]}"]
        at_ms = int(part.arrival_us[row]) // 1000
        shard.append(Record(topic, int(owner[row]), len(shard), at_ms, None, write(row)))
    return logs


class World:
    """Roles stepped by hand: each observe shard and the decide shards, with their cells topic in between."""

    def __init__(self, logs: dict[str, list[Record]], seed: int, restart: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.restart = restart
        self.logs = logs
        self.observe = ObserveCore(PARTITIONS, sources=sorted(logs))
        self.decide = DecideCore(PARTITIONS)
        self.observers = {name: self.observe.initial(name) for name in logs}
        self.deciders = {number: self.decide.initial(str(number)) for number in range(PARTITIONS)}
        self.positions = dict.fromkeys(logs, 0)
        self.cells: dict[int, list[Record]] = defaultdict(list)
        self.read = dict.fromkeys(range(PARTITIONS), 0)
        self.out: dict[str, list[OutRecord]] = defaultdict(list)
        self.artefacts: list[Artefact] = []
        for name in logs:
            self._step_observe(name, StepInput(control=CONTROL))
        for number in self.deciders:
            self._step_decide(number, StepInput(control=CONTROL))

    def run(self) -> None:
        end_ms = max(record.timestamp_ms for log in self.logs.values() for record in log)
        now_ms = START_US // 1000
        while now_ms < end_ms + 100_000:
            now_ms += self.random.choice([250, 500, 1000])
            tick = self.random.random() < 0.5
            for name, log in self.logs.items():
                first = self.positions[name]
                upto = next((k for k in range(first, len(log)) if log[k].timestamp_ms > now_ms), len(log))
                if self.random.random() < 0.2 and now_ms < end_ms:
                    continue  # this shard lags
                topic, _, number = name.rpartition("-")
                batches = ()
                if upto > first:
                    batches = (Batch(topic, int(number), first, upto, log[first:upto]),)
                    self.positions[name] = upto
                ends = {(topic, int(number)): upto}
                if batches or tick:
                    self._step_observe(name, StepInput(batches, tick=Tick(now_ms, ends) if tick else None))
            for number in self.deciders:
                first, upto = self.read[number], len(self.cells[number])
                self.read[number] = upto
                given = Batch("cells", number, first, upto, self.cells[number][first:upto])
                self._step_decide(number, StepInput((given,), tick=Tick(now_ms) if tick else None))

    def findings(self) -> list[Finding]:
        return [decode_event(record.value, "finding", Finding) for record in self.out["findings"]]

    def _step_observe(self, name: str, given: StepInput) -> None:
        self._keep(self.observe.step(self.observers[name], given))
        if self.random.random() < self.restart:
            chunks = self.observe.dump(self.observers[name])
            assert max(map(len, chunks.values())) < 900_000
            self.observers[name] = self.observe.load(name, chunks)
            assert self.observers[name].refused_chunks == []
            assert self.observe.dump(self.observers[name]) == chunks

    def _step_decide(self, number: int, given: StepInput) -> None:
        self._keep(self.decide.step(self.deciders[number], given))
        if self.random.random() < self.restart:
            chunks = self.decide.dump(self.deciders[number])
            assert max(map(len, chunks.values())) < 900_000
            self.deciders[number] = self.decide.load(str(number), chunks)
            assert self.deciders[number].refused_chunks == []
            assert self.decide.dump(self.deciders[number]) == chunks

    def _keep(self, outputs: list[Any]) -> None:
        for output in outputs:
            if isinstance(output, Artefact):
                self.artefacts.append(output)
                continue
            self.out[output.topic].append(output)
            if output.topic == "cells":
                log = self.cells[output.partition]
                log.append(Record("cells", output.partition, len(log), 0, output.key, output.value, output.headers))


def logs_of(seed: int, partitions: int, label_partitions: int) -> dict[str, list[Record]]:
    rng = np.random.default_rng(seed)
    return log(EVENTS, event, partitions, rng.integers(0, partitions, ROWS), "telemetry") | log(
        LABELS, label, label_partitions, rng.integers(0, label_partitions, ROWS), "labels"
    )


def essence(findings: list[Finding]) -> list[str]:
    return [finding.model_dump_json() for finding in findings if finding.kind != "silence"]


@pytest.fixture(scope="module")
def undisturbed() -> World:
    world = World(logs_of(1, 1, 1), seed=1)
    world.run()
    return world


def test_findings_come_out_with_the_blocks_behind_them(undisturbed: World) -> None:
    found = [finding for finding in undisturbed.findings() if finding.kind != "silence"]
    assert {(finding.kind, finding.subject) for finding in found} == {("change", "income"), ("harm", "error")}
    assert {record.partition for record in undisturbed.out["findings"]} == {HOME}
    blocks = {artefact.name: unpack(artefact.data) for artefact in undisturbed.artefacts}
    meta, arrays = blocks[f"blocks-{found[0].id}"]
    assert meta["profile"] == profile().digest
    assert len(arrays["stats"]) >= 1
    assert undisturbed.out["dead-letters"] == []


@pytest.mark.parametrize(("seed", "partitions", "label_partitions"), [(2, 6, 3), (3, 2, 1), (4, 3, 2)])
def test_partitions_lag_and_restarts_change_nothing(
    undisturbed: World, seed: int, partitions: int, label_partitions: int
) -> None:
    world = World(logs_of(seed, partitions, label_partitions), seed=seed, restart=0.02)
    world.run()
    assert essence(world.findings()) == essence(undisturbed.findings())


def moved(record: Record, offset: int, value: bytes | None) -> Record:
    return Record(record.topic, record.partition, offset, record.timestamp_ms, None, value)


def test_r01_r06_garbage_goes_to_the_dead_letters_and_the_change_is_found() -> None:
    rng = random.Random(9)
    logs = logs_of(5, 2, 1)
    bad = [b"", None, b"not json", b"[" * 5000, b'{"model":"loan"}', b"\xff\xfe", b'{"a":NaN}', b"x" * 1_100_000]
    spoiled = {}
    refused = 0
    for name, records in logs.items():
        mixed: list[Record] = []
        for record in records:
            if rng.random() < 0.01:
                mixed.append(moved(record, len(mixed), rng.choice(bad)))
                refused += 1
            mixed.append(moved(record, len(mixed), record.value))
        spoiled[name] = mixed
    world = World(spoiled, seed=5)
    world.run()
    assert len(world.out["dead-letters"]) == refused
    assert {("change", "income"), ("harm", "error")} <= {(f.kind, f.subject) for f in world.findings()}


def test_heartbeats_go_to_every_partition_and_say_where_the_shard_stands(undisturbed: World) -> None:
    beats = [decode_event(record.value, "heartbeat", Heartbeat) for record in undisturbed.out["heartbeats"]]
    targets = {record.partition for record in undisturbed.out["heartbeats"]}
    assert targets == set(range(PARTITIONS))
    last = [beat for beat in beats if beat.source == "telemetry-0"][-1]
    assert (last.position, last.end, last.lag_ms) == (ROWS, ROWS, 0)
    assert last.models == ("default/loan",)
    assert last.idle
    middle = [beat for beat in beats if beat.source == "telemetry-0" and beat.position not in {0, ROWS}]
    assert not any(beat.idle for beat in middle)
    assert [beat.watermark_us for beat in middle] == sorted(beat.watermark_us for beat in middle)


def test_a_partition_that_never_held_anything_does_not_hold_the_cells() -> None:
    logs = logs_of(1, 1, 1) | {"telemetry-1": [], "labels-1": []}
    world = World(logs, seed=1)
    world.run()
    assert {("change", "income"), ("harm", "error")} <= {(f.kind, f.subject) for f in world.findings()}


def test_r41_a_silent_model_is_found_by_ticks(undisturbed: World) -> None:
    (finding,) = [finding for finding in undisturbed.findings() if finding.kind == "silence"]
    assert (finding.subject, finding.model, finding.type) == ("model", "loan", "finding")
    assert abs(finding.onset_us - int(EVENTS.arrival_us[-1])) < 2_000_000
    assert 30_000_000 < finding.detected_us - finding.onset_us < 35_000_000


def test_a_damaged_or_misplaced_frame_is_kept_as_a_dead_letter() -> None:
    core = DecideCore(PARTITIONS)
    state = core.initial(str((HOME + 1) % PARTITIONS))
    world = World(logs_of(1, 1, 1), seed=1)
    batch = Batch("telemetry", 0, 0, 100, world.logs["telemetry-0"][:100])
    (good,) = [o for o in world.observe.step(world.observers["telemetry-0"], StepInput((batch,))) if o.topic == "cells"]
    records = [Record("cells", state.number, 0, 0, None, good.value), Record("cells", state.number, 1, 0, None, b"?")]
    outputs = core.step(state, StepInput((Batch("cells", state.number, 0, 2, records),)))
    reasons = [dict(output.headers)["regate-reason"] for output in outputs]
    assert reasons == [b"misplaced", b"corrupt"]
    assert state.refused == {"misplaced": 1, "corrupt": 1}
    assert state.core.models == {}


def test_control_takes_effect_at_the_step_that_takes_it() -> None:
    core = DecideCore(PARTITIONS)
    state = core.initial(str(HOME))
    core.step(state, StepInput(control=CONTROL))
    join = state.core.models[KEY].join
    assert join is not None
    assert join.capacity == CONFIG.detection.open_predictions
    small = CONFIG.model_copy(update={"detection": CONFIG.detection.model_copy(update={"open_predictions": 500})})
    record = document_record(small, 2)
    core.step(state, StepInput(control=(Record("c", 0, 9, 0, record.key, record.value, record.headers),)))
    assert join.capacity == 500
    broken = Record("c", 0, 10, 0, b"model/default/loan", b"{}")
    core.step(state, StepInput(control=(broken,)))
    assert state.standing.refused == 1
    assert state.standing.config(KEY) == small  # the old setting stays in force
    elsewhere = core.initial(str((HOME + 1) % PARTITIONS))
    core.step(elsewhere, StepInput(control=CONTROL))
    assert elsewhere.core.models == {}


def acceptance(incident: str, offset: int = 90, **changes: str) -> Record:
    said = Acceptance(
        incident=incident,
        tenant=KEY.tenant,
        model=KEY.model,
        model_version=KEY.version,
        deployment=KEY.deployment,
        actor="ada",
        reason="a new campaign",
    )
    made = acceptance_record(said.model_copy(update=changes), 1)
    return Record("regate.control.v1", 0, offset, 0, made.key, made.value, made.headers)


def test_an_accepted_change_ends_its_incident_and_its_charts_start_over() -> None:
    world = World(logs_of(1, 1, 1), seed=1)
    world.run()
    before = world.findings()
    opened = next(finding for finding in before if finding.kind == "change")
    for number in world.deciders:
        world._step_decide(number, StepInput(control=(acceptance(opened.incident),)))
    (revision,) = world.findings()[len(before) :]
    assert (revision.type, revision.revision, revision.incident) == ("revision", "accepted", opened.incident)
    assert "ada" in revision.message
    watch = world.deciders[HOME].core.models[KEY].watch
    assert watch is not None
    assert opened.incident not in {one.finding.id for one in watch.incidents}
    index = next(i for i, chart in enumerate(watch.bank.charts) if chart.name == "feature_drift/income/mean")
    assert watch.bank.log_r(watch.state)[index] < -100
    chunks = world.decide.dump(world.deciders[HOME])
    assert world.decide.dump(world.decide.load(str(HOME), chunks)) == chunks
    assert world.out["dead-letters"] == []


def test_an_acceptance_that_fits_nothing_is_kept_as_a_dead_letter() -> None:
    core = DecideCore(PARTITIONS)
    state = core.initial(str(HOME))
    core.step(state, StepInput(control=CONTROL))
    broken = acceptance("x")._replace(value=acceptance("x").value.replace(b"ada", b""))  # type: ignore[union-attr]
    out = core.step(state, StepInput(control=(acceptance("nothing"), broken)))
    assert [output.topic for output in out] == ["dead-letters"] * 2  # type: ignore[union-attr]
    assert state.refused == {"unknown_incident": 1, "control_invalid": 1}
    other = core.initial(str((HOME + 1) % PARTITIONS))
    assert core.step(other, StepInput(control=(acceptance("nothing"),))) == []


def told(world: World, detector: str) -> list[tuple[str, str, str]]:
    return [(f.type, f.revision, f.subject) for f in world.findings() if f.detector == detector]


def tick_all(world: World, now_ms: int, gaps: tuple[Gap, ...] = ()) -> None:
    for name in world.logs:
        world._step_observe(name, StepInput(tick=Tick(now_ms), gaps=gaps))
    for number in world.deciders:
        first, upto = world.read[number], len(world.cells[number])
        world.read[number] = upto
        given = Batch("cells", number, first, upto, world.cells[number][first:upto])
        world._step_decide(number, StepInput((given,), tick=Tick(now_ms)))


@pytest.mark.parametrize(
    ("gap", "detector", "words"),
    [
        (Gap("truncated", "telemetry", 0, 5, 90), "gap", "offsets 5 to 89"),
        (Gap("recreated", "telemetry", 0, 90, 0), "gap", "made anew"),
        (Gap("state", "partition", -1), "lost_state", "snapshot"),
    ],
)
def test_r13_r14_r28_what_a_source_missed_is_told_of_its_models_until_it_is_past(
    gap: Gap, detector: str, words: str
) -> None:
    world = World(logs_of(1, 1, 1), seed=1)
    world.run()
    now_ms = max(observer.newest_ms for observer in world.observers.values()) + 200_000
    world._step_observe("telemetry-0", StepInput(gaps=(gap,)))
    tick_all(world, now_ms)
    (finding,) = [one for one in world.findings() if one.detector == detector]
    assert (finding.kind, finding.subject, finding.model) == ("silence", "telemetry-0", KEY.model)
    assert words in finding.message
    chunks = world.decide.dump(world.deciders[HOME])
    world.deciders[HOME] = world.decide.load(str(HOME), chunks)
    assert world.decide.dump(world.deciders[HOME]) == chunks
    tick_all(world, now_ms + 30_000)
    assert len(told(world, detector)) == 1
    tick_all(world, now_ms + 61_000)
    assert told(world, detector)[1:] == [("revision", "recovered", "telemetry-0")]


def test_r13_a_gap_of_cells_is_told_of_every_model_of_the_shard() -> None:
    world = World(logs_of(1, 1, 1), seed=1)
    world.run()
    gap = Gap("truncated", "cells", HOME, 3, 9)
    now_ms = max(observer.newest_ms for observer in world.observers.values()) + 200_000
    world._step_decide(HOME, StepInput(tick=Tick(now_ms), gaps=(gap,)))
    assert told(world, "gap") == [("finding", "", f"cells-{HOME}")]


def test_r09_a_partition_of_nothing_but_poison_holds_its_models_until_it_is_mostly_used_again() -> None:
    world = World(logs_of(1, 1, 1), seed=1)
    world.run()
    observer = world.observers["telemetry-0"]
    now_ms = observer.newest_ms + 200_000
    garbage = [Record("telemetry", 0, ROWS + n, now_ms, None, b"not json") for n in range(300)]
    batch = Batch("telemetry", 0, ROWS, ROWS + 300, garbage)
    world._step_observe("telemetry-0", StepInput((batch,), tick=Tick(now_ms)))
    tick_all(world, now_ms + 1000)
    assert told(world, "poison") == [("finding", "", "telemetry-0")]
    tick_all(world, now_ms + 90_000)
    assert len(told(world, "poison")) == 1  # nothing came since: it is not over by waiting
    good = [
        Record("telemetry", 0, ROWS + 300 + n, now_ms, None, event(n).replace(b'"event_id":"', b'"event_id":"again-'))
        for n in range(50)
    ]
    batch = Batch("telemetry", 0, ROWS + 300, ROWS + 350, good)
    world._step_observe("telemetry-0", StepInput((batch,), tick=Tick(now_ms + 100_000)))
    tick_all(world, now_ms + 101_000)
    assert told(world, "poison")[1:] == [("revision", "recovered", "telemetry-0")]


def test_a_partition_that_retention_emptied_is_idle_after_30_s() -> None:
    core = ObserveCore(PARTITIONS)
    state = core.initial("telemetry-0")
    beats = []
    for second in range(40):
        for output in core.step(state, StepInput(tick=Tick(1_000_000 + second * 1000, {("telemetry", 0): 70}))):
            if isinstance(output, OutRecord) and output.topic == "heartbeats" and output.partition == 0:
                beats.append(decode_event(output.value, "heartbeat", Heartbeat))
    assert [beat.idle for beat in beats] == [False] * 31 + [True] * 9
    assert (beats[-1].position, beats[-1].end, beats[-1].lag_ms) == (70, 70, 0)
