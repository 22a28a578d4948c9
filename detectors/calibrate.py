"""The threshold: as low as the budget allows, never above the ceiling R = 1 that theory gives.

The run length to a level is simulated on bootstraps of the reference; log rate is fitted against log
level where enough alarms were seen, and the threshold is where the *upper* 95 % rate equals the budget.
Below the lowest rate that the simulation supports the ratio of threshold to ceiling stays constant.
The amount of simulation follows from sizes and `seconds` alone, never from a clock, so that equal input
gives an equal profile on any machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from regate.detectors.bootstrap import Blocks, block_evidence, make_blocks
from regate.detectors.candidate import Candidate, Reference
from regate.detectors.columns import BoolArray, FloatArray, IntArray
from regate.detectors.dependence import ROWS_PER_TAU
from regate.detectors.profile import Calibration
from regate.detectors.simulate import Exceedances, Odds, Plan, Way, simulate

# Traffic that the threshold is calibrated for, relative to the profile's.
SCALES = (0.1, 1.0, 10.0)
# Events a period when nobody said: what `backtest` counts with.
DEFAULT_TRAFFIC = 1e6
# Fewer alarms than this at a level say nothing about its rate that could be extrapolated.
MIN_ALARMS = 20
UPPER = 1.645
# One nominal second of simulation, in point updates, and what a block costs whatever its points.
UPDATES_PER_SECOND = 5.0e8
LANE_COST = 100
MAX_STEPS = 120_000
RULE_OF_THREE = 3.0
# The ceiling is 6 to 250 times too cautious on references that can tell. A threshold lower than this, or than so many
# blocks of time, would rest on head starts alone.
LOWEST = 1.0 / 3000.0
LEAST_BLOCKS = 1.5
# The rate of alarms goes with the error of the reference's own spread as period^error, whose mean over references is
# above 1; the period is lengthened by that, at most so much.
MOST_LENGTHENED = 4.0
# By how much a slope may be flatter beyond what the reference supports. A reference of a calm stretch of clustered
# volatility shows 1.2 to 1.5, where over many references it is below 1; wide margins and tau show 2 to 4.
FLATTER = 0.5
MIN_STEPS = 2_000
LANES = 192
PILOT_LANES = 4
PILOT_STEPS = 20_000
# The refined simulation looks at these multiples of the level that the pilot found for each traffic.
AROUND = (0.6, 0.8, 1.0, 1.25, 1.6)
# log of how far the upper limit may lie above the estimate.
SURE_ENOUGH = float(np.log(1.25))
# The local fit uses so many levels nearest to the target.
FIT_LEVELS = 5
# The ceiling is judged from this many blocks a period on.
LOWEST_CEILING = 50.0
# At the ceiling theory allows one alarm a period. A reference holds fewer wild stretches than what follows it will:
# where its own bootstrap comes near that, the bets do not hold. Independent rows give .004 to .2.
CEILING_SHARE = 0.2
# A chart whose bets do not hold on the reference itself is divided by twice its tau, at most so often.
MAX_WIDENINGS = 8
# A stream must be this many run lengths long for its alarms to tell the rate.
RUNS_A_LANE = 2.0

Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Fit:
    """log rate = intercept - slope * log level, by Poisson counts, with its covariance."""

    intercept: float
    slope: float
    covariance: FloatArray
    centre: float

    def rate(self, log_level: float) -> float:
        """Return the log rate at a level."""
        return self.intercept - self.slope * (log_level - self.centre)

    def upper(self, log_level: float) -> float:
        """Return the upper 95 % limit of the log rate at a level."""
        x = log_level - self.centre
        error = self.covariance[0, 0] + 2 * x * self.covariance[0, 1] + x * x * self.covariance[1, 1]
        return float(self.rate(log_level) + UPPER * np.sqrt(max(float(error), 0.0)))


def calibrate(
    reference: Reference,
    chosen: list[Candidate],
    traffic: float | None,
    *,
    block_rows: int,
    seconds: float,
    seed: int,
    progress: Tell,
) -> tuple[list[Candidate], Calibration]:
    """Return the charts, widened where the reference demands it, and the thresholds by traffic."""
    if seconds <= 0:
        return chosen, Calibration(note="not calibrated: the ceiling holds at any traffic")
    traffic = DEFAULT_TRAFFIC if traffic is None else traffic
    points = sum(candidate.a.shape[1] for candidate in chosen if candidate.spec.watchable)
    reach = max((candidate.reach for candidate in chosen if candidate.spec.watchable), default=1)
    search = Search(
        make_blocks(reference, block_rows, points, reach, seed), seconds * UPDATES_PER_SECOND, seed, progress
    )
    periods = [scale * traffic / search.blocks.rows for scale in SCALES]
    before = chosen
    chosen, pilots = _widened(search, chosen, periods)
    if not any(candidate.spec.watchable for candidate in chosen):
        return chosen, Calibration()
    odds = _odds(search.blocks, chosen)
    thresholds, updates, capped = [], 0, False
    for way, pilot in zip(search.ways, pilots, strict=True):
        plan, short = _refined(search, odds, pilot, periods, way)
        seen = simulate(odds, search.blocks, plan, lambda share: progress("calibration", 0.3 + 0.6 * share))
        thresholds.append([_cautious(seen, period, search.blocks) for period in periods])
        updates += int(seen.blocks.sum())
        capped = capped or short
    chosen_h = np.log10(np.max(thresholds, axis=0))
    names = [c.spec.name for c, b in zip(chosen, before, strict=True) if c.spec.tau != b.spec.tau]
    return chosen, Calibration(
        log10_traffic=tuple(round(float(np.log10(scale * traffic)), 9) for scale in SCALES),
        log10_threshold=tuple(round(float(h), 6) for h in chosen_h),
        block_updates=updates,
        capped=capped,
        widened=tuple(names),
        note="" if chosen_h[1] < 0 else "the ceiling holds: the bootstrap does not support a lower threshold",
    )


@dataclass(frozen=True)
class Search:
    """What all simulations of one calibration share; ``work`` is in point updates."""

    blocks: Blocks
    work: float
    seed: int
    tell: Tell

    @property
    def ways(self) -> tuple[Way, ...]:
        """Return what to simulate on: worlds, and the second half where there is dependence."""
        return tuple(Way) if self.blocks.late.size else (Way.WORLDS,)


def _odds(blocks: Blocks, chosen: list[Candidate]) -> Odds:
    evidence, chart = block_evidence(blocks, chosen)
    weight = np.array([candidate.spec.weight * candidate.spec.watchable for candidate in chosen])
    weight /= weight.sum()
    grid = np.bincount(chart, minlength=len(chosen))
    return Odds(evidence, (weight / np.maximum(grid, 1))[chart], chart, len(chosen))


def _affordable(work: float, points: int, lanes: int, steps: int) -> tuple[int, int, bool]:
    """Return lanes and steps within ``work``: streams are given up before length, to a quarter."""
    cost = points + LANE_COST
    fewer = int(np.clip(work / (steps * cost), max(lanes // 4, 1), lanes))
    shorter = int(np.clip(work / (fewer * cost), min(MIN_STEPS, steps), steps))
    return fewer, shorter, fewer < lanes or shorter < steps


def _pilot(search: Search, odds: Odds, periods: list[float], attempt: int) -> list[Exceedances]:
    """Look for the region where alarms come once a period, over all levels by factors of two, both ways."""
    top = float(np.clip(3.0 * periods[1], periods[0], MAX_STEPS))
    count = max(4, 1 + int(np.ceil(np.log2(top / max(periods[0] / 256.0, 0.5)))))
    level: FloatArray = (top / np.exp2(np.arange(count)[::-1])).astype(np.float64)
    wanted = int(np.clip(3.0 * periods[1], MIN_STEPS, PILOT_STEPS))
    each, steps, _ = _affordable(search.work / 20.0, odds.point_chart.size, PILOT_LANES * count, wanted)
    lanes = np.full(count, max(1, each // count))
    return [
        simulate(
            odds,
            search.blocks,
            Plan(level, lanes, steps, way, (search.seed, 2, attempt, index)),
            lambda share: search.tell("margins", 0.1 + 0.2 * share),
        )
        for index, way in enumerate(search.ways)
    ]


def _refined(search: Search, odds: Odds, pilot: Exceedances, periods: list[float], way: Way) -> tuple[Plan, bool]:
    """Return the simulation around the levels that the pilot points to."""
    rate = np.maximum.accumulate((pilot.alarms + 0.5)[::-1])[::-1] / pilot.blocks
    limit = search.blocks.distinct / RULE_OF_THREE
    longer = [period * search.blocks.lengthened(period, MOST_LENGTHENED) for period in periods]
    targets = sorted({*longer, *(min(period, limit) for period in longer)})
    centres = [float(np.exp(np.interp(np.log(t), -np.log(rate), np.log(pilot.level)))) for t in targets]
    levels = np.unique([centre * factor for centre in centres for factor in AROUND])
    wanted = int(np.clip(max(4.0 * longer[1], min(3.0 * longer[2], 20_000.0)), MIN_STEPS, MAX_STEPS))
    each, steps, short = _affordable(search.work / (len(search.ways) + 1), odds.point_chart.size, LANES, wanted)
    # Low levels give plenty of alarms from a few streams.
    share = np.where(levels < centres[targets.index(longer[1])] * min(AROUND), 0.3, 1.0)
    lanes = np.maximum(2, (each * share / share.sum()).astype(np.int64))
    return Plan(levels, lanes, steps, way, (search.seed, 1, list(Way).index(way))), short


def _cautious(seen: Exceedances, period: float, blocks: Blocks) -> float:
    """Return the threshold for one way of simulating: the higher of what it says and what its own blocks support."""
    longer = blocks.lengthened(period, MOST_LENGTHENED)
    said = max(
        threshold(seen, period * longer, float("inf")),
        extended(seen, period * longer, blocks.distinct / RULE_OF_THREE),
    )
    # A share of the longer period's ceiling, as one of the period's own.
    return min(1.0, max(LOWEST, LEAST_BLOCKS / period, said * longer))


def extended(seen: Exceedances, period: float, support: float) -> float:
    """Return the threshold for ``period`` by the power law that holds where run lengths are ``support``.

    What happens less often than once in a third of the reference's distinct blocks is not in it to be seen. From there
    on the slope is the one measured there, drawn towards 1, at which threshold / ceiling stays constant: with clusters
    of volatility it is about 1, where margins and tau are wider than need be 2 to 4.
    """
    if period <= support:
        return threshold(seen, period, float("inf"))
    at = threshold(seen, support, float("inf"))
    use = np.flatnonzero(seen.alarms >= MIN_ALARMS)
    if at >= 1.0 or use.size < FIT_LEVELS:
        return at
    order = np.argsort(np.abs(np.log(seen.blocks[use] / seen.alarms[use] / support)), kind="stable")[:FIT_LEVELS]
    fit = _fit(seen, use[order])
    slope = max(1.0, fit.slope - float(np.sqrt(max(fit.covariance[1, 1], 0.0))) - FLATTER)
    return min(1.0, at * float(np.exp((1.0 / slope - 1.0) * np.log(period / support))))


def threshold(seen: Exceedances, period: float, distinct: float) -> float:
    """Return the threshold (relative to the ceiling, at most 1) for ``period`` blocks a nominal alarm.

    :param distinct: how many different blocks the bootstrap can make; what happens less often than once in a
        third of them is not in the reference to be seen, however long one simulates.
    """
    rate = seen.alarms / seen.blocks
    supported = (seen.alarms >= MIN_ALARMS) & (seen.steps * rate >= RUNS_A_LANE)
    if supported.sum() < 2:
        return 1.0
    runs = 1.0 / rate[supported]
    longest = min(period, float(runs.max()), distinct / RULE_OF_THREE)
    # Where alarms are too few for a sure answer, the next shorter run length gives one, and the ratio stays.
    for target in [longest, *sorted((float(run) for run in runs if run < longest), reverse=True)]:
        level = _level(seen, supported, target)
        if level is not None:
            return min(1.0, level / target)
    return 1.0


def _level(seen: Exceedances, supported: BoolArray, target: float) -> float | None:
    """Return the level whose upper rate is once in ``target`` blocks; None when that is too unsure."""
    log_run = np.log(seen.blocks[supported] / seen.alarms[supported])
    # A power law holds near the target, not from one end of the curve to the other.
    order = np.argsort(np.abs(log_run - np.log(target)), kind="stable")[:FIT_LEVELS]
    near = np.flatnonzero(supported)[order]
    fit = _fit(seen, near)
    goal = -float(np.log(target))
    low = float(np.log(seen.level[near].min()))
    high = max(float(np.log(target)), low)
    if fit.upper(high) > goal:
        return None
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if fit.upper(middle) > goal else (low, middle)
    return float(np.exp(high)) if fit.upper(high) - fit.rate(high) <= SURE_ENOUGH else None


def _fit(seen: Exceedances, use: IntArray) -> Fit:
    """Fit log rate against log level by iterated weighted least squares (Poisson, log link)."""
    x, alarms, exposure = np.log(seen.level[use]), seen.alarms[use].astype(float), seen.blocks[use].astype(float)
    centre = float((x * alarms).sum() / alarms.sum())
    x = x - centre
    log_rate = np.log(alarms / exposure)
    weight = alarms
    for _ in range(20):
        sw, sx, sxx = weight.sum(), (weight * x).sum(), (weight * x * x).sum()
        sy, sxy = (weight * log_rate).sum(), (weight * x * log_rate).sum()
        determinant = sw * sxx - sx * sx
        slope = (sw * sxy - sx * sy) / determinant
        intercept = (sy - slope * sx) / sw
        expected = exposure * np.exp(intercept + slope * x)
        log_rate = intercept + slope * x + alarms / expected - 1.0
        weight = expected
    # Worlds differ, so alarms of one level scatter more than Poisson counts; the misfit says by how much.
    scatter = float((np.square(alarms - expected) / expected).sum()) / max(alarms.size - 2, 1)
    covariance = np.array([[sxx, -sx], [-sx, sw]]) / determinant * max(1.0, scatter)
    return Fit(float(intercept), float(-slope), covariance, centre)


def _widened(
    search: Search, chosen: list[Candidate], periods: list[float]
) -> tuple[list[Candidate], list[Exceedances]]:
    """Divide the bets of charts that break the ceiling on the reference itself by twice their tau."""
    pilots: list[Exceedances] = []
    for attempt in range(MAX_WIDENINGS):
        pilots = _pilot(search, _odds(search.blocks, chosen), periods, attempt)
        broken = {index for seen in pilots for index in _broken(seen, chosen)}
        if not broken:
            break
        chosen = [_wider(candidate) if index in broken else candidate for index, candidate in enumerate(chosen)]
        if not any(candidate.spec.watchable for candidate in chosen):
            break
    return chosen, pilots


def _broken(seen: Exceedances, chosen: list[Candidate]) -> set[int]:
    supported = np.flatnonzero((seen.alarms >= MIN_ALARMS) & (seen.steps * seen.alarms >= RUNS_A_LANE * seen.blocks))
    # Alarms a period at the ceiling of the level's own traffic; theory says at most 1. At the lowest levels one
    # block is a good part of a period, and its overshoot says nothing.
    supported = supported[seen.level[supported] >= LOWEST_CEILING]
    at_ceiling = seen.alarms[supported] * seen.level[supported] / seen.blocks[supported]
    too_many = supported[at_ceiling > CEILING_SHARE]
    if not too_many.size:
        return set()
    share = seen.by_chart[too_many].sum(axis=0) / seen.alarms[too_many].sum()
    weight = np.array([candidate.spec.weight * candidate.spec.watchable for candidate in chosen])
    return {int(index) for index in np.flatnonzero(share > 2.0 * weight / weight.sum())} or {int(share.argmax())}


def _wider(candidate: Candidate) -> Candidate:
    spec = replace(candidate.spec, tau=candidate.spec.tau * 2.0)
    if spec.rows < ROWS_PER_TAU * spec.tau:
        reason = (
            f"its alarms on the reference itself need tau {spec.tau:.4g}, that is {ROWS_PER_TAU * spec.tau:.0f} rows; "
            f"there are {spec.rows}"
        )
        spec = replace(spec, watchable=False, reason=reason)
    return replace(candidate, spec=spec, a=candidate.a / 2.0, b=candidate.b / 2.0)
