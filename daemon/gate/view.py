"""The effective state of a scope as it is published: read the compacted topic to its end and you know all."""

from __future__ import annotations

from regate.config.policy import rank
from regate.daemon.gate.events import GateState, IncidentRef, Pending, RemedyState, Trigger, VersionState
from regate.daemon.gate.lease import baseline_until_ms
from regate.daemon.gate.state import DEFAULT_POLICY, Incident, Remedy, Scope, Shard, Subject
from regate.daemon.gate.turn import effective, policy_ref, scope_ref
from regate.daemon.wire.cloudevents import rfc3339

# A person reads the worst few; a storm of findings must not make each published state long.
SHOWN = 20


def _worst_first(item: Incident) -> tuple[int, float, str]:
    return -rank(item.verdict), -item.severity, item.id


def _version(scope: Scope, subject: Subject | None, seconds: float) -> VersionState | None:
    if subject is None:
        return None
    passed = scope.passed.get(subject.digest)
    until = rfc3339(passed.at_ms + round(seconds * 1000)) if passed else ""
    return VersionState(version=subject.version, digest=subject.digest, passed_until=until)


def _pending(scope: Scope) -> Pending:
    waiting = tuple(scope.queued[role].trigger.kind for role in sorted(scope.queued))
    if scope.running is None:
        return Pending(queued=waiting)
    request = scope.running.request
    return Pending(running=request.id, role=request.role, deadline=rfc3339(request.deadline_ms), queued=waiting)


def _remedy(remedy: Remedy | None) -> RemedyState | None:
    if remedy is None:
        return None
    applied = rfc3339(remedy.applied_ms) if remedy.applied_ms else ""
    return RemedyState(
        decision_id=remedy.decision_id,
        stage=remedy.stage,
        version=remedy.version,
        requested_at=rfc3339(remedy.requested_ms),
        applied_at=applied,
    )


def gate_state(shard: Shard, scope: Scope) -> GateState:
    """Return what is published about a scope."""
    policy = (shard.policy_of(scope) or DEFAULT_POLICY).policy
    baseline = _version(scope, scope.baseline, policy.roll_back.baseline_lease_seconds)
    if baseline is not None and not baseline_until_ms(scope, policy):
        baseline = baseline.model_copy(update={"passed_until": ""})
    age = policy.lease.max_approval_age_seconds
    return GateState(
        scope=scope_ref(scope, scope.subject),
        seq=scope.seq,
        mode=shard.mode_of(scope),
        verdict=scope.verdict,
        effective_verdict=effective(shard, scope),
        since=rfc3339(scope.since_ms),
        valid_until=rfc3339(scope.lease.valid_until_ms) if scope.lease else "",
        decision_id=scope.decision_id,
        transition=scope.transition,
        outcome=scope.outcome,
        trigger=scope.trigger or Trigger(kind="startup", id=""),
        reasons=scope.reasons,
        action=scope.action,
        override=scope.override.ref if scope.override else None,
        serving=_version(scope, scope.serving, age),
        candidate=_version(scope, scope.candidate, age),
        baseline=baseline,
        pending=_pending(scope),
        incidents=tuple(
            IncidentRef(id=item.id, kind=item.kind, severity=f"{item.severity:.6g}", model_version=item.version)
            for item in sorted(scope.incidents.values(), key=_worst_first)[:SHOWN]
        ),
        incidents_open=len(scope.incidents),
        blocked_by=scope.blocked_by,
        ack=scope.ack,
        remedy=_remedy(scope.remedy),
        policy=policy_ref(shard, scope),
    )
