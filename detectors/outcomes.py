"""Realised outcomes: predictions and labels as join rows, and what counts as wrong.

A prediction and a label travel as 64-bit values: the hash of the class for classification, the bits of
the number for regression. "Wrong" is another class, or an absolute error above the .9 quantile of the
reference's absolute errors (`Profile.error_cutoff`): a rate like any other, whatever the unit.

What else an outcome chart needs of a prediction (score, cohorts, when) travels as one 64-bit *mark*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np

from regate.config.model import Output
from regate.detectors.classes import class_hash
from regate.detectors.columns import (
    BoolArray,
    Categorical,
    Column,
    FloatArray,
    HashArray,
    IntArray,
    Numeric,
    Slice,
)
from regate.detectors.marks import Cohorts, Outcomes, OutcomeShape, marks_of
from regate.detectors.probabilities import chosen

# An error of the reference that is as rare as this counts as wrong (regression).
ERROR_QUANTILE = 0.9
MAX_CLASSES = 256  # of labels that charts tell apart
NO_VALUE = np.uint64(0)  # class hashes avoid it; a missing prediction or label


@dataclass(frozen=True, slots=True)
class Predictions:
    """Join rows of telemetry: 32 bytes each."""

    event_id: HashArray
    cell: IntArray
    value: HashArray
    mark: HashArray

    def sampled(self, shift: int) -> Predictions:
        """Return the rows of the sample that keeps one in ``2**shift``."""
        if shift == 0:
            return self
        keep = sampled(self.event_id, shift)
        return Predictions(self.event_id[keep], self.cell[keep], self.value[keep], self.mark[keep])


@dataclass(frozen=True, slots=True)
class LabelRows:
    """Join rows of labels; ``own`` is the prediction that the label event carries, or `NO_VALUE`, ``mark`` its mark.

    ``source`` is the salted hash of who sent the label, 0 unknown.
    """

    event_id: HashArray
    cell: IntArray
    value: HashArray
    own: HashArray
    stratum: IntArray
    mark: HashArray
    source: HashArray


Rows = TypeVar("Rows", Predictions, LabelRows)


def empty_predictions() -> Predictions:
    """Return no prediction rows."""
    none = np.zeros(0, dtype=np.int64)
    none_u = none.astype(np.uint64)
    return Predictions(none_u, none, none_u, none_u)


def empty_labels() -> LabelRows:
    """Return no label rows."""
    none = np.zeros(0, dtype=np.int64)
    none_u = none.astype(np.uint64)
    return LabelRows(none_u, none, none_u, none_u, none, none_u, none_u)


def merged_rows(parts: Sequence[Rows], empty: Rows) -> Rows:
    """Return all rows in order of their cells."""
    parts = parts or [empty]
    order = np.argsort(np.concatenate([part.cell for part in parts]), kind="stable")
    names = [item.name for item in fields(empty)]
    return replace(empty, **{name: np.concatenate([getattr(part, name) for part in parts])[order] for name in names})


def some_rows(rows: Rows, cut: slice) -> Rows:
    """Return a range of rows as views."""
    return replace(rows, **{item.name: getattr(rows, item.name)[cut] for item in fields(rows)})


def class_values(column: Column) -> HashArray:
    """Return the class value of each row, `NO_VALUE` where it is missing."""
    if isinstance(column, Categorical):
        table = np.array([class_hash(name) for name in column.categories] + [0], dtype=np.uint64)
        return table[column.codes]  # code -1 picks the last entry, missing
    distinct, inverse = np.unique(column.values, return_inverse=True)
    table = np.array([0 if np.isnan(value) else class_hash(repr(float(value))) for value in distinct], dtype=np.uint64)
    return table[inverse]


def number_values(column: Column) -> HashArray:
    """Return the bits of each number. Missing and (never equal to a prediction's) minus zero are `NO_VALUE`."""
    if isinstance(column, Numeric):
        values = column.values
    else:
        values = np.array([_number(name) for name in column.categories] + [np.nan])[column.codes]
    # Plus zero has the bits of NO_VALUE: the smallest denormal stands for it.
    values = np.where(values == 0, 5e-324, values).astype(np.float64)
    return np.where(np.isnan(values), NO_VALUE, values.view(np.uint64))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def values_of(column: Column, output: Output) -> HashArray:
    """Return the join values of predictions or labels."""
    return number_values(column) if output.type == "regression" else class_values(column)


def predicted(rows: Slice, output: Output) -> HashArray | None:
    """Return the join value of each prediction: the prediction itself, else the class that its scores speak for."""
    if rows.prediction is not None:
        return values_of(rows.prediction, output)
    if output.type == "regression" or not rows.scores:
        return None
    if output.type == "binary" and len(rows.scores) == 1:
        (score,) = rows.scores.values()
        other = next((name for name in output.classes if name != output.positive), "0")
        chosen = np.where(score >= 0.5, np.uint64(class_hash(output.positive)), np.uint64(class_hash(other)))
        return np.where(np.isnan(score), NO_VALUE, chosen)
    names = sorted(rows.scores)
    table = np.array([class_hash(name) for name in names], dtype=np.uint64)
    scores = np.stack([np.nan_to_num(rows.scores[name], nan=-np.inf) for name in names])
    known = np.isfinite(scores).any(axis=0)
    return np.where(known, table[np.argmax(scores, axis=0)], NO_VALUE)


def wrong(value: HashArray, label: HashArray, cutoff: float | None) -> IntArray:
    """Return 1 where the prediction was wrong; ``cutoff`` is set for regression."""
    if cutoff is None:
        return np.asarray(value != label, dtype=np.int64)
    error = np.abs(value.view(np.float64) - label.view(np.float64))
    return np.asarray(error > cutoff, dtype=np.int64)


def outcome_shape(output: Output, labels: Column | None, cohorts: Cohorts) -> OutcomeShape:
    """Return what outcomes mean: the classes of the configuration, and those of the labels."""
    spelled = None if output.type == "regression" or labels is None else chosen(labels, {})
    met = set() if spelled is None else {spelled.categories[code] for code in np.unique(spelled.codes) if code >= 0}
    classes = tuple(sorted({*output.classes, *met}))[:MAX_CLASSES]
    return OutcomeShape(output.type, output.positive, classes, cohorts)


def reference_outcomes(
    rows: Slice, labels: Column | None, output: Output, cohorts: Cohorts = ()
) -> tuple[Outcomes | None, float | None]:
    """Return (outcomes aligned with the rows, ``wrong`` -1 where unknown; cutoff) or (None, None) without any."""
    value = predicted(rows, output)
    if labels is None or value is None:
        return None, None
    label = values_of(labels, output)
    known: BoolArray = (value != NO_VALUE) & (label != NO_VALUE)
    if not known.any():
        return None, None
    cutoff = None
    if output.type == "regression":
        errors: FloatArray = np.abs(value[known].view(np.float64) - label[known].view(np.float64))
        cutoff = float(np.quantile(errors, ERROR_QUANTILE))
    shape = outcome_shape(output, labels, cohorts)
    wrongs = np.where(known, wrong(value, label, cutoff), -1)
    return Outcomes(wrongs, value, label, marks_of(rows, shape), shape=shape), cutoff


def sampled(event_id: HashArray, shift: int) -> BoolArray:
    """Return which events are in the sample that keeps one in ``2**shift``, by hash: the same on every shard."""
    if shift == 0:
        return np.ones(len(event_id), dtype=np.bool_)
    mixed = event_id * np.uint64(0x9E3779B97F4A7C15)
    return mixed < np.uint64(1 << (64 - shift))


def sample_shift(open_predictions: int, events_per_second: float | None, horizon_seconds: float = 3600.0) -> int:
    """Return the shift at which a model's predictions of ``horizon_seconds`` fit the memory of its join."""
    expected = (events_per_second or 0.0) * horizon_seconds
    shift = 0
    while shift < 40 and expected > open_predictions * 2**shift:
        shift += 1
    return shift
