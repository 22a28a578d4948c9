"""Output drift, multivariate drift, service: each kind of change under the right family and subject, none without."""

from __future__ import annotations

import numpy as np
import pytest
from tests.served_streams import KEY, Change, blocks, config, found, reference, served

from regate.detectors.build import build_profile
from regate.detectors.cells import BLOCK_EVENTS
from regate.detectors.clocks import RowClock
from regate.detectors.data_quality import flag_name
from regate.detectors.fairness import figures
from regate.detectors.observe import Partition, cell_fragments, watched
from regate.detectors.profile import Profile
from regate.detectors.refusals import Refused, observe_refused
from regate.detectors.sections import HITS
from regate.detectors.watch import Watch

AT = 6_400


def correlated(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    shared = rng.standard_normal(late["age"].size)
    for name in ("age", "tenure"):  # their margins stay normal; neither enters the score
        late[name] = np.sqrt(0.6) * shared + np.sqrt(0.4) * rng.standard_normal(shared.size)


def flipped(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    late["score"] = np.clip(late["score"] + 0.15, 0.0, 1.0)


def unsure(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    late["score"] = 0.5 + 0.5 * (late["score"] - 0.5)


def slow(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    late["latency_ms"] = late["latency_ms"] * 1.3


def long_tail(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    hit = rng.random(late["latency_ms"].size) < 0.03
    late["latency_ms"] = np.where(hit, 2_000.0, late["latency_ms"])


def failing(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    late["error"] = rng.random(late["error"].size) < 0.06


@pytest.mark.parametrize(
    ("change", "family", "subjects", "kind", "within"),
    [
        (correlated, "multivariate_drift", {"age × tenure"}, "change", 400),  # noqa: RUF001
        (flipped, "output_drift", {"class", "score/1", "margin", "score/1|0", "score/1|1"}, "change", 1_000),
        (unsure, "output_drift", {"class", "score/1", "margin", "score/1|0", "score/1|1"}, "change", 1_000),
        (slow, "service", {"latency"}, "change", 1_000),
        (long_tail, "service", {"latency"}, "change", 1_500),
        (failing, "service", {"errors"}, "harm", 1_500),
    ],
)
def test_a_change_is_found_under_its_family(
    change: Change, family: str, subjects: set[str], kind: str, within: int
) -> None:
    first = found(reference(), change)[0]
    print(first.message)
    assert (first.family, first.kind) == (family, kind)
    assert first.subject in subjects
    assert AT <= first.detected_us <= AT + within
    assert abs(first.onset_us - AT) <= 640


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_a_stream_that_does_not_change_gives_nothing(seed: int) -> None:
    assert found(reference(), None, seed=seed) == []


def test_a_correlation_is_never_found_by_a_chart_of_one_feature() -> None:
    for finding in found(reference(), correlated):
        assert {carrier.family for carrier in finding.carriers} == {"multivariate_drift"}


def test_a_feature_that_moves_names_its_incident_whatever_follows_from_it() -> None:
    def richer(late: dict[str, np.ndarray], _rng: np.random.Generator) -> None:
        late["income"] = late["income"] + 0.8
        late["score"] = 1.0 / (1.0 + np.exp(-(0.8 * late["income"] - 0.6 * late["debt"])))

    first = found(reference(), richer)[0]
    assert (first.family, first.subject) == ("feature_drift", "income")


def test_a_profile_with_all_families_comes_back_from_its_bytes() -> None:
    profile = reference()
    again = Profile.from_bytes(profile.to_bytes())
    events, labels = served(640, seed=8)
    for one, two in zip(blocks(profile, events, labels), blocks(again, events, labels), strict=True):
        assert (one.stats == two.stats).all()
    assert again.digest == profile.digest
    assert {chart.family for chart in profile.charts} >= {
        "feature_drift",
        "multivariate_drift",
        "output_drift",
        "service",
        "performance",
    }


def test_a_family_can_be_turned_off() -> None:
    events, labels = served(3_000, seed=1)
    off = {"service": 0.0, "multivariate_drift": 0.0}
    profile = build_profile(config(families=off), KEY, events, labels, calibrate_seconds=0)
    assert {chart.family for chart in profile.charts}.isdisjoint(off)


# -- data quality, behaviour, segments, fairness --------------------------------------------------------------------


def gaps(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    late["tenure"] = np.where(rng.random(late["tenure"].size) < 0.05, np.nan, late["tenure"])


def crowd(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    late["client"] = np.where(rng.random(late["client"].size) < 0.2, 7, late["client"])


def other_races(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    late["race"] = rng.choice(3, late["race"].size, p=[0.4, 0.4, 0.2])


def one_segment(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    # Up for some and down for others, so that the whole population does not move.
    late["age"] = late["age"] + np.where(late["race"] == 1, 0.8, np.where(late["race"] == 0, -0.4, 0.0))


def unfair(late: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    group = (late["race"] == 1) & (late["sex"] == 0)
    late["score"] = np.where(group, late["score"] * 0.5, late["score"])


@pytest.mark.parametrize(
    ("change", "family", "subjects", "within"),
    [
        (gaps, "data_quality", {"tenure"}, 500),
        (crowd, "behaviour", {"clients"}, 1_000),
        (other_races, "behaviour", {"race"}, 1_000),
        (one_segment, "feature_drift", {"age"}, 2_000),
        (unfair, "fairness", {"race=b & sex=f", "race=b", "sex=f"}, 3_000),
    ],
)
def test_a_change_of_people_or_of_data_is_found_under_its_family(
    change: Change, family: str, subjects: set[str], within: int
) -> None:
    told = found(reference(), change)
    first = next(one for one in told if one.family == family)
    print([one.message for one in told])
    assert first.subject in subjects
    assert AT <= first.detected_us <= AT + within


def test_a_segment_is_named() -> None:
    first = next(one for one in found(reference(), one_segment) if one.family == "feature_drift")
    assert any("in race=" in carrier.statistic for carrier in first.carriers)


def test_repeated_events_are_left_out_and_counted_as_what_they_are() -> None:
    profile = reference()
    events, _ = served(6_400, seed=6)
    repeated = np.zeros(events.n, dtype=bool)
    repeated[3_200:] = np.arange(3_200) % 2 == 0
    cell = np.arange(events.n) // BLOCK_EVENTS
    once = cell_fragments(events, profile, cell, layout="x")
    kept = cell_fragments(events.some(~repeated), profile, cell[~repeated], layout="x")
    marked = cell_fragments(events, profile, cell, layout="x", repeated=repeated)
    spec = next(one for one in profile.layout.sections if one.name == flag_name("duplicate"))
    assert int(marked.stats[:, spec.first + HITS].sum()) == 1_600
    assert int(marked.stats[:, spec.first].sum()) == 6_400
    assert int(marked.stats[:, 0].sum()) == 4_800
    other = np.ones(profile.layout.width, dtype=bool)
    other[spec.first : spec.first + 2] = False
    assert (marked.stats[:, other].sum(axis=0) == kept.stats[:, other].sum(axis=0)).all()
    assert int(once.stats[:, spec.first + HITS].sum()) == 0
    chart = next(one for one in profile.charts if one.name == "data_quality/duplicate/rate")
    assert (chart.watchable, chart.kind) == (True, "data_quality")


def test_refused_events_count_for_the_model_that_they_named() -> None:
    profile = reference()
    model = watched(config(), profile)
    refused = Refused(KEY, np.array([5, 5, 70], dtype=np.int64) * 1_000_000, np.array([1, 2, 4]), "out_of_range")
    part = observe_refused(Partition(), refused, model)
    assert part is not None
    assert part.fragments is not None
    spec = next(one for one in profile.layout.sections if one.name == flag_name("out_of_range"))
    assert part.fragments.cell.tolist() == [5, 70]
    assert part.fragments.stats[:, spec.first + HITS].tolist() == [3, 4]
    assert part.fragments.stats.sum() == 14  # trials and hits, nothing else
    assert observe_refused(Partition(), refused, watched(config(), None)) is None


def test_figures_tell_groups_apart_only_where_there_is_enough() -> None:
    events, labels = served(12_800, seed=5, change=unfair, at=0)
    watch = Watch(reference(), RowClock(1e6, events.n))
    watch.take(blocks(reference(), events, labels))
    told = {one.group: one for one in figures(watch.bank, watch.state)}
    worst = told["race=b & sex=f"]
    assert worst.ratio is not None
    assert worst.ratio < 0.8
    assert worst.verdict in {"fail", "inconclusive"}
    assert told["race=a"].verdict in {"pass", "inconclusive"}
    fresh = Watch(reference(), RowClock(1e6, events.n))
    assert {one.verdict for one in figures(fresh.bank, fresh.state)} == {"inconclusive"}


def test_groups_are_declared_cohorts_and_their_intersections() -> None:
    names = {chart.subject for chart in reference().charts if chart.family == "fairness"}
    assert {"race=a", "sex=f", "race=a & sex=f", "race=c & sex=m"} <= names
    statistics = {chart.statistic for chart in reference().charts if chart.subject == "race=a & sex=f"}
    assert statistics == {"selected", "errors", "true positive", "false positive", "calibration"}
