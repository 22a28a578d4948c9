"""Leases: renewed only on proof, expiring by decision."""

from __future__ import annotations

import pytest
from tests.gate_world import World, codes, finding, model_config, revision_of

from regate.config.policy import Lease, Policy
from regate.daemon.gate.lease import jitter

HOUR = 3600.0


def approved(**changes: object) -> World:
    world = World(Policy(lease=Lease.model_validate({"seconds": 600} | changes)))
    world.approve()
    return world


def renewals(world: World) -> int:
    return sum(item.transition == "renew" for item in world.decisions)


def test_a_lease_is_renewed_at_a_third_on_proof() -> None:
    world = approved()
    world.after(250)
    assert renewals(world) >= 1
    renewal = next(item for item in world.decisions if item.transition == "renew")
    assert renewal.proof is not None
    assert [item.source for item in renewal.proof.sources] == ["telemetry-0"]
    assert renewal.proof.run_id
    world.after(1200)
    assert world.scope.verdict == "approve"


def test_watch_stopped_means_no_renewal_and_the_lease_runs_out() -> None:
    world = approved()
    world.watching = False
    world.after(590)
    assert renewals(world) == 0
    assert "stale_heartbeat" in world.scope.blocked_by
    assert world.state.blocked_by == world.scope.blocked_by
    world.after(120)
    expiry = next(item for item in world.decisions if item.transition == "expire")
    assert expiry.verdict == "hold"
    assert {"lease_expired", "stale_heartbeat"} <= codes(expiry)
    assert expiry.action.kind == "hold_new"


def test_an_expired_gate_opens_again_only_under_a_live_watch() -> None:
    world = approved()
    world.watching = False
    world.after(700)
    world.settle(300)
    assert world.scope.verdict == "hold"
    assert world.scope.passes >= 1  # the suite alone passed, and is not enough
    world.watching = True
    world.after(10)
    assert world.scope.verdict == "approve"


def test_a_lagging_watch_is_no_proof() -> None:
    world = approved()
    world.lag_ms = 31_000
    world.after(400)
    assert renewals(world) == 0
    assert "lag" in world.scope.blocked_by


def test_every_partition_of_the_model_must_report() -> None:
    world = approved()
    from regate.daemon.wire.internal import Heartbeat

    world.feed(
        "heartbeat",
        Heartbeat(
            source="telemetry-1",
            now_ms=world.now_ms,
            position=1,
            end=1,
            lag_ms=0,
            watermark_us=0,
            models=("default/loan",),
        ),
    )
    world.after(300)
    assert renewals(world) == 0
    assert "stale_heartbeat" in world.scope.blocked_by


def test_a_watch_that_never_reported_renews_nothing() -> None:
    world = World(Policy(lease=Lease(seconds=600)))
    world.configure(model_config(baseline=None))
    world.watching = False
    world.answer("pass")
    assert world.scope.verdict == "approve"  # before its first traffic: by the suite alone
    world.after(700)
    assert renewals(world) == 0
    assert world.scope.verdict == "hold"


def test_an_open_incident_above_the_policy_level_blocks_renewal() -> None:
    world = approved()
    world.feed("finding", finding("change", severity=0.8))
    world.settle(300)
    assert renewals(world) == 0
    assert "open_incident" in world.scope.blocked_by
    world.feed("finding", revision_of(finding("change", severity=0.8), "recovered"))
    world.settle(10)
    assert renewals(world) == 1


def test_drift_blocks_renewal_until_a_run_has_seen_it() -> None:
    world = approved()
    world.after(20)
    world.feed("finding", finding("change"))
    world.after(150)
    assert renewals(world) == 0
    assert world.scope.blocked_by == ("incident_not_validated",)
    world.answer("pass")
    world.after(5)
    assert renewals(world) == 1


def test_an_approval_older_than_the_policy_allows_is_not_renewed() -> None:
    world = approved(max_approval_age_seconds=900)
    while world.scope.verdict == "approve":
        world.after(5)
    assert world.seconds < 900 + 130
    assert "approval_too_old" in world.scope.blocked_by or "approval_too_old" in codes(world.last)
    staleness = [item for item in world.requests if item.trigger_kind == "staleness"]
    assert staleness  # asked for even when the schedule is dead


