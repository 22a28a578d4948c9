"""How much more block means vary than independent events would, and how far the reference itself moves.

Everything is measured on cross-fitted series: each half of the reference scored against the other's
table, so that what the table has learned by heart does not hide what will be seen later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regate.detectors.columns import FloatArray

# Block lengths go up by doubling while at least this many blocks are left: fewer say too little about a variance.
MIN_BLOCKS = 16
# An over-dispersion below this many standard errors, at every block length, is noise: tau stays 1. A profile asks
# some thousand times (charts by lengths), and a variance of few blocks is skewed, so 2 or 3 would answer by chance.
SIGNIFICANT = 4.0
MOVING_BLOCK = 1024
# Fewer reference rows than this for each independent one (tau) cannot carry a chart.
ROWS_PER_TAU = 50.0
MIN_MEAN_MARGIN = 0.05
MIN_SCALE_MARGIN = 0.05
MIN_RATE_MARGIN = 0.1
# Standard errors of the reference's own estimate that every margin covers.
SURE = 3.0

Series = Sequence[FloatArray]


@dataclass(frozen=True)
class Inflation:
    """tau, and over how many rows dependence reaches: the block length that shows nearly all of it; 1 for none."""

    tau: float = 1.0
    reach: int = 1


# Longest autoregression tried.
MAX_ORDER = 24
# The reach is the shortest block length with this share of tau.
NEARLY_ALL = 0.8


def inflation(series: Series, variance: float, excess: float = 0.0) -> Inflation:
    """Return tau: the largest ``w * var(block means of w)`` over block lengths w, relative to ``variance``; >= 1.

    :param series: one array a half, in time order, without missing values; blocks do not cross halves.
    :param variance: of one independent event.
    :param excess: excess kurtosis of one event, for the standard error (0 for normal scores).
    """
    parts = deviations = [part - part.mean() for part in series if part.size]
    ratios: dict[int, tuple[float, float]] = {}
    sure, width = False, 1
    while parts:
        blocks = sum(part.size for part in parts)
        if blocks < MIN_BLOCKS or variance <= 0:
            break
        squares = sum(float(np.square(part).sum()) for part in parts)
        ratio = squares / max(blocks - len(parts), 1) / width / variance
        error = math.sqrt((2.0 + max(excess, 0.0) / width) / blocks)
        sure = sure or ratio > _by_chance(error)
        ratios[width] = ratio, error
        parts = [_paired(part) for part in parts if part.size > 1]
        width *= 2
    if not sure:
        return Inflation()
    return _shown(ratios, np.concatenate(deviations), variance)


def _shown(ratios: dict[int, tuple[float, float]], series: FloatArray, variance: float) -> Inflation:
    """Return what an autoregression says, unless blocks of some length vary surely more than it allows.

    The plain maximum over a dozen lengths is that of the longest, noisiest ones: AR(.5), whose tau is 3, gave 7.
    """
    longest = max(ratios)
    sums = sums_variance(series, longest)
    said = {width: float(sums[width - 1]) / width / variance for width in ratios}
    beyond = [width for width, (ratio, error) in ratios.items() if ratio > said[width] * _by_chance(error)]
    if beyond:
        said = {width: max(said[width], ratio) for width, (ratio, _) in ratios.items() if width <= max(beyond)}
    tau = max(said.values())
    if tau <= 1.0:
        return Inflation()
    reach = min(width for width, ratio in said.items() if ratio >= NEARLY_ALL * tau)
    return Inflation(tau, reach)


def _by_chance(error: float) -> float:
    """Return how far a variance ratio goes by chance: a chi-square of 2 / error^2 degrees (Wilson and Hilferty)."""
    spread = error * error / 9.0
    return (1.0 - spread + SIGNIFICANT * math.sqrt(spread)) ** 3


def sums_variance(series: FloatArray, longest: int) -> FloatArray:
    """Return the variance of sums of 1, 2 .. ``longest`` values as an autoregression (BIC) implies them.

    A few coefficients are known far better than the variance of a few hundred blocks: with AR(.5) and 20,000 rows
    to 2.5 % instead of 8 %, and of that the rate of alarms once in 1,000 blocks is the seventh power.
    """
    x = series - series.mean()
    most = min(MAX_ORDER, x.size - 1)
    covariance = np.array([float((x[: x.size - lag] * x[lag:]).sum()) / x.size for lag in range(most + 1)])
    if covariance[0] <= 0:
        return np.zeros(longest)
    phi = _autoregression(covariance, x.size)
    known = np.zeros(max(longest, phi.size + 1))
    known[: phi.size + 1] = covariance[: phi.size + 1]
    for lag in range(phi.size + 1, longest):
        known[lag] = (phi * known[lag - 1 : lag - phi.size - 1 : -1]).sum() if phi.size else 0.0
    # var(S_w) = w c_0 + 2 sum_{k<w} (w - k) c_k, by adding up twice.
    partial = known[0] + 2.0 * np.r_[0.0, np.cumsum(known[1:longest])]
    return np.asarray(np.cumsum(partial))


def _autoregression(covariance: FloatArray, n: int) -> FloatArray:
    """Fit by Levinson and Durbin; return the coefficients of the order with the smallest BIC."""
    phi: FloatArray = np.zeros(0)
    variance = float(covariance[0])
    best, least = phi, n * math.log(variance)
    for order in range(1, covariance.size):
        reflection = float(covariance[order] - (phi * covariance[order - 1 : 0 : -1]).sum()) / variance
        phi = np.append(phi - reflection * phi[::-1], reflection)
        variance *= 1.0 - reflection * reflection
        if variance <= 0:
            break
        cost = n * math.log(variance) + order * math.log(n)
        if cost < least:
            best, least = phi, cost
    return best


def _paired(sums: FloatArray) -> FloatArray:
    even = sums.size // 2 * 2
    return sums[:even:2] + sums[1:even:2]


def moving_means(series: Series) -> FloatArray:
    """Return the means of the blocks of 1,024 (or of whole halves when they are shorter)."""
    means = []
    for part in series:
        if part.size:
            width = min(MOVING_BLOCK, part.size)
            whole = part[: part.size // width * width]
            means.append(whole.reshape(-1, width).mean(axis=1))
    return np.concatenate(means) if means else np.zeros(0)


def _noise(series: Series, tau: float) -> float:
    """Return the largest of k block means that pure noise of variance ``tau`` would give."""
    k = moving_means(series).size
    width = min([MOVING_BLOCK] + [part.size for part in series if part.size])
    return math.sqrt(2.0 * math.log(max(k, 2)) * tau / width)


def mean_moved(series: Series, tau: float) -> float:
    """Return how far, beyond noise, block means of the cross-fitted z lie from 0."""
    means = moving_means(series)
    return float(np.abs(means).max() - _noise(series, tau)) if means.size else 0.0


def scale_moved(series: Series, tau: float) -> float:
    """Return how far, beyond noise, half the log of block means of the cross-fitted z^2 lies from 0."""
    means = moving_means(series)
    if not means.size:
        return 0.0
    smallest = 1e-12  # a block of one single value has mean z^2 of about 0; its log must stay finite
    moved = np.abs(0.5 * np.log(np.maximum(means, smallest))).max()
    return float(moved - _noise(series, tau / 2.0))


def mean_margin(rows: int, tau: float, moved: float) -> float:
    """Return the margin of mean charts in sigma."""
    return max(MIN_MEAN_MARGIN, SURE * math.sqrt(tau / max(rows, 1)), moved)


def scale_margin(rows: int, tau: float, moved: float) -> float:
    """Return the margin of scale charts in log ratio."""
    return max(MIN_SCALE_MARGIN, SURE * math.sqrt(tau / (2.0 * max(rows, 1))), moved)


def rate_margin(hits: int, rows: int, tau: float) -> float:
    """Return the margin of indicator charts in logits: dependent rows count as ``rows / tau`` of them."""
    return max(MIN_RATE_MARGIN, SURE * math.sqrt(tau * (1.0 / (hits + 0.5) + 1.0 / (rows - hits + 0.5))))
