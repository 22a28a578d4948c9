"""Each rule of the gate, by name (design: gates.md)."""

from __future__ import annotations

import pytest
from tests.gate_world import (
    SCOPE,
    World,
    check,
    codes,
    finding,
    model_config,
    result_for,
    revision_of,
    sha,
    target,
)

from regate.config.policy import Clear, Lease, Policy, Queue, RollBack


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def approved() -> World:
    world = World()
    world.approve()
    return world


def test_a_new_model_holds_until_its_suite_passed(world: World) -> None:
    world.configure()
    assert world.last.verdict == "hold"
    assert world.last.trigger.kind == "startup"
    assert world.last.previous_verdict == "none"
    assert world.requests[0].role == "serving"
    assert world.requests[0].window is None
    world.answer("pass")
    assert (world.last.verdict, world.last.transition) == ("approve", "clear")
    assert world.last.suite is not None
    assert world.last.valid_until
    assert world.last.scope.model_digest == sha("1")


@pytest.mark.parametrize("outcome", ["inconclusive", "error", "fail", "skipped"])
def test_inconclusive_error_fail_and_skipped_never_approve(world: World, outcome: str) -> None:
    world.configure()
    world.answer(outcome)
    assert world.scope.verdict == "hold"
    assert world.scope.lease is None


@pytest.mark.parametrize("outcome", ["pass", "warn", "error"])
def test_zero_checks_never_approve_whatever_the_run_declares(world: World, outcome: str) -> None:
    world.configure()
    world.answer(outcome, checks=())
    assert world.last.verdict == "hold"
    assert "no_checks" in codes(world.last)


def test_a_lenient_summary_does_not_hide_a_bad_check(world: World) -> None:
    world.configure()
    world.answer("pass", checks=(check("pass"), check("inconclusive", name="scn-x-0002/b")))
    assert world.last.verdict == "hold"
    assert "check_inconclusive" in codes(world.last)


def test_an_absent_required_check_never_approves() -> None:
    world = World(Policy(required_checks=("scn-fairness",)))
    world.configure()
    world.answer("pass")
    assert world.last.verdict == "hold"
    assert "check_absent" in codes(world.last)


def test_a_retry_never_turns_inconclusive_green(world: World) -> None:
    world.configure()
    request = world.answer("inconclusive")
    asked = len(world.requests)
    world.feed("run-result", result_for(request, "pass").model_copy(update={"attempt": 2}))
    assert world.scope.verdict == "hold"
    assert world.ignored == ["duplicate_result"]
    world.after(1200)
    serving = [item for item in world.requests[asked:] if item.role == "serving"]
    assert serving == []  # nobody asks again by himself after inconclusive
    world.clock()
    world.answer("pass", role="serving")
    assert world.scope.verdict == "hold"  # and one pass of another trigger is not enough
    world.answer("pass", role="serving")
    world.after(400)
    assert world.scope.verdict == "approve"


def test_an_error_is_asked_again_but_not_for_ever() -> None:
    world = World(Policy(queue=Queue(error_retries=2)))
    world.configure(model_config(baseline=None))
    for _ in range(3):
        world.answer("error")
    world.after(1200)
    assert len(world.requests) == 3
    assert world.scope.verdict == "hold"


def test_a_dead_validate_counts_as_error(world: World) -> None:
    world.configure()
    request = world.requests[0]
    world.after(601)
    assert "request_expired" in codes(world.last)
    assert world.last.verdict == "hold"
    world.feed("run-result", result_for(request))
    assert world.ignored == ["expired_request"]
    assert world.scope.verdict == "hold"


def test_raise_at_once(approved: World) -> None:
    out = approved.feed("finding", finding("harm"))
    assert approved.last in [getattr(item, "decision", None) for item in out]
    assert (approved.last.transition, approved.last.previous_verdict) == ("raise", "approve")
    assert approved.last.verdict == "hold"
    assert approved.last.valid_until == ""


def test_clear_stepwise_after_n_passes_and_dwell(approved: World) -> None:
    harm = finding("harm")
    approved.feed("finding", harm)
    approved.feed("finding", revision_of(harm, "recovered"))
    approved.answer("pass", role="serving")
    assert approved.scope.passes == 1
    approved.answer("pass", role="serving")
    assert approved.scope.passes == 2
    assert approved.scope.verdict == "hold"
    assert approved.scope.blocked_by == ("dwell",)
    approved.after(300)
    assert (approved.last.transition, approved.last.verdict) == ("clear", "approve")


