"""Whatever comes, in whatever order: what a gate never does. And however the stream is cut: the same bytes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gate_world import (
    BUILD,
    SCOPE,
    World,
    check,
    codes,
    finding,
    model_config,
    result_for,
    revision_of,
    target,
)

from regate.config.policy import Clear, Lease, Policy, Queue, RollBack, rank
from regate.daemon.bus.port import OutRecord, Record
from regate.daemon.gate import capsule
from regate.daemon.gate.events import GateDecision, GateState
from regate.daemon.gate.state import Scope, Shard
from regate.daemon.roles.gate import GateCore
from regate.daemon.shell.core import Artefact, Batch, Output, StepInput, Tick
from regate.daemon.wire.cloudevents import encode_event

MAX_AGE = 2000.0
POLICY = Policy(
    lease=Lease(seconds=600, max_approval_age_seconds=MAX_AGE),
    clear=Clear(passes=2, dwell_seconds=60),
    queue=Queue(cool_down_seconds=10, deadline_seconds=120),
    roll_back=RollBack(
        budget=2,
        cool_down_seconds=100,
        window_seconds=5000,
        baseline_lease_seconds=2000,
        ack_seconds=150,
        seen_seconds=100,
        helped_seconds=400,
    ),
)
KINDS = ("change", "harm", "attack", "silence")
VERSIONS = ("0", "1", "2")
OUTCOMES = ("pass", "pass", "pass", "warn", "fail", "inconclusive", "error", "skipped")

OPS = st.one_of(
    st.tuples(st.just("time"), st.sampled_from((1.0, 20.0, 70.0, 200.0, 700.0, 3000.0)), st.booleans()),
    st.tuples(st.just("answer"), st.sampled_from(OUTCOMES), st.booleans()),
    st.tuples(st.just("answer"), st.just("pass"), st.just(False)),
    st.tuples(st.just("ghost"), st.sampled_from(("old", "digest", "none")), st.sampled_from(OUTCOMES)),
    st.tuples(
        st.just("finding"),
        st.sampled_from(KINDS),
        st.integers(0, 3),
        st.sampled_from((0.1, 0.5, 0.9)),
        st.sampled_from(VERSIONS),
        st.booleans(),
    ),
    st.tuples(
        st.just("revise"),
        st.sampled_from(KINDS),
        st.integers(0, 3),
        st.sampled_from(("confirmed", "withdrawn", "recovered", "not_valid", "valid")),
    ),
    st.tuples(st.just("deploy"), st.sampled_from(VERSIONS), st.integers(0, 2)),
    st.tuples(st.just("requalify"), st.sampled_from((*VERSIONS, "")), st.integers(0, 2)),
    st.tuples(st.just("override"), st.sampled_from(("approve", "hold", "fail_safe")), st.integers(0, 2)),
    st.tuples(st.just("clock"), st.sampled_from(("revalidate", "renew", "heartbeat"))),
    st.tuples(st.just("ack"), st.sampled_from(("received", "applied", "failed"))),
    st.tuples(st.just("carry"), st.lists(st.sampled_from(VERSIONS), max_size=2, unique=True)),
    st.tuples(st.just("configure"), st.sampled_from(VERSIONS), st.sampled_from((None, "0"))),
    st.tuples(st.just("unconfigure")),
)


@dataclass
class Ledger:
    """The test's own account, kept beside the gate."""

    passed: dict[str, float] = field(default_factory=dict)  # digest -> when the last accepted run passed
    allowed: int = -1  # signers of the last deploy or requalify since the latch; -1: none
    seen: int = 0


