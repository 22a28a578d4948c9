"""A roll-back is not done when it was asked for: requested, applied, seen in telemetry, helped; else it escalates.

A silent roll-back reads as success. Each stage has a deadline by the policy; what proves a stage comes from the
deployment system (acks), from watch (which versions carry traffic) and from runs and incidents.
"""

from __future__ import annotations

from regate.daemon.gate import machine
from regate.daemon.gate.events import Action, Reason
from regate.daemon.gate.state import Remedy, Scope, Shard, Stage
from regate.daemon.gate.turn import Turn, write_decision

# The rolled-back version may still answer what was under way; after this long it should be quiet.
DRAIN_MS = 10_000
HARMFUL = {"harm", "attack", "recurrence"}


def applied(turn: Turn) -> None:
    """Note that the deployment system says so; now telemetry must show it."""
    _reach(turn, "applied")


def advance(turn: Turn) -> None:
    """Do what time asks for: take the next stage when it is proven, escalate when it is not in time."""
    remedy = turn.scope.remedy
    if remedy is None or not remedy.open:
        return
    if remedy.stage == "requested":
        _unanswered(turn, remedy)
        return
    if remedy.stage == "applied" and _seen(turn.shard, turn.scope, remedy):
        _reach(turn, "seen")
    remedy = turn.scope.remedy or remedy
    if remedy.stage == "seen" and _helped(turn.scope, remedy):
        _reach(turn, "helped")
        return
    rules = turn.policy.roll_back
    late = turn.now_ms - remedy.applied_ms
    if remedy.stage == "applied" and late >= rules.seen_seconds * 1000 and _carried(turn.shard, turn.scope, remedy):
        _unseen(turn, remedy)
    elif late >= rules.helped_seconds * 1000:
        if _harmed(turn.scope, remedy):
            _escalate(turn, remedy, "roll_back_did_not_help", "the harm goes on under the version rolled back to")
        elif not remedy.paged:
            _page(turn, remedy, "roll_back_unproven", "nothing has shown yet that the roll-back helped")


def _unseen(turn: Turn, remedy: Remedy) -> None:
    said = "telemetry does not show the version that was rolled back to"
    # Events that do not say their version count as the configured one: then nothing can be told apart.
    if turn.config is not None and remedy.before == turn.config.version:
        if not remedy.paged:
            _page(turn, remedy, "roll_back_not_seen", f"{said}, or does not say versions")
        return
    _escalate(turn, remedy, "roll_back_not_seen", said)


def _unanswered(turn: Turn, remedy: Remedy) -> None:
    waited = turn.now_ms - remedy.requested_ms
    limit = round(turn.policy.roll_back.ack_seconds * 1000)
    if waited >= 2 * limit:
        _escalate(turn, remedy, "roll_back_unacknowledged", "no deployment system has answered in twice the time")
    elif waited >= limit and not remedy.paged:
        _page(turn, remedy, "roll_back_unacknowledged", "no deployment system has answered")


def _reach(turn: Turn, stage: Stage) -> None:
    remedy = turn.scope.remedy
    if remedy is None:
        return
    changes: dict[str, object] = {"stage": stage, "paged": False}
    if stage == "applied":
        changes["applied_ms"] = turn.now_ms
    turn.set(remedy=remedy.model_copy(update=changes))


def _newest(shard: Shard, scope: Scope, version: str) -> int:
    name = f"{scope.name}@{version}"
    return max((beat.versions.get(name, 0) for beat in shard.sources.values()), default=0)


def _seen(shard: Shard, scope: Scope, remedy: Remedy) -> bool:
    """Tell whether the version rolled back to carries traffic, and the other one no longer."""
    now, before = _newest(shard, scope, remedy.version), _newest(shard, scope, remedy.before)
    return now > remedy.applied_ms and (remedy.before == remedy.version or before < now - DRAIN_MS)


def _carried(shard: Shard, scope: Scope, remedy: Remedy) -> bool:
    """Tell whether the scope had traffic since: a model that nobody asks cannot be seen, and that is no failure."""
    prefix = f"{scope.name}@"
    times = (at for beat in shard.sources.values() for name, at in beat.versions.items() if name.startswith(prefix))
    return any(at > remedy.applied_ms for at in times)


def _harmed(scope: Scope, remedy: Remedy) -> bool:
    return any(one.kind in HARMFUL and one.version == remedy.version for one in scope.incidents.values())


def _helped(scope: Scope, remedy: Remedy) -> bool:
    """Tell whether what caused it is over, or the version passed the suite since; and it does no harm itself."""
    if _harmed(scope, remedy):
        return False
    over = bool(remedy.incidents) and not set(remedy.incidents) & set(scope.incidents)
    passed = scope.passed.get(scope.serving.digest) if scope.serving else None
    return over or (passed is not None and passed.at_ms > remedy.applied_ms)


def _page(turn: Turn, remedy: Remedy, code: str, message: str) -> None:
    turn.set(remedy=remedy.model_copy(update={"paged": True}))
    write_decision(
        turn,
        "raise",
        previous=turn.scope.verdict,
        reasons=(Reason(code=code, check_id=remedy.decision_id, message=message),),
        trigger=turn.trigger("staleness", f"{remedy.decision_id}/{code}"),
        subject=turn.scope.serving,
        action=Action(kind="page"),
        rule_ids=turn.scope.rule_ids,
    )


def _escalate(turn: Turn, remedy: Remedy, code: str, message: str) -> None:
    turn.set(remedy=remedy.model_copy(update={"stage": "failed"}))
    machine.raise_to(
        turn,
        "fail_safe",
        reasons=(Reason(code=code, check_id=remedy.decision_id, message=message),),
        trigger=turn.trigger("staleness", f"{remedy.decision_id}/{code}"),
        subject=turn.scope.serving,
    )
