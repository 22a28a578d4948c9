from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from regate.config.model import Output
from regate.detectors import label_join, outcomes
from regate.detectors.classes import class_hash
from regate.detectors.columns import Categorical, ModelKey, Numeric, Slice
from regate.detectors.label_join import Join
from regate.detectors.outcomes import (
    NO_VALUE,
    LabelRows,
    Predictions,
    class_values,
    empty_labels,
    empty_predictions,
    number_values,
    predicted,
    reference_outcomes,
    sample_shift,
    sampled,
)

YES, NO = class_hash("yes"), class_hash("no")
BINARY = Output(type="binary", classes=("0", "1"), positive="1")


def predictions(**values: int) -> Predictions:
    ids = np.array([int(name[1:]) for name in values], dtype=np.uint64)
    made = np.array(list(values.values()), dtype=np.uint64)
    return Predictions(ids, np.zeros(len(ids), dtype=np.int64), made, np.zeros_like(made))


def labels(*rows: tuple[int, int], own: int = 0) -> LabelRows:
    n = len(rows)
    zeros = np.zeros(n, dtype=np.int64)
    ids, values = (np.array(column, dtype=np.uint64) for column in zip(*rows, strict=True))
    return LabelRows(
        ids, zeros, values, np.full(n, own, dtype=np.uint64), zeros, np.zeros_like(ids), np.zeros_like(ids)
    )


def test_a_label_meets_its_prediction() -> None:
    join = Join(100)
    assert join.take(predictions(e1=YES, e2=NO), empty_labels(), None).outcomes.wrong.tolist() == []
    found = join.take(empty_predictions(), labels((2, YES), (1, YES)), None)
    assert found.outcomes.wrong.tolist() == [0, 1]
    assert found.stratum.tolist() == [0, 0]
    assert found.matched.all()


def test_the_first_label_wins_and_contradictions_are_counted() -> None:
    join = Join(100)
    join.take(predictions(e1=YES), labels((1, YES)), None)
    again = join.take(empty_predictions(), labels((1, NO), (1, YES)), None)
    assert again.outcomes.wrong.tolist() == []
    assert again.contradicted.tolist() == [0]
    assert join.counters == {"label_contradiction": 1, "label_repeated": 1}


def test_the_sender_of_a_label_goes_with_its_outcome_and_its_contradiction() -> None:
    join = Join(100)
    join.take(predictions(e1=YES), replace(labels((1, YES), (2, NO)), source=np.array([7, 8], dtype=np.uint64)), None)
    found = join.take(predictions(e2=YES), replace(labels((1, NO)), source=np.array([9], dtype=np.uint64)), None)
    assert found.source.tolist() == [8]  # its label waited for the prediction
    assert found.contradicted_by.tolist() == [9]
    same = replace(labels((3, YES), (3, NO)), source=np.array([5, 4], dtype=np.uint64))
    turned = replace(labels((3, NO), (3, YES)), source=np.array([4, 5], dtype=np.uint64))
    told = [Join(100).take(predictions(e3=YES), rows, None) for rows in (same, turned)]
    assert told[0].contradicted_by.tolist() == told[1].contradicted_by.tolist()


def test_a_label_with_its_own_prediction_needs_no_join_and_still_counts_once() -> None:
    join = Join(100)
    assert join.take(empty_predictions(), labels((1, NO), own=YES), None).outcomes.wrong.tolist() == [1]
    assert join.take(empty_predictions(), labels((1, NO), own=YES), None).outcomes.wrong.tolist() == []
    assert join.counters == {"label_repeated": 1}


def test_a_label_may_come_before_its_prediction() -> None:
    join = Join(100)
    assert join.take(empty_predictions(), labels((1, NO)), None).outcomes.wrong.tolist() == []
    assert join.take(predictions(e1=YES), empty_labels(), None).outcomes.wrong.tolist() == [1]
    assert join.waiting == {}


