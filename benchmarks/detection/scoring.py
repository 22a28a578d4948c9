"""Average run lengths, delays and ratios, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.calibration.loop import poisson_interval
from benchmarks.detection.streams import FloatArray, IntArray
from scipy.stats import beta, binom

LEVEL = 0.95
# Fewer alarms than this say nothing about a rate.
MIN_ALARMS = 20
TOLERANCE = 0.15


@dataclass(frozen=True, slots=True)
class RunLength:
    """Events to a false alarm: events watched over alarms, the detector starting anew after each."""

    alarms: int
    events: int

    @property
    def value(self) -> float:
        return self.events / self.alarms if self.alarms else math.inf

    @property
    def interval(self) -> tuple[float, float]:
        low, high = poisson_interval(self.alarms, LEVEL)
        return self.events / high, self.events / low if low else math.inf

    def matches(self, target: float) -> bool:
        """Tell whether the run length is within 15 % of the target."""
        return abs(self.value / target - 1.0) <= TOLERANCE

    def __add__(self, other: RunLength) -> RunLength:
        return RunLength(self.alarms + other.alarms, self.events + other.events)


def level_for(paths: Sequence[FloatArray], target: float, events_a_step: int = 1) -> float:
    """Return the level that paths, each from a fresh start, pass first after ``target`` events on average.

    :param paths: ``[streams, steps]`` arrays of a statistic that nothing restarted. What ends without an alarm counts
        as events watched: exact for geometric run lengths, and nearly so for streams several run lengths long.
    """
    highest = [np.maximum.accumulate(path, axis=1) for path in paths]
    everything = np.concatenate([path[:, -1] for path in highest])
    low, high = min(float(path[:, 0].min()) for path in highest), float(everything.max())

    def run_length(level: float) -> float:
        waited = sum(int((path < level).sum()) for path in highest)
        alarms = int((everything >= level).sum())
        return (waited + alarms) * events_a_step / max(alarms, 0.5)

    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if run_length(middle) < target else (low, middle)
    return high


@dataclass(frozen=True, slots=True)
class Tried:
    level: float
    run_length: RunLength


def search(
    evaluate: Callable[[float], RunLength], loose: float, strict: float, target: float, most: int = 9
) -> list[Tried]:
    """Return the levels tried, the last of them the nearest to the target run length.

    :param loose: level with the shortest run length, ``strict`` with the longest; both positive, searched by logs.
    """
    low, high = 0.0, 1.0
    at_low, at_high = math.nan, math.nan
    tried: list[Tried] = []
    place = 0.5
    for _ in range(most):
        level = loose * (strict / loose) ** place
        seen = evaluate(level)
        tried.append(Tried(level, seen))
        off = math.log(seen.events / max(seen.alarms, 0.5) / target)
        if abs(off) < 0.07 and seen.alarms >= MIN_ALARMS:
            break
        if off < 0:
            low, at_low = place, off
        else:
            high, at_high = place, off
        place = 0.5 * (low + high)
        if math.isfinite(at_low + at_high) and at_high < 2.0:
            # log run length is nearly straight in the log of the level, near the target.
            guess = low + (high - low) * -at_low / (at_high - at_low)
            place = min(max(guess, low + 0.05 * (high - low)), high - 0.05 * (high - low))
    nearest = min(
        tried, key=lambda one: abs(math.log(one.run_length.events / max(one.run_length.alarms, 0.5) / target))
    )
    tried.remove(nearest)
    return [*tried, nearest]


def alarms_above(scores: FloatArray, level: float, rest: int) -> list[int]:
    """Return where scores reach a level, each alarm silencing the next ``rest`` places (the detector refills)."""
    alarms: list[int] = []
    free = 0
    for place in np.flatnonzero(scores >= level):
        if place >= free:
            alarms.append(int(place))
            free = int(place) + 1 + rest
    return alarms


def score_level(scores: Sequence[FloatArray], target_steps: float, rest: int) -> float:
    """Return the level that scores reach once in ``target_steps``; beyond what was seen, by the tail of log rate.

    The tail is a straight line of log run length over the score, through the levels with enough alarms.
    """
    steps = sum(one.size for one in scores)
    finite = np.concatenate([one[np.isfinite(one)] for one in scores])
    candidates = np.unique(np.quantile(finite, 1.0 - np.geomspace(0.2, 1.0 / max(finite.size, 2), 120)))
    counts = np.array([sum(len(alarms_above(one, level, rest)) for one in scores) for level in candidates])
    kept = counts > 0
    levels, waits = candidates[kept], np.log(steps / counts[kept])
    enough = counts[kept] >= MIN_ALARMS
    if enough.sum() >= 3 and not (waits[enough] >= math.log(target_steps)).any():
        last = np.flatnonzero(enough)[-40:]
        slope, intercept = np.polyfit(levels[last], waits[last], 1)
        if slope > 0:
            return float((math.log(target_steps) - intercept) / slope)
    return float(np.interp(math.log(target_steps), np.maximum.accumulate(waits), levels))


@dataclass(frozen=True, slots=True)
class Delays:
    """Events from a change to the first alarm after it, in order; missing: none within ``horizon``."""

    found: tuple[int, ...]
    runs: int
    horizon: int

    @property
    def median(self) -> float:
        return self._at(0.5)

    @property
    def median_interval(self) -> tuple[float, float]:
        """95 % by order statistics, whatever the distribution."""
        low, high = binom.interval(LEVEL, self.runs, 0.5)
        return self._order(int(low) - 1), self._order(int(high))

    def _at(self, share: float) -> float:
        place = share * (self.runs - 1)
        low, high = self._order(math.floor(place)), self._order(math.ceil(place))
        return low if low == high else low + (high - low) * (place - math.floor(place))

    def _order(self, place: int) -> float:
        place = max(place, 0)
        return float(self.found[place]) if place < len(self.found) else math.inf

    @property
    def p95(self) -> float:
        return self._at(0.95)

    def within(self, events: int) -> tuple[float, float, float]:
        """Return the share found within so many events, with its exact 95 % interval."""
        count = sum(1 for delay in self.found if delay <= events)
        tail = (1.0 - LEVEL) / 2.0
        low = beta.ppf(tail, count, self.runs - count + 1) if count else 0.0
        high = beta.ppf(1.0 - tail, count + 1, self.runs - count) if count < self.runs else 1.0
        return count / self.runs, float(low), float(high)


def delays_of(alarms: Sequence[Sequence[int]], change: IntArray, horizon: int) -> Delays:
    """Return the delays of streams whose row ``change`` is the first after the change (a delay of 1: at once)."""
    found = []
    for rows, at in zip(alarms, change, strict=True):
        delay = next((row - int(at) + 1 for row in rows if row >= at), None)
        if delay is not None and delay <= horizon:
            found.append(delay)
    return Delays(tuple(sorted(found)), len(change), horizon)


def median_ratio(above: Delays, below: Delays, draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Return the ratio of two medians with its bootstrap 95 % interval."""
    rng = np.random.default_rng((seed, 7))
    samples = []
    for delays in (above, below):
        values = np.full(delays.runs, np.inf)
        values[: len(delays.found)] = delays.found
        picked = np.sort(values[rng.integers(delays.runs, size=(draws, delays.runs))], axis=1)
        samples.append(picked[:, delays.runs // 2])
    with np.errstate(invalid="ignore"):
        ratio = np.sort(np.nan_to_num(samples[0] / samples[1], nan=np.inf, posinf=np.inf))
    tail = int(draws * (1.0 - LEVEL) / 2.0)
    middle = above.median / below.median if math.isfinite(below.median) else math.inf
    return middle, float(ratio[tail]), float(ratio[draws - 1 - tail])
