"""Selective labels: whether which predictions get a label has changed, and whether that alone makes errors rise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.columns import FloatArray, IntArray
from regate.detectors.delivery import MADE_NOW, CoverageSpec
from regate.detectors.history import FIRST, History
from regate.detectors.layout import ChartSpec
from regate.detectors.profile import Profile
from regate.detectors.realised import BY_CLASS, CHART
from regate.detectors.sections import HITS, PRESENT, FlagSpec

# A share of labels that is this many standard deviations off is no chance.
DEVIATIONS = 4.0
# A rise at equal shares of classes within so many is nothing, and so is one of two points of accuracy.
NOISE, TOLERATED = 2.0, 0.02
LEAST = 128  # outcomes


@dataclass(frozen=True, slots=True)
class Selected:
    """What was found: classes whose share of labels is off, and the rise of errors.

    ``equal`` is the rise where each predicted class is compared with itself in the reference, ``sd`` its own error.
    """

    classes: tuple[str, ...] = ()
    outcomes: int = 0
    rise: float = 0.0
    equal: float = 0.0
    sd: float = 0.0

    @property
    def explains(self) -> bool:
        """Return whether selection alone makes the errors rise."""
        return bool(self.classes) and self.equal <= max(TOLERATED, NOISE * self.sd)

    @property
    def real(self) -> float:
        """Return the rise that selection does not explain."""
        return self.equal if self.classes else self.rise


class Selection:
    """Compares the labelled predictions of a stretch with all that were made, by predicted class."""

    def __init__(self, profile: Profile) -> None:
        layout = profile.layout
        centre = {chart.name: profile.points.centre[:, index] for index, chart in enumerate(profile.charts)}
        charts: dict[int, ChartSpec] = {chart.s_column: chart for chart in profile.charts}
        wrong = {
            one.name.removeprefix(BY_CLASS): one
            for one in layout.outcome_sections
            if isinstance(one, FlagSpec) and one.name.startswith(BY_CLASS)
        }
        self._covered, self._wrong = [], []
        for one in layout.sections:
            if isinstance(one, CoverageSpec) and one.of == "class" and one.value in wrong:
                own, other = charts.get(one.first + HITS), charts.get(wrong[one.value].first + HITS)
                if own is not None and other is not None:
                    tau = max(own.tau, other.tau, one.tau)
                    self._covered.append((one, 1.0 - float(centre[own.name][0]), tau))
                    self._wrong.append((wrong[one.value], float(centre[other.name][0])))
        self._rate = float(centre[CHART][0]) if CHART in centre else 0.0

    def look(self, history: History, onset_block: int, onset_cell: int, age_cells: int) -> Selected:
        """Return what a stretch of outcomes, ``age_cells`` after their predictions, says."""
        stats = history.since(onset_block)["stats"].sum(axis=0)
        labelled = self._of(stats, PRESENT)
        n = float(labelled.sum())
        if n < LEAST or not self._covered:
            return Selected()
        made = self._made(history, onset_cell - age_cells, age_cells)
        if not made.any():
            return Selected()
        expected = made * np.array([coverage for _, coverage, _ in self._covered])
        share = expected / expected.sum()
        # Where classes come in runs, labels of a window that lies a little beside their own are off by chance.
        tau = max(tau for _, _, tau in self._covered)
        spread = np.sqrt(np.maximum(n * share * (1.0 - share), 1.0) * tau)
        off = np.abs(labelled - n * share) >= DEVIATIONS * spread
        wrong = float(self._of(stats, HITS).sum())
        usual = float((labelled * np.array([rate for _, rate in self._wrong])).sum())
        rate = wrong / n
        return Selected(
            classes=tuple(spec.value for (spec, _, _), far in zip(self._covered, off, strict=True) if far),
            outcomes=int(n),
            rise=rate - self._rate,
            sd=float(np.sqrt(rate * (1.0 - rate) * tau / n)),
            equal=(wrong - usual) / n,
        )

    def _of(self, stats: IntArray, column: int) -> FloatArray:
        return np.array([float(stats[spec.first + column]) for spec, _ in self._wrong])

    def _made(self, history: History, from_cell: int, age_cells: int) -> FloatArray:
        """Return the predictions of each class that were made when those of the outcomes were."""
        kept = history.since(0)
        first = kept["marks"][:, FIRST]
        if not len(first):
            return np.zeros(len(self._covered))
        last = max(int(first[-1]) - age_cells, from_cell)
        rows = kept["stats"][(first >= from_cell) & (first <= last)].sum(axis=0)
        return np.array([float(rows[spec.first + MADE_NOW]) for spec, _, _ in self._covered])
