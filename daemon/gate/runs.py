"""What a run result, or its absence, does to a scope."""

from __future__ import annotations

from regate.daemon.gate import machine, queue
from regate.daemon.gate.events import Reason, SuiteSummary, Trigger
from regate.daemon.gate.state import Passed, Running
from regate.daemon.gate.turn import Turn
from regate.daemon.gate.verdict import GREEN, Judgement, judge_run, summarise
from regate.scenarios.contracts import RunResult


def on_result(turn: Turn, result: RunResult) -> None:
    """Take the answer to the request in flight; anything else is ignored, by name.

    The first answer to a request stands: a second one, whatever it says, is a duplicate, so no
    retry turns inconclusive green.
    """
    running = turn.scope.running
    if running is None or running.request.id != result.request_id:
        why = dict(turn.scope.closed).get(result.request_id, "unknown_request")
        turn.ignore(why, result.request_id)
        return
    if result.target_digest != running.request.target.digest:
        turn.ignore("other_digest", result.request_id, f"the run was on {result.target_digest}")
        return
    queue.close(turn, "duplicate_result")
    judgement, suite = judge_run(result, turn.policy), summarise(result)
    at_ms = min(max(result.finished_ms, running.request.requested_ms), turn.now_ms)
    _settle(turn, running, judgement, suite, at_ms)


def on_deadline(turn: Turn) -> None:
    """Close a request that nobody answered in time: it counts as an error."""
    running = turn.scope.running
    if running is None or turn.now_ms < running.request.deadline_ms:
        return
    queue.close(turn, "expired_request")
    reason = Reason(code="request_expired", check_id=running.request.id, outcome="error")
    judgement = Judgement(verdict="hold", reasons=(reason,), outcome="error")
    _settle(turn, running, judgement, None, turn.now_ms)


def _settle(turn: Turn, running: Running, judgement: Judgement, suite: SuiteSummary | None, at_ms: int) -> None:
    request = running.request
    green = judgement.outcome in GREEN and judgement.verdict == "approve"
    passed = {digest: item for digest, item in turn.scope.passed.items() if digest != request.target.digest}
    if green and suite is not None:
        passed[request.target.digest] = Passed(
            version=request.model_version,
            run_id=suite.run_id,
            run_digest=suite.run_digest,
            ordinal=running.ordinal,
            at_ms=at_ms,
        )
    turn.set(passed=passed)
    if request.role == "baseline":
        _retry_after_error(turn, running, judgement)
        machine.act_deferred(turn)
        return
    about_subject = turn.scope.subject is not None and turn.scope.subject.digest == request.target.digest
    if about_subject:
        turn.set(suite=suite, outcome=judgement.outcome)
    if green:
        turn.set(retries=0)
        if about_subject and running.ordinal > turn.scope.raise_ordinal:
            turn.set(passes=turn.scope.passes + 1)
        machine.try_clear(turn, suite)
        machine.follow_up(turn)
        return
    machine.raise_to(
        turn,
        judgement.verdict,
        reasons=judgement.reasons,
        trigger=_trigger(running),
        subject=queue.subject_of(turn.scope, request.role),
        rule_ids=judgement.rule_ids,
        suite=suite,
        # A run that did not take place says nothing about the version: its first pass still decides.
        cause="absence" if judgement.outcome == "error" and _unjudged(turn) else "evidence",
    )
    _retry_after_error(turn, running, judgement)


def _unjudged(turn: Turn) -> bool:
    return turn.scope.verdict == "hold" and turn.scope.cause == "absence"


def _trigger(running: Running) -> Trigger:
    return Trigger.model_validate({"kind": running.request.trigger_kind, "id": running.request.trigger_id})


def _retry_after_error(turn: Turn, running: Running, judgement: Judgement) -> None:
    if judgement.outcome != "error":
        turn.set(retries=0)
        return
    if turn.scope.retries >= turn.policy.queue.error_retries:
        return
    turn.set(retries=turn.scope.retries + 1)
    queue.enqueue(turn, running.request.role, _trigger(running), queue.SCHEDULED_SEVERITY)
