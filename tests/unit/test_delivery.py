"""How labels come: coverage by prediction, age, contradictions; and what that means for harm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.scored_streams import BINARY, KEY, Rows, binary, joined, labels_of, profile_of
from tests.telemetry_streams import Pipeline, alone, pick

from regate.config.model import Detection
from regate.daemon.backtest import Backtest, Options
from regate.daemon.files.table import read_table
from regate.daemon.profiles import outcome_column
from regate.detectors import decide_state
from regate.detectors.columns import Labels, Numeric
from regate.detectors.delivery import MADE_NOW, CoverageSpec
from regate.detectors.history import FIRST, NUMBER
from regate.detectors.labelled import Delivery, usual_delay
from regate.detectors.profile import Profile
from regate.detectors.sections import HITS, PRESENT
from regate.detectors.selection import Selected, Selection

ROWS, REFERENCE, CHANGE = 24_000, 8_000, 16_000


def reference(seed: int = 1, minutes: float = 3.0, per_second: float = 10.0) -> Profile:
    """Seven predictions in ten get a label, about three minutes later."""
    rows = binary(20_000, seed)
    rng = np.random.default_rng(seed)
    labelled = rng.random(20_000) < 0.7
    age = np.where(labelled, rng.integers(1, int(2 * minutes), 20_000), np.nan)
    label = Numeric(np.where(labelled, rows.label.values, np.nan))
    return profile_of(BINARY, replace(rows, label=label), delivery=Delivery(age), events_per_second=per_second)


@pytest.fixture(scope="module")
def profile() -> Profile:
    return reference()


def delivered(rows: Rows, seed: int, keep: np.ndarray, seconds: tuple[int, int] = (60, 300)) -> Labels:
    labels = labels_of(rows)
    later = rows.events.event_time_us + np.random.default_rng(seed).integers(*seconds, rows.events.n) * 1_000_000
    whole = replace(labels, event_time_us=later, arrival_us=later + 50_000)
    part = pick(whole, np.flatnonzero(keep)[np.argsort(later[keep], kind="stable")])
    assert isinstance(part, Labels)
    return part


def run_of(rows: Rows, labels: Labels, profile: Profile) -> Pipeline:
    return alone(rows.events, labels, profile, BINARY)


def chance(n: int, seed: int, p: float = 0.7) -> np.ndarray:
    return np.random.default_rng((seed, 5)).random(n) < p


def totals(run: Pipeline) -> np.ndarray:
    watch = run.shard.models[KEY].watch
    assert watch is not None
    return watch.history.since(0)["stats"].sum(axis=0)


def test_labels_as_in_the_reference_say_nothing(profile: Profile) -> None:
    rows = joined(binary(30_000, 2))
    run = run_of(rows, delivered(rows, 2, chance(30_000, 2)), profile)
    assert run.findings == []


def test_each_mature_prediction_counts_once_with_its_label(profile: Profile) -> None:
    rows = joined(binary(12_000, 3))
    keep = chance(12_000, 3)
    run = run_of(rows, delivered(rows, 3, keep), profile)
    counted = totals(run)
    delay = next(one.delay for one in profile.layout.sections if isinstance(one, CoverageSpec))
    times = rows.events.event_time_us // 1_000_000
    last = int(times[-1]) + 300
    mature = (times // 60 + delay + 2) * 60 < last
    made = rows.events.prediction.values  # type: ignore[union-attr]
    for spec in profile.layout.sections:
        if isinstance(spec, CoverageSpec):
            own = np.ones(12_000, dtype=bool) if not spec.of else made == float(spec.value)
            # Forming blocks at the end are not in the history.
            assert counted[spec.first + MADE_NOW] == pytest.approx(own.sum(), abs=70)
            assert counted[spec.first + PRESENT] == pytest.approx((own & mature).sum(), abs=700)
            assert counted[spec.first + HITS] / counted[spec.first + PRESENT] == pytest.approx(0.3, abs=0.03)


def test_labels_for_one_class_only_are_selective_and_no_harm(profile: Profile) -> None:
    rows = joined(binary(12_800, 4))
    negative = rows.events.prediction.values == 0  # type: ignore[union-attr]
    keep = chance(12_800, 4)
    keep[6_400:] &= ~negative[6_400:] | chance(6_400, 5, 0.1)
    findings = run_of(rows, delivered(rows, 4, keep), profile).findings
    assert {one.kind for one in findings} == {"data_quality"}
    first = findings[0]
    assert (first.family, first.subject) == ("performance", "labels")
    assert "selective labels" in first.message
    assert "class 0" in first.message
    assert float(first.effect) == pytest.approx(0.6, abs=0.15)


def test_labels_that_were_complete_and_are_no_more_are_seen() -> None:
    rows = binary(20_000, 28)
    age = np.random.default_rng(28).integers(1, 6, 20_000).astype(np.float64)
    profile = profile_of(BINARY, rows, delivery=Delivery(age), events_per_second=10.0)
    stream = joined(binary(12_800, 29))
    keep = np.ones(12_800, dtype=bool)
    assert run_of(stream, delivered(stream, 29, keep), profile).findings == []
    negative = stream.events.prediction.values == 0  # type: ignore[union-attr]
    keep[6_400:] = ~negative[6_400:]
    findings = run_of(stream, delivered(stream, 29, keep), profile).findings
    assert {one.kind for one in findings} == {"data_quality"}
    assert "class 0 without a label" in findings[0].message


def test_labels_that_stop_for_all_are_not_called_selective(profile: Profile) -> None:
    rows = joined(binary(12_800, 6))
    keep = chance(12_800, 6)
    keep[6_400:] &= chance(6_400, 7, 0.2)
    findings = run_of(rows, delivered(rows, 6, keep), profile).findings
    assert [one.kind for one in findings] == ["data_quality"]
    assert "selective" not in findings[0].message
    assert "of predictions without a label in time" in findings[0].message


def test_labels_after_the_usual_delay_do_not_cover(profile: Profile) -> None:
    rows = joined(binary(12_800, 20))
    labels = delivered(rows, 20, chance(12_800, 20), (60, 300))
    slow = labels.event_time_us + np.where(np.arange(labels.n) > labels.n // 2, 900_000_000, 0)
    order = np.argsort(slow, kind="stable")
    late = pick(replace(labels, event_time_us=slow, arrival_us=slow + 50_000), order)
    assert isinstance(late, Labels)
    run = run_of(rows, late, profile)
    whole = next(one for one in profile.layout.sections if isinstance(one, CoverageSpec) and not one.of)
    counted = totals(run)
    assert counted[whole.first + HITS] / counted[whole.first + PRESENT] > 0.6  # .3 of one half, all of the other
    findings = run.findings
    assert ("data_quality", "labels") in {(one.kind, one.subject) for one in findings}
    assert float(findings[0].effect) > 0.1


def test_the_end_of_a_file_is_no_lack_of_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(21)
    label = np.where(rng.random(ROWS) < 0.9, rng.integers(0, 2, ROWS), np.nan)
    made = rng.integers(0, 2, ROWS)
    table = pa.table({"x": rng.normal(size=ROWS), "prediction": made, "label": pa.array(label, from_pandas=True)})
    pq.write_table(table, tmp_path / "steady.parquet")
    assert backtested(tmp_path / "steady.parquet", 3_000) == []


def test_a_selection_that_the_reference_has_too_is_none() -> None:
    rows = binary(20_000, 22)
    negative = rows.events.prediction.values == 0  # type: ignore[union-attr]
    labelled = chance(20_000, 22, 0.9) & (~negative | chance(20_000, 23, 0.3))
    age = np.where(labelled, np.random.default_rng(22).integers(1, 3, 20_000), np.nan)
    usual = replace(rows, label=Numeric(np.where(labelled, rows.label.values, np.nan)))
    profile = profile_of(BINARY, usual, delivery=Delivery(age), events_per_second=10.0)
    stream = joined(binary(6_400, 24), binary(6_400, 25, twist=-1.0))
    negative = stream.events.prediction.values == 0  # type: ignore[union-attr]
    keep = chance(12_800, 26, 0.9) & (~negative | chance(12_800, 27, 0.3))
    run = run_of(stream, delivered(stream, 24, keep, (100, 120)), profile)
    harm = next(one for one in run.findings if one.kind == "harm")
    assert "selective" not in harm.message
    assert max(one.severity for one in run.findings if one.kind == "harm") > 0.5
    assert selected(run).outcomes > 1_000
    assert selected(run).classes == ()


def selected(run: Pipeline) -> Selected:
    """Return what is said of the labels behind the open harm."""
    watch = run.shard.models[KEY].watch
    assert watch is not None
    harm = next(one for one in watch.incidents if one.kind == "harm")
    return watch.judge.selected(harm, watch.history, watch.clock.cell(harm.finding.onset_us))


def in_runs(n: int, seed: int) -> Rows:
    """Predictions that come in runs of a class, some minutes each."""
    rows = binary(n, seed)
    x = rows.events.features["x"]
    assert isinstance(x, Numeric)
    order = np.argsort(np.sin(np.arange(n) / 300.0), kind="stable")
    place = np.empty(n, dtype=np.int64)
    place[order] = np.argsort(x.values + 0.3 * np.random.default_rng(seed).normal(size=n), kind="stable")
    events = pick(rows.events, place)
    assert isinstance(events, type(rows.events))
    return Rows(events, Numeric(rows.label.values[place]), rows.p_wrong[place])


def test_classes_that_come_in_runs_are_not_selected() -> None:
    rows = in_runs(20_000, 30)
    age = np.random.default_rng(30).integers(1, 5, 20_000).astype(np.float64)
    profile = profile_of(BINARY, rows, delivery=Delivery(age), events_per_second=10.0)
    stream = joined(in_runs(12_800, 31))
    run = run_of(stream, delivered(stream, 31, np.ones(12_800, dtype=bool), (170, 190)), profile)
    watch = run.shard.models[KEY].watch
    assert watch is not None
    marks = watch.history.since(0)["marks"]
    # Errors that know nothing of the runs must not be what protects.
    independent = replace(profile, charts=tuple(replace(one, tau=1.0) for one in profile.charts))
    looked = [
        Selection(independent).look(watch.history, int(number), int(first), 180)
        for first, number in marks[40:-10:5, [FIRST, NUMBER]]
    ]
    assert sum(found.outcomes > 128 for found in looked) > 20
    assert [found.classes for found in looked if found.classes] == []


def biased(path: Path, *, harm: bool) -> None:
    """Class 1 is often wrong, class 0 seldom; from a row on only class 1 is labelled, or errors rise for all."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=ROWS)
    p = 1 / (1 + np.exp(-2 * x))
    label = (rng.random(ROWS) < p).astype(float)
    made = (p >= 0.2).astype(int)
    late = np.arange(ROWS) >= CHANGE
    if harm:
        turn = late & (rng.random(ROWS) < 0.3)
        label[turn] = 1 - label[turn]
    keep = rng.random(ROWS) < 0.7
    keep[late & (made == 0) & (rng.random(ROWS) < 0.95)] = False
    label[~keep] = np.nan
    pq.write_table(pa.table({"x": x, "prediction": made, "score": p, "label": pa.array(label, from_pandas=True)}), path)


