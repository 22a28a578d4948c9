"""Rows as sections see them: named columns of telemetry or of outcomes, each made once.

A *source* is a path. Of telemetry: ``feature/<name>``, ``prediction``, ``class``, ``score/<class>``, ``latency_ms``,
``error``, ``age_ms``, ``client`` (one of 64 buckets of hashes, missing without an id), ``cohort/<attribute>``,
``entropy``, ``margin``, ``confidence``, ``flag/<name>``. Of outcomes: see `regate.detectors.marks.Outcomes.column`. A
source that the rows lack is missing everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

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
from regate.detectors.marks import Outcomes
from regate.detectors.probabilities import SURENESS, chosen, class_matrix, sureness

BUCKETS = tuple(f"{number:02}" for number in range(64))  # of client hashes
StratumArray = npt.NDArray[np.int16]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Test:
    """One condition on rows: a category's name (``is``), or a number that must be exceeded (``above``)."""

    __test__ = False  # not a test of pytest's

    source: str
    op: str  # is | above | known
    value: str = ""

    def of(self, view: View) -> BoolArray:
        """Return which rows meet the condition; a row whose value is missing meets none."""
        column = view.column(self.source)
        if column is None:
            return np.zeros(view.n, dtype=np.bool_)
        if isinstance(column, Numeric):
            if self.op == "above":
                return np.asarray(column.values > float(self.value))
            return np.asarray(~np.isnan(column.values)) if self.op == "known" else np.zeros(view.n, dtype=np.bool_)
        if self.op == "known":
            return np.asarray(column.codes >= 0)
        if self.value not in column.categories:
            return np.zeros(view.n, dtype=np.bool_)
        return np.asarray(column.codes == column.categories.index(self.value))


@dataclass(slots=True)
class View:
    """``n`` rows with their strata. ``memo`` keeps what several sections use, for the life of one accumulation."""

    n: int
    stratum: StratumArray
    memo: dict[str, object] = field(default_factory=dict)

    def column(self, source: str) -> Column | None:
        """Return a column by its path, or None when the rows have none."""
        return self.once(source, lambda: self._make(source))

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Return what ``make`` gave the first time that ``key`` was asked for."""
        if key not in self.memo:
            self.memo[key] = make()
        return self.memo[key]  # type: ignore[return-value]

    def where(self, tests: tuple[Test, ...]) -> BoolArray | None:
        """Return the rows that meet all tests; None when there is no test."""
        found: BoolArray | None = None
        for test in tests:
            rows = self.once(f"test {test.source} {test.op} {test.value}", lambda test=test: test.of(self))  # type: ignore[misc]
            found = rows if found is None else found & rows
        return found

    def rows_where(self, tests: tuple[Test, ...]) -> IntArray | None:
        """Return the numbers of the rows that meet all tests: cheaper to pick by than a mask; None without a test."""
        if not tests:
            return None
        return self.once(f"rows {tests}", lambda: np.flatnonzero(self.where(tests)))  # type: ignore[arg-type]

    def _make(self, source: str) -> Column | None:
        raise NotImplementedError


@dataclass(slots=True)
class EventView(View):
    """A slice of telemetry; ``flags`` are what observe found of each row (late, duplicate ...).

    ``more`` are sources that only a reference has (`regate.detectors.labelled`).
    """

    rows: Slice | None = None
    flags: Mapping[str, BoolArray] = field(default_factory=dict)
    more: Mapping[str, Column] = field(default_factory=dict)

    def _make(self, source: str) -> Column | None:
        rows = self.rows
        assert rows is not None
        if source in self.more:
            return self.more[source]
        kind, _, name = source.partition("/")
        if kind == "feature":
            return rows.features.get(name)
        if kind == "cohort":
            return rows.cohorts.get(name)
        if kind == "score":
            return None if name not in rows.scores else Numeric(rows.scores[name])
        if kind == "flag":
            return None if name not in self.flags else _flag(self.flags[name])
        if kind == "prediction":
            return rows.prediction
        if kind == "latency_ms":
            return None if rows.latency_ms is None else Numeric(rows.latency_ms)
        if kind == "error":
            return None if rows.error is None else _flag(rows.error)
        if kind == "age_ms":
            return Numeric((rows.arrival_us - rows.event_time_us) / 1000.0)
        if kind == "client":
            return None if rows.client is None else _buckets(rows.client)
        if kind == "class":
            return chosen(rows.prediction, rows.scores)
        if kind not in SURENESS:
            return None
        p = self.once("probabilities", lambda: _probabilities(rows))
        return None if p is None else Numeric(sureness(kind, p))


@dataclass(slots=True)
class OutcomeView(View):
    """Decided outcomes; every row is one whose label is known."""

    outcomes: Outcomes | None = None

    def _make(self, source: str) -> Column | None:
        assert self.outcomes is not None
        return self.outcomes.column(source)


def event_view(
    rows: Slice,
    stratum: StratumArray,
    flags: Mapping[str, BoolArray] | None = None,
    more: Mapping[str, Column] | None = None,
) -> EventView:
    """Return the view of a slice."""
    return EventView(rows.n, stratum, rows=rows, flags=flags or {}, more=more or {})


def outcome_view(outcomes: Outcomes, stratum: StratumArray | None = None) -> OutcomeView:
    """Return the view of outcomes."""
    strata = np.zeros(outcomes.n, dtype=np.int16) if stratum is None else stratum
    return OutcomeView(outcomes.n, strata, outcomes=outcomes)


def _buckets(client: HashArray) -> Categorical:
    """Return the bucket of each client; who has no id is missing."""
    codes = np.where(client == 0, MISSING_CODE, (client >> np.uint64(58)).astype(np.int32))
    return Categorical(codes.astype(np.int32), BUCKETS)


def _flag(values: BoolArray) -> Categorical:
    return Categorical(values.astype(np.int32), ("false", "true"))


def _probabilities(rows: Slice) -> FloatArray | None:
    found = class_matrix(rows.scores)
    return None if found is None else np.clip(found[1], 0.0, 1.0)


def sums(group: IntArray, weights: FloatArray, groups: int) -> IntArray:
    """Return sums by group of integers below 2^53, exact as float64 in any order."""
    return np.bincount(group, weights=weights, minlength=groups).astype(np.int64)