def test_a_failure_between_passes_starts_the_row_anew(approved: World) -> None:
    harm = finding("harm")
    approved.feed("finding", harm)
    approved.feed("finding", revision_of(harm, "recovered"))
    approved.answer("pass", role="serving")
    approved.answer("fail", role="serving")
    assert approved.scope.passes == 0


def test_an_open_harm_incident_blocks_clearing(approved: World) -> None:
    approved.feed("finding", finding("harm"))
    approved.settle(800)
    assert approved.scope.verdict == "hold"
    assert "open_incident" in approved.scope.blocked_by


def test_drift_alone_asks_for_a_run_and_moves_nothing(approved: World) -> None:
    before = approved.scope.seq
    approved.after(60)
    approved.feed("finding", finding("change"))
    assert approved.scope.seq == before
    request = approved.requests[-1]
    assert (request.trigger_kind, request.role) == ("drift", "serving")
    assert request.window is not None
    approved.answer("pass")
    assert approved.scope.verdict == "approve"


def test_drift_holds_when_the_policy_says_so() -> None:
    rules = tuple(
        rule.model_copy(update={"verdict": "hold"}) if rule.id == "drift-asks" else rule for rule in Policy().rules
    )
    world = World(Policy(rules=rules))
    world.approve()
    world.feed("finding", finding("change"))
    assert world.scope.verdict == "hold"
    assert world.last.policy.rule_ids == ("drift-asks",)


def test_a_failed_critical_check_rolls_back_to_the_baseline(approved: World) -> None:
    approved.after(60)
    approved.feed("finding", finding("change"))
    approved.answer("fail", checks=(check("fail", critical=True),), role="serving")
    assert approved.last.verdict == "roll_back"
    assert approved.last.action.kind == "roll_back"
    baseline = approved.last.action.target_baseline
    assert baseline is not None
    assert (baseline.version, baseline.digest) == ("0", sha("0"))
    assert approved.last.human.required


def test_severe_harm_rolls_back_at_once(approved: World) -> None:
    approved.feed("finding", finding("harm", severity=0.7))
    assert approved.last.verdict == "roll_back"


def test_a_confirmed_attack_rolls_back(approved: World) -> None:
    attack = finding("attack")
    approved.feed("finding", attack)
    assert approved.scope.verdict == "hold"
    approved.feed("finding", revision_of(attack, "confirmed"))
    assert approved.scope.verdict == "roll_back"


def test_roll_back_without_a_baseline_of_its_own_run_holds_and_pages(world: World) -> None:
    world.configure(model_config(baseline=None))
    world.answer("pass")
    world.feed("finding", finding("harm", severity=0.9))
    assert world.last.verdict == "hold"
    assert world.last.action.kind == "page"
    assert "no_fresh_baseline" in codes(world.last)


def test_no_fresh_baseline_is_fail_safe_by_policy() -> None:
    world = World(Policy(roll_back=RollBack(no_fresh_baseline="fail_safe")))
    world.configure(model_config(baseline=None))
    world.answer("pass")
    world.feed("finding", finding("harm", severity=0.9))
    assert world.last.verdict == "fail_safe"


def test_a_baseline_whose_run_failed_is_not_fresh(world: World) -> None:
    world.configure()
    world.answer("pass", role="serving")
    world.answer("fail", role="baseline")
    assert world.scope.verdict == "approve"
    world.feed("finding", finding("harm", severity=0.9))
    assert "no_fresh_baseline" in codes(world.last)
    world.answer("pass", role="baseline")  # asked for at once; it makes the roll-back possible
    assert world.last.verdict == "roll_back"
    assert world.last.action.kind == "roll_back"


def test_the_baseline_is_validated_on_the_same_schedule(approved: World) -> None:
    asked = len(approved.requests)
    approved.clock("revalidate")
    approved.settle(200)
    assert {item.role for item in approved.requests[asked:]} == {"serving", "baseline"}


def rolled_back(policy: Policy | None = None) -> World:
    world = World(policy)
    world.approve()
    world.feed("finding", finding("harm", severity=0.9))
    assert world.last.verdict == "roll_back"
    return world


def test_roll_back_is_latched() -> None:
    world = rolled_back(Policy(roll_back=RollBack(ack_seconds=1e6)))  # an answer is awaited elsewhere
    world.feed("finding", revision_of(finding("harm", severity=0.9), "recovered"))
    for _ in range(3):
        world.clock()
        world.settle(400)
    assert world.scope.verdict == "roll_back"
    assert "latched" in world.scope.blocked_by