def backtested(path: Path, delay: int) -> list[dict[str, Any]]:
    run = Backtest(read_table(path), Options(REFERENCE, label_delay=delay, calibrate_seconds=0))
    run.build()
    return list(run.findings())


@pytest.mark.parametrize("delay", [0, 500])
def test_errors_that_selection_explains_hold_and_do_not_roll_back(tmp_path: Path, delay: int) -> None:
    biased(tmp_path / "selected.parquet", harm=False)
    found = backtested(tmp_path / "selected.parquet", delay)
    quality = [one for one in found if one["kind"] == "data_quality"]
    assert quality
    assert CHANGE <= quality[0]["row"] < CHANGE + delay + 600
    harms = [one for one in found if one["kind"] == "harm"]
    assert harms, "the error rate of the labelled rises"
    assert all("selective labels" in one["message"] and one["severity"] < 0.5 for one in harms)
    assert "explains it" in harms[0]["message"]


def test_harm_beside_selection_is_still_harm(tmp_path: Path) -> None:
    biased(tmp_path / "both.parquet", harm=True)
    harms = [one for one in backtested(tmp_path / "both.parquet", 500) if one["kind"] == "harm"]
    assert max(one["severity"] for one in harms) > 0.5
    assert max(one["row"] for one in harms) < CHANGE + 500 + 3_000


