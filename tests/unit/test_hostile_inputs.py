"""Records of regate's own topics with numbers that nobody expected: refused or bounded, never the end of a shard."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.gate_world import START_MS, World, finding, model_config

from regate.config.policy import Policy
from regate.config.settings import Limits
from regate.daemon.bus.port import OutRecord, Record
from regate.daemon.control import document_record
from regate.daemon.gate import snapshot
from regate.daemon.gate import state as gate_state
from regate.daemon.gate.triggers import new_scope
from regate.daemon.gate.turn import Removed
from regate.daemon.roles.gate import GateCore
from regate.daemon.roles.observe import ObserveCore
from regate.daemon.roles.validate import ValidateCore
from regate.daemon.shell.core import Batch, StepInput, Tick
from regate.daemon.shell.snapshots import MAX_CHUNK
from regate.daemon.wire import decode
from regate.daemon.wire.internal import Heartbeat
from regate.detectors import decide_state
from regate.detectors.columns import ModelKey
from regate.detectors.decide import Shard
from regate.detectors.silence import Silence

POLICY = Policy.model_validate({"lease": {"seconds": 600, "heartbeat_seconds": 10}})
REQUEST = {
    "id": "r",
    "scope": "default/loan/production",
    "tenant": "default",
    "model": "loan",
    "model_version": "1",
    "deployment": "production",
    "target": {"uri": "x.onnx", "digest": "sha256:0"},
    "trigger_kind": "drift",
    "trigger_id": "f",
    "requested_ms": 0,
}


def _given(topic: str, kind: str, data: Any) -> StepInput:
    value = json.dumps({"type": f"io.regate.{kind}.v1", "data": data}).encode()
    return StepInput((Batch(topic, 0, 0, 1, [Record(topic, 0, 0, START_MS, b"k", value)]),))


@pytest.mark.parametrize("severity", ["nan", "inf", "-inf"])
def test_a_finding_without_a_finite_severity_is_a_dead_letter(severity: str) -> None:
    core = GateCore(1)
    state = core.initial("0")
    configured = document_record(model_config(), 1)
    core.step(state, StepInput((), (Record("control", 0, 0, 0, configured.key, configured.value),), Tick(START_MS)))
    data = finding().model_dump(mode="json") | {"severity": severity}
    out = core.step(state, _given("findings", "finding", data))
    assert [item.topic for item in out if isinstance(item, OutRecord)] == ["dead-letters"]
    core.dump(state)


@pytest.mark.parametrize("deadline_ms", [-(10**18), -62_135_596_800_001, 0])
def test_a_deadline_before_the_calendar_is_an_expired_request(deadline_ms: int) -> None:
    core = ValidateCore()
    state = core.initial("0")
    out = core.step(state, _given("validations", "run-request", REQUEST | {"deadline_ms": deadline_ms}))
    assert [item.topic for item in out if isinstance(item, OutRecord)] == ["runs"]


def test_r07_a_heartbeat_from_the_future_does_not_vouch_for_a_watch_that_stopped() -> None:
    world = World(POLICY)
    world.approve()
    ahead = Heartbeat(
        source="telemetry-0",
        now_ms=world.now_ms + 3_600_000,  # the clock of that machine
        position=10,
        end=10,
        lag_ms=0,
        watermark_us=0,
        models=("default/loan",),
    )
    world.feed("heartbeat", ahead)
    world.watching = False
    before = len(world.decisions)
    world.after(700)
    assert not [item for item in world.decisions[before:] if item.transition == "renew"]
    assert world.scope.verdict == "hold"


def test_r07_after_the_clock_is_set_right_heartbeats_count_again() -> None:
    world = World(POLICY)
    world.approve()
    world.feed("heartbeat", world.shard.sources["telemetry-0"].model_copy(update={"now_ms": world.now_ms + 10**9}))
    world.after(1500)
    assert world.scope.verdict == "approve"


def test_only_a_model_record_takes_a_model_back() -> None:
    world = World(POLICY)
    world.approve()
    world.feed("control-removed", Removed(key="anything/default/loan"))
    assert world.scope.verdict == "approve"
    world.unconfigure()
    assert world.scope.verdict == "hold"


def test_r07_an_arrival_in_the_future_does_not_hide_a_silence() -> None:
    key = ModelKey("default", "loan", "1", "production")
    silence, found = Silence(), []
    silence.heard(key, "telemetry-0", START_MS + 10**12)
    for second in range(200):
        silence.alive("telemetry-0", START_MS + second * 1000)
        found += silence.check(START_MS + second * 1000, {key: 30_000})
    assert [item.kind for item in found] == ["silence"]


def test_r37_made_up_models_beyond_the_limit_are_refused_before_a_layout_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []
    infer = decode.infer_events

    def counted(part: Any, tenant: str, model: str, **how: Any) -> Any:
        made.append(model)
        return infer(part, tenant, model, **how)

    monkeypatch.setattr(decode, "infer_events", counted)
    core = ObserveCore(1, Limits(models=5))
    state = core.initial("telemetry-0")
    event = {"event_time": "2023-11-14T22:13:20Z", "inputs": {"a": 1.0}, "prediction": "1"}
    names = [f"m{number}" for number in range(200)]
    for first, last in ((0, 100), (100, 200)):
        records = [
            Record(
                "telemetry", 0, n, START_MS, None, json.dumps(event | {"event_id": str(n), "model": names[n]}).encode()
            )
            for n in range(first, last)
        ]
        core.step(state, StepInput((Batch("telemetry", 0, first, last, records),)))
    assert made == names[:5]
    assert state.refused == {"too_many_models": 195}
    again = json.dumps(event | {"event_id": "again", "model": names[0]}).encode()
    known = Record("telemetry", 0, 200, START_MS, None, again)
    core.step(state, StepInput((Batch("telemetry", 0, 200, 201, [known]),)))
    assert state.refused == {"too_many_models": 195}


def test_r37_a_thousand_silent_models_with_long_names_fit_in_snapshot_chunks() -> None:
    shard = Shard()
    keys = [ModelKey("t" * 200, f"{number:0>200}", "1", "d" * 200) for number in range(1000)]
    for key in keys:
        shard.silence.heard(key, "telemetry-0", START_MS)
    for second in range(0, 120, 10):
        shard.silence.alive("telemetry-0", START_MS + second * 1000)
        shard.silence.check(START_MS + second * 1000, dict.fromkeys(keys, 30_000))
    chunks = decide_state.dump(shard)
    assert max(map(len, chunks.values())) < MAX_CHUNK
    again, refused = decide_state.load(chunks, {}, {})
    assert not refused
    assert again.silence == shard.silence
    assert all(rhythm.open is not None for rhythm in again.silence.models.values())


def test_r37_the_names_of_all_scopes_fit_in_snapshot_chunks() -> None:
    shard = gate_state.Shard(0)
    for number in range(2000):
        scope = new_scope("t" * 200, f"{number:0>200}", "d" * 200)
        shard.scopes[scope.name] = scope
    chunks = snapshot.dump(shard)
    assert max(map(len, chunks.values())) < MAX_CHUNK
    lost = next(name for name in chunks if name.startswith("scope/"))
    again = snapshot.load(0, {name: data for name, data in chunks.items() if name != lost})
    assert set(again.scopes) == set(shard.scopes)
    assert [name for name, scope in again.scopes.items() if scope.damaged] == [lost.removeprefix("scope/")]
