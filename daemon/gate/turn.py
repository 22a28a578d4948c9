"""One input meeting one scope: the working copy, and how a decision is written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from regate.config.canonical import content_id
from regate.config.model import ModelConfig
from regate.config.policy import Policy, Verdict, rank, worst
from regate.daemon.gate.events import (
    Action,
    BaselineRef,
    Build,
    Evidence,
    GateDecision,
    Human,
    Ignored,
    Inputs,
    Playbook,
    PolicyRef,
    Proof,
    Reason,
    ScopeRef,
    SuiteSummary,
    Transition,
    Trigger,
)
from regate.daemon.gate.state import DEFAULT_POLICY, Remedy, Scope, Shard, Subject
from regate.daemon.wire.cloudevents import rfc3339

Kind = Literal[
    "tick", "finding", "run-result", "command", "ack", "heartbeat", "clock", "control", "control-removed", "gap"
]


class TickSeen(BaseModel):
    """A tick, as an input of the core."""

    now_ms: int


class GapSeen(BaseModel):
    """A stretch of this shard's own inputs that nobody can read any more, in a sentence."""

    text: str


class Removed(BaseModel):
    """A control record that was taken back; ``key`` is ``<kind>/<name>``."""

    key: str


@dataclass(frozen=True, slots=True)
class Given:
    """One typed input. ``ref`` says where it stands: ``findings-3@1234``, or the tick's time."""

    kind: Kind
    ref: str
    data: BaseModel


@dataclass(slots=True)
class Turn:
    """The working copy of one scope during one input."""

    shard: Shard
    scope: Scope
    given: Given
    build: Build
    decisions: list[GateDecision] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)

    @property
    def now_ms(self) -> int:
        """Return the bus time of this input."""
        return self.shard.now_ms

    @property
    def policy(self) -> Policy:
        """Return the policy in effect (the shipped one while the named one is missing; `blockers` then blocks)."""
        return (self.shard.policy_of(self.scope) or DEFAULT_POLICY).policy

    @property
    def config(self) -> ModelConfig | None:
        """Return the model's configuration, if it has one."""
        document = self.shard.models.get(self.scope.placement)
        return document.config if document else None

    def set(self, **changes: Any) -> None:
        """Replace fields of the scope."""
        self.scope = self.scope.model_copy(update=changes)

    def ignore(self, reason: str, id_: str = "", message: str = "") -> None:
        """Leave the input aside, counted and kept."""
        self.ignored.append(
            Ignored(
                reason=reason,
                kind=self.given.kind,
                id=id_,
                scope=self.scope.name,
                ref=self.given.ref,
                message=message,
            )
        )

    def trigger(self, kind: Any, id_: str) -> Trigger:
        """Return a trigger that was detected now."""
        return Trigger(kind=kind, id=id_, detected_at=rfc3339(self.now_ms))


def effective(shard: Shard, scope: Scope) -> Verdict | Literal["none"]:
    """Return what is to be acted on: nothing in shadow mode; the override while it covers the verdict.

    An override covers what its signers saw: a verdict that rises above it counts again.
    """
    if shard.mode_of(scope) == "shadow":
        return "none"
    if scope.override is None:
        return scope.verdict
    if rank(scope.verdict) <= rank(scope.override.covers):
        return scope.override.ref.verdict
    return worst(scope.verdict, scope.override.ref.verdict)


def scope_ref(scope: Scope, subject: Subject | None) -> ScopeRef:
    """Return the scope as it stands on events."""
    return ScopeRef(
        tenant=scope.tenant,
        model=scope.model,
        deployment=scope.deployment,
        model_version=subject.version if subject else "",
        model_digest=subject.digest if subject else "",
    )


def policy_ref(shard: Shard, scope: Scope) -> PolicyRef:
    """Return the policy in effect as it stands on events."""
    document = shard.policy_of(scope) or DEFAULT_POLICY
    return PolicyRef(
        id=document.policy.name, version=document.policy.version, digest=document.digest, rule_ids=scope.rule_ids
    )


