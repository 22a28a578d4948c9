"""What people and deployment systems ask of a gate. A command that cannot be taken is ignored, by name."""

from __future__ import annotations

from regate.config.policy import rank
from regate.daemon.gate import machine, queue
from regate.daemon.gate.events import OverrideRef, Reason, Trigger
from regate.daemon.gate.state import COMMANDS_KEPT, Override, Requalify, Subject
from regate.daemon.gate.triggers import TRIGGER_OF
from regate.daemon.gate.turn import Turn, write_decision
from regate.daemon.wire.cloudevents import rfc3339
from regate.daemon.wire.internal import Command
from regate.scenarios.contracts import TargetSpec

# The ids of the last commands stand in the snapshot, which must fit in one record.
MAX_ID = 200
MAX_COMMAND = 16_000  # characters; more is no command


def on_command(turn: Turn, command: Command) -> None:
    """Take a command once; its id tells a repetition."""
    if len(command.id) > MAX_ID or len(command.model_dump_json()) > MAX_COMMAND:
        turn.ignore("too_large", command.id[:MAX_ID])
        return
    if command.id in turn.scope.commands:
        turn.ignore("duplicate_command", command.id)
        return
    if not turn.scope.configured:
        turn.ignore("unconfigured", command.id, "the model has no configuration: regate apply -f MODEL.yaml")
        return
    turn.set(commands=(*turn.scope.commands, command.id)[-COMMANDS_KEPT:])
    if command.kind == "deploy":
        _deploy(turn, command)
    elif command.kind == "revalidate":
        _revalidate(turn, command)
    elif command.kind == "requalify":
        _requalify(turn, command)
    elif command.kind == "override":
        _override(turn, command)
    else:
        _accept_change(turn, command)


def _named(command: Command, target: TargetSpec) -> Subject:
    return Subject(version=command.model_version or target.version, target=target)


def _deploy(turn: Turn, command: Command) -> None:
    """Hold the scope until a version that does not serve yet has passed the suite."""
    if command.target is None:
        turn.ignore("no_target", command.id, "name the artefact: regate deploy --target FILE")
        return
    wanted = _named(command, command.target)
    scope = turn.scope
    if command.baseline is not None:
        queue.drop(turn, "baseline", "older_trigger")
        turn.set(
            baseline=Subject(version=command.baseline.version, target=command.baseline),
            baseline_name=command.baseline.name,
        )
    trigger = turn.trigger("deployment", command.id)
    serves = scope.serving is not None and scope.serving.digest == wanted.digest
    if not (serves and scope.verdict == "approve" and scope.candidate is None):
        _take_subject(turn, wanted, command, trigger)
    queue.enqueue(turn, queue.main_role(turn.scope), trigger, queue.COMMANDED_SEVERITY, urgent=True)
    if queue.baseline_apart(turn.scope) and turn.scope.baseline and turn.scope.baseline.digest not in turn.scope.passed:
        queue.enqueue(turn, "baseline", trigger, queue.COMMANDED_SEVERITY, urgent=True)


def _take_subject(turn: Turn, wanted: Subject, command: Command, trigger: Trigger) -> None:
    """Put another version under decision: hold until it passes, whatever the last one was."""
    serves = turn.scope.serving is not None and turn.scope.serving.digest == wanted.digest
    queue.drop(turn, "candidate", "older_trigger")
    turn.set(
        candidate=None if serves else wanted,
        # A run of another time and purpose must not approve a deployment.
        passed={digest: item for digest, item in turn.scope.passed.items() if digest != wanted.digest},
        requalify=Requalify(digest=wanted.digest, command_id=command.id, signers=tuple(sorted(set(command.approvals)))),
    )
    machine.raise_to(
        turn,
        "hold",
        reasons=(Reason(code="not_validated", check_id=command.id, message="hold until the suite passes"),),
        trigger=trigger,
        subject=turn.scope.subject,
        cause="absence",
    )


def _revalidate(turn: Turn, command: Command) -> None:
    trigger = turn.trigger("manual", command.id)
    if not queue.enqueue(turn, queue.main_role(turn.scope), trigger, queue.COMMANDED_SEVERITY, urgent=True):
        turn.ignore("no_target", command.id)


def _requalify(turn: Turn, command: Command) -> None:
    """Allow a latched verdict to be lifted by passed runs on one version."""
    scope, signers = turn.scope, tuple(sorted(set(command.approvals)))
    if not command.actor or not command.reason:
        turn.ignore("requalify_incomplete", command.id, "actor and reason are mandatory")
        return
    if scope.verdict == "fail_safe" and len(signers) < turn.policy.overrides.fail_safe_signers:
        turn.ignore("signers_missing", command.id, f"fail_safe needs {turn.policy.overrides.fail_safe_signers}")
        return
    wanted = _named(command, command.target) if command.target else scope.subject
    if wanted is None:
        turn.ignore("no_target", command.id)
        return
    trigger = turn.trigger("manual", command.id)
    if scope.subject is None or scope.subject.digest != wanted.digest:
        _take_subject(turn, wanted, command, trigger)
    else:
        turn.set(
            requalify=Requalify(digest=wanted.digest, command_id=command.id, signers=signers),
            passes=0,
            raise_ordinal=scope.ordinal,
        )
    queue.enqueue(turn, queue.main_role(turn.scope), trigger, queue.COMMANDED_SEVERITY, urgent=True)


def _override(turn: Turn, command: Command) -> None:
    """Set a verdict aside for a while: actor, reason, ticket and a capped expiry are mandatory."""
    scope, policy = turn.scope, turn.policy.overrides
    if not (command.actor and command.reason and command.ticket and command.verdict and command.expires_ms):
        turn.ignore("override_incomplete", command.id, "actor, reason, ticket, verdict and expires_ms are mandatory")
        return
    if command.expires_ms <= turn.now_ms:
        turn.ignore("override_expired", command.id)
        return
    signers = tuple(sorted(set(command.approvals)))
    lifts = rank(command.verdict) < rank(scope.verdict)
    if lifts and scope.verdict == "fail_safe" and len(signers) < policy.fail_safe_signers:
        turn.ignore("signers_missing", command.id, f"fail_safe needs {policy.fail_safe_signers}")
        return
    expires = min(command.expires_ms, turn.now_ms + round(policy.max_seconds * 1000))
    ref = OverrideRef(
        command_id=command.id,
        verdict=command.verdict,
        actor=command.actor,
        reason=command.reason,
        ticket=command.ticket,
        expires_at=rfc3339(expires),
        signers=signers,
    )
    turn.set(override=Override(ref=ref, covers=scope.verdict, expires_ms=expires))
    write_decision(
        turn,
        "override",
        previous=scope.verdict,
        reasons=(Reason(code="override", check_id=command.id, message=command.reason),),
        trigger=turn.trigger("manual", command.id),
        subject=scope.subject,
    )


def _accept_change(turn: Turn, command: Command) -> None:
    """Close an incident by hand; a fresh run must still pass."""
    incident = turn.scope.incidents.get(command.incident)
    if incident is None or not command.actor or not command.reason:
        turn.ignore("unknown_incident" if incident is None else "accept_incomplete", command.id)
        return
    turn.set(incidents={name: item for name, item in turn.scope.incidents.items() if name != incident.id})
    kind = next((kind for name, kind in TRIGGER_OF.items() if name == incident.kind), "manual")
    trigger = turn.trigger(kind, command.id)
    queue.enqueue(turn, queue.main_role(turn.scope), trigger, queue.COMMANDED_SEVERITY, urgent=True)
