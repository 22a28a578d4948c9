"""How a verdict moves: raised at once, cleared step by step, latched, renewed, expired."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from regate.config.policy import Verdict, rank, worst
from regate.daemon.gate import queue
from regate.daemon.gate.events import Action, Reason, SuiteSummary, Transition, Trigger
from regate.daemon.gate.lease import approval_problems, baseline_until_ms, concerns, grant, has_traffic, watch_proof
from regate.daemon.gate.state import Scope, Subject
from regate.daemon.gate.turn import Turn, baseline_ref, write_decision
from regate.daemon.wire.cloudevents import rfc3339

Cause = Literal["absence", "evidence", "expiry"]
# How much it takes to clear what was raised: a later, lesser cause does not make it easier.
_CAUSES: tuple[Cause, ...] = ("absence", "expiry", "evidence")
_ACTIONS: dict[Verdict, Action] = {
    "approve": Action(kind="allow"),
    "hold": Action(kind="hold_new"),
    "pause_feature": Action(kind="hold_new"),
    "fail_safe": Action(kind="fail_safe"),
}


def raise_to(
    turn: Turn,
    wanted: Verdict,
    *,
    reasons: Sequence[Reason],
    trigger: Trigger,
    subject: Subject | None,
    rule_ids: tuple[str, ...] = (),
    suite: SuiteSummary | None = None,
    cause: Cause = "evidence",
    transition: Transition = "raise",
    action: Action | None = None,
) -> None:
    """Raise the verdict at once, or uphold a higher one with new reasons; never lowers it.

    What a pass before this moment proved is void: passes are counted anew.
    """
    previous = turn.scope.verdict
    verdict, settled, extra = _settle(turn, wanted, subject)
    if rank(previous) > rank(verdict):
        verdict, settled, action = previous, Action(), None  # what the higher verdict asked for stands
    latches = rank(verdict) >= rank("roll_back") and rank(verdict) > rank(previous)
    held = cause if previous == "approve" else max(cause, turn.scope.cause, key=_CAUSES.index)
    turn.set(
        verdict=verdict,
        cause=held,
        since_ms=turn.now_ms,
        passes=0,
        raise_ordinal=turn.scope.ordinal,
        lease=None,
        blocked_by=(),
        requalify=None if latches else turn.scope.requalify,
    )
    write_decision(
        turn,
        transition,
        previous=previous,
        reasons=(*extra, *reasons),
        trigger=trigger,
        subject=subject,
        action=settled if action is None or settled.kind != "hold_new" else action,
        suite=suite,
        rule_ids=rule_ids,
    )


def _settle(turn: Turn, wanted: Verdict, subject: Subject | None) -> tuple[Verdict, Action, tuple[Reason, ...]]:
    """Return what a wanted verdict becomes here: its action, and why if it differs."""
    if wanted != "roll_back":
        return wanted, _ACTIONS[wanted], ()
    if turn.scope.candidate is not None and subject == turn.scope.candidate:
        return "hold", _ACTIONS["hold"], (Reason(code="candidate_not_serving"),)
    if turn.scope.latched:
        return turn.scope.verdict, Action(), ()
    return roll_back(turn)


def roll_back(turn: Turn) -> tuple[Verdict, Action, tuple[Reason, ...]]:
    """Decide whether a roll-back can be asked for: budget, fresh baseline, cool-down, in this order."""
    scope, rules, now = turn.scope, turn.policy.roll_back, turn.now_ms
    recent = tuple(at for at in scope.roll_backs if at > now - rules.window_seconds * 1000)
    if len(recent) >= rules.budget:
        turn.set(roll_backs=recent, deferred="")
        reason = Reason(code="rollback_budget", observed=str(len(recent)), threshold=str(rules.budget), comparator="<=")
        return "fail_safe", _ACTIONS["fail_safe"], (reason,)
    if baseline_until_ms(scope, turn.policy) <= now:
        return _without_baseline(turn)
    if recent and now < recent[-1] + rules.cool_down_seconds * 1000:
        turn.set(deferred="cool_down")
        return "roll_back", Action(kind="page"), (Reason(code="cool_down"),)
    turn.set(roll_backs=(*recent, now), deferred="")
    return "roll_back", Action(kind="roll_back", target_baseline=baseline_ref(scope)), ()


def _without_baseline(turn: Turn) -> tuple[Verdict, Action, tuple[Reason, ...]]:
    ref = turn.scope.baseline.digest if turn.scope.baseline else ""
    reason = Reason(
        code="no_fresh_baseline",
        baseline_ref=ref,
        message="no baseline with its own passed run that is still valid",
    )
    if turn.policy.roll_back.no_fresh_baseline == "fail_safe":
        turn.set(deferred="")
        return "fail_safe", _ACTIONS["fail_safe"], (reason,)
    turn.set(deferred="no_fresh_baseline")
    if queue.baseline_apart(turn.scope):
        trigger = turn.trigger("staleness", f"baseline@{turn.scope.seq}")
        queue.enqueue(turn, "baseline", trigger, queue.COMMANDED_SEVERITY, urgent=True)
    return "hold", Action(kind="page"), (reason,)


def act_deferred(turn: Turn) -> None:
    """Ask for the roll-back that had to wait for a baseline or a cool-down, once it can be."""
    scope = turn.scope
    if not scope.deferred:
        return
    if scope.deferred == "cool_down":
        last = scope.roll_backs[-1] if scope.roll_backs else 0
        ready = turn.now_ms >= last + turn.policy.roll_back.cool_down_seconds * 1000
    else:
        ready = baseline_until_ms(scope, turn.policy) > turn.now_ms
    if not ready:
        return
    previous = scope.verdict
    verdict, action, extra = roll_back(turn)
    if turn.scope.deferred:
        return
    verdict = worst(previous, verdict)
    latches = rank(verdict) > rank(previous)
    turn.set(
        verdict=verdict,
        since_ms=turn.now_ms,
        passes=0,
        raise_ordinal=turn.scope.ordinal,
        lease=None,
        requalify=None if latches else scope.requalify,
    )
    write_decision(
        turn,
        "raise",
        previous=previous,
        reasons=(*extra, Reason(code=f"deferred_{scope.deferred}")),
        trigger=scope.trigger or turn.trigger("harm", turn.given.ref),
        subject=scope.serving,
        action=action,
        rule_ids=scope.rule_ids,
    )


def needed_passes(turn: Turn) -> int:
    """Return how many passes in a row the next step down takes."""
    clear = turn.policy.clear
    return clear.passes if turn.scope.cause == "evidence" or turn.scope.latched else clear.first_passes


def blockers(turn: Turn) -> list[Reason]:
    """Return why the next step down cannot be taken now."""
    scope, policy = turn.scope, turn.policy
    problems = []
    needed = needed_passes(turn)
    if scope.passes < needed:
        problems.append(
            Reason(code="passes", observed=str(scope.passes), threshold=str(needed), comparator=">=", n=scope.passes)
        )
    if scope.cause == "evidence" and turn.now_ms < scope.since_ms + policy.clear.dwell_seconds * 1000:
        problems.append(Reason(code="dwell", threshold=f"{policy.clear.dwell_seconds:.6g}"))
    if scope.latched:
        return [*problems, *_latch(turn)]
    problems.extend(approval_problems(turn.shard, scope, policy))
    # Before its first traffic a version is approved by the suite alone; afterwards only under a live watch.
    if scope.cause != "absence" or has_traffic(turn.shard, scope):
        problems.extend(watch_proof(turn.shard, scope, policy)[1])
    return problems


def _latch(turn: Turn) -> list[Reason]:
    scope = turn.scope
    subject = scope.subject
    if scope.requalify is None or subject is None or scope.requalify.digest != subject.digest:
        return [Reason(code="latched", message="ask for a re-qualification: regate deploy, or a requalify command")]
    quorum = turn.policy.overrides.fail_safe_signers if scope.verdict == "fail_safe" else 0
    if len(scope.requalify.signers) < quorum:
        return [Reason(code="signers", observed=str(len(scope.requalify.signers)), threshold=str(quorum))]
    return []


def try_clear(turn: Turn, suite: SuiteSummary | None = None) -> None:
    """Lower the verdict by one step if nothing blocks it; remember what does."""
    scope = turn.scope
    if scope.verdict == "approve":
        return
    problems = blockers(turn)
    codes = tuple(sorted({problem.code for problem in problems}))
    if problems:
        if codes != scope.blocked_by:
            turn.set(blocked_by=codes)
        return
    if scope.verdict == "hold":
        _approve(turn, suite)
        return
    previous = scope.verdict
    reason = Reason(code="requalified" if scope.latched else "passed", n=scope.passes)
    turn.set(
        verdict="hold",
        cause="evidence",
        since_ms=turn.now_ms,
        passes=0,
        raise_ordinal=scope.ordinal,
        requalify=None,
        blocked_by=(),
        deferred="",
    )
    _cleared(turn, previous, reason, suite)
    follow_up(turn)


def _approve(turn: Turn, suite: SuiteSummary | None) -> None:
    scope, subject = turn.scope, turn.scope.subject
    lease = grant(turn.shard, scope, turn.policy, scope.seq + 1)
    turn.set(verdict="approve", lease=lease, since_ms=turn.now_ms, blocked_by=(), deferred="", requalify=None)
    if scope.candidate is not None:
        gone = [scope.serving.digest] if scope.serving else []
        kept = {name: item for name, item in scope.incidents.items() if concerns(scope, item)}
        turn.set(serving=scope.candidate, candidate=None, incidents=kept)
        _forget(turn, gone)
    _cleared(turn, scope.verdict, Reason(code="passed", n=scope.passes), suite, subject)


def _forget(turn: Turn, digests: list[str]) -> None:
    """Drop the passed runs of versions that the scope no longer names."""
    scope = turn.scope
    named = {item.digest for item in (scope.serving, scope.candidate, scope.baseline) if item}
    if any(digest not in named for digest in digests):
        turn.set(passed={digest: item for digest, item in scope.passed.items() if digest in named})


def _cleared(
    turn: Turn, previous: Verdict, reason: Reason, suite: SuiteSummary | None, subject: Subject | None = None
) -> None:
    proof = watch_proof(turn.shard, turn.scope, turn.policy)[0]
    write_decision(
        turn,
        "clear",
        previous=previous,
        reasons=(reason,),
        trigger=turn.scope.trigger or turn.trigger("startup", turn.given.ref),
        subject=subject or turn.scope.subject,
        action=_ACTIONS[turn.scope.verdict],
        suite=suite or turn.scope.suite,
        proof=proof,
    )


def follow_up(turn: Turn) -> None:
    """Ask for the next run of a row of passes; after anything but a pass nothing is asked for by itself."""
    scope = turn.scope
    role = queue.main_role(scope)
    waits = role in scope.queued or (scope.running is not None and scope.running.request.role == role)
    if scope.verdict == "approve" or waits or scope.passes >= needed_passes(turn):
        return
    if scope.latched and _latch(turn):
        return
    trigger = scope.trigger or turn.trigger("manual", turn.given.ref)
    queue.enqueue(turn, role, trigger, queue.SCHEDULED_SEVERITY)


def renew(turn: Turn) -> None:
    """Renew a due lease on proof; without proof it runs on to its end, and the state says why."""
    scope, policy = turn.scope, turn.policy
    lease = scope.lease
    if scope.verdict != "approve" or lease is None or turn.now_ms < lease.renew_at_ms:
        return
    proof, problems = watch_proof(turn.shard, scope, policy)
    problems.extend(approval_problems(turn.shard, scope, policy))
    after = grant(turn.shard, scope, policy, scope.seq + 1)
    if not problems and after.valid_until_ms <= lease.valid_until_ms:
        problems.append(Reason(code="approval_too_old"))
    codes = tuple(sorted({problem.code for problem in problems}))
    if problems:
        if codes != scope.blocked_by:
            turn.set(blocked_by=codes)
        role = queue.main_role(scope)
        if {"approval_too_old", "no_passed_run"} & set(codes) and role not in scope.queued and scope.running is None:
            queue.enqueue(turn, role, turn.trigger("staleness", scope.decision_id), queue.SCHEDULED_SEVERITY)
        return
    turn.set(lease=after, blocked_by=())
    write_decision(
        turn,
        "renew",
        previous="approve",
        reasons=(Reason(code="proven", observed=proof.run_age_seconds),),
        trigger=turn.trigger("schedule", f"renew@{rfc3339(lease.renew_at_ms)}"),
        subject=scope.subject,
        action=_ACTIONS["approve"],
        suite=scope.suite,
        proof=proof,
    )


def expire(turn: Turn) -> None:
    """End a lease that nobody renewed; what follows is the policy's ``on_expiry``."""
    scope = turn.scope
    if scope.lease is None or turn.now_ms < scope.lease.valid_until_ms:
        return
    choice = turn.policy.lease.on_expiry
    reasons = [
        Reason(code="lease_expired", threshold=rfc3339(scope.lease.valid_until_ms)),
        *(Reason(code=code) for code in scope.blocked_by),
    ]
    trigger = turn.trigger("staleness", scope.decision_id)
    raise_to(
        turn,
        "roll_back" if choice == "baseline" else "hold",
        reasons=reasons,
        trigger=trigger,
        subject=scope.serving,
        cause="expiry",
        transition="expire",
        action=Action(kind=choice) if choice != "baseline" else None,
    )
    queue.enqueue(turn, queue.main_role(turn.scope), trigger, queue.SCHEDULED_SEVERITY)


def end_override(turn: Turn) -> None:
    """End an override whose time is over; the verdict underneath counts again."""
    scope = turn.scope
    if scope.override is None or turn.now_ms < scope.override.expires_ms:
        return
    turn.set(override=None)
    write_decision(
        turn,
        "expire",
        previous=scope.verdict,
        reasons=(Reason(code="override_expired", check_id=scope.override.ref.command_id),),
        trigger=turn.trigger("staleness", scope.override.ref.command_id),
        subject=scope.subject,
        action=_ACTIONS.get(scope.verdict, Action()),
    )


def due(scope: Scope, now_ms: int) -> bool:
    """Whether time alone may change this scope now (cheap: asked for every scope at every tick)."""
    return (
        # Without a pass nothing can clear: a fleet on hold costs nothing until its runs pass.
        (scope.verdict != "approve" and bool(scope.passes or scope.deferred or scope.damaged))
        or (scope.lease is not None and now_ms >= scope.lease.renew_at_ms)
        or (scope.running is not None and now_ms >= scope.running.request.deadline_ms)
        or (scope.remedy is not None and scope.remedy.open)
        or (scope.override is not None and now_ms >= scope.override.expires_ms)
    )