class Play:
    """Plays operations against a world, records every input, and checks every decision."""

    def __init__(self) -> None:
        self.given: list[tuple[str, Any]] = []
        self.ledger = Ledger()
        self.world = World()
        self._feed = self.world.feed
        self.world.feed = self._recorded  # type: ignore[method-assign]
        self.world.feed("tick", _tick(self.world))
        self.world.configure(model_config())
        from tests.gate_world import control_of

        self.world.feed("control", control_of(POLICY))

    def _recorded(self, kind: str, data: Any) -> Any:
        self.given.append((kind, data))
        out = self._feed(kind, data)
        self._check()
        return out

    @property
    def scope(self) -> Scope | None:
        return self.world.shard.scopes.get(SCOPE)

    def run(self, op: tuple[Any, ...]) -> None:
        getattr(self, f"_{op[0]}")(*op[1:])

    def _time(self, seconds: float, watching: bool) -> None:
        self.world.watching = watching
        self.world.after(seconds, step=max(seconds / 4, 5.0))

    def _answer(self, outcome: str, critical: bool) -> None:
        running = self.scope.running if self.scope else None
        if running is None:
            return
        if outcome in {"pass", "warn"}:
            self.ledger.passed[running.request.target.digest] = self.world.seconds
        checks = (check(outcome, critical=critical), check("pass", name="scn-x-0002/b"))
        if outcome == "skipped":
            checks = (check("skipped"),)
        self.world.feed("run-result", result_for(running.request, outcome, checks))

    def _ghost(self, kind: str, outcome: str) -> None:
        if not self.world.requests:
            return
        result = result_for(self.world.requests[0], outcome)
        running = self.scope.running if self.scope else None
        if kind == "digest" and running is not None:
            result = result_for(running.request, outcome).model_copy(update={"target_digest": "sha256:" + "f" * 64})
        elif running is not None and running.request.id == result.request_id:
            return
        self.world.feed("run-result", result)

    def _finding(self, kind: str, number: int, severity: float, version: str, historical: bool) -> None:
        self.world.feed(
            "finding", finding(kind, number, severity=severity, model_version=version, historical=historical)
        )

    def _revise(self, kind: str, number: int, revision: str) -> None:
        self.world.feed("finding", revision_of(finding(kind, number), revision))

    def _deploy(self, version: str, signers: int) -> None:
        self._command("deploy", signers, target=target(version), model_version=version)

    def _requalify(self, version: str, signers: int) -> None:
        named = target(version) if version else None
        self._command("requalify", signers, target=named, model_version=version, actor="ann", reason="r")

    def _command(self, kind: str, signers: int, **fields: Any) -> None:
        self.ledger.allowed = max(self.ledger.allowed, signers)
        self.world.command(kind, approvals=("ann", "bob")[:signers], **fields)

    def _override(self, verdict: str, signers: int) -> None:
        self.world.command(
            "override",
            verdict=verdict,
            actor="ann",
            reason="r",
            ticket="T",
            expires_ms=self.world.now_ms + 500_000,
            approvals=("ann", "bob")[:signers],
        )

    def _clock(self, job: str) -> None:
        self.world.clock(job)

    def _ack(self, state: str) -> None:
        if self.world.decisions:
            self.world.ack(self.world.last, state)

    def _carry(self, versions: list[str]) -> None:
        self.world.carrying = tuple(versions)

    def _configure(self, version: str, baseline: str | None) -> None:
        self.world.configure(model_config(version, baseline))

    def _unconfigure(self) -> None:
        self.world.unconfigure()

    def _check(self) -> None:
        decisions = self.world.decisions
        for at in range(self.ledger.seen, len(decisions)):
            self._check_one(decisions[at], decisions[at - 1] if at else None)
        self.ledger.seen = len(decisions)

    def _check_one(self, decision: GateDecision, before: GateDecision | None) -> None:
        assert decision.seq == (before.seq + 1 if before else 1)
        if before is not None:
            assert decision.previous_verdict == before.verdict
        if decision.verdict == "approve":
            at = self.ledger.passed.get(decision.scope.model_digest)
            assert at is not None, "approved without a passed run on that digest"
            assert self.world.seconds - at < MAX_AGE, "approved on a run that is too old"
            assert decision.valid_until
        else:
            assert decision.valid_until == ""
        if decision.effective_verdict == "approve" and decision.verdict != "approve":
            assert decision.override is not None
        if before is not None and rank(decision.verdict) < rank(before.verdict):
            assert decision.transition == "clear"
            if rank(before.verdict) >= rank("roll_back"):
                assert decision.verdict == "hold"
                assert codes(decision) == {"requalified"}
                assert self.ledger.allowed >= (2 if before.verdict == "fail_safe" else 0)
        if before is not None and rank(decision.verdict) > max(rank(before.verdict), 2):
            self.ledger.allowed = -1
        scope = self.scope
        assert scope is not None
        if scope.verdict == "approve":
            assert scope.subject is not None
            assert scope.subject.digest in self.ledger.passed, "another version slipped under an approval"
        if decision.action.kind == "roll_back":
            assert decision.action.target_baseline is not None
            at = self.ledger.passed.get(decision.action.target_baseline.digest)
            assert at is not None, "rolled back to a baseline without a passed run"


