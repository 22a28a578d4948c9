"""Confidence intervals for rates, their differences and ratios, means and quantiles. Pure; no SciPy.

Sources: Wilson (1927) score interval; Newcombe (1998) "Interval estimation for the difference between independent
proportions", Statistics in Medicine 17, method 10; Donner and Zou (2012) and Newcombe (2016), MOVER-R, for the
ratio of two proportions from their Wilson limits; order statistics with Wilson ranks for quantiles.
Counts may be fractional (an effective sample size).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence limits."""

    value: float
    low: float
    high: float


def z_of(confidence: float, comparisons: int = 1) -> float:
    """Return the two-sided normal quantile, Bonferroni-corrected for simultaneous comparisons.

    >>> round(z_of(0.95), 3)
    1.96
    """
    return NormalDist().inv_cdf(1.0 - (1.0 - confidence) / (2.0 * max(1, comparisons)))


def exact(value: float) -> Interval:
    """Return a quantity that is known exactly: a count over the inputs that were tried."""
    return Interval(value, value, value)


def wilson(successes: float, n: float, z: float) -> Interval:
    """Return the Wilson score interval of a rate; without observations everything is possible.

    >>> wilson(0, 100, 1.96).high < 0.04
    True
    """
    if n <= 0:
        return Interval(math.nan, 0.0, 1.0)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes <= 0 else max(0.0, centre - half)
    high = 1.0 if successes >= n else min(1.0, centre + half)
    return Interval(rate, low, high)


def difference(first: Interval, second: Interval) -> Interval:
    """Return ``first - second`` of two independent rates from their Wilson intervals (Newcombe, method 10)."""
    value = first.value - second.value
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    return Interval(value, max(-1.0, low), min(1.0, high))


def absolute(interval: Interval) -> Interval:
    """Return the interval of the absolute value."""
    if interval.low >= 0:
        return interval
    if interval.high <= 0:
        return Interval(-interval.value, -interval.high, -interval.low)
    return Interval(abs(interval.value), 0.0, max(-interval.low, interval.high))


def ratio(first: Interval, second: Interval) -> Interval:
    """Return ``first / second`` of two independent rates from their Wilson intervals (MOVER-R).

    The lower limit is written without the usual singular denominator.
    """
    product = first.value * second.value
    below = first.low * (2 * first.value - first.low)
    reach = second.high * (2 * second.value - second.high)
    root = math.sqrt(max(0.0, product * product - below * reach))
    low = below / (product + root) if product + root > 0 else 0.0
    above = first.high * (2 * first.value - first.high)
    base = second.low * (2 * second.value - second.low)
    root = math.sqrt(max(0.0, product * product - above * base))
    high = (product + root) / base if base > 0 else math.inf
    value = first.value / second.value if second.value > 0 else math.nan
    return Interval(value, low, high)


def mean(values: npt.NDArray[np.float64], z: float) -> Interval:
    """Return the normal interval of a mean; fewer than two values say nothing."""
    if len(values) < 2:
        return Interval(math.nan, -math.inf, math.inf)
    centre = float(np.mean(values))
    half = z * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Interval(centre, centre - half, centre + half)


def quantile(values: npt.NDArray[np.float64], q: float, z: float) -> Interval:
    """Return a quantile between the order statistics at the Wilson limits of ``q``; open where n is too small."""
    n = len(values)
    if n == 0:
        return Interval(math.nan, -math.inf, math.inf)
    ordered = np.sort(values)
    ranks = wilson(q * n, n, z)
    low = ordered[max(0, math.floor(ranks.low * n) - 1)]
    high = ordered[math.ceil(ranks.high * n) - 1] if math.ceil(ranks.high * n) < n else math.inf
    return Interval(float(ordered[min(n - 1, math.ceil(q * n) - 1)]), float(low), float(high))