def test_over_capacity_the_sample_halves_by_hash_and_memory_stays_bounded() -> None:
    join = Join(1000)
    ids = np.random.default_rng(2).integers(1, 2**63, 10_000).astype(np.uint64)
    for part in np.array_split(ids, 50):
        zeros = np.zeros(len(part), dtype=np.int64)
        rows = Predictions(part, zeros, np.full(len(part), YES, dtype=np.uint64), zeros.astype(np.uint64))
        join.take(rows, empty_labels(), None)
    held = {event_id for segment in join.segments for event_id in segment.predictions}
    assert 0 < len(held) <= 1000
    assert held == set(ids[sampled(ids, join.shift)].tolist())
    everything = labels(*((int(event_id), YES) for event_id in ids))
    assert len(join.take(empty_predictions(), everything, None).outcomes.wrong) == len(held)


def test_answered_ids_and_early_labels_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_join, "SEGMENT", 16)
    join = Join(50)
    for number in range(1, 400):
        join.take(empty_predictions(), labels((number, YES), own=YES), None)
    assert sum(len(segment.answered) for segment in join.segments) <= 50
    for number in range(1000, 1400):
        join.take(empty_predictions(), labels((number, YES)), None)
    assert len(join.waiting) == 50
    assert join.counters["label_unmatched"] == 350


def test_classes_agree_over_spellings_and_types() -> None:
    text = Categorical(np.array([0, 1, -1], dtype=np.int32), ("true", "0"))
    number = Numeric(np.array([1.0, 0.0, np.nan]))
    assert class_values(text).tolist() == class_values(number).tolist()
    assert class_values(number)[2] == NO_VALUE
    assert class_hash("approve") != class_hash("Approve")


def test_regression_compares_numbers_with_the_references_cutoff() -> None:
    values = number_values(Numeric(np.array([0.0, 10.0, -3.0, np.nan])))
    assert (values != NO_VALUE).tolist() == [True, True, True, False]
    truth = number_values(Numeric(np.array([1.0, 10.5, 3.0, 0.0])))
    assert outcomes.wrong(values[:3], truth[:3], 1.0).tolist() == [0, 0, 1]


def rows(**more: object) -> Slice:
    zeros = np.zeros(4, dtype=np.int64)
    return Slice(ModelKey("t", "m", "1", "d"), 4, zeros.astype(np.uint64), zeros, zeros, **more)  # type: ignore[arg-type]


def test_scores_speak_where_there_is_no_prediction() -> None:
    one = predicted(rows(scores={"": np.array([0.2, 0.5, 0.9, np.nan])}), BINARY)
    assert one is not None
    assert one.tolist() == [class_hash("0"), class_hash("1"), class_hash("1"), 0]
    many = predicted(
        rows(scores={"a": np.array([0.2, 0.5, 0.9, np.nan]), "b": np.array([0.8, 0.4, np.nan, np.nan])}),
        Output(type="multiclass", classes=("a", "b")),
    )
    assert many is not None
    assert many.tolist() == [class_hash("b"), class_hash("a"), class_hash("a"), 0]
    assert predicted(rows(), BINARY) is None


def test_reference_outcomes_leave_unknown_rows_out() -> None:
    found, cutoff = reference_outcomes(
        rows(prediction=Numeric(np.array([1.0, 0.0, 1.0, np.nan]))), Numeric(np.array([1.0, 1.0, np.nan, 1.0])), BINARY
    )
    assert found is not None
    assert (found.wrong.tolist(), cutoff) == ([0, 1, -1, -1], None)
    regression = Output(type="regression")
    guess = Numeric(np.array([0.0, 1.0, 2.0, 3.0]))
    found, cutoff = reference_outcomes(rows(prediction=guess), Numeric(np.array([0.0, 1.1, 2.2, 13.0])), regression)
    assert cutoff == pytest.approx(np.quantile([0.0, 0.1, 0.2, 10.0], 0.9))
    assert found is not None
    assert found.wrong.tolist() == [0, 0, 0, 1]
    assert reference_outcomes(rows(), guess, BINARY) == (None, None)


def test_the_static_sample_follows_the_traffic() -> None:
    assert sample_shift(1_000_000, None) == 0
    assert sample_shift(1_000_000, 100.0) == 0
    assert sample_shift(1_000_000, 500_000.0) == 11
