"""What sets a gate off: findings, the schedule, acknowledgements, configuration."""

from __future__ import annotations

from regate.config.model import Target
from regate.config.policy import rank
from regate.daemon.gate import machine, queue, remedy
from regate.daemon.gate.events import Reason, Trigger, TriggerKind
from regate.daemon.gate.lease import baseline_until_ms
from regate.daemon.gate.state import INCIDENTS_KEPT, Incident, ModelDocument, Role, Scope, Subject
from regate.daemon.gate.turn import GapSeen, Turn
from regate.daemon.gate.verdict import judge_finding
from regate.daemon.wire.cloudevents import rfc3339
from regate.daemon.wire.internal import Ack, Clock
from regate.detectors.finding import CLOSING, Finding, Kind
from regate.scenarios.contracts import TargetSpec

TRIGGER_OF: dict[Kind, TriggerKind] = {
    "change": "drift",
    "data_quality": "drift",
    "harm": "harm",
    "attack": "attack",
    "recurrence": "recurrence",
    "silence": "silence",
}
# Beyond these a float of the priority or a calendar date of an event would overflow, and a bad input stop the shard.
MAX_TRAFFIC = 10**12
MAX_TIME_MS = 253_402_300_799_999  # the end of the year 9999
ROLES: tuple[Role, ...] = ("candidate", "serving", "baseline")
# What watch says about its own estimate: an estimate raises suspicions, it never clears anything.
NOTES = {"not_valid", "valid"}


def on_finding(turn: Turn, finding: Finding) -> None:
    """Take a finding or a revision. Historical ones never give a gate event."""
    if finding.historical:
        turn.ignore("historical", finding.id)
        return
    scope = turn.scope
    in_service = {item.version for item in (scope.serving, scope.candidate) if item}
    if scope.baseline and finding.model_version == scope.baseline.version and finding.model_version not in in_service:
        turn.ignore("other_version", finding.id, "the finding is about the baseline, which does not serve here")
        return
    if finding.revision in NOTES:
        turn.ignore("note", finding.id, finding.message)
        return
    if finding.revision in CLOSING:
        _close(turn, finding)
        return
    standing = scope.incidents.get(finding.incident)
    if finding.type == "finding" and standing is not None:
        turn.ignore("duplicate_finding", finding.id)
        return
    _open(turn, finding)


