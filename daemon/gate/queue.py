"""The re-validation queue: per scope at most one run in flight and one waiting per version.

Triggers that come while one waits join it. The shard sends the most urgent first: severity times
traffic, commands before the cool-down, never more than ``max_running`` at once.
"""

from __future__ import annotations

from regate.config.canonical import content_id
from regate.daemon.gate.events import Trigger
from regate.daemon.gate.lease import has_traffic
from regate.daemon.gate.state import CLOSED_KEPT, DEFAULT_POLICY, Queued, Role, Running, Scope, Shard, Subject
from regate.daemon.gate.turn import Turn
from regate.scenarios.contracts import RunRequest, Window

SCHEDULED_SEVERITY = 0.1  # below every finding: routine must not delay a suspicion
COMMANDED_SEVERITY = 1.0


def subject_of(scope: Scope, role: Role) -> Subject | None:
    """Return the version that a role names."""
    return {"candidate": scope.candidate, "serving": scope.serving, "baseline": scope.baseline}[role]


def main_role(scope: Scope) -> Role:
    """Return the role of the version under decision."""
    return "candidate" if scope.candidate else "serving"


def baseline_apart(scope: Scope) -> bool:
    """Whether there is a baseline that is not the version in service."""
    return scope.baseline is not None and (scope.serving is None or scope.baseline.digest != scope.serving.digest)


def enqueue(turn: Turn, role: Role, trigger: Trigger, severity: float, *, urgent: bool = False) -> bool:
    """Ask for a run, or join the one that waits. False when there is nothing to run it on."""
    scope = turn.scope
    if turn.config is None or subject_of(scope, role) is None:
        return False
    priority = round(severity * max(1, scope.traffic), 6)
    waiting = scope.queued.get(role)
    if waiting is None:
        entry = Queued(role=role, trigger=trigger, priority=priority, urgent=urgent, since_ms=turn.now_ms)
    else:
        entry = waiting.model_copy(
            update={
                "trigger": trigger if priority > waiting.priority else waiting.trigger,
                "priority": max(priority, waiting.priority),
                "urgent": urgent or waiting.urgent,
                "joined": waiting.joined + 1,
            }
        )
    turn.set(queued={**scope.queued, role: entry})
    return True


def drop(turn: Turn, role: Role, why: str) -> None:
    """Forget what waits for a role, and stop waiting for its run: its version changed."""
    queued = {name: entry for name, entry in turn.scope.queued.items() if name != role}
    turn.set(queued=queued)
    running = turn.scope.running
    if running is not None and running.request.role == role:
        close(turn, why)


def close(turn: Turn, why: str) -> None:
    """Stop waiting for the run in flight; a later answer is ignored with this reason."""
    running = turn.scope.running
    if running is not None:
        closed = (*turn.scope.closed, (running.request.id, why))[-CLOSED_KEPT:]
        turn.set(running=None, closed=closed, last_run_ms=turn.now_ms)


def _ready(shard: Shard, scope: Scope) -> Queued | None:
    if scope.running is not None or not scope.queued:
        return None
    policy = (shard.policy_of(scope) or DEFAULT_POLICY).policy
    cooled = not scope.last_run_ms or shard.now_ms >= scope.last_run_ms + policy.queue.cool_down_seconds * 1000
    entries = [entry for entry in scope.queued.values() if entry.urgent or cooled]
    return max(entries, key=lambda entry: (entry.priority, entry.role), default=None)


def request_for(shard: Shard, scope: Scope, entry: Queued) -> RunRequest | None:
    """Return the request of a waiting entry; None when its version or configuration is gone."""
    subject, document = subject_of(scope, entry.role), shard.models.get(scope.placement)
    if subject is None or document is None:
        return None
    policy, validation = (shard.policy_of(scope) or DEFAULT_POLICY).policy, document.config.validation
    # A run that may take its whole budget needs time to wait for a worker, too.
    patience = max(policy.queue.deadline_seconds, 2 * validation.budget_seconds)
    serves = entry.role == "serving" and has_traffic(shard, scope)
    ordinal = scope.ordinal + 1
    return RunRequest(
        id=content_id("request", scope.name, entry.role, subject.digest, validation.suite, entry.trigger.id, ordinal),
        scope=scope.name,
        tenant=scope.tenant,
        model=scope.model,
        model_version=subject.version,
        deployment=scope.deployment,
        role=entry.role,
        target=subject.target,
        baseline=scope.baseline.target if scope.baseline and entry.role != "baseline" else None,
        suite=validation.suite,
        seed=validation.seed,
        window=Window(events=validation.window_events, until_ms=shard.now_ms) if serves else None,
        trigger_kind=entry.trigger.kind,
        trigger_id=entry.trigger.id,
        requested_ms=shard.now_ms,
        deadline_ms=shard.now_ms + round(patience * 1000),
        priority=entry.priority,
    )


def dispatch(shard: Shard) -> list[RunRequest]:
    """Send what may be sent now, most urgent first; changes the scopes of the shard."""
    running = sum(scope.running is not None for scope in shard.scopes.values())
    waiting = []
    for name in sorted(shard.scopes):
        entry = _ready(shard, shard.scopes[name])
        if entry is not None:
            waiting.append((-entry.priority, name, entry))
    requests = []
    for _, name, entry in sorted(waiting, key=lambda item: item[:2]):
        scope = shard.scopes[name]
        if running >= (shard.policy_of(scope) or DEFAULT_POLICY).policy.queue.max_running:
            continue
        queued = {role: other for role, other in scope.queued.items() if role != entry.role}
        request = request_for(shard, scope, entry)
        if request is None:
            shard.scopes[name] = scope.model_copy(update={"queued": queued})
            continue
        ordinal = scope.ordinal + 1
        running += 1
        requests.append(request)
        shard.scopes[name] = scope.model_copy(
            update={"queued": queued, "ordinal": ordinal, "running": Running(request=request, ordinal=ordinal)}
        )
    return requests