def test_a_passed_requalification_lifts_roll_back_stepwise() -> None:
    world = rolled_back()
    world.feed("finding", revision_of(finding("harm", severity=0.9), "recovered"))
    world.command("requalify", actor="ann", reason="fixed upstream")
    asked = len(world.requests)
    world.settle(330)
    assert (world.last.verdict, world.last.previous_verdict) == ("hold", "roll_back")
    world.settle(430)
    assert (world.last.verdict, world.last.previous_verdict) == ("approve", "hold")
    assert len([item for item in world.requests[asked:] if item.role == "serving"]) == 4  # two for each step


def test_an_applied_roll_back_changes_what_serves() -> None:
    world = rolled_back()
    world.ack(world.last, "applied")
    assert world.scope.serving is not None
    assert world.scope.serving.digest == sha("0")
    assert world.scope.verdict == "roll_back"


def test_a_failed_roll_back_escalates() -> None:
    world = rolled_back()
    world.ack(world.last, "failed")
    assert world.last.verdict == "fail_safe"


def fail_safe() -> World:
    world = rolled_back()
    world.ack(world.last, "failed")
    world.feed("finding", revision_of(finding("harm", severity=0.9), "recovered"))
    return world


def test_fail_safe_needs_two_signers_to_requalify() -> None:
    world = fail_safe()
    world.command("requalify", actor="ann", reason="ok", approvals=("ann", "ann"))
    assert world.ignored[-1] == "signers_missing"
    world.settle(700)
    assert world.scope.verdict == "fail_safe"
    world.command("requalify", actor="ann", reason="ok", approvals=("ann", "bob"))
    world.settle(1500)
    assert world.scope.verdict == "approve"
    assert [item.verdict for item in world.decisions[-2:]] == ["hold", "approve"]


def test_fail_safe_needs_two_signers_to_override() -> None:
    world = fail_safe()
    fields = {
        "actor": "ann",
        "reason": "r",
        "ticket": "T-1",
        "verdict": "approve",
        "expires_ms": world.now_ms + 60_000,
    }
    world.command("override", **fields)
    assert world.ignored[-1] == "signers_missing"
    world.command("override", **fields, approvals=("ann", "bob"))
    assert (world.last.verdict, world.last.effective_verdict) == ("fail_safe", "approve")


def test_a_requalification_by_a_new_version_needs_its_own_passes() -> None:
    world = rolled_back()
    world.command("deploy", target=target("2"), model_version="2")
    assert world.scope.verdict == "roll_back"
    world.settle(1500)
    assert world.scope.verdict == "approve"
    assert world.scope.serving is not None
    assert world.scope.serving.version == "2"


def test_roll_back_budget_ends_in_fail_safe() -> None:
    world = World(Policy(roll_back=RollBack(budget=1)))
    world.approve()
    world.feed("finding", finding("harm", severity=0.9))
    assert world.last.action.kind == "roll_back"
    world.feed("finding", revision_of(finding("harm", severity=0.9), "recovered"))
    world.command("requalify", actor="ann", reason="ok")
    world.settle(1500)
    assert world.scope.verdict == "approve"
    world.feed("finding", finding("harm", 2, severity=0.9))
    assert world.last.verdict == "fail_safe"
    assert "rollback_budget" in codes(world.last)


def test_cool_down_per_action_delays_the_action_not_the_verdict() -> None:
    world = World(Policy(clear=Clear(passes=1, dwell_seconds=0)))
    world.approve()
    world.feed("finding", finding("harm", severity=0.9))
    world.feed("finding", revision_of(finding("harm", severity=0.9), "recovered"))
    world.command("requalify", actor="ann", reason="ok")
    world.settle(100)
    assert world.scope.verdict == "approve"
    world.feed("finding", finding("harm", 2, severity=0.9))
    assert world.last.verdict == "roll_back"
    assert world.last.action.kind == "page"
    assert "cool_down" in codes(world.last)
    world.after(900)
    assert world.last.action.kind == "roll_back"
    assert "deferred_cool_down" in codes(world.last)


def test_seq_rises_strictly_and_ids_come_from_content(approved: World) -> None:
    approved.feed("finding", finding("harm"))
    numbers = [item.seq for item in approved.decisions]
    assert numbers == list(range(1, len(numbers) + 1))
    again = World()
    again.approve()
    again.feed("finding", finding("harm"))
    assert [item.id for item in again.decisions] == [item.id for item in approved.decisions]
    assert len({item.id for item in again.decisions}) == len(numbers)