def test_nothing_is_withdrawn_on_selected_labels(profile: Profile) -> None:
    rows = joined(binary(6_400, 9), binary(12_800, 10, shift=0.35))
    negative = rows.events.prediction.values == 0  # type: ignore[union-attr]
    keep = chance(19_200, 9)
    keep[5_000:] &= ~negative[5_000:] | chance(14_200, 10, 0.1)
    findings = run_of(rows, delivered(rows, 9, keep), profile).findings
    assert ("change", "x") in {(one.kind, one.subject) for one in findings}
    assert "withdrawn" not in {one.revision for one in findings}


def test_labels_of_another_age_are_seen(profile: Profile) -> None:
    rows = joined(binary(25_600, 11))
    slow = delivered(rows, 11, chance(25_600, 11), (60, 300))
    assert run_of(rows, slow, profile).findings == []
    quick = delivered(rows, 11, chance(25_600, 11), (0, 30))
    findings = run_of(rows, quick, profile).findings
    assert [(one.kind, one.subject) for one in findings] == [("data_quality", "labels")]
    assert "age of labels" in findings[0].message


def test_harm_seen_by_quick_labels_alone_says_so() -> None:
    slow = reference(minutes=60.0)
    rows = joined(binary(6_400, 12), binary(6_400, 13, twist=-1.0))
    findings = run_of(rows, delivered(rows, 12, chance(12_800, 12), (60, 300)), slow).findings
    harm = next(one for one in findings if one.kind == "harm")
    assert "only quick ones so far" in harm.message