def test_a_lease_never_outlives_the_run_that_it_rests_on() -> None:
    world = approved(seconds=6 * HOUR, max_approval_age_seconds=HOUR)
    assert world.scope.lease is not None
    passed = next(iter(world.scope.passed.values()))
    assert world.scope.lease.valid_until_ms <= passed.at_ms + HOUR * 1000


def test_on_expiry_keep_and_page() -> None:
    world = approved(on_expiry="keep_and_page")
    world.watching = False
    world.after(720)
    expiry = next(item for item in world.decisions if item.transition == "expire")
    assert (expiry.verdict, expiry.action.kind) == ("hold", "keep_and_page")


def test_on_expiry_baseline_rolls_back_and_names_it() -> None:
    world = approved(on_expiry="baseline")
    world.watching = False
    world.after(720)
    expiry = next(item for item in world.decisions if item.transition == "expire")
    assert (expiry.verdict, expiry.action.kind) == ("roll_back", "roll_back")
    assert expiry.action.target_baseline is not None


def test_an_expiry_is_decided_before_a_late_renewal() -> None:
    world = approved()
    world.watching = False
    world.seconds += 3600  # the daemon was away
    world.beat()
    from regate.daemon.gate.turn import TickSeen

    world.feed("tick", TickSeen(now_ms=world.now_ms))
    assert world.last.transition == "expire"


def test_renewal_by_the_schedule() -> None:
    world = approved()
    world.seconds += 230
    world.shard.now_ms = world.now_ms
    world.beat()
    world.clock("renew")
    assert world.last.transition == "renew"


def test_jitter_is_deterministic_bounded_and_spread() -> None:
    values = [jitter("t/m/d", seq, 0.1) for seq in range(200)]
    assert values == [jitter("t/m/d", seq, 0.1) for seq in range(200)]
    assert all(0.9 <= value < 1.1 for value in values)
    assert max(values) - min(values) > 0.15


def override(world: World, **changes: object) -> None:
    fields: dict[str, object] = {
        "verdict": "approve",
        "actor": "ann",
        "reason": "known upstream fault",
        "ticket": "T-7",
        "expires_ms": world.now_ms + 600_000,
    }
    world.command("override", **(fields | changes))


@pytest.mark.parametrize("missing", ["actor", "reason", "ticket", "verdict", "expires_ms"])
def test_an_override_needs_actor_reason_ticket_and_expiry(missing: str) -> None:
    world = approved()
    override(world, **{missing: 0 if missing == "expires_ms" else ""})
    assert world.ignored == ["override_incomplete"]


def test_an_override_is_marked_on_every_event_and_ends_by_itself() -> None:
    world = approved()
    world.feed("finding", finding("harm"))
    override(world)
    assert (world.last.transition, world.last.verdict, world.last.effective_verdict) == ("override", "hold", "approve")
    world.answer("fail", role="serving")
    assert world.last.override is not None
    assert world.last.override.ticket == "T-7"
    world.after(600)
    assert world.last.override is None
    ended = next(item for item in world.decisions if "override_expired" in codes(item))
    assert (ended.transition, ended.effective_verdict) == ("expire", "hold")


def test_the_expiry_of_an_override_is_capped() -> None:
    world = approved()
    override(world, expires_ms=world.now_ms + 10**12)
    assert world.scope.override is not None
    assert world.scope.override.expires_ms == world.now_ms + 86_400_000


def test_an_override_does_not_cover_what_its_signers_did_not_see() -> None:
    world = approved()
    world.feed("finding", finding("harm"))
    override(world)
    world.feed("finding", finding("harm", 2, severity=0.9))
    assert (world.last.verdict, world.last.effective_verdict) == ("roll_back", "roll_back")
    assert world.last.override is not None


def test_an_override_can_hold_an_approved_gate() -> None:
    world = approved()
    override(world, verdict="hold")
    assert (world.last.verdict, world.last.effective_verdict) == ("approve", "hold")
