"""One model version in decide: what waits for its watermark, and what happens when its cells close."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from regate.detectors.cells import Closed, Fragments, Joiner, OpenCells, group_rows
from regate.detectors.columns import IntArray
from regate.detectors.finding import Finding
from regate.detectors.label_join import Join
from regate.detectors.marks import Outcomes, joined
from regate.detectors.observe import NO_TIME, Observed
from regate.detectors.outcomes import (
    LabelRows,
    Predictions,
    empty_labels,
    empty_predictions,
    merged_rows,
    some_rows,
)
from regate.detectors.profile import Profile
from regate.detectors.watch import Watch


@dataclass(slots=True)
class Model:
    """State of one model version. Without a profile it is `learning`: events are counted, nothing is decided."""

    layout: str = ""
    watch: Watch | None = None
    join: Join | None = None
    joiner: Joiner = field(default_factory=Joiner)
    cells: dict[str, OpenCells] = field(default_factory=dict)  # by layout
    predictions: list[Predictions] = field(default_factory=list)
    labels: list[LabelRows] = field(default_factory=list)
    learned: int = 0  # events of closed cells that no profile counted
    counters: dict[str, int] = field(default_factory=dict)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        if number:
            self.counters[name] = self.counters.get(name, 0) + number

    def take(self, part: Observed, oldest_open: int) -> None:
        """Keep fragments and join rows until their cells close; what comes later enters the oldest open cell."""
        if part.fragments is not None:
            self._add(part.fragments, oldest_open)
        if part.predictions is not None and len(part.predictions.cell):
            rows = part.predictions
            self.predictions.append(replace(rows, cell=np.maximum(rows.cell, oldest_open)))
        if part.labels is not None and len(part.labels.cell):
            self.labels.append(replace(part.labels, cell=np.maximum(part.labels.cell, oldest_open)))

    def _add(self, rows: Fragments, oldest_open: int) -> None:
        for name, number in rows.counters.items():
            self.count(name, number)
        late = rows.cell < oldest_open
        cell = rows.cell
        if bool(late.any()):
            self.count("late", int(rows.stats[late, 0].sum()))
            cell = np.maximum(cell, oldest_open)
        width = rows.stats.shape[1]
        cells = self.cells.get(rows.layout)
        if cells is None:
            cells = self.cells[rows.layout] = OpenCells(width)
        if cells.width != width:
            self.count("fragment_refused", len(rows.cell))
            return
        cells.add(Closed(cell, rows.stratum, rows.stats, rows.historical))

    def last(self) -> int:
        """Return the newest cell that waits; `NO_TIME` when none does."""
        pending = [rows.cell for rows in self.predictions] + [rows.cell for rows in self.labels]
        found = [int(cell.max()) for cell in pending if len(cell)]
        found.extend(cell for cells in self.cells.values() if (cell := cells.last()) is not None)
        return max(found, default=NO_TIME)

    def close(self, limit: int) -> list[Finding]:
        """Close the cells before ``limit``; return what their blocks decide."""
        self._close_outcomes(limit)
        findings: list[Finding] = []
        for layout in sorted(self.cells):
            closed = self.cells[layout].close(limit)
            if self.watch is not None and layout == self.layout:
                findings = self.watch.take(self.joiner.take(closed, limit))
            else:
                events = int(closed.stats[:, 0].sum())
                self.learned += events
                if layout:  # made with a profile that is not in force here any more, or not yet
                    self.count("other_profile", events)
        return findings

    def _close_outcomes(self, limit: int) -> None:
        if self.join is None or self.watch is None or not (self.predictions or self.labels):
            return
        predictions = merged_rows(self.predictions, empty_predictions())
        labels = merged_rows(self.labels, empty_labels())
        due = np.union1d(predictions.cell[predictions.cell < limit], labels.cell[labels.cell < limit])
        if not len(due):
            self.predictions, self.labels = [predictions], [labels]
            return
        profile = self.watch.profile
        found: list[tuple[int, Outcomes, IntArray]] = []
        starts = np.append(due, limit)
        p, q = np.searchsorted(predictions.cell, starts), np.searchsorted(labels.cell, starts)
        for row, cell in enumerate(due.tolist()):
            outcomes, stratum = self.join.take(
                some_rows(predictions, slice(p[row], p[row + 1])),
                some_rows(labels, slice(q[row], q[row + 1])),
                profile.error_cutoff,
                cell,
                profile.layout.shape,
            )
            if outcomes.n:
                found.append((cell, outcomes, stratum))
        self.predictions = [some_rows(predictions, slice(p[-1], None))]
        self.labels = [some_rows(labels, slice(q[-1], None))]
        if found:
            self._add_outcomes(profile, found)

    def _add_outcomes(self, profile: Profile, found: list[tuple[int, Outcomes, IntArray]]) -> None:
        cell = np.concatenate([np.full(outcomes.n, number) for number, outcomes, _ in found])
        stratum = np.concatenate([stratum for _, _, stratum in found]).astype(np.int16)
        outcomes = joined([outcomes for _, outcomes, _ in found])
        groups = group_rows(cell, stratum)
        stats = profile.accumulate_outcomes(outcomes, stratum, groups.group, len(groups.cell))
        cells = self.cells.setdefault(self.layout, OpenCells(stats.shape[1]))
        cells.add(Closed(groups.cell, groups.stratum, stats, np.zeros(len(stats), dtype=np.int64)))