def _tick(world: World) -> Any:
    from regate.daemon.gate.turn import TickSeen

    return TickSeen(now_ms=world.now_ms)


def play(ops: list[tuple[Any, ...]]) -> Play:
    done = Play()
    for op in ops:
        done.run(op)
    return done


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OPS, max_size=40))
def test_no_sequence_of_inputs_breaks_a_promise(ops: list[tuple[Any, ...]]) -> None:
    play(ops)


TOPICS = {
    "heartbeat": "heartbeats",
    "ack": "acks",
    "finding": "findings",
    "command": "commands",
    "run-result": "runs",
    "clock": "clock",
    "control": "control",
    "control-removed": "control",
}


def records(inputs: list[tuple[str, Any]]) -> list[tuple[str, Record | int]]:
    """Return the inputs as records of their topics, ticks as their time."""
    out: list[tuple[str, Record | int]] = []
    for offset, (kind, data) in enumerate(inputs):
        if kind == "tick":
            out.append(("tick", data.now_ms))
            continue
        value, headers = encode_event(kind, f"id-{offset}", "s", 0, data)
        key = data.key.encode() if kind == "control-removed" else b"k"
        body = None if kind == "control-removed" else value
        out.append((TOPICS[kind], Record(TOPICS[kind], 0, offset, 1, key, body, headers)))
    return out


def steps(stream: list[tuple[str, Record | int]], rng: random.Random, longest: int) -> list[StepInput]:
    """Cut a stream into steps that keep its order: time first, then control, then the rest."""
    done: list[StepInput] = []
    at = 0
    while at < len(stream):
        tick, control, batches = None, [], []
        size = rng.randint(1, longest)
        for _ in range(size):
            if at == len(stream):
                break
            topic, item = stream[at]
            if isinstance(item, int):
                if tick or control or batches:
                    break
                tick = Tick(item)
            elif topic == "control":
                if batches:
                    break
                control.append(item)
            else:
                batches.append(Batch(topic, 0, item.offset, item.offset + 1, [item]))
            at += 1
        done.append(StepInput(tuple(batches), tuple(control), tick))
    return done


def run_core(cut: list[StepInput], rng: random.Random | None = None) -> tuple[list[Output], dict[str, bytes], Shard]:
    """Step a role core; with ``rng``, lose the process between steps and come back from a dump."""
    core = GateCore(1, BUILD)
    state, out = core.initial("0"), []
    for given_ in cut:
        out.extend(core.step(state, given_))
        if rng is not None and rng.random() < 0.3:
            chunks = core.dump(state)
            state = core.load("0", chunks)
            assert core.dump(state) == chunks
    return out, core.dump(state), state


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OPS, max_size=30), st.integers(0, 2**32))
def test_cutting_the_stream_and_restarting_change_no_byte(ops: list[tuple[Any, ...]], seed: int) -> None:
    rng = random.Random(seed)
    stream = records(play(ops).given)
    one, whole, _ = run_core(steps(stream, rng, 1))
    for longest, restarts in ((3, None), (50, rng)):
        out, after, state = run_core(steps(stream, rng, longest), restarts)
        assert out == one
        assert after == whole
        assert state.refused_chunks == ()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OPS, max_size=30))
def test_every_capsule_computes_its_decision_again(ops: list[tuple[Any, ...]]) -> None:
    out, _, _ = run_core(steps(records(play(ops).given), random.Random(0), 5))
    capsules = [item for item in out if isinstance(item, Artefact)]
    gates = [item for item in out if isinstance(item, OutRecord) and item.topic == "gates"]
    assert len(capsules) == len(gates) > 0
    for item in capsules:
        again = capsule.replay(item.data)
        assert again.model_dump_json() == capsule.published(item.data).model_dump_json()
        assert item.name == f"capsule-{again.id}"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(OPS, max_size=30))
def test_the_last_published_state_is_the_state(ops: list[tuple[Any, ...]]) -> None:
    done = play(ops)
    states = [item for item in done.world.said if isinstance(item, GateState)]
    scope = done.scope
    assert scope is not None
    assert states[-1].seq == scope.seq
    assert states[-1].verdict == scope.verdict
    assert bool(states[-1].pending.running) == (scope.running is not None)
