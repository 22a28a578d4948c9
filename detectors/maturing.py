"""Predictions on their way to maturity: how many of each group were made, and how many were labelled in time.

Counts wait in buckets of event time until the usual delay of labels has passed for all of a bucket; then they enter the
statistics of the cell in which that is so. Predictions and labels may come in any order before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from regate.detectors.cells import Closed, group_rows
from regate.detectors.columns import BoolArray, IntArray
from regate.detectors.delivery import MADE_NOW, CoverageSpec
from regate.detectors.labelled import AGE
from regate.detectors.layout import Layout
from regate.detectors.marks import MINUTE_CELLS, Outcomes, OutcomeShape, ages
from regate.detectors.outcomes import Predictions
from regate.detectors.sections import HITS, PRESENT, NumericSpec
from regate.detectors.views import outcome_view

# A delay of a month must not keep a bucket for each of its minutes.
BUCKETS = 256
# Beyond every cell of event time: a limit that closes what there is, and lets nothing mature before its time.
ENDLESS = 1 << 40


@dataclass(slots=True)
class Maturing:
    """State of one model: bucket -> its counts, in the columns of the sections ``first`` to ``first + width``.

    While they wait, the hits of coverage count predictions *with* a label.

    Predictions from before minute ``since`` do not count: the sample was another one.
    """

    layout: Layout
    buckets: dict[int, IntArray] = field(default_factory=dict)
    since: int = 0
    covered: list[CoverageSpec] = field(init=False)
    first: int = field(init=False, default=0)
    width: int = field(init=False, default=0)
    delay: int = field(init=False, default=0)  # minutes
    span: int = field(init=False, default=1)  # minutes of a bucket
    _age: NumericSpec | None = field(init=False)

    def __post_init__(self) -> None:
        self.covered = [one for one in self.layout.sections if isinstance(one, CoverageSpec)]
        self._age = next(
            (one for one in self.layout.sections if isinstance(one, NumericSpec) and one.path == AGE), None
        )
        mine: list[CoverageSpec | NumericSpec] = [*self.covered]
        if self._age is not None:
            mine.append(self._age)
        if self.covered:
            self.first = min(one.first for one in mine)
            self.width = max(one.first + one.width for one in mine) - self.first
            self.delay = self.covered[0].delay
            self.span = max(1, self.delay // BUCKETS)

    def made(self, rows: Predictions, shape: OutcomeShape) -> Closed | None:
        """Count predictions, by the cells that brought them; return the statistics that say so at once."""
        if not self.covered or not len(rows.event_id):
            return None
        minute = rows.cell // MINUTE_CELLS - ages(rows.mark, rows.cell)
        part = Outcomes(np.zeros(len(minute), dtype=np.int64), rows.value, mark=rows.mark, shape=shape)
        cells = group_rows(rows.cell, np.zeros(len(minute), dtype=np.int16))
        count, view = len(cells.cell), outcome_view(part)
        stats = np.zeros((count, self.layout.width), dtype=np.int64)
        for spec in self.covered:
            stats[:, spec.first + MADE_NOW] = np.bincount(cells.group[spec.members(view)], minlength=count)
        wait = (self._matures(minute // self.span) > rows.cell) & (minute >= self.since)
        if wait.any():
            self._add(part.some(wait), minute[wait], PRESENT)
        return Closed(cells.cell, cells.stratum, stats, np.zeros(count, dtype=np.int64))

    def answered(self, found: Outcomes, matched: BoolArray, cell: IntArray) -> None:
        """Count the labels that came in time, by the cells that brought them."""
        if not self.covered or found.age is None:
            return
        minute = cell // MINUTE_CELLS - found.age
        timely = matched & (found.age <= self.delay) & (minute >= self.since)
        if timely.any():
            self._add(found.some(timely), minute[timely], HITS)

    def _matures(self, bucket: IntArray) -> IntArray:
        # A label's age is known to a minute, so one more passes before the last of them is there.
        return np.asarray(((bucket + 1) * self.span + self.delay + 1) * MINUTE_CELLS)

    def _add(self, part: Outcomes, minute: IntArray, column: int) -> None:
        numbers, group = np.unique(minute // self.span, return_inverse=True)
        view = outcome_view(part)
        into = np.zeros((len(numbers), self.width), dtype=np.int64)
        for spec in self.covered:
            own = group[spec.members(view)]
            into[:, spec.first - self.first + column] = np.bincount(own, minlength=len(numbers))
        if column == HITS and self._age is not None:
            at = self._age.first - self.first
            self._age.add(view, group, len(numbers), into[:, at : at + self._age.width])
        for number, counts in zip(numbers.tolist(), into, strict=True):
            self.buckets[number] = self.buckets.get(number, 0) + counts

    def mature(self, limit: int, last: int) -> Iterator[tuple[int, IntArray]]:
        """Yield (cell, statistics of all columns) of what is mature before cell ``limit``, and forget it.

        :param last: the newest cell that there is; at the end of a file nothing matures after it.
        """
        until = limit if limit < ENDLESS else last + 1
        for number in sorted(self.buckets):
            cell = int(self._matures(np.array(number)))
            if cell >= until:
                return
            stats = np.zeros(self.layout.width, dtype=np.int64)
            stats[self.first : self.first + self.width] = self.buckets.pop(number)
            for spec in self.covered:
                stats[spec.first + HITS] = stats[spec.first + PRESENT] - stats[spec.first + HITS]
            yield cell, stats

    def restart(self, cell: int) -> None:
        """Forget what waits, and count from the next minute on: the sample has changed in this cell."""
        self.buckets.clear()
        self.since = cell // MINUTE_CELLS + 1
