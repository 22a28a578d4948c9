"""The validate core: one result a request, one run a scope, three attempts, deadlines; as a pure function."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import models

from regate.config.canonical import canonical_json, digest_bytes
from regate.config.errors import FatalError
from regate.daemon.bus.port import OutRecord, Record
from regate.daemon.roles.validate import MAX_ATTEMPTS, ValidateCore, ValidateState, pending
from regate.daemon.shell.core import Batch, StepInput, Tick
from regate.daemon.validate.observation import KIND, Observation
from regate.daemon.wire.cloudevents import decode_event, encode_event
from regate.daemon.wire.internal import Control
from regate.scenarios.contracts import RunRequest, RunResult, TargetSpec
from regate.scenarios.runner import failed_result

TARGET = TargetSpec(uri="m.onnx", digest="sha256:" + "a" * 64)
CORE = ValidateCore()


def request(name: str, scope: str = "default/loan/production", **changes: Any) -> RunRequest:
    tenant, model, deployment = scope.split("/")
    whom = {"scope": scope, "tenant": tenant, "model": model, "deployment": deployment}
    return models.request(TARGET, id=name, deadline_ms=100_000, **{**whom, **changes})


def record(topic: str, value: bytes, key: bytes = b"k") -> tuple[str, Record]:
    return topic, Record(topic, 3, 0, 1_000, key, value)


def asked(what: RunRequest) -> tuple[str, Record]:
    return record("validations", encode_event("run-request", what.id, what.scope, 1, what)[0])


def seen(kind: str, what: RunRequest, attempt: int, worker: str = "w1", **more: Any) -> tuple[str, Record]:
    data = Observation.model_validate(
        {"kind": kind, "request_id": what.id, "scope": what.scope, "attempt": attempt, "worker": worker, "at_ms": 5}
        | more
    )
    return record("observations", encode_event(KIND, "x", what.scope, 5, data)[0])


def result_of(what: RunRequest, attempt: int = 1) -> RunResult:
    made = failed_result(what, attempt=attempt, reason="test", message="", now_ms=7)
    return made.model_copy(update={"outcome": "pass", "digest": f"sha256:{attempt}"})


def step(state: ValidateState, *records: tuple[str, Record], tick: int | None = None) -> list[OutRecord]:
    batches = tuple(Batch(topic, 3, i, i + 1, (entry,)) for i, (topic, entry) in enumerate(records))
    out = CORE.step(state, StepInput(batches, (), None if tick is None else Tick(tick)))
    return [entry for entry in out if isinstance(entry, OutRecord)]


def results(out: list[OutRecord]) -> list[RunResult]:
    return [decode_event(entry.value, "run-result", RunResult) for entry in out if entry.topic == "runs"]


def due(state: ValidateState) -> list[tuple[str, int, str]]:
    return [(entry.request.id, entry.attempt, entry.worker) for entry in pending(state)]


def test_a_request_is_pending_until_its_result_which_is_published_once() -> None:
    state, one = CORE.initial("3"), request("a")
    assert step(state, asked(one)) == []
    assert due(state) == [("a", 1, "")]
    step(state, seen("started", one, 1))
    assert due(state) == [("a", 1, "w1")]
    out = step(state, seen("result", one, 1, result=result_of(one)), seen("result", one, 1, result=result_of(one)))
    assert [found.request_id for found in results(out)] == ["a"]
    assert (out[0].partition, out[0].key) == (3, b"default/loan")
    assert due(state) == []
    assert state.ignored == {"late_observation": 1}


def test_a_request_that_comes_twice_runs_once_also_after_its_result() -> None:
    state, one = CORE.initial("3"), request("a")
    step(state, asked(one), asked(one))
    assert len(due(state)) == 1
    step(state, seen("result", one, 1, result=result_of(one)))
    assert step(state, asked(one)) == []
    assert due(state) == []
    assert state.ignored["duplicate"] == 2


def test_one_run_a_scope_and_the_most_urgent_first() -> None:
    state = CORE.initial("3")
    first, urgent, other = request("a"), request("b", priority=9.0), request("c", "default/loan/canary", priority=1.0)
    step(state, asked(first), asked(request("d")), asked(urgent), asked(other))
    assert due(state) == [("c", 1, ""), ("a", 1, "")]
    step(state, seen("result", first, 1, result=result_of(first)))
    assert due(state) == [("b", 1, ""), ("c", 1, "")]


def test_an_attempt_that_failed_is_tried_again_at_most_three_times() -> None:
    state, one = CORE.initial("3"), request("a")
    step(state, asked(one))
    for attempt in range(1, MAX_ATTEMPTS):
        step(state, seen("started", one, attempt))
        assert step(state, seen("failed", one, attempt, reason="worker_gone")) == []
        assert due(state) == [("a", attempt + 1, "")]
    (last,) = results(step(state, seen("failed", one, MAX_ATTEMPTS, reason="worker_gone")))
    assert (last.outcome, last.attempt, last.checks[0].id) == ("error", MAX_ATTEMPTS, "run/attempts")
    assert due(state) == []


def test_a_failure_of_an_earlier_attempt_changes_nothing() -> None:
    state, one = CORE.initial("3"), request("a")
    step(state, asked(one), seen("failed", one, 1), seen("failed", one, 1))
    assert due(state) == [("a", 2, "")]


def test_a_late_result_of_an_earlier_attempt_is_the_one_result() -> None:
    state, one = CORE.initial("3"), request("a")
    step(state, asked(one), seen("failed", one, 1))
    out = step(
        state, seen("result", one, 1, result=result_of(one, 1)), seen("result", one, 2, result=result_of(one, 2))
    )
    assert [found.attempt for found in results(out)] == [1]


def test_both_attempts_have_one_run_id() -> None:
    one = request("a")
    assert result_of(one, 1).run_id == result_of(one, 2).run_id


def test_an_expired_request_is_an_error_whether_queued_or_running() -> None:
    state = CORE.initial("3")
    step(state, asked(request("a")), asked(request("b")))
    assert step(state, tick=100_000) == []
    found = results(step(state, tick=100_001))
    assert sorted((r.request_id, r.outcome, r.checks[0].id) for r in found) == [
        ("a", "error", "run/expired"),
        ("b", "error", "run/expired"),
    ]
    assert results(step(state, asked(request("c")))) != []  # it arrives when its time is over


def test_a_result_of_another_target_is_refused() -> None:
    state, one = CORE.initial("3"), request("a")
    step(state, asked(one))
    other = result_of(one).model_copy(update={"target_digest": "sha256:other"})
    out = step(state, seen("result", one, 1, result=other))
    assert [(entry.topic, dict(entry.headers)["regate-reason"]) for entry in out] == [("dead-letters", b"other_digest")]
    assert due(state) == [("a", 1, "")]


@pytest.mark.parametrize("topic", ["validations", "observations"])
def test_garbage_is_a_dead_letter_with_its_bytes(topic: str) -> None:
    state = CORE.initial("3")
    (letter,) = step(state, record(topic, b"{"))
    assert (letter.topic, letter.value, dict(letter.headers)["regate-topic"]) == (
        "dead-letters",
        b"{",
        topic.encode(),
    )


def test_the_configuration_in_effect_goes_with_the_attempt() -> None:
    state, document = CORE.initial("3"), canonical_json(models.config().model_dump(mode="json"))
    control = Control(kind="model", name="default/loan", digest=digest_bytes(document), document=document.decode())
    _, entry = record("control", encode_event("control", "x", "k", 1, control)[0], b"model/default/loan")
    CORE.step(state, StepInput(control=(entry,)))
    step(state, asked(request("a")))
    assert pending(state)[0].config == models.config()
    _, gone = record("control", b"", b"model/default/loan")
    CORE.step(state, StepInput(control=(Record("control", 0, 1, 1, gone.key, None),)))
    assert pending(state)[0].config is None


def test_finished_requests_are_forgotten_a_day_after_their_deadline() -> None:
    state, one = CORE.initial("3"), request("a")
    step(state, asked(one), seen("result", one, 1, result=result_of(one)))
    step(state, tick=50_000)
    assert list(state.finished) == ["a"]
    step(state, tick=100_000 + 86_400_001)
    assert state.finished == {}


def test_a_damaged_chunk_is_refused_by_name_and_a_newer_one_stops() -> None:
    state = CORE.initial("3")
    step(state, asked(request("a")), asked(request("b", "default/loan/canary")))
    chunks = CORE.dump(state)
    name = next(name for name in chunks if name.startswith("request/"))
    back = CORE.load("3", chunks | {name: b"{"})
    assert back.refused_chunks == (name,)
    assert len(back.entries) == 1
    with pytest.raises(FatalError, match="schema 99"):
        CORE.load("3", chunks | {"shared": b'{"schema":99,"data":{}}'})


# --- any sequence of inputs ------------------------------------------------------------------------------------------

SCOPES = ("default/loan/production", "default/loan/canary")
REQUESTS = [request(f"r{i}", SCOPES[i % 2], priority=float(i % 3)) for i in range(6)]
EVENTS = st.one_of(
    st.sampled_from(REQUESTS).map(asked),
    st.tuples(st.sampled_from(["started", "failed"]), st.sampled_from(REQUESTS), st.integers(1, 4)).map(
        lambda given: seen(*given)
    ),
    st.tuples(st.sampled_from(REQUESTS), st.integers(1, 3)).map(
        lambda given: seen("result", given[0], given[1], result=result_of(*given))
    ),
    st.sampled_from([1_000, 50_000, 100_001]),
)


def apply(state: ValidateState, events: list[Any]) -> list[OutRecord]:
    out: list[OutRecord] = []
    for event in events:
        out += step(state, tick=event) if isinstance(event, int) else step(state, event)
    return out


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=40), st.data())
def test_for_any_inputs_results_come_once_and_a_snapshot_changes_nothing(
    events: list[Any], data: st.DataObject
) -> None:
    whole = CORE.initial("3")
    out = apply(whole, events)
    found = [result.request_id for result in results(out)]
    assert len(found) == len(set(found))
    scopes = [entry.request.scope for entry in pending(whole)]
    assert len(scopes) == len(set(scopes))
    assert all(1 <= entry.attempt <= MAX_ATTEMPTS for entry in pending(whole))
    assert not set(found) & set(whole.entries)
    cut = data.draw(st.integers(0, len(events)))
    half = CORE.initial("3")
    before = apply(half, events[:cut])
    again = CORE.load("3", CORE.dump(half))
    assert before + apply(again, events[cut:]) == out
    assert CORE.dump(again) == CORE.dump(whole)
