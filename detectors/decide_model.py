"""One model version in decide: what waits for its watermark, and what happens when its cells close."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from regate.detectors.attack.watch import AttackWatch
from regate.detectors.cells import CELL_US, Closed, Fragments, Joiner, OpenCells, group_rows
from regate.detectors.columns import IntArray
from regate.detectors.delivery import contradiction_section
from regate.detectors.finding import Finding
from regate.detectors.label_join import Join, Taken
from regate.detectors.marks import joined
from regate.detectors.maturing import Maturing
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
from regate.detectors.prompts.watch import PromptWatch
from regate.detectors.rhythm import Pace, counted, section_of
from regate.detectors.sections import HITS, PRESENT
from regate.detectors.watch import Watch


@dataclass(slots=True)
class Model:
    """State of one model version. Without a profile it is `learning`: events are counted, nothing is decided."""

    layout: str = ""
    watch: Watch | None = None
    join: Join | None = None
    maturing: Maturing | None = None
    joiner: Joiner = field(default_factory=Joiner)
    cells: dict[str, OpenCells] = field(default_factory=dict)  # by layout
    predictions: list[Predictions] = field(default_factory=list)
    labels: list[LabelRows] = field(default_factory=list)
    learned: int = 0  # events of closed cells that no profile counted
    pace: Pace = field(default_factory=Pace)
    attack: AttackWatch | None = None
    prompts: PromptWatch | None = None
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
        if part.queries is not None:
            if self.attack is not None and part.queries_of == self.attack.memory.reference.digest:
                self.attack.take(part.queries)
            else:  # made with a profile that is not in force here any more, or not yet
                self.count("other_profile_queries", part.queries.n)
        if part.prompts is not None:
            if self.prompts is not None and part.prompts_of == self.prompts.reference.made_by:
                self.prompts.take(part.prompts)
            else:
                self.count("other_profile_prompts", part.prompts.n)
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
                spec = section_of(self.watch.profile.layout.sections)
                closed = closed if spec is None else counted(spec, closed, self.pace)
                findings = self.watch.take(self.joiner.take(closed, limit))
            else:
                events = int(closed.stats[:, 0].sum())
                self.learned += events
                if layout:  # made with a profile that is not in force here any more, or not yet
                    self.count("other_profile", events)
        if self.attack is not None:
            findings = [*findings, *self.attack.close(limit * CELL_US)]
        if self.prompts is not None:
            findings = [*findings, *self.prompts.close(limit * CELL_US)]
        return findings

    def _close_outcomes(self, limit: int) -> None:
        if self.join is None or self.watch is None:
            return
        last = self.last()
        if self.predictions or self.labels:
            self._decide_outcomes(limit, self.join, self.watch.profile)
        if self.maturing is not None:
            for cell, stats in self.maturing.mature(limit, last):
                self._add_row(cell, stats)

    def _decide_outcomes(self, limit: int, join: Join, profile: Profile) -> None:
        predictions = merged_rows(self.predictions, empty_predictions())
        labels = merged_rows(self.labels, empty_labels())
        due = np.union1d(predictions.cell[predictions.cell < limit], labels.cell[labels.cell < limit])
        if not len(due):
            self.predictions, self.labels = [predictions], [labels]
            return
        found: list[tuple[int, Taken]] = []
        ripe = told = 0  # rows of predictions, and of ``found``, whose maturity was seen to
        starts = np.append(due, limit)
        p, q = np.searchsorted(predictions.cell, starts), np.searchsorted(labels.cell, starts)
        for row, cell in enumerate(due.tolist()):
            made, shift = some_rows(predictions, slice(p[row], p[row + 1])), join.shift
            known = some_rows(labels, slice(q[row], q[row + 1]))
            taken = join.take(made, known, profile.error_cutoff, cell, profile.layout.shape)
            if taken.outcomes.n or len(taken.contradicted):
                found.append((cell, taken))
                if self.attack is not None:
                    self.attack.answered(taken, (cell + 1) * CELL_US - 1)
            if self.maturing is not None and (join.shift != shift or row == len(due) - 1):
                rows = some_rows(predictions, slice(p[ripe], p[row + 1])).sampled(shift)
                self._ripen(self.maturing, rows, found[told:], profile)
                ripe, told = row + 1, len(found)
                if join.shift != shift:
                    self.maturing.restart(cell)
                    self.count("coverage_restarted")
        self.predictions = [some_rows(predictions, slice(p[-1], None))]
        self.labels = [some_rows(labels, slice(q[-1], None))]
        if found:
            self._add_outcomes(profile, [(cell, taken) for cell, taken in found if taken.outcomes.n])
            self._add_contradictions(profile, found)

    def _ripen(
        self, maturing: Maturing, predictions: Predictions, found: list[tuple[int, Taken]], profile: Profile
    ) -> None:
        """Count predictions and their labels towards maturity."""
        now = maturing.made(predictions, profile.layout.shape)
        if now is not None:
            self._add_rows(now)
        told = [(cell, taken) for cell, taken in found if taken.outcomes.n]
        if told:
            cells = np.concatenate([np.full(taken.outcomes.n, cell) for cell, taken in told])
            matched = np.concatenate([taken.matched for _, taken in told])
            maturing.answered(joined([taken.outcomes for _, taken in told]), matched, cells)

    def _add_outcomes(self, profile: Profile, found: list[tuple[int, Taken]]) -> None:
        if not found:
            return
        cell = np.concatenate([np.full(taken.outcomes.n, number) for number, taken in found])
        stratum = np.concatenate([taken.stratum for _, taken in found]).astype(np.int16)
        outcomes = joined([taken.outcomes for _, taken in found])
        groups = group_rows(cell, stratum)
        stats = profile.accumulate_outcomes(outcomes, stratum, groups.group, len(groups.cell))
        self._add_rows(Closed(groups.cell, groups.stratum, stats, np.zeros(len(stats), dtype=np.int64)))

    def _add_contradictions(self, profile: Profile, found: list[tuple[int, Taken]]) -> None:
        """Count labels, and those that contradict an earlier one."""
        spec = contradiction_section(profile.layout)
        if spec is None:
            return
        both = [np.concatenate([taken.stratum, taken.contradicted]) for _, taken in found]
        cell = np.concatenate([np.full(len(part), number) for (number, _), part in zip(found, both, strict=True)])
        against = np.concatenate(
            [np.arange(len(part)) >= t.outcomes.n for (_, t), part in zip(found, both, strict=True)]
        )
        groups = group_rows(cell, np.concatenate(both).astype(np.int16))
        count = len(groups.cell)
        stats = np.zeros((count, profile.layout.width), dtype=np.int64)
        stats[:, spec.first + PRESENT] = np.bincount(groups.group, minlength=count)
        stats[:, spec.first + HITS] = np.bincount(groups.group[against], minlength=count)
        self._add_rows(Closed(groups.cell, groups.stratum, stats, np.zeros(count, dtype=np.int64)))

    def _add_row(self, cell: int, stats: IntArray) -> None:
        none = np.zeros(1, dtype=np.int64)
        self._add_rows(Closed(none + cell, none.astype(np.int16), stats[None, :], none))

    def _add_rows(self, rows: Closed) -> None:
        self.cells.setdefault(self.layout, OpenCells(rows.stats.shape[1])).add(rows)
