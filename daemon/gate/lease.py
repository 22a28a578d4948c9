"""Leases: how long an approval lasts, and the proof that gives or renews it."""

from __future__ import annotations

import hashlib

from regate.config.policy import Policy, rank
from regate.daemon.gate.events import Proof, Reason, SourceProof
from regate.daemon.gate.state import Held, Incident, Scope, Shard
from regate.daemon.wire.cloudevents import rfc3339
from regate.daemon.wire.internal import Heartbeat

# Watch is blind when two heartbeats in a row are missing: one may be late, two mean that nobody looks.
HEARTBEATS_MISSED = 2


def has_traffic(shard: Shard, scope: Scope) -> bool:
    """Whether watch saw the model on any telemetry partition lately."""
    return any(scope.placement in beat.models for beat in _telemetry(shard))


def _telemetry(shard: Shard) -> list[Heartbeat]:
    return [beat for source, beat in sorted(shard.sources.items()) if source.startswith("telemetry-")]


def watch_proof(shard: Shard, scope: Scope, policy: Policy) -> tuple[Proof, list[Reason]]:
    """Return what the heartbeats prove, and what they fail to prove.

    Needed are the partitions that carry the model; for a model without traffic all known ones, since
    only together do they prove that there is none.
    """
    carrying = [beat for beat in _telemetry(shard) if scope.placement in beat.models]
    needed = carrying or _telemetry(shard)
    problems = [] if needed else [Reason(code="no_heartbeat", message="no telemetry partition has reported")]
    sources = []
    limit = HEARTBEATS_MISSED * policy.lease.heartbeat_seconds * 1000
    for beat in needed:
        age = max(0, shard.now_ms - beat.now_ms)
        sources.append(
            SourceProof(source=beat.source, age_ms=age, lag_ms=beat.lag_ms, position=beat.position, end=beat.end)
        )
        if age >= limit:
            problems.append(
                Reason(code="stale_heartbeat", check_id=beat.source, observed=str(age), threshold=str(round(limit)))
            )
        if beat.lag_ms > policy.lease.max_lag_seconds * 1000:
            problems.append(
                Reason(
                    code="lag",
                    check_id=beat.source,
                    observed=str(beat.lag_ms),
                    threshold=str(round(policy.lease.max_lag_seconds * 1000)),
                )
            )
    passed = scope.passed.get(scope.subject.digest) if scope.subject else None
    proof = Proof(
        checked_at=rfc3339(shard.now_ms),
        sources=tuple(sources),
        open_incidents=tuple(sorted(scope.incidents)),
        run_id=passed.run_id if passed else "",
        run_age_seconds=f"{max(0, shard.now_ms - passed.at_ms) / 1000:.3f}" if passed else "",
        watch="live" if carrying else "no_traffic",
    )
    return proof, problems


def concerns(scope: Scope, incident: Incident) -> bool:
    """Whether an incident speaks about the version under decision.

    What is known about the version in service says nothing about the candidate that replaces it;
    an unknown version counts, since telemetry may not say the version at all.
    """
    if scope.candidate is None or scope.serving is None or incident.version == scope.candidate.version:
        return True
    return incident.version != scope.serving.version


def approval_problems(shard: Shard, scope: Scope, policy: Policy) -> list[Reason]:
    """Return why the scope may not be approved, watch left out: policy, target, last run, incidents."""
    problems = []
    if shard.policy_of(scope) is None:
        problems.append(Reason(code="policy_missing", message="the policy that the model names is not on the bus"))
    if scope.placement not in shard.models:
        problems.append(Reason(code="configuration_missing"))
    if scope.subject is None:
        return [*problems, Reason(code="no_target", message="the model has no artefact to validate")]
    passed = scope.passed.get(scope.subject.digest)
    if passed is None:
        problems.append(Reason(code="no_passed_run"))
    elif shard.now_ms - passed.at_ms >= policy.lease.max_approval_age_seconds * 1000:
        problems.append(Reason(code="approval_too_old", check_id=passed.run_id))
    for incident in sorted(scope.incidents.values(), key=lambda item: item.id):
        if not concerns(scope, incident):
            continue
        if rank(incident.verdict) > 0 or incident.severity > policy.lease.max_open_severity:
            problems.append(Reason(code="open_incident", check_id=incident.id, observed=f"{incident.severity:.6g}"))
        elif passed is not None and passed.ordinal <= incident.ordinal:
            problems.append(Reason(code="incident_not_validated", check_id=incident.id))
    return problems


def jitter(scope: str, seq: int, ratio: float) -> float:
    """Return a factor in [1 - ratio, 1 + ratio), the same for the same scope and sequence number.

    >>> jitter("t/m/d", 1, 0.1) == jitter("t/m/d", 1, 0.1)
    True
    """
    share = int.from_bytes(hashlib.sha256(f"{scope}|{seq}".encode()).digest()[:6], "big") / 2**48
    return 1 + ratio * (2 * share - 1)


def grant(shard: Shard, scope: Scope, policy: Policy, seq: int) -> Held:
    """Return a lease from now on; it never outlives the run that it rests on."""
    now = shard.now_ms
    until = now + round(policy.lease.seconds * 1000)
    passed = scope.passed.get(scope.subject.digest) if scope.subject else None
    if passed is not None:
        until = min(until, passed.at_ms + round(policy.lease.max_approval_age_seconds * 1000))
    wait = policy.lease.seconds * policy.lease.renew_ratio * jitter(scope.name, seq, policy.lease.jitter_ratio)
    return Held(valid_until_ms=until, renew_at_ms=min(now + round(wait * 1000), until))


def baseline_until_ms(scope: Scope, policy: Policy) -> int:
    """Return until when the baseline's own passed run counts; 0 without one."""
    if scope.baseline is None or (scope.serving is not None and scope.baseline.digest == scope.serving.digest):
        return 0
    passed = scope.passed.get(scope.baseline.digest)
    return passed.at_ms + round(policy.roll_back.baseline_lease_seconds * 1000) if passed else 0