def _open(turn: Turn, finding: Finding) -> None:
    severity = round(min(max(finding.severity, 0.0), 1.0), 6)
    judgement = judge_finding(finding, turn.policy, confirmed=finding.revision == "confirmed")
    incident = Incident(
        id=finding.incident,
        kind=finding.kind,
        severity=severity,
        verdict=judgement.verdict,
        version=finding.model_version,
        ordinal=turn.scope.ordinal,
    )
    incidents = {**turn.scope.incidents, incident.id: incident}
    if len(incidents) > INCIDENTS_KEPT:
        least = min(incidents.values(), key=lambda item: (rank(item.verdict), item.severity, item.id))
        del incidents[least.id]
        turn.ignore("incidents_overflow", least.id)
    turn.set(incidents=incidents, traffic=max(turn.scope.traffic, min(finding.events, MAX_TRAFFIC)))
    kind = TRIGGER_OF[finding.kind]
    detected = rfc3339(min(max(finding.detected_us // 1000, 0), MAX_TIME_MS))
    trigger = Trigger(kind=kind, id=finding.id, detected_at=detected)
    candidate = turn.scope.candidate
    about_candidate = candidate is not None and candidate.version == finding.model_version
    if rank(judgement.verdict) > 0:
        machine.raise_to(
            turn,
            judgement.verdict,
            reasons=judgement.reasons,
            trigger=trigger,
            subject=candidate if about_candidate else turn.scope.serving,
            rule_ids=judgement.rule_ids,
        )
    if judgement.revalidate:
        queue.enqueue(turn, "candidate" if about_candidate else "serving", trigger, max(severity, 0.01))


def _close(turn: Turn, finding: Finding) -> None:
    incidents = {name: item for name, item in turn.scope.incidents.items() if name != finding.incident}
    if len(incidents) == len(turn.scope.incidents):
        turn.ignore("unknown_incident", finding.id)
        return
    turn.set(incidents=incidents)
    # What the incident raised is cleared by passes, and somebody has to ask for the first.
    if turn.scope.verdict != "approve" and not turn.scope.latched:
        trigger = turn.trigger(TRIGGER_OF[finding.kind], finding.id)
        queue.enqueue(turn, queue.main_role(turn.scope), trigger, queue.SCHEDULED_SEVERITY)


def on_clock(turn: Turn, clock: Clock) -> None:
    """Take one firing of the schedule."""
    if clock.job == "renew":
        machine.renew(turn)
    if clock.job == "revalidate":
        trigger = turn.trigger("schedule", f"revalidate@{clock.due_ms}")
        role: Role = "serving" if turn.scope.serving else "candidate"
        queue.enqueue(turn, role, trigger, queue.SCHEDULED_SEVERITY)
        if queue.baseline_apart(turn.scope):
            queue.enqueue(turn, "baseline", trigger, queue.SCHEDULED_SEVERITY)


def on_ack(turn: Turn, ack: Ack) -> None:
    """Take a deployment system's answer: an applied roll-back changes what serves, a failed one escalates."""
    scope = turn.scope
    if ack.decision_id not in {scope.decision_id, scope.roll_back_decision}:
        turn.ignore("older_decision", ack.decision_id)
        return
    turn.set(ack=f"{ack.decision_id} {ack.state}")
    if ack.decision_id != scope.roll_back_decision:
        return
    if ack.state == "failed":
        machine.raise_to(
            turn,
            "fail_safe",
            reasons=(Reason(code="roll_back_failed", check_id=ack.decision_id, message=ack.message[:500]),),
            trigger=turn.trigger("manual", ack.decision_id),
            subject=scope.serving,
        )
        failed = scope.remedy and scope.remedy.model_copy(update={"stage": "failed"})
        turn.set(roll_back_decision="", remedy=failed)
    elif ack.state == "applied" and scope.baseline is not None:
        remedy.applied(turn)
        _applied(turn)


def _applied(turn: Turn) -> None:
    queue.drop(turn, "serving", "older_trigger")
    turn.set(serving=turn.scope.baseline, roll_back_decision="")
    if turn.scope.verdict != "approve":
        return
    # Late: the gate had approved again, but of another version than the one that serves now.
    trigger = turn.trigger("deployment", turn.scope.ack)
    reason = Reason(code="not_validated", message="a roll-back was applied after the gate had cleared")
    machine.raise_to(turn, "hold", reasons=(reason,), trigger=trigger, subject=turn.scope.subject, cause="absence")
    queue.enqueue(turn, queue.main_role(turn.scope), trigger, queue.COMMANDED_SEVERITY, urgent=True)


def on_model(turn: Turn, before: ModelDocument | None) -> None:
    """Take a new or changed configuration of the scope's model (``before`` was in effect until now)."""
    config, scope = turn.config, turn.scope
    if config is None:
        return
    old = before.config if before else None
    baseline = config.baseline
    if baseline and (old is None or old.baseline != baseline or scope.baseline is None):
        queue.drop(turn, "baseline", "older_trigger")
        turn.set(
            baseline=Subject(version=baseline.version, target=_spec(baseline.target, baseline.name, baseline.version)),
            baseline_name=baseline.name,
        )
    new = not scope.configured or (old is not None and (old.target, old.version) != (config.target, config.version))
    if new:
        _in_service(turn, first=not scope.configured)
    if queue.baseline_apart(turn.scope) and baseline_until_ms(turn.scope, turn.policy) <= turn.now_ms:
        trigger = turn.trigger("startup", turn.shard.models[scope.placement].digest)
        queue.enqueue(turn, "baseline", trigger, queue.SCHEDULED_SEVERITY)


def _spec(target: Target, name: str, version: str) -> TargetSpec:
    return TargetSpec(kind=target.kind, uri=target.uri, digest=target.digest, name=name, version=version)


def _in_service(turn: Turn, *, first: bool) -> None:
    """Take the version that the configuration names as the one in service: hold until it passes."""
    config, scope = turn.config, turn.scope
    if config is None:
        return
    queue.drop(turn, "serving", "older_trigger")
    serving = None
    if config.target is not None:
        serving = Subject(version=config.version, target=_spec(config.target, config.model, config.version))
    turn.set(configured=True, serving=serving)
    trigger = turn.trigger("startup" if first else "deployment", turn.shard.models[scope.placement].digest)
    reason = Reason(code="not_validated" if serving else "no_target", message="hold until the suite passes")
    machine.raise_to(turn, "hold", reasons=(reason,), trigger=trigger, subject=serving, cause="absence")
    queue.enqueue(turn, "serving", trigger, queue.COMMANDED_SEVERITY, urgent=True)


def on_model_removed(turn: Turn) -> None:
    """Go to shadow mode: the configuration was taken back, and no lease outlives it."""
    for role in ROLES:
        queue.drop(turn, role, "older_trigger")
    turn.set(configured=False, serving=None, candidate=None, baseline=None, passed={}, override=None)
    machine.raise_to(
        turn,
        "hold",
        reasons=(Reason(code="configuration_withdrawn"),),
        trigger=turn.trigger("manual", turn.given.ref),
        subject=None,
        cause="absence",
    )


def on_first_sight(turn: Turn) -> None:
    """Meet a scope for the first time: by its model's configuration, or in shadow mode without one."""
    if turn.config is not None:
        on_model(turn, None)
        return
    machine.raise_to(
        turn,
        "hold",
        reasons=(Reason(code="unconfigured", message="watched in shadow mode until it is configured"),),
        trigger=turn.trigger("startup", turn.scope.name),
        subject=None,
        cause="absence",
    )


def on_gap(turn: Turn, gap: GapSeen) -> None:
    """Hold: findings, runs or commands are gone, and nobody knows what they said."""
    trigger = turn.trigger("staleness", turn.given.ref)
    machine.raise_to(
        turn,
        "hold",
        reasons=(Reason(code="input_gap", message=gap.text[:500]),),
        trigger=trigger,
        subject=turn.scope.subject,
        cause="absence",
    )
    queue.enqueue(turn, queue.main_role(turn.scope), trigger, queue.COMMANDED_SEVERITY, urgent=True)


def on_recovered(turn: Turn) -> None:
    """Say that a scope's snapshot was lost: it holds, and starts as if it were new."""
    if not turn.scope.damaged:
        return
    machine.raise_to(
        turn,
        "hold",
        reasons=(Reason(code="state_lost", message="the snapshot of this scope could not be used"),),
        trigger=turn.trigger("startup", f"recovery@{turn.now_ms}"),
        subject=None,
        cause="absence",
    )
    if turn.config is not None:
        on_model(turn, None)


def new_scope(tenant: str, model: str, deployment: str) -> Scope:
    """Return a scope that nothing is known about: hold, since an absent check never approves."""
    return Scope(tenant=tenant, model=model, deployment=deployment)
