"""The mark of a prediction: what outcome charts need of it besides its value, in 64 bits; and outcomes as columns.

Bits 0-15: the score (0 unknown, else 1 + round(p * 65534)); 16-39: the cohorts, mixed radix (0 unknown); 40-63: the
minute of its cell. A score is the probability of the positive class, or with more than two classes the largest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from regate.detectors.classes import class_hash
from regate.detectors.columns import (
    MISSING_CODE,
    BoolArray,
    Categorical,
    Column,
    FloatArray,
    HashArray,
    IntArray,
    Numeric,
    Slice,
)
from regate.detectors.probabilities import class_matrix

Cohorts = tuple[tuple[str, tuple[str, ...]], ...]  # attribute -> categories

SCORE_BITS, COHORT_BITS, MINUTE_BITS = 16, 24, 24
SCORE_STEPS = (1 << SCORE_BITS) - 2
MINUTE_CELLS = 60
# The probability that was given to what happened is bounded: one certain error must not have infinite loss.
LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True, slots=True)
class OutcomeShape:
    """What the values and marks of outcomes mean. ``classes`` are the labels of the reference."""

    type: Literal["binary", "multiclass", "regression"] = "binary"
    positive: str = "1"
    classes: tuple[str, ...] = ()
    cohorts: Cohorts = ()

    @property
    def places(self) -> int:
        """Return how many cohort groups there are; each attribute has one more for what it does not list."""
        return int(np.prod([len(names) + 1 for _, names in self.cohorts], dtype=np.int64)) if self.cohorts else 1


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Decided outcomes as arrays of one length; ``wrong`` is 1 or 0 (in a reference -1 where no label is known)."""

    wrong: IntArray
    predicted: HashArray | None = None
    label: HashArray | None = None
    mark: HashArray | None = None
    age: IntArray | None = None  # minutes from prediction to label
    shape: OutcomeShape = field(default_factory=OutcomeShape)

    @property
    def n(self) -> int:
        """Return the number of outcomes."""
        return len(self.wrong)

    @property
    def known(self) -> BoolArray:
        """Return which rows have an outcome."""
        return np.asarray(self.wrong >= 0)

    def some(self, rows: BoolArray) -> Outcomes:
        """Return some of the outcomes."""
        names = ("predicted", "label", "mark", "age")
        cut: dict[str, Any] = {name: a[rows] for name in names if (a := getattr(self, name)) is not None}
        return replace(self, wrong=self.wrong[rows], **cut)

    def column(self, source: str) -> Column | None:
        """Return a column by its path, or None when the outcomes do not say.

        Paths: ``wrong``, ``label``, ``class``, ``score``, ``loss``, ``residual``, ``age``, ``cohort/<attribute>``.
        """
        kind, _, name = source.partition("/")
        if kind == "wrong":
            return Categorical(np.maximum(self.wrong, 0).astype(np.int32), ("false", "true"))
        if kind in {"label", "class"}:
            return self._classes(self.label if kind == "label" else self.predicted)
        if kind == "age":
            return None if self.age is None else Numeric(self.age.astype(np.float64))
        if kind == "cohort":
            return self._cohort(name)
        made = {"score": self._score, "loss": self._loss, "residual": self._residual}[kind]()
        return None if made is None else Numeric(made)

    def _classes(self, values: HashArray | None) -> Categorical | None:
        if values is None or self.shape.type == "regression":
            return None
        hashes = np.array([class_hash(name) for name in self.shape.classes], dtype=np.uint64)
        codes = np.full(self.n, MISSING_CODE, dtype=np.int32)
        for code, value in enumerate(hashes):
            codes[values == value] = code
        return Categorical(codes, self.shape.classes)

    def _score(self) -> FloatArray | None:
        if self.mark is None:
            return None
        steps = (self.mark & np.uint64((1 << SCORE_BITS) - 1)).astype(np.float64)
        return np.where(steps == 0, np.nan, (steps - 1.0) / SCORE_STEPS)

    def _cohort(self, name: str) -> Categorical | None:
        place = (
            np.zeros(self.n, dtype=np.int64)
            if self.mark is None
            else ((self.mark >> np.uint64(SCORE_BITS)) & np.uint64((1 << COHORT_BITS) - 1)).astype(np.int64)
        )
        for attribute, names in self.shape.cohorts:
            if attribute == name:
                return Categorical((place % (len(names) + 1) - 1).astype(np.int32), names)
            place //= len(names) + 1
        return None

    def _positive(self) -> BoolArray | None:
        if self.shape.type != "binary" or self.label is None:
            return None
        return np.asarray(self.label == np.uint64(class_hash(self.shape.positive)))

    def _loss(self) -> FloatArray | None:
        """Return the loss of each outcome: bits of surprise, for regression the absolute error."""
        if self.shape.type == "regression":
            if self.predicted is None or self.label is None:
                return None
            return np.asarray(np.abs(self.predicted.view(np.float64) - self.label.view(np.float64)))
        score, happened = self._score(), self._happened()
        if score is None:
            return None
        return np.asarray(-np.log2(np.clip(np.where(happened, score, 1.0 - score), LEAST_PROBABILITY, 1.0)))

    def _residual(self) -> FloatArray | None:
        """Return what happened (0 or 1) less its probability; 0 on average where scores are calibrated."""
        score = None if self.shape.type == "regression" else self._score()
        return None if score is None else np.asarray(self._happened() - score)

    def _happened(self) -> BoolArray:
        positive = self._positive()
        return np.asarray(self.wrong == 0) if positive is None else positive


