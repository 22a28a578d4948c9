"""A roll-back is requested, applied, seen, helped; what does not happen in time escalates."""

from __future__ import annotations

import pytest
from tests.gate_world import World, codes, finding, model_config, revision_of

from regate.config.policy import Policy, RollBack, shipped_text

HARM = finding("harm", severity=0.9)


def rolled_back(policy: Policy | None = None, version: str = "1") -> World:
    world = World(policy)
    world.carrying = (version,)
    world.configure(model_config(version))
    world.settle(120.0)
    assert world.scope.verdict == "approve", world.last
    world.feed("finding", HARM.model_copy(update={"model_version": version}))
    assert world.last.action.kind == "roll_back"
    return world


def stage(world: World) -> str:
    assert world.scope.remedy is not None
    assert world.state.remedy is not None
    assert world.state.remedy.stage == world.scope.remedy.stage
    return world.scope.remedy.stage


def test_a_roll_back_that_is_applied_seen_and_over_has_helped() -> None:
    world = rolled_back()
    assert stage(world) == "requested"
    world.after(60.0)
    world.ack(world.last, "applied")
    assert stage(world) == "applied"
    world.carrying = ("1", "0")
    world.after(30.0)
    assert stage(world) == "applied"  # the old version still answers
    world.carrying = ("0",)
    world.after(30.0)
    assert stage(world) == "seen"
    before = len(world.decisions)
    world.feed("finding", revision_of(HARM, "recovered"))
    world.after(10.0)
    assert stage(world) == "helped"
    world.after(8000.0, step=60.0)
    assert world.scope.verdict == "roll_back"  # latched, and nothing escalates any more
    assert len(world.decisions) == before


def test_a_passed_run_of_the_version_rolled_back_to_is_help_too() -> None:
    world = rolled_back()
    world.ack(world.last, "applied")
    world.carrying = ("0",)
    world.after(30.0)
    assert stage(world) == "seen"
    world.clock()
    world.settle(120.0)
    assert stage(world) == "helped"


def test_a_roll_back_that_nobody_answers_pages_and_then_fails_safe() -> None:
    world = rolled_back()
    asked = world.last
    world.after(299.0)
    assert world.last is asked
    world.after(10.0)
    assert (world.last.verdict, world.last.action.kind) == ("roll_back", "page")
    assert codes(world.last) == {"roll_back_unacknowledged"}
    assert world.last.reasons[0].check_id == asked.id
    world.after(280.0)
    assert world.last.verdict == "roll_back"
    world.after(20.0)
    assert world.last.verdict == "fail_safe"
    assert stage(world) == "failed"


def test_received_is_no_answer() -> None:
    world = rolled_back()
    world.ack(world.last, "received")
    world.after(610.0)
    assert world.last.verdict == "fail_safe"


def test_an_ack_of_the_request_counts_after_the_page() -> None:
    world = rolled_back()
    asked = world.last
    world.after(310.0)
    world.ack(asked, "applied")
    assert stage(world) == "applied"


def test_a_roll_back_that_telemetry_does_not_show_fails_safe() -> None:
    world = rolled_back(version="2")
    # A version that the configuration does not name can only come from events that say their version.
    assert world.scope.remedy is not None
    world.shard.scopes[world.scope.name] = world.scope.model_copy(
        update={"remedy": world.scope.remedy.model_copy(update={"before": "1.9"})}
    )
    world.ack(world.last, "applied")
    world.carrying = ("1.9",)
    world.after(610.0)
    assert world.last.verdict == "fail_safe"
    assert codes(world.last) == {"roll_back_not_seen"}


def test_where_events_do_not_say_versions_an_unseen_roll_back_only_pages() -> None:
    world = rolled_back()
    world.ack(world.last, "applied")
    world.after(3000.0)
    assert world.scope.verdict == "roll_back"
    assert [codes(item) for item in world.decisions[-1:]] == [{"roll_back_not_seen"}]
    assert world.last.action.kind == "page"


def test_a_model_that_nobody_asks_cannot_be_seen_and_that_is_no_failure() -> None:
    world = rolled_back(version="2")
    world.ack(world.last, "applied")
    world.carrying = ()
    asked = len(world.decisions)
    world.after(700.0)
    assert stage(world) == "applied"
    assert len(world.decisions) == asked


def test_harm_that_goes_on_under_the_baseline_fails_safe() -> None:
    world = rolled_back()
    world.ack(world.last, "applied")
    world.carrying = ("0",)
    world.after(30.0)
    world.feed("finding", finding("harm", number=2, severity=0.4, model_version="0"))
    world.after(3600.0, step=30.0)
    assert world.last.verdict == "fail_safe"
    assert "roll_back_did_not_help" in codes(world.last)


def test_what_nothing_proves_pages_once() -> None:
    world = rolled_back()
    world.ack(world.last, "applied")
    world.carrying = ("0",)
    world.after(4000.0, step=30.0)
    assert [codes(item) for item in world.decisions if "roll_back_unproven" in codes(item)] == [{"roll_back_unproven"}]
    assert world.scope.verdict == "roll_back"


def test_a_requalification_that_lifts_the_verdict_ends_the_remedy() -> None:
    world = rolled_back(Policy(roll_back=RollBack(ack_seconds=1e6)))
    world.feed("finding", revision_of(HARM, "recovered"))
    world.command("requalify", actor="ann", reason="fixed upstream")
    world.settle(800.0)
    assert world.scope.verdict == "approve"
    assert stage(world) == "lifted"


def test_in_shadow_mode_nobody_answers_and_nothing_is_waited_for() -> None:
    world = rolled_back(Policy(mode="shadow"))
    asked = len(world.decisions)
    world.after(2000.0, step=30.0)
    assert world.scope.remedy is None
    assert {item.verdict for item in world.decisions[asked:]} <= {"roll_back"}


@pytest.mark.parametrize("key", ["ack_seconds", "seen_seconds", "helped_seconds"])
def test_the_deadlines_stand_in_the_shipped_policy(key: str) -> None:
    assert f"  {key}: " in shipped_text()