def test_results_for_another_digest_are_ignored(world: World) -> None:
    world.configure()
    wrong = result_for(world.requests[0]).model_copy(update={"target_digest": sha("evil")})
    world.feed("run-result", wrong)
    assert world.ignored == ["other_digest"]
    assert world.scope.verdict == "hold"
    assert world.shard.ignored == {"other_digest": 1}


def test_results_for_an_older_trigger_are_ignored(world: World) -> None:
    world.configure()
    first = world.requests[0]
    world.configure(model_config(version="2"))
    world.feed("run-result", result_for(first))
    assert world.ignored == ["older_trigger"]
    assert world.scope.verdict == "hold"


def test_results_that_nobody_asked_for_are_ignored(approved: World) -> None:
    ghost = result_for(approved.requests[0]).model_copy(update={"request_id": "ghost"})
    approved.feed("run-result", ghost)
    assert approved.ignored == ["unknown_request"]


def test_a_deployment_runs_the_suite_first_and_holds_until_it_passes(approved: World) -> None:
    approved.command("deploy", target=target("2"), model_version="2")
    assert approved.last.verdict == "hold"
    assert approved.last.trigger.kind == "deployment"
    assert approved.last.scope.model_version == "2"
    request = approved.requests[-1]
    assert (request.role, request.window, request.target.digest) == ("candidate", None, sha("2"))
    approved.answer("pass")
    assert approved.last.verdict == "approve"
    assert approved.last.scope.model_digest == sha("2")


def test_a_deployment_whose_suite_fails_stays_on_hold_and_never_rolls_back_what_serves(approved: World) -> None:
    approved.command("deploy", target=target("2"), model_version="2")
    approved.answer("fail", checks=(check("fail", critical=True),))
    assert approved.last.verdict == "hold"
    assert "candidate_not_serving" in codes(approved.last)
    assert approved.scope.serving is not None
    assert approved.scope.serving.version == "1"


def test_an_earlier_pass_on_the_same_bytes_does_not_approve_a_deployment(approved: World) -> None:
    approved.command("deploy", target=target("0"), model_version="0")  # the baseline, which passed
    assert approved.scope.verdict == "hold"
    approved.after(30)
    assert approved.scope.verdict == "hold"


def test_findings_during_a_run_go_into_the_next(approved: World) -> None:
    approved.after(60)
    approved.feed("finding", finding("change", 1))
    running = approved.scope.running
    assert running is not None
    approved.feed("finding", finding("change", 2))
    assert approved.scope.running == running
    assert approved.scope.queued["serving"].joined == 1
    approved.answer("pass")
    assert approved.scope.passed[sha("1")].ordinal == running.ordinal
    assert approved.answer("pass").trigger_id == finding("change", 2).id


def test_triggers_are_coalesced_and_cooled_down(approved: World) -> None:
    approved.after(60)
    before = len(approved.requests)
    for number in range(100):
        approved.feed("finding", finding("change", number))
    assert len(approved.requests) == before + 1
    assert approved.scope.queued["serving"].joined == 99
    approved.answer("pass")
    assert len(approved.requests) == before + 1  # the next one waits for the cool-down
    approved.after(30)
    assert len(approved.requests) == before + 2


def test_the_most_severe_times_traffic_runs_first() -> None:
    world = World(Policy(queue=Queue(max_running=1)))
    for name in ("a", "b", "c"):
        config = model_config(baseline=None).model_copy(update={"model": name})
        world.configure(config)
    sent = [item for item in world.requests if item.trigger_kind == "startup"]
    assert len(sent) == 1  # max_running
    for number, (name, severity) in enumerate((("b", 0.2), ("c", 0.9))):
        scope = f"default/{name}/production"
        world.shard.scopes[scope] = world.shard.scopes[scope].model_copy(update={"queued": {}, "last_run_ms": 1})
        world.feed("finding", finding("change", number, model=name, severity=severity, events=10_000))
    world.feed("run-result", result_for(sent[0]))
    assert [item.scope for item in world.requests][-1] == "default/c/production"


def test_historical_findings_never_give_a_gate_event(approved: World) -> None:
    before = (approved.scope.seq, len(approved.requests))
    approved.feed("finding", finding("harm", historical=True))
    approved.feed("finding", finding("harm", historical=True, model="other"))
    assert (approved.scope.seq, len(approved.requests)) == before
    assert approved.ignored == ["historical", "historical"]
    assert list(approved.shard.scopes) == [SCOPE]


