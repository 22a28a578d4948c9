"""Incidents: one change is one finding, nobody hides behind the first, harm stands by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.telemetry_streams import CONFIG, KEY, START_US, Pipeline, alone, profile, shifted, telemetry, wronged

from regate.config.canonical import content_id
from regate.detectors.cells import CELL_US, Block
from regate.detectors.clocks import EventClock, RowClock
from regate.detectors.finding import Finding
from regate.detectors.incidents import near_blocks, severity
from regate.detectors.watch import Watch

EVENTS, LABELS = telemetry(10_000, seed=11)
CHANGE = 5_000


def opened(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.type == "finding"]


def row_of(time_us: int) -> int:
    return int(np.searchsorted(EVENTS.event_time_us, time_us))


def test_no_change_no_finding() -> None:
    assert alone(EVENTS, LABELS).findings == []


def test_a_change_is_one_finding_with_onset_effect_and_a_sentence() -> None:
    (finding,) = opened(alone(shifted(EVENTS, CHANGE), LABELS).findings)
    assert (finding.kind, finding.family, finding.subject) == ("change", "feature_drift", "income")
    assert finding.severity == 0.5
    assert abs(row_of(finding.onset_us) - CHANGE) < 200
    assert CHANGE < row_of(finding.detected_us) < CHANGE + 300
    assert float(finding.effect) == pytest.approx(1.0, abs=0.3)
    assert float(finding.evidence) >= float(finding.threshold)
    assert finding.carriers[0].chart == "feature_drift/income/mean"
    assert "income moved +" in finding.message
    assert finding.message.count("\n") == 0


def test_charts_of_the_same_change_join_one_finding() -> None:
    both = shifted(shifted(EVENTS, CHANGE), CHANGE, name="age")
    (finding,) = opened(alone(both, LABELS).findings)
    watch = alone(both, LABELS).shard.models[KEY].watch
    assert watch is not None
    (incident,) = watch.incidents
    assert {"feature_drift/income/mean", "feature_drift/age/mean"} <= set(incident.charts)
    assert finding.subject in {"income", "age"}


def test_a_second_change_is_a_second_finding() -> None:
    run = alone(shifted(shifted(EVENTS, CHANGE), 8_000, name="age"), LABELS)
    first, second = opened(run.findings)
    assert (first.subject, second.subject) == ("income", "age")
    assert abs(row_of(second.onset_us) - 8_000) < 300
    assert first.incident != second.incident


def test_harm_does_not_hide_in_a_change_of_inputs() -> None:
    run = alone(wronged(shifted(EVENTS, CHANGE), CHANGE, 0.5), LABELS)
    found = {finding.kind: finding for finding in opened(run.findings)}
    assert set(found) == {"change", "harm"}
    harm = found["harm"]
    assert (harm.family, harm.unit) == ("performance", "probability")
    assert float(harm.effect) == pytest.approx(0.4, abs=0.1)
    assert harm.severity == 1.0
    assert "wrong predictions" in harm.message


def test_harm_that_is_seen_at_the_same_moment_is_its_own_finding() -> None:
    at_once = replace(LABELS, event_time_us=EVENTS.event_time_us, arrival_us=EVENTS.arrival_us)
    run = alone(wronged(shifted(EVENTS, CHANGE), CHANGE, 0.3), at_once)
    change, harm = opened(run.findings)
    assert (change.kind, harm.kind) == ("change", "harm")
    assert change.detected_us == harm.detected_us  # the first finding takes nothing from the second
    assert change.id != harm.id
    assert {carrier.family for carrier in harm.carriers} == {"performance"}
    assert "performance" not in {carrier.family for carrier in change.carriers}


def test_when_the_change_ends_the_incident_recovers_and_can_open_again() -> None:
    back = shifted(shifted(EVENTS, 2_000, last=4_000), 8_000)
    run = alone(back)  # without labels: they would withdraw it first
    assert [(finding.type, finding.revision) for finding in run.findings] == [
        ("finding", ""),
        ("revision", "recovered"),
        ("finding", ""),
    ]
    first, closed, again = run.findings
    assert closed.incident == first.id
    assert closed.id == content_id("revision", first.id, "recovered")
    assert 4_000 + 1_024 <= row_of(closed.detected_us) < 6_500
    assert again.id != first.id
    watch = run.shard.models[KEY].watch
    assert watch is not None
    assert len(watch.incidents) == 1


def test_an_incident_stays_open_as_long_as_the_change_lasts() -> None:
    run = alone(shifted(EVENTS, 1_000, by=0.5))
    assert [finding.type for finding in run.findings] == ["finding"]


def test_restart_mode_counts_the_same_change_again_and_again() -> None:
    run = Pipeline(("telemetry-0",))
    watch = run.shard.models[KEY].watch
    assert watch is not None
    watch.on_finding = "restart"
    run.feed("telemetry-0", shifted(EVENTS, CHANGE))
    run.end()
    assert len(run.findings) > 5
    assert watch.incidents == []
    assert len({finding.id for finding in run.findings}) == len(run.findings)


def test_ids_come_from_content() -> None:
    one, two = (alone(shifted(EVENTS, CHANGE), LABELS).findings for _ in range(2))
    assert [finding.id for finding in one] == [finding.id for finding in two]
    other = alone(shifted(EVENTS, CHANGE, by=1.5), LABELS).findings
    assert one[0].id != other[0].id


def test_events_that_were_old_at_arrival_make_findings_historical() -> None:
    changed = shifted(EVENTS, CHANGE)
    (live,) = opened(alone(changed).findings)
    (imported,) = opened(alone(replace(changed, arrival_us=changed.arrival_us + 7200 * CELL_US)).findings)
    assert not live.historical
    assert imported.historical
    assert imported.onset_us == live.onset_us


def test_a_gap_alone_raises_no_alarm() -> None:
    """A month of silence is a whole budget period of elapsed time; it must not pass a threshold by itself."""
    run = Pipeline(("telemetry-0",))
    for number in range(6):
        far, _ = telemetry(3_000, seed=20 + number, start_us=START_US + number * 40 * 86_400 * CELL_US)
        run.feed("telemetry-0", far)
    run.end()
    assert run.findings == []


def test_without_traffic_known_the_ceiling_holds_then_the_first_hour_counts() -> None:
    clock = EventClock(period_us=30 * 86_400 * CELL_US)
    stats = np.array([64])
    for minute in range(120):
        block = Block(0, minute * 60, minute * 60 + 59, stats, 0)
        clock.note(block)
        assert clock.share(block) == pytest.approx(60 / (30 * 86_400))
        if minute < 59:
            assert clock.traffic() is None
    assert clock.traffic() == pytest.approx(64 * 60 * 24 * 30, rel=0.01)


def test_traffic_is_that_of_the_last_day() -> None:
    clock = EventClock(period_us=86_400 * CELL_US)
    for hour in range(72):
        events = 100 if hour < 48 else 1000
        block = Block(0, hour * 3600, hour * 3600 + 3599, np.array([events]), 0)
        clock.note(block)
        clock.share(block)
    assert clock.traffic() == pytest.approx(24_000, rel=0.01)
    assert len(clock.hours) == 24


def test_marks_of_the_row_clock_are_rows() -> None:
    clock = RowClock(1e6, rows=1000, offset=500)
    last = Block(0, 31 * 60, 31 * 60, np.array([4]), 0)
    assert (clock.first(last), clock.last(last)) == (996, 999)
    assert clock.share(last) == 4 / 1e6
    assert clock.cell(996) == clock.cell(999) == last.first


def test_severity_follows_the_loss() -> None:
    harm = next(chart for chart in profile().charts if chart.kind == "harm")
    change = next(chart for chart in profile().charts if chart.kind == "change")
    assert severity(change, 5.0) == 0.5
    assert [severity(harm, loss) for loss in (0.0, 0.1, 0.2, 0.9)] == [0.5, 0.75, 1.0, 1.0]


def test_nearness_is_counted_in_events_when_blocks_are_thin() -> None:
    assert near_blocks(1000, 64_000) == 5
    assert near_blocks(1000, 1_000_000) == 5
    assert near_blocks(1000, 1000) == 320


def test_the_ring_of_blocks_is_bounded_and_newest_last() -> None:
    watch = Watch(profile(), EventClock(profile().budget_period_us))
    stats = np.zeros(profile().layout.width, dtype=np.int64)
    stats[0] = 64
    for cell in range(6000):
        watch.step(Block(0, cell, cell, stats.copy(), 0))
    kept = watch.history.since(0)
    assert len(kept["marks"]) == watch.history.capacity == 4096
    assert kept["marks"][-1].tolist() == [5999, 5999, 0, 6000]
    assert len(watch.history.since(5990)["marks"]) == 11


def test_a_profile_taken_back_sends_the_model_to_learning() -> None:
    run = alone(EVENTS)
    run.shard.configure(KEY, None, CONFIG)
    assert run.shard.models[KEY].watch is None
    run.shard.configure(KEY, profile(), CONFIG)
    assert run.shard.models[KEY].watch is not None


def test_a_chart_that_moved_a_little_all_along_belongs_to_the_open_incident() -> None:
    events, labels = telemetry(40_000, seed=13)
    small = shifted(events, CHANGE, name="age", by=0.3)
    both = opened(alone(shifted(small, CHANGE), labels).findings)
    (only,) = opened(alone(small, labels).findings)
    assert only.subject == "age"
    assert only.detected_us > both[0].detected_us + 100 * CELL_US, "its excursion begins late"
    assert [finding.subject for finding in both] == ["income"]


def test_a_small_change_that_stays_is_one_finding_and_does_not_recover() -> None:
    events, labels = telemetry(40_000, seed=14)
    small = shifted(events, CHANGE, name="age", by=0.35)
    assert [(finding.subject, finding.revision) for finding in alone(small).findings] == [("age", "")]
    judged = alone(small, labels).findings
    assert [(finding.subject, finding.revision) for finding in judged] == [("age", ""), ("age", "withdrawn")]
