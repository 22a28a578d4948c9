"""The gate role: records in and out, what it refuses, where it forwards, and what a lost snapshot costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.gate_world import BUILD, SCOPE, START_MS, control_of, finding, model_config, result_for, target
from typer.testing import CliRunner

from regate.config.canonical import canonical_json
from regate.config.errors import ConfigError, FatalError, PoisonError
from regate.config.policy import Policy
from regate.daemon.artefacts import LocalStore
from regate.daemon.build import build_digest
from regate.daemon.bus.placement import partition_of
from regate.daemon.bus.port import OutRecord, Record
from regate.daemon.cli.replay import differences, replay
from regate.daemon.gate import capsule
from regate.daemon.gate.events import Build, GateDecision
from regate.daemon.gate.state import Shard
from regate.daemon.roles.gate import GateCore
from regate.daemon.shell.core import Artefact, Batch, Gap, Output, StepInput, Tick
from regate.daemon.wire.cloudevents import decode_event, encode_event
from regate.daemon.wire.internal import Command, Heartbeat
from regate.scenarios.contracts import RunRequest

PARTITIONS = 4
HOME = partition_of("default/loan", PARTITIONS)


class Desk:
    """One shard of the role."""

    def __init__(self, shard: int = HOME, build: Build = BUILD) -> None:
        self.core = GateCore(PARTITIONS, build)
        self.state: Shard = self.core.initial(str(shard))
        self.seconds = 0
        self.offset = 0
        self.out: list[Output] = []

    def feed(self, topic: str, kind: str, data: Any) -> list[Output]:
        value, headers = encode_event(kind, f"id-{self.offset}", "s", 0, data)
        return self.raw(topic, value, headers)

    def raw(self, topic: str, value: bytes | None, headers: Any = (), key: bytes | None = b"k") -> list[Output]:
        self.offset += 1
        record = Record(f"regate.{topic}.v1", 0, self.offset, START_MS, key, value, headers)
        given = (
            StepInput(control=(record,))
            if topic == "control"
            else StepInput(batches=(Batch(topic, 0, self.offset, self.offset + 1, [record]),))
        )
        return self.take(given)

    def tick(self, seconds: int = 0) -> list[Output]:
        self.seconds += seconds
        return self.take(StepInput(tick=Tick(START_MS + self.seconds * 1000)))

    def take(self, given: StepInput) -> list[Output]:
        out = self.core.step(self.state, given)
        self.out.extend(out)
        return out

    def sent(self, topic: str) -> list[OutRecord]:
        return [item for item in self.out if isinstance(item, OutRecord) and item.topic == topic]

    def approve(self) -> None:
        self.tick()
        self.feed("control", "control", control_of(model_config(baseline=None)))
        request = decode_event(self.sent("validations")[0].value, "run-request", RunRequest)
        self.feed("runs", "run-result", result_for(request))


def header(record: OutRecord, name: str) -> str:
    return dict(record.headers)[name].decode()


def test_outputs_stand_where_their_readers_look() -> None:
    desk = Desk()
    desk.approve()
    decisions = [decode_event(item.value, "gate-decision", GateDecision) for item in desk.sent("gates")]
    assert [item.verdict for item in decisions] == ["hold", "approve"]
    assert {item.partition for item in desk.sent("gates") + desk.sent("gate-state")} == {HOME}
    assert {item.key for item in desk.sent("gates") + desk.sent("gate-state")} == {SCOPE.encode()}
    assert desk.sent("validations")[0].partition == HOME
    assert header(desk.sent("gates")[-1], "gate-verdict") == "approve"
    assert header(desk.sent("gates")[-1], "gate-scope") == SCOPE
    assert header(desk.sent("gates")[-1], "content-type") == "application/cloudevents+json"
    assert len([item for item in desk.out if isinstance(item, Artefact)]) == 2


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not json", "not_json"),
        (None, "not_json"),
        (b"{}", "unknown_schema"),
        (b"[" * 100_000, "not_json"),
        (b'{"type":"io.regate.finding.v1","data":{}}', "invalid"),
        (b"\xff\xfe", "not_json"),
    ],
)
def test_undecodable_inputs_go_to_the_dead_letters(value: bytes | None, reason: str) -> None:
    desk = Desk()
    desk.raw("findings", value)
    letter = desk.sent("dead-letters")[0]
    assert header(letter, "regate-reason") == reason
    assert header(letter, "regate-offset") == "1"
    assert desk.state.ignored == {reason: 1}


def test_ignored_inputs_are_kept_and_counted() -> None:
    desk = Desk()
    desk.feed("findings", "finding", finding("harm", historical=True))
    assert header(desk.sent("dead-letters")[0], "regate-reason") == "historical"
    assert desk.state.ignored == {"historical": 1}


def test_commands_of_foreign_producers_are_forwarded_to_their_partition() -> None:
    desk = Desk(shard=(HOME + 1) % PARTITIONS)
    command = Command(id="c", kind="deploy", tenant="default", model="loan", deployment="production")
    out = desk.feed("commands", "command", command)
    assert [(item.topic, item.partition) for item in out if isinstance(item, OutRecord)] == [("commands", HOME)]
    assert desk.state.scopes == {}


def test_a_misplaced_finding_makes_no_second_gate() -> None:
    desk = Desk(shard=(HOME + 1) % PARTITIONS)
    desk.feed("findings", "finding", finding("harm"))
    assert desk.state.ignored == {"misplaced": 1}
    assert desk.state.scopes == {}


def test_only_the_owner_of_a_model_opens_its_gate() -> None:
    desk = Desk(shard=(HOME + 1) % PARTITIONS)
    desk.feed("control", "control", control_of(model_config()))
    assert desk.out == []


def test_before_the_first_tick_time_is_the_record_s() -> None:
    desk = Desk()
    desk.feed("findings", "finding", finding("harm"))
    assert desk.state.now_ms == START_MS


NASTY: list[Any] = [
    None, True, -1, 0, 10**30, -(10**30), 1e308, "", "x" * 5000, "/", "\x00", "\ud7ff", [], {}, ["a"] * 300,
]  # fmt: skip


def test_no_value_of_any_field_stops_the_shard() -> None:
    command = Command(
        id="c",
        kind="override",
        tenant="default",
        model="loan",
        deployment="production",
        verdict="approve",
        actor="a",
        reason="r",
        ticket="t",
        expires_ms=START_MS + 1000,
        target=target("2"),
    )
    desk = Desk()
    desk.approve()
    request = decode_event(desk.sent("validations")[0].value, "run-request", RunRequest)
    beat = Heartbeat(source="telemetry-0", now_ms=START_MS, position=1, end=1, lag_ms=0, watermark_us=0)
    samples = (
        ("findings", "finding", finding("harm")),
        ("findings", "finding", finding("change", type="revision", revision="confirmed")),
        ("runs", "run-result", result_for(request)),
        ("commands", "command", command),
        ("commands", "command", command.model_copy(update={"kind": "deploy"})),
        ("commands", "command", command.model_copy(update={"kind": "requalify"})),
        ("heartbeats", "heartbeat", beat),
    )
    for topic, kind, data in samples:
        plain = data.model_dump(mode="json")
        for name in plain:
            for value in NASTY:
                event = {"type": f"io.regate.{kind}.v1", "data": plain | {name: value}}
                desk.raw(topic, canonical_json(event))
                desk.tick(1)
    desk.tick(100_000)
    chunks = desk.core.dump(desk.state)
    assert max(map(len, chunks.values())) < 900_000
    assert all(len(item.value or b"") < 1_000_000 for item in desk.out if isinstance(item, OutRecord))
    assert desk.core.dump(desk.core.load(str(HOME), chunks)) == chunks


def test_a_lost_scope_chunk_holds_and_its_sequence_goes_on() -> None:
    desk = Desk()
    desk.approve()
    chunks = desk.core.dump(desk.state)
    seq = desk.state.scopes[SCOPE].seq
    for damaged in ({**chunks, f"scope/{SCOPE}": b"{"}, {k: v for k, v in chunks.items() if k != f"scope/{SCOPE}"}):
        desk.state = desk.core.load(str(HOME), damaged)
        assert desk.state.refused_chunks == (f"scope/{SCOPE}",)
        desk.out = []
        desk.tick(1)
        decisions = [decode_event(item.value, "gate-decision", GateDecision) for item in desk.sent("gates")]
        assert decisions[0].verdict == "hold"
        assert decisions[0].reasons[0].code == "state_lost"
        assert decisions[0].seq > seq
        assert [item.trigger_kind for item in desk_requests(desk)] == ["startup"]


def desk_requests(desk: Desk) -> list[RunRequest]:
    return [decode_event(item.value, "run-request", RunRequest) for item in desk.sent("validations")]


def test_r13_a_gap_of_its_own_inputs_holds_every_scope_until_a_run_passed() -> None:
    desk = Desk()
    desk.approve()
    seq = desk.state.scopes[SCOPE].seq
    before = len(desk.sent("gates")), len(desk.sent("validations"))
    desk.take(StepInput(gaps=(Gap("truncated", "findings", HOME, 40, 47),)))
    (sent,) = desk.sent("gates")[before[0] :]
    decision = decode_event(sent.value, "gate-decision", GateDecision)
    assert (decision.verdict, decision.seq, decision.reasons[0].code) == ("hold", seq + 1, "input_gap")
    assert "offsets 40 to 46" in decision.reasons[0].message
    desk.tick(60)  # the cool-down of the queue
    (asked,) = desk.sent("validations")[before[1] :]
    assert decode_event(asked.value, "run-request", RunRequest).scope == SCOPE
    made = [item for item in desk.out if isinstance(item, Artefact) and item.name == capsule.name_of(decision.id)]
    assert capsule.replay(made[0].data) == decision
    # A chunk of the snapshot that is gone is told by the scope itself.
    assert desk.take(StepInput(gaps=(Gap("state", "scope/x", -1),))) == []


def test_a_newer_snapshot_is_refused() -> None:
    with pytest.raises(FatalError, match="newer"):
        GateCore(PARTITIONS, BUILD).load("0", {"shared": b'{"schema":99,"data":{}}'})


def test_every_other_chunk_can_be_lost_too() -> None:
    desk = Desk()
    desk.approve()
    desk.feed("control", "control", control_of(Policy()))
    chunks = desk.core.dump(desk.state)
    for name in chunks:
        state = desk.core.load(str(HOME), {**chunks, name: b"\x00"})
        assert name in state.refused_chunks
        desk.core.step(state, StepInput(tick=Tick(START_MS + 30_000_000)))
        assert state.scopes[SCOPE].verdict == "hold"  # what it rested on is gone, or its lease ran out


def replayed(tmp_path: Path, build: Build, *options: str) -> Any:
    desk = Desk(build=build)
    desk.approve()
    store = LocalStore(tmp_path)
    for item in desk.out:
        if isinstance(item, Artefact):
            store.put(item.name, item.data)
    app = typer.Typer()
    app.command()(replay)
    decision = decode_event(desk.sent("gates")[-1].value, "gate-decision", GateDecision)
    return CliRunner().invoke(app, [decision.id, "--artefacts", str(tmp_path), "--json", *options])


def test_replay_from_the_artefact_folder_alone(tmp_path: Path) -> None:
    done = replayed(tmp_path, Build(version="0.1.0", digest=build_digest()))
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["equal"] is True
    assert told["recomputed"]["verdict"] == "approve"


def test_replay_under_another_build_is_refused_unless_what_if(tmp_path: Path) -> None:
    done = replayed(tmp_path, BUILD)
    assert isinstance(done.exception, ConfigError)
    assert "another one" in str(done.exception)
    assert replayed(tmp_path, BUILD, "--what-if").exit_code == 0


def test_a_forged_capsule_does_not_come_to_its_decision(tmp_path: Path) -> None:
    desk = Desk()
    desk.approve()
    data = next(item.data for item in reversed(desk.out) if isinstance(item, Artefact))
    forged = json.loads(data)
    forged["input"]["data"]["outcome"] = "fail"
    forged["input"]["data"]["checks"][0]["outcome"] = "fail"
    again = capsule.replay(canonical_json(forged))
    assert again.verdict == "hold"  # it does not become the approval that the capsule claims
    assert differences(capsule.published(data), again)
    with pytest.raises(PoisonError):
        capsule.replay(b"[]")
    del forged["scope"]
    with pytest.raises(PoisonError):
        capsule.replay(canonical_json(forged))