def test_contradictions_are_a_matter_of_data_quality(profile: Profile) -> None:
    rows = joined(binary(12_800, 14))
    keep = chance(12_800, 14)
    labels = delivered(rows, 14, keep)
    turned = np.flatnonzero(np.arange(labels.n) % 20 == 0)
    again = pick(labels, turned)
    assert isinstance(again, Labels)
    assert isinstance(again.label, Numeric)
    later = again.event_time_us + 30_000_000
    against = replace(again, event_time_us=later, arrival_us=later, label=Numeric(1 - again.label.values))
    run = Pipeline(("telemetry-0", "labels-0", "labels-1"), (profile,), BINARY)
    records = [*run.observe("telemetry-0", rows.events), *run.observe("labels-0", labels)]
    run.decide([*records, *run.observe("labels-1", against)])
    run.end()
    assert [(one.kind, one.subject) for one in run.findings] == [("data_quality", "labels")]
    assert "contradict" in run.findings[0].message
    assert run.shard.models[KEY].join is not None
    assert run.shard.models[KEY].join.counters["label_contradiction"] == len(turned)


def test_repeated_labels_that_agree_are_no_contradiction(profile: Profile) -> None:
    rows = joined(binary(6_400, 15))
    labels = delivered(rows, 15, chance(6_400, 15))
    run = Pipeline(("telemetry-0", "labels-0", "labels-1"), (profile,), BINARY)
    run.decide([*run.observe("telemetry-0", rows.events), *run.observe("labels-0", labels)])
    run.decide(run.observe("labels-1", labels))
    run.end()
    assert run.findings == []