def baseline_ref(scope: Scope) -> BaselineRef | None:
    """Return the baseline as it stands on events."""
    if scope.baseline is None:
        return None
    return BaselineRef(name=scope.baseline_name, version=scope.baseline.version, digest=scope.baseline.digest)


def _playbook(turn: Turn) -> Playbook | None:
    named = [rule.playbook for rule in turn.policy.rules if rule.id in turn.scope.rule_ids and rule.playbook]
    return Playbook(id=named[0]) if named else None


def _human(turn: Turn) -> Human:
    if not turn.scope.latched:
        return Human()
    quorum = turn.policy.overrides.fail_safe_signers if turn.scope.verdict == "fail_safe" else 1
    signers = turn.scope.requalify.signers if turn.scope.requalify else ()
    return Human(required=True, quorum=quorum, approvals=signers)


def _remedy(turn: Turn, decision_id: str, action: Action) -> Remedy:
    scope = turn.scope
    return Remedy(
        decision_id=decision_id,
        version=action.target_baseline.version if action.target_baseline else "",
        before=scope.serving.version if scope.serving else "",
        incidents=tuple(sorted(scope.incidents)),
        requested_ms=turn.now_ms,
    )


def write_decision(
    turn: Turn,
    transition: Transition,
    *,
    previous: Verdict,
    reasons: Sequence[Reason],
    trigger: Trigger,
    subject: Subject | None,
    action: Action | None = None,
    suite: SuiteSummary | None = None,
    proof: Proof | None = None,
    rule_ids: tuple[str, ...] = (),
    stream_digest: str = "",
) -> GateDecision:
    """Append a decision about the scope as it stands now, with the next number of its sequence."""
    scope = turn.scope
    # A scope whose snapshot was lost goes on from the clock: far above any number that it can have used.
    seq = max(scope.seq + 1, turn.now_ms) if scope.damaged else scope.seq + 1
    decision_id = content_id("decision", scope.name, seq, trigger.id)
    action = action or Action()
    if action.kind != "none":
        action = action.model_copy(update={"idempotency_key": content_id("action", scope.name, seq, action.kind)})
    first = scope.seq == 0 and not scope.damaged
    turn.set(
        seq=seq,
        damaged=False,
        decision_id=decision_id,
        transition=transition,
        trigger=trigger,
        reasons=tuple(reasons),
        action=action,
        rule_ids=rule_ids,
    )
    if action.kind == "roll_back" and turn.shard.mode_of(scope) == "shadow":
        turn.set(roll_back_decision=decision_id)  # nobody acts on it, so nobody answers
    elif action.kind == "roll_back":
        turn.set(roll_back_decision=decision_id, remedy=_remedy(turn, decision_id, action))
    elif turn.scope.remedy is not None and turn.scope.remedy.open and not turn.scope.latched:
        turn.set(remedy=turn.scope.remedy.model_copy(update={"stage": "lifted"}))
    after = turn.scope
    decision = GateDecision(
        id=decision_id,
        scope=scope_ref(after, subject),
        seq=seq,
        mode=turn.shard.mode_of(after),
        verdict=after.verdict,
        previous_verdict="none" if first else previous,
        effective_verdict=effective(turn.shard, after),
        transition=transition,
        decided_at=rfc3339(turn.now_ms),
        valid_until=rfc3339(after.lease.valid_until_ms) if after.lease else "",
        action=action,
        reasons=tuple(reasons),
        trigger=trigger,
        suite=suite,
        policy=policy_ref(turn.shard, after),
        playbook=_playbook(turn),
        override=after.override.ref if after.override else None,
        human=_human(turn),
        inputs=Inputs(
            ranges=(turn.given.ref,),
            profile_digest=str(getattr(turn.given.data, "profile_digest", "")),
            journal_ref=f"journal.gate/{turn.shard.number}",
        ),
        proof=proof,
        evidence=Evidence(
            capsule=f"capsule-{decision_id}",
            run_digest=suite.run_digest if suite else "",
            stream_digest=stream_digest,
        ),
        build=turn.build,
    )
    turn.decisions.append(decision)
    return decision