def joined(parts: Sequence[Outcomes]) -> Outcomes:
    """Return outcomes of one join one behind the other (at least one part)."""

    def all_of(arrays: list[HashArray | IntArray | None]) -> Any:
        kept = [array for array in arrays if array is not None]
        return np.concatenate(kept) if len(kept) == len(parts) else None

    names = ("predicted", "label", "mark", "age")
    rest = {name: all_of([getattr(part, name) for part in parts]) for name in names}
    return Outcomes(np.concatenate([part.wrong for part in parts]), **rest, shape=parts[0].shape)


def marks_of(rows: Slice, shape: OutcomeShape, cell: IntArray | None = None) -> HashArray:
    """Return the mark of each prediction."""
    return marks(rows.n, score_of(rows.scores, shape), rows.cohorts, shape, cell)


def marks(
    n: int,
    score: FloatArray | None,
    cohorts: Mapping[str, Categorical],
    shape: OutcomeShape,
    cell: IntArray | None = None,
) -> HashArray:
    """Return marks from their parts."""
    mark = np.zeros(n, dtype=np.uint64)
    if score is not None:
        known = ~np.isnan(score)
        steps = np.rint(np.clip(np.where(known, score, 0.0), 0.0, 1.0) * SCORE_STEPS) + 1.0
        mark |= np.where(known, steps, 0.0).astype(np.uint64)
    place, radix = np.zeros(n, dtype=np.int64), 1
    for attribute, names in shape.cohorts:
        column = cohorts.get(attribute)
        if column is not None:
            to_place = [names.index(name) + 1 if name in names else 0 for name in column.categories]
            place += radix * np.array([*to_place, 0], dtype=np.int64)[column.codes]
        radix *= len(names) + 1
    mark |= place.astype(np.uint64) << np.uint64(SCORE_BITS)
    if cell is not None:
        minute = (cell // MINUTE_CELLS).astype(np.int64) & ((1 << MINUTE_BITS) - 1)
        mark |= minute.astype(np.uint64) << np.uint64(SCORE_BITS + COHORT_BITS)
    return mark


def score_of(scores: Mapping[str, FloatArray], shape: OutcomeShape) -> FloatArray | None:
    """Return the score that a mark holds, or None."""
    name = score_name(scores, shape)
    if name is None:
        return None
    if shape.type == "binary":
        return scores[name]
    found = class_matrix(scores)
    return None if found is None else np.asarray(found[1].max(axis=0))


def score_name(scores: Mapping[str, FloatArray], shape: OutcomeShape) -> str | None:
    """Return the name of the score that speaks of the positive class; with more classes any; None without scores."""
    if not scores or shape.type == "regression":
        return None
    if shape.type != "binary":
        return next(iter(scores))
    if shape.positive in scores:
        return shape.positive
    if "" in scores:
        return ""
    return next(iter(scores)) if len(scores) == 1 else None


def ages(mark: HashArray, cell: int | IntArray) -> IntArray:
    """Return the minutes from the predictions' cells to a later cell, one for all or one each (modulo 2^24)."""
    made = (mark >> np.uint64(SCORE_BITS + COHORT_BITS)).astype(np.int64)
    return np.asarray((cell // MINUTE_CELLS - made) & ((1 << MINUTE_BITS) - 1))
