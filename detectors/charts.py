"""The bank of charts: Shiryaev-Roberts e-processes over a small grid of alternatives, stepped block by block.

For each grid point ``R <- (R + delta) * E`` where delta is the share of the budget period since the last
block (Shiryaev 1963; Roberts 1966; as e-process: Shin, Ramdas, Rinaldo 2023). A chart's R is the mean over
its grid, the alarm statistic the weighted mean over charts. Under "nothing changed" R - elapsed time is a
martingale, whatever the traffic and the size of blocks.

Beside R each point keeps a CUSUM of log E: the block after its last minimum is where the change began.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from regate.detectors.columns import BoolArray, FloatArray, IntArray
from regate.detectors.layout import ChartSpec
from regate.detectors.numerics import LOG2_10, NOTHING, UNIT, exp2, log2, log2_add, round_log2
from regate.detectors.profile import Profile

# Charts that carry an open incident leave the mean; the others are scaled up by at most this.
MAX_RESCALE = 2.0


@dataclass(frozen=True, slots=True)
class BankState:
    """State of all charts: one entry a grid point, or one a chart (the sums, and what they were at its restart)."""

    log2_r: FloatArray
    cusum: FloatArray
    onset_block: IntArray  # first block of the excursion
    onset_mark: IntArray  # the caller's mark (row or event time) of that block
    base_s: IntArray  # the chart's sums when the excursion began
    base_n: IntArray
    base_centre: FloatArray
    sum_s: IntArray
    sum_n: IntArray
    sum_centre: FloatArray
    start_s: IntArray  # the three sums when the chart was last restarted, and the block after which that was
    start_n: IntArray
    start_centre: FloatArray
    start_block: IntArray
    blocks: int = 0
    events: int = 0


POINT_FIELDS = ("log2_r", "cusum", "onset_block", "onset_mark", "base_s", "base_n", "base_centre")
CHART_FIELDS = ("sum_s", "sum_n", "sum_centre", "start_s", "start_n", "start_centre", "start_block")


@dataclass(frozen=True, slots=True)
class StepResult:
    """``log_r`` is log10 of each chart's R, ``total`` log10 of the weighted mean over active charts."""

    state: BankState
    log_r: FloatArray
    total: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Per chart: where its excursion began and how large the change is since, in the chart's unit.

    ``before`` says whether the chart had moved the same way between its restart and that onset, in standard
    deviations, and ``share`` how far, as a share of the move since; ``start_block`` is the block of the restart.
    ``size`` is the effect in standard deviations of one trial, so that charts of different forms compare.
    """

    onset_block: IntArray
    onset_mark: IntArray
    effect: FloatArray
    size: FloatArray
    log_r: FloatArray
    before: FloatArray
    share: FloatArray
    start_block: IntArray
    base: tuple[IntArray, IntArray, FloatArray]  # the chart's three sums where its excursion began


class Bank:
    """The immutable charts of a profile, as arrays, and the pure functions that step their state."""

    def __init__(self, profile: Profile) -> None:
        self.charts: tuple[ChartSpec, ...] = profile.charts
        self._points = profile.points
        chart = profile.points.chart
        self._first = np.flatnonzero(np.r_[True, chart[1:] != chart[:-1]])
        self._grid = np.diff(np.r_[self._first, chart.size]).astype(np.float64)
        self._s = np.array([spec.s_column for spec in self.charts], dtype=np.int64)
        self._n = np.array([spec.n_column for spec in self.charts], dtype=np.int64)
        self.watchable: BoolArray = np.array([spec.watchable for spec in self.charts], dtype=np.bool_)
        weight = np.array([spec.weight for spec in self.charts], dtype=np.float64) * self.watchable
        self.weights: FloatArray = weight / weight.sum()
        # A chart that is not watched never gets a head start, so its R stays nothing.
        self._head = np.where(self.watchable[chart], 0.0, NOTHING)
        self._form = np.array([spec.form for spec in self.charts])
        self._margin = np.array([spec.margin for spec in self.charts], dtype=np.float64)
        self._sd = np.array([spec.sd for spec in self.charts], dtype=np.float64)
        self._tau = np.array([spec.tau for spec in self.charts], dtype=np.float64)
        self._traffic = np.array(profile.calibration.log10_traffic, dtype=np.float64)
        self._log_h = np.array(profile.calibration.log10_threshold, dtype=np.float64)

    def start(self) -> BankState:
        """Return the state before any block."""
        points, charts = self._points.chart.size, len(self.charts)
        zeros = np.zeros(points, dtype=np.int64)
        return BankState(
            log2_r=np.full(points, NOTHING),
            cusum=np.zeros(points),
            onset_block=zeros,
            onset_mark=np.full(points, _AFTER, dtype=np.int64),
            base_s=zeros,
            base_n=zeros,
            base_centre=np.zeros(points),
            sum_s=np.zeros(charts, dtype=np.int64),
            sum_n=np.zeros(charts, dtype=np.int64),
            sum_centre=np.zeros(charts),
            start_s=np.zeros(charts, dtype=np.int64),
            start_n=np.zeros(charts, dtype=np.int64),
            start_centre=np.zeros(charts),
            start_block=np.zeros(charts, dtype=np.int64),
        )

    def step(
        self,
        state: BankState,
        block: IntArray,
        stratum: int,
        delta: float,
        active: BoolArray | None = None,
        weights: FloatArray | None = None,
        mark: int = 0,
    ) -> StepResult:
        """Add one block of statistics (``int64[D]``).

        :param delta: share of the budget period since the last block, > 0.
        :param active: charts in the mean (default all); the others are stepped too, and followed by the caller.
        :param mark: row or event time where the block begins, handed back as the onset.
        """
        chart = self._points.chart
        s, n = block[self._s], block[self._n]
        log_e = s[chart] * self._points.a[stratum] + n[chart] * self._points.b[stratum]
        log2_r = np.maximum(round_log2(log2_add(state.log2_r, self._head + float(np.log2(delta))) + log_e), NOTHING)
        cusum = round_log2(state.cusum + log_e)
        calm = cusum <= 0
        sum_s, sum_n = state.sum_s + s, state.sum_n + n
        sum_centre = state.sum_centre + n * self._points.centre[stratum]
        after = BankState(
            log2_r=log2_r,
            cusum=np.where(calm, 0.0, cusum),
            onset_block=np.where(calm, state.blocks + 1, state.onset_block),
            onset_mark=np.where(calm, _AFTER, np.where(state.onset_mark == _AFTER, mark, state.onset_mark)),
            base_s=np.where(calm, sum_s[chart], state.base_s),
            base_n=np.where(calm, sum_n[chart], state.base_n),
            base_centre=np.where(calm, sum_centre[chart], state.base_centre),
            sum_s=sum_s,
            sum_n=sum_n,
            sum_centre=sum_centre,
            start_s=state.start_s,
            start_n=state.start_n,
            start_centre=state.start_centre,
            start_block=state.start_block,
            blocks=state.blocks + 1,
            events=state.events + int(block[0]),
        )
        log_r = self.log_r(after)
        return StepResult(after, log_r, self.total(log_r, active, weights))

    def log_r(self, state: BankState) -> FloatArray:
        """Return log10 of each chart's R, the mean over its grid."""
        high = np.maximum.reduceat(state.log2_r, self._first)
        total = np.add.reduceat(exp2(state.log2_r - high[self._points.chart]), self._first)
        return np.asarray((high + np.log2(total / self._grid)) / LOG2_10)

    def total(self, log_r: FloatArray, active: BoolArray | None = None, weights: FloatArray | None = None) -> float:
        """Return log10 of the weighted mean of R over the active charts."""
        weight = self.weights if weights is None else weights
        if active is not None:
            weight = weight * active
            left = float(weight.sum())
            if left <= 0:
                return NOTHING / LOG2_10
            weight = weight * min(MAX_RESCALE, 1.0 / left)
        high = float(log_r[weight > 0].max())  # a followed chart may be beyond what exp holds beside the others
        mean = float((weight * exp2(np.minimum(log_r - high, 0.0) * LOG2_10)).sum())
        return high + float(log2(mean)) / LOG2_10

    def threshold(self, events_per_period: float) -> float:
        """Return log10 of what the mean must pass, for this traffic; 0, the ceiling, outside the calibrated range."""
        if self._traffic.size == 0 or events_per_period <= 0:
            return 0.0
        at = float(np.log10(events_per_period))
        # The edges of the range are computed, not typed: a rounding error must not fall outside.
        if not self._traffic[0] - 1e-9 <= at <= self._traffic[-1] + 1e-9:
            return 0.0
        return float(np.interp(at, self._traffic, self._log_h))

    def explain(self, state: BankState) -> Explanation:
        """Return onset and effect of every chart, from the grid point with the most evidence since its onset."""
        best = self._first.copy()
        for index, first in enumerate(self._first):
            last = first + int(self._grid[index])
            best[index] = first + int(np.argmax(state.cusum[first:last]))
        n = np.maximum(state.sum_n - state.base_n[best], 1)
        s = (state.sum_s - state.base_s[best]).astype(np.float64)
        centre = state.sum_centre - state.base_centre[best]
        shift = (s - centre) / n
        effect = np.where(
            (self._form == "indicator") | (self._form == "tilt"),
            shift,
            np.where(self._form == "mean", shift / UNIT, np.sqrt(np.maximum(s / n / UNIT, 0.0))),
        )
        mark = state.onset_mark[best]
        return Explanation(
            onset_block=state.onset_block[best],
            onset_mark=np.where(mark == _AFTER, 0, mark),
            effect=effect,
            size=np.abs(self.sizes(state.sum_s - state.base_s[best], n, centre)),
            log_r=self.log_r(state),
            before=self._before(state, best, shift),
            share=_share(state, best, shift),
            start_block=state.start_block,
            base=(state.base_s[best], state.base_n[best], state.base_centre[best]),
        )

    def _before(self, state: BankState, best: IntArray, shift: FloatArray) -> FloatArray:
        """Return how far each chart was from the reference between its restart and its onset, towards its effect."""
        off = self.deviations(
            state.base_s[best] - state.start_s,
            state.base_n[best] - state.start_n,
            state.base_centre[best] - state.start_centre,
        )
        return np.asarray(np.sign(shift) * off)

    def deviations(self, s: IntArray, n: IntArray, centre: FloatArray, *, tolerant: bool = False) -> FloatArray:
        """Return how many standard deviations (tau included) sums over a stretch are off the reference, per chart.

        0 where there was nothing to sum.

        :param tolerant: count only what is beyond the margin, which holds the error of the reference itself.
        """
        off, at, spread = self._off(s, n, centre)
        if tolerant:
            # The margin is a shift in sigma, a log ratio of spreads, or a difference of logits.
            slope = np.where(self._form == "mean", self._sd, spread)
            off = np.sign(off) * np.maximum(np.abs(off) - self._margin * slope, 0.0)
        return np.where(n > 0, off / np.sqrt(np.maximum(spread * self._tau, 1e-300) / at), 0.0)

    def sizes(self, s: IntArray, n: IntArray, centre: FloatArray) -> FloatArray:
        """Return how far sums over a stretch are off the reference, in standard deviations of one trial, per chart."""
        off, _, spread = self._off(s, n, centre)
        return np.asarray(off / np.sqrt(np.maximum(spread, 1e-300)))

    def _off(self, s: IntArray, n: IntArray, centre: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return how far means of sums are off the reference, of how many trials, and the variance of one."""
        tilt, mean = self._form == "tilt", self._form == "mean"
        # Trials of a tilt are variances: what varies as much as so many units.
        at = np.maximum(n, 1) / np.where(tilt, float(UNIT), 1.0)
        rate = centre / at
        square = self._sd * self._sd
        spread = np.where(
            self._form == "indicator", rate * (1.0 - rate), np.where(mean, square, np.where(tilt, 1.0, 2.0))
        )
        unit = np.where(self._form == "indicator", 1.0, float(UNIT))
        # The reference expects z^2 = 1; for scale charts the stored centre is unused.
        expected = np.where(self._form == "scale", n * float(UNIT), centre)
        return (s - expected) / at / unit, at, spread

    def trials(self, n: IntArray) -> FloatArray:
        """Return how many trials counts of each chart stand for."""
        of_one = np.where(self._form == "tilt", UNIT * self._sd * self._sd, 1.0)
        return np.asarray(n / np.maximum(of_one, 1e-9))

    def restart(self, state: BankState, charts: BoolArray) -> BankState:
        """Return the state with R = 0 and a fresh onset for ``charts``."""
        point = charts[self._points.chart]
        chart = self._points.chart
        return replace(
            state,
            log2_r=np.where(point, NOTHING, state.log2_r),
            cusum=np.where(point, 0.0, state.cusum),
            onset_block=np.where(point, state.blocks, state.onset_block),
            onset_mark=np.where(point, _AFTER, state.onset_mark),
            base_s=np.where(point, state.sum_s[chart], state.base_s),
            base_n=np.where(point, state.sum_n[chart], state.base_n),
            base_centre=np.where(point, state.sum_centre[chart], state.base_centre),
            start_s=np.where(charts, state.sum_s, state.start_s),
            start_n=np.where(charts, state.sum_n, state.start_n),
            start_centre=np.where(charts, state.sum_centre, state.start_centre),
            start_block=np.where(charts, state.blocks, state.start_block),
        )

    def dump(self, state: BankState, chart: int) -> dict[str, FloatArray | IntArray]:
        """Return the state of one chart, to be kept under its digest."""
        points = self._span(chart)
        return {name: getattr(state, name)[points] for name in POINT_FIELDS} | {
            name: getattr(state, name)[chart : chart + 1] for name in CHART_FIELDS
        }

    def load(self, state: BankState, chart: int, kept: dict[str, FloatArray | IntArray]) -> BankState:
        """Return the state with one chart as ``dump`` gave it."""
        points = self._span(chart)
        changed: dict[str, FloatArray | IntArray] = {}
        for name in POINT_FIELDS:
            changed[name] = getattr(state, name).copy()
            changed[name][points] = kept[name]
        for name in CHART_FIELDS:
            changed[name] = getattr(state, name).copy()
            changed[name][chart : chart + 1] = kept[name]
        return replace(state, **changed)  # type: ignore[arg-type]

    def _span(self, chart: int) -> slice:
        first = int(self._first[chart])
        return slice(first, first + int(self._grid[chart]))


def _share(state: BankState, best: IntArray, shift: FloatArray) -> FloatArray:
    n = state.base_n[best] - state.start_n
    s = (state.base_s[best] - state.start_s) - (state.base_centre[best] - state.start_centre)
    told = (n > 0) & (shift != 0.0)
    return np.where(told, s / np.maximum(n, 1) / np.where(told, shift, 1.0), 0.0)


# "The next block's mark": where an excursion has not begun, the block to come is its first.
_AFTER = -(1 << 62)
