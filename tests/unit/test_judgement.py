"""Change or harm: labels confirm or withdraw a change of inputs, and the gate hears it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.gate_world import World
from tests.telemetry_streams import alone, shifted, telemetry, wronged

from regate.detectors.columns import Labels
from regate.detectors.finding import Finding

EVENTS, LABELS = telemetry(16_000, seed=33)  # judged at the first look, as 8 of the seeds 31 to 42
CHANGE = 5_000


def late(seconds: int) -> Labels:
    moved = LABELS.event_time_us + seconds * 1_000_000
    return replace(LABELS, event_time_us=moved, arrival_us=moved + 50_000)


def row_of(time_us: int) -> int:
    return int(np.searchsorted(EVENTS.event_time_us, time_us))


def said(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(finding.kind, finding.subject, finding.revision) for finding in findings]


def test_enough_outcomes_without_loss_withdraw_a_change() -> None:
    first, closed = alone(shifted(EVENTS, CHANGE), LABELS).findings
    assert (closed.type, closed.revision, closed.incident) == ("revision", "withdrawn", first.id)
    # 1,024 outcomes at least; those of the first minute (3,000 events) may be of predictions before the onset.
    assert CHANGE + 3_000 + 1_024 - 64 <= row_of(closed.detected_us) < CHANGE + 3_000 + 2_500
    assert "no loss" in closed.message
    assert "99 %" in closed.message


def test_outcomes_from_before_the_onset_withdraw_nothing() -> None:
    _, closed = alone(shifted(EVENTS, CHANGE), late(120)).findings
    # 6,000 events pass until the first outcome of a prediction after the onset.
    assert row_of(closed.detected_us) > CHANGE + 6_000 + 1_024


def test_too_few_outcomes_withdraw_nothing() -> None:
    few = np.arange(0, LABELS.n, 20)
    some = replace(
        LABELS,
        n=len(few),
        event_id=LABELS.event_id[few],
        event_time_us=LABELS.event_time_us[few],
        arrival_us=LABELS.arrival_us[few],
        label=replace(LABELS.label, values=LABELS.label.values[few]),  # type: ignore[union-attr]
    )
    assert said(alone(shifted(EVENTS, CHANGE), some).findings) == [("change", "income", "")]


def test_a_small_loss_is_never_called_none() -> None:
    # Errors go from .10 to .13: too little to be found at once, too much to be withdrawn.
    run = alone(wronged(shifted(EVENTS, CHANGE), CHANGE, 0.0375), LABELS)
    assert "withdrawn" not in [finding.revision for finding in run.findings]


def test_a_withdrawn_change_is_not_found_again_and_its_charts_come_back_when_it_ends() -> None:
    back = shifted(shifted(EVENTS, CHANGE, last=10_000), 13_000)
    run = alone(back, LABELS)
    assert said(run.findings)[:3] == [
        ("change", "income", ""),
        ("change", "income", "withdrawn"),
        ("change", "income", ""),
    ]
    assert row_of(run.findings[2].onset_us) > 12_500


@pytest.mark.parametrize("seconds", [5, 65])
def test_harm_with_the_same_onset_confirms_a_change(seconds: int) -> None:
    run = alone(wronged(shifted(EVENTS, CHANGE), CHANGE, 0.3), late(seconds - 5))
    assert said(run.findings) == [("change", "income", ""), ("harm", "error", ""), ("change", "income", "confirmed")]
    change, harm, confirmed = run.findings
    assert confirmed.incident == change.id
    assert confirmed.severity == harm.severity > 0.5
    assert confirmed.detected_us == harm.detected_us
    assert "realised performance fell" in confirmed.message


def test_harm_of_another_time_confirms_nothing() -> None:
    run = alone(wronged(shifted(EVENTS, CHANGE), CHANGE + 900, 0.4), LABELS)
    assert ("harm", "error", "") in said(run.findings)
    assert "confirmed" not in [finding.revision for finding in run.findings if finding.kind == "change"]


def test_a_change_that_is_seen_after_its_harm_is_confirmed_too() -> None:
    # Of the seeds 31 to 42 ten; where the estimated onset of a weak change is 400 events late it is another change.
    events, labels = telemetry(16_000, seed=34)
    at_once = replace(labels, event_time_us=events.event_time_us, arrival_us=events.arrival_us)
    run = alone(wronged(shifted(events, CHANGE, by=0.4), CHANGE, 0.6), at_once)
    kinds = said(run.findings)
    assert kinds.index(("harm", "error", "")) < kinds.index(("change", "income", ""))
    assert ("change", "income", "confirmed") in kinds


def test_a_withdrawn_change_that_grows_is_found_again() -> None:
    events, labels = telemetry(24_000, seed=33)
    grown = shifted(shifted(events, CHANGE), 14_000)
    run = alone(grown, labels)
    assert said(run.findings)[:3] == [
        ("change", "income", ""),
        ("change", "income", "withdrawn"),
        ("change", "income", ""),
    ]
    again = run.findings[2]
    # Looked at every 1,024 events; then it takes as long as any other change.
    assert 14_000 < int(np.searchsorted(events.event_time_us, again.detected_us)) < 14_000 + 3_000


def test_a_withdrawn_change_that_stays_as_it_is_stays_withdrawn() -> None:
    for seed in (33, 34, 36):
        events, labels = telemetry(30_000, seed=seed)
        kinds = said(alone(shifted(events, CHANGE), labels).findings)
        assert kinds == [("change", "income", ""), ("change", "income", "withdrawn")], seed


def approved() -> World:
    world = World()
    world.approve()
    return world


def test_the_gate_closes_what_labels_withdraw() -> None:
    world = approved()
    first, closed = alone(shifted(EVENTS, CHANGE), LABELS).findings
    world.feed("finding", first)
    assert first.incident in world.scope.incidents
    assert world.requests[-1].trigger_kind == "drift"
    world.feed("finding", closed)
    assert world.scope.incidents == {}
    assert world.scope.verdict == "approve"


def test_the_gate_rolls_back_on_the_harm_and_a_confirmed_change_blocks_approval() -> None:
    world = approved()
    change, harm, confirmed = alone(wronged(shifted(EVENTS, CHANGE), CHANGE, 0.3), LABELS).findings
    world.feed("finding", change)
    assert world.scope.verdict == "approve"
    world.feed("finding", harm)
    assert world.scope.verdict == "roll_back"
    world.feed("finding", confirmed)
    assert world.scope.incidents[change.incident].severity > 0.5  # lease.max_open_severity