@pytest.mark.parametrize("revision", ["recovered", "withdrawn", "accepted"])
def test_revisions_close_the_open_incident(approved: World, revision: str) -> None:
    first = finding("change")
    approved.feed("finding", first)
    assert len(approved.scope.incidents) == 1
    approved.feed("finding", revision_of(first, revision))
    assert approved.scope.incidents == {}


def test_a_model_without_configuration_is_in_shadow_mode_and_never_enforced(world: World) -> None:
    world.feed("finding", finding("harm", severity=0.9))
    assert {item.mode for item in world.decisions} == {"shadow"}
    assert {item.effective_verdict for item in world.decisions} == {"none"}
    assert world.requests == []
    assert world.state.effective_verdict == "none"
    world.configure()
    assert world.last.mode == "enforce"


def test_configuration_taken_back_ends_the_lease(approved: World) -> None:
    approved.unconfigure()
    assert approved.last.mode == "shadow"
    assert approved.scope.lease is None


def test_silence_holds(approved: World) -> None:
    approved.feed("finding", finding("silence", family="silence"))
    assert approved.last.verdict == "hold"
    assert approved.last.trigger.kind == "silence"


def test_a_changed_target_in_the_configuration_holds_until_it_passes(approved: World) -> None:
    approved.configure(model_config(version="2"))
    assert approved.last.verdict == "hold"
    approved.answer("pass", role="serving")
    assert approved.last.verdict == "approve"
    assert approved.last.scope.model_version == "2"


def test_the_same_configuration_again_changes_nothing(approved: World) -> None:
    before = approved.scope
    approved.configure()
    assert approved.scope == before


def test_a_missing_policy_blocks_approval(world: World) -> None:
    world.configure(model_config(policy="strict"))
    world.answer("pass", role="serving")
    assert world.scope.verdict == "hold"
    assert "policy_missing" in world.scope.blocked_by


def test_a_deployment_sent_twice_counts_once(approved: World) -> None:
    approved.command("deploy", id="d-1", target=target("2"), model_version="2")
    approved.command("deploy", id="d-1", target=target("2"), model_version="2")
    assert approved.ignored == ["duplicate_command"]


def test_commands_for_unknown_models_are_ignored_and_make_no_scope(world: World) -> None:
    world.command("deploy", target=target("2"))
    assert world.ignored == ["unconfigured"]
    assert world.shard.scopes == {}


def test_two_schedulers_give_one_run(approved: World) -> None:
    approved.clock()
    assert approved.scope.running is not None
    before = approved.scope
    approved.clock()
    assert approved.scope == before


def test_a_clock_that_steps_back_does_not_stretch_a_lease(approved: World) -> None:
    from regate.daemon.gate.turn import TickSeen

    now = approved.shard.now_ms
    approved.feed("tick", TickSeen(now_ms=now - 3_600_000))
    assert approved.shard.now_ms == now
    assert approved.shard.backward_ticks == 1


def test_policy_changes_take_effect_at_their_record() -> None:
    world = World(Policy(lease=Lease(seconds=60)))
    world.approve()
    assert world.scope.lease is not None
    from tests.gate_world import control_of

    world.feed("control", control_of(Policy(mode="shadow")))
    assert world.state.mode == "shadow"
    assert world.state.effective_verdict == "none"


def test_a_deployment_with_one_signer_does_not_lift_fail_safe() -> None:
    world = fail_safe()
    world.command("deploy", target=target("2"), model_version="2", approvals=("ann",))
    world.settle(1500)
    assert world.scope.verdict == "fail_safe"
    assert "signers" in world.scope.blocked_by


def test_a_requalification_of_another_version_does_not_slip_under_an_approval(approved: World) -> None:
    approved.command("requalify", target=target("2"), model_version="2", actor="ann", reason="r")
    assert approved.last.verdict == "hold"
    assert approved.last.scope.model_digest == sha("2")


def test_a_roll_back_applied_after_the_gate_cleared_holds() -> None:
    world = rolled_back()
    asked = world.last
    world.feed("finding", revision_of(finding("harm", severity=0.9), "recovered"))
    world.command("requalify", actor="ann", reason="ok")
    world.settle(1500)
    assert world.scope.verdict == "approve"
    world.ack(asked, "applied")
    assert world.last.verdict == "hold"
    assert world.last.scope.model_digest == sha("0")
