"""Service: what is watched of latency, errors and timeouts, and objectives by burn rates over several windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.scored_streams import BINARY, binary, joined, labels_of, profile_of
from tests.served_streams import KEY, blocks, config, found, reference, served
from tests.telemetry_streams import alone, pick

from regate.config.model import Service
from regate.detectors.build import build_profile
from regate.detectors.burn import BUCKET_CELLS, BUCKETS, RULES, Burn, Objective
from regate.detectors.cells import Block
from regate.detectors.clocks import EventClock, RowClock
from regate.detectors.columns import Labels, Numeric, Slice
from regate.detectors.decide import inherit
from regate.detectors.finding import Finding
from regate.detectors.labelled import Delivery
from regate.detectors.watch import Watch

AT = 6_400


def names_of(events: Slice, **service: object) -> tuple[set[str], tuple[str, ...]]:
    profile = build_profile(config(service=service), KEY, events, calibrate_seconds=0)
    return {chart.name.removeprefix("service/") for chart in profile.charts if chart.family == "service"}, profile.notes


def test_the_family_has_these_charts_and_weighs_one() -> None:
    events, _ = served(4_000, seed=1)
    tails = {f"latency/above q{tail}" for tail in ("0.5", "0.9", "0.99", "0.999")}
    names, notes = names_of(events, timeout_ms=100.0)
    assert names == {"latency/mean", "latency/scale", *tails, "errors/rate", "timeouts/rate"}
    assert not [note for note in notes if "service" in note]
    profile = build_profile(config(service={"timeout_ms": 100.0}), KEY, events, calibrate_seconds=0)
    assert sum(chart.weight for chart in profile.charts if chart.family == "service") == pytest.approx(1.0)
    kinds = {chart.name: chart.kind for chart in profile.charts if chart.family == "service"}
    assert {name for name, kind in kinds.items() if kind == "harm"} == {"service/errors/rate", "service/timeouts/rate"}


def test_what_is_promised_and_cannot_be_watched_is_said() -> None:
    events, _ = served(4_000, seed=1)
    asked = {"timeout_ms": 100.0, "error_objective_ratio": 0.01, "latency_objective_ms": 50.0}
    names, notes = names_of(replace(events, latency_ms=None, error=None), **asked)
    assert names == set()
    said = " ".join(notes)
    assert all(f"detection.service.{name} is not watched" in said for name in asked)


def test_timeouts_that_begin_are_harm() -> None:
    def stuck(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        late["latency_ms"] = np.where(rng.random(late["latency_ms"].size) < 0.05, 5_000.0, late["latency_ms"])

    told = found(reference(service=Service(timeout_ms=2_000.0)), stuck)
    first = next(one for one in told if one.kind == "harm")
    assert (first.family, first.subject, first.unit) == ("service", "timeouts", "probability")
    assert AT <= first.detected_us <= AT + 1_000
    assert 0.3 <= first.severity < 0.5  # five points hold, and do not roll back


@pytest.mark.parametrize("seed", [5, 6, 7, 8])
def test_a_latency_that_changes_is_one_incident_whatever_of_it_follows(seed: int) -> None:
    def tail(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
        late["latency_ms"] = np.where(rng.random(late["latency_ms"].size) < 0.03, 2_000.0, late["latency_ms"])

    told = found(reference(), tail, seed=seed)
    assert [(one.family, one.subject) for one in told] == [("service", "latency")]


# -- objectives ----------------------------------------------------------------------------------------------------


def burn(*minutes: tuple[int, int], allowed: float = 0.001, old: int = 0) -> tuple[Burn, list[Finding]]:
    """Take (bad, all) of each minute; the first ``old`` ones were old at arrival."""
    one = Burn(Objective("error objective", 1, 2, allowed))
    told = []
    for minute, (bad, total) in enumerate(minutes):
        stats, historical = np.array([total, bad, total]), total if minute < old else 0
        told += one.step(Block(0, 60 * minute, 60 * minute + 59, stats, historical), KEY)
    return one, told


def test_a_fast_burn_fires_when_both_windows_agree_and_ends_with_the_short_one() -> None:
    calm, failing_minutes = [(0, 1000)] * 120, [(100, 1000)] * 20
    _, told = burn(*calm, *failing_minutes, *[(0, 1000)] * 60)
    first = told[0]
    assert (first.type, first.kind, first.family, first.subject) == ("finding", "harm", "service", "error objective")
    assert first.severity == 0.5
    assert float(first.threshold) == 14.4
    assert 120 * 60 < first.detected_us / 1e6 <= 135 * 60
    assert [one.revision for one in told if one.type == "revision"][:1] == ["recovered"]
    assert burn(*calm, (100, 1000), *[(0, 1000)] * 60)[1] == []  # one bad minute of an hour


def test_a_slow_burn_is_milder_and_few_events_say_nothing() -> None:
    _, told = burn(*[(7, 1000)] * 400)
    assert len(told) == 1
    assert told[0].severity == 0.4
    assert burn(*[(1, 1)] * 90)[1] == []


def test_a_burn_forgets_what_left_its_window() -> None:
    one, told = burn(*[(100, 1000)] * 20)
    assert told[-1].type == "finding"
    later = BUCKET_CELLS * (2 * BUCKETS)
    one.step(Block(0, later, later + 59, np.array([1, 0, 1]), 0), KEY)
    assert one.rate(BUCKETS) == (0.0, 1)
    later += BUCKET_CELLS
    (over,) = one.step(Block(0, later, later + 59, np.array([1, 0, 1]), 0), KEY)
    assert over.revision == "recovered"


def test_a_burn_that_becomes_faster_is_the_same_incident_with_more_severity() -> None:
    _, told = burn(*[(7, 1000)] * 200, *[(100, 1000)] * 30, *[(0, 1000)] * 60)
    assert [(one.type, one.revision, one.severity) for one in told] == [
        ("finding", "", 0.4),
        ("revision", "confirmed", 0.5),
        ("revision", "recovered", 0.5),
    ]
    first, worse, over = told
    assert first.incident == worse.incident == over.incident == first.id
    assert len({one.id for one in told}) == 3
    assert float(worse.threshold) == 14.4


def test_an_import_of_the_past_is_history_and_what_goes_on_today_is_said_again() -> None:
    failing = [(100, 1000)]
    _, told = burn(*failing * 60, old=60)
    assert [one.historical for one in told] == [True]
    _, told = burn(*failing * 90, old=60)
    assert [(one.revision, one.historical) for one in told] == [("", True), ("confirmed", False)]
    assert told[1].incident == told[0].id
    _, told = burn(*failing * 60)
    assert [one.historical for one in told] == [False]


def test_counts_of_another_limit_are_not_taken_over_and_what_is_open_is_closed_in_time() -> None:
    before, told = burn(*[(100, 1000)] * 60)
    same = Burn(Objective("error objective", 5, 6, 0.002))
    same.take_over(before)
    assert same.rate(12)[0] == pytest.approx(before.rate(12)[0] / 2)
    other = Burn(Objective("error objective", 1, 2, 0.001, limit="250.0"))
    other.take_over(before)
    assert (other.bad.sum(), other.open) == (0, told[0])
    ended = []
    for minute in range(70, 80):
        ended += other.step(Block(0, 60 * minute, 60 * minute + 59, np.array([1000, 0, 1000]), 0), KEY)
    assert [one.revision for one in ended] == ["recovered"]


def test_a_new_profile_goes_on_with_the_objectives_and_rows_know_no_time() -> None:
    promised = Service(error_objective_ratio=0.01, latency_objective_ms=40.0)
    profile = reference(4_000, service=promised)
    assert [one.name for one in profile.objectives] == ["latency objective", "error objective"]
    events, labels = served(6_400, seed=4)
    watch = Watch(profile, EventClock(profile.budget_period_us, 1.0))
    watch.take(blocks(profile, events, labels))
    assert watch.burns[1].all.sum() > 6_000
    moved = Watch(reference(4_000, service=promised.model_copy(update={"latency_objective_ms": 50.0})), watch.clock)
    inherit(moved, watch)
    assert moved.burns[1].all.sum() == watch.burns[1].all.sum()
    assert moved.burns[0].all.sum() == 0
    assert Watch(profile, RowClock(1e6, 100)).burns == []


def test_the_rules_are_those_of_the_workbook() -> None:
    hours = [(rule.long * BUCKET_CELLS / 3600, rule.short * BUCKET_CELLS / 3600, rule.factor) for rule in RULES]
    assert hours == [(1.0, 1 / 12, 14.4), (6.0, 0.5, 6.0), (72.0, 6.0, 1.0)]
    assert max(rule.long for rule in RULES) <= BUCKETS


# -- beside labels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [False, True])
def test_an_outage_is_not_explained_by_the_labels_that_it_takes_away(failing: bool) -> None:
    """Labels of one class stop as well: what labels say is selective then, what the service says is not."""
    calm, late = binary(6_000, 2), binary(6_000, 3)
    rows = joined(calm, late)
    rng, n = np.random.default_rng(4), rows.events.n
    error = rng.random(n) < np.where((np.arange(n) >= 6_000) & failing, 0.3, 0.005)
    events = replace(rows.events, error=error)
    made = events.prediction
    assert isinstance(made, Numeric)
    keep = (np.arange(n) < 6_000) | (made.values == 1)
    usual = binary(12_000, 1)
    quiet = replace(usual, events=replace(usual.events, error=rng.random(12_000) < 0.005))
    profile = profile_of(BINARY, quiet, delivery=Delivery(np.zeros(12_000)), events_per_second=10.0)
    labels = pick(labels_of(rows), np.flatnonzero(keep))
    assert isinstance(labels, Labels)
    harms = [one for one in alone(events, labels, profile, BINARY).findings if one.kind == "harm"]
    assert bool(harms) == failing
    if failing:
        assert (harms[0].family, harms[0].subject) == ("service", "errors")
        assert "selective" not in harms[0].message
        assert harms[0].severity > 0.6