def test_what_matures_does_not_depend_on_slices_and_survives_snapshots(profile: Profile) -> None:
    rows = joined(binary(9_600, 16))
    labels = delivered(rows, 16, chance(9_600, 16))
    whole = run_of(rows, labels, profile)
    run = Pipeline(("telemetry-0", "labels-0"), (profile,), BINARY)
    for number, part in enumerate(np.array_split(np.arange(rows.events.n), 37)):
        until = rows.events.event_time_us[part[-1]]
        known = np.flatnonzero(
            (labels.event_time_us <= until) & (labels.event_time_us > rows.events.event_time_us[part[0]] - 100_000)
        )
        run.feed("telemetry-0", pick(rows.events, part))
        if len(known):
            run.feed("labels-0", pick(labels, known))
        if number % 9 == 4:
            chunks = decide_state.dump(run.shard)
            assert any("/maturing/" in name for name in chunks)
            run.shard, refused = decide_state.load(chunks, {str(KEY): profile}, {KEY: BINARY})
            assert refused == []
            assert decide_state.dump(run.shard) == chunks
    rest = np.flatnonzero(labels.event_time_us > rows.events.event_time_us[-1])
    run.feed("labels-0", pick(labels, rest))
    run.end()
    assert run.integers(KEY) == whole.integers(KEY)
    assert run.said() == whole.said()


def test_a_sample_that_halves_starts_coverage_anew_instead_of_falling() -> None:
    small = BINARY.model_copy(update={"detection": Detection(open_predictions=500)})
    rows = joined(binary(12_800, 17))
    unexpected = reference(per_second=0.01)  # a thousand times less traffic than there will be
    run = alone(rows.events, delivered(rows, 17, chance(12_800, 17)), unexpected, small)
    model = run.shard.models[KEY]
    assert model.join is not None
    assert model.join.shift > 0
    assert model.counters["coverage_restarted"] >= 1
    assert not [one for one in run.findings if one.kind == "data_quality"]


def test_the_delay_comes_from_the_reference_or_from_the_configuration() -> None:
    ages = Delivery(age=np.array([1.0, 2.0, 3.0, np.nan]))
    assert usual_delay(ages, None) == 3
    assert usual_delay(ages, 90.0) == 2
    assert usual_delay(Delivery(), None) is None
    config = BINARY.model_copy(update={"detection": Detection(label_delay_seconds=600.0)})
    names = {one.name for one in profile_of(config, binary(4_000, 18)).charts}
    assert "performance/labels/coverage" in names
    assert "performance/labels/age" not in names
    assert "performance/labels/coverage" not in {one.name for one in profile_of(BINARY, binary(4_000, 18)).charts}


def test_labels_of_a_topic_bring_ages_contradictions_and_maturity() -> None:
    rows = joined(binary(1_000, 19))
    labels = labels_of(rows, 120)
    assert isinstance(labels.label, Numeric)
    second = pick(labels, np.arange(10))
    assert isinstance(second, Labels)
    assert isinstance(second.label, Numeric)
    turned = replace(second, event_time_us=second.event_time_us + 1, label=Numeric(1 - second.label.values))
    column, delivery = outcome_column(rows.events, [turned, labels], BINARY)
    assert isinstance(column, Numeric)
    assert delivery is not None
    np.testing.assert_array_equal(column.values, rows.label.values)  # the first label wins
    assert delivery.age is not None
    assert set(np.unique(delivery.age)) == {2.0}
    assert delivery.contradicted is not None
    assert np.flatnonzero(delivery.contradicted).tolist() == list(range(10))
    assert delivery.mature is not None
    assert delivery.mature.all()
    cut, early = outcome_column(rows.events, [pick(labels, np.arange(300))], BINARY)  # type: ignore[list-item]
    assert cut is not None
    assert early is not None
    assert early.mature is not None
    assert not early.mature[-100:].any(), "their time had not come when the labels were read"
    assert outcome_column(rows.events, [], BINARY) == (None, None)
