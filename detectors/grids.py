"""Bets on alternatives: for each form of chart, the grid and its ``log2 E = s * a + n * b``.

s is an integer sum over a block (of z or z^2 in units of 2^-16, or a count), n the number of trials.
A margin moves the null to the nearest alternative that still counts as "nothing changed"; alternatives
inside it are left out. Dividing log E by tau (how much more the block means vary than independent ones
would) keeps the expectation near 1 on dependent data.
"""

from __future__ import annotations

import numpy as np

from regate.detectors.columns import FloatArray
from regate.detectors.numerics import LN_2, UNIT, exp, expit, log, logit

# Shifts of the mean, in sigma: the smallest is what a 30-day budget can find, the largest what one block shows.
SHIFTS = np.array([0.15, 0.25, 0.4, 0.65, 1.0, 1.5, 2.0])
# A bet on a shift of lambda wins exp(2 d log(1/h) / lambda) times as often when the reference's mean is off by d.
# With d = sqrt(tau / rows), its standard error, and lambda 30 times that, alarms of one profile and of another
# differ by less than a factor of 1.6; with smaller bets the budget holds only on average over many references.
STEADY = 30.0
# This much is looked for however short the reference.
ALWAYS_SHIFT = 0.65
RATIOS = np.array([0.4, 0.5, 0.63, 0.77, 0.87, 1.15, 1.3, 1.6, 2.0, 2.5])
TILTS = np.array([0.3, 0.7, 1.5, 3.0])
# What was never seen starts from almost nothing, so it is looked for further up.
UNSEEN_TILTS = np.array([1.5, 3.0, 4.5, 6.0])

Coefficients = tuple[FloatArray, FloatArray]


def mean_points(tau: float, margin: float, rows: int) -> Coefficients:
    """Return (a, b) for shifts of the mean of z by more than ``margin``, both signs, by ``rows`` of reference."""
    least = min(ALWAYS_SHIFT, STEADY * float(np.sqrt(tau / max(rows, 1))))
    kept = SHIFTS[least <= SHIFTS]
    shift = np.concatenate((-kept[::-1], kept))
    a = shift / tau / UNIT
    b = -(shift * shift / 2.0 + np.abs(shift) * margin) / tau
    return a / LN_2, b / LN_2


def scale_points(tau: float, margin: float) -> Coefficients:
    """Return (a, b) for ratios of the scale outside ``exp(+-margin)``; empty when the margin swallows the grid."""
    log_ratio = log(RATIOS)
    outside = np.abs(log_ratio) > margin
    ratio = RATIOS[outside]
    null = exp(np.sign(log_ratio[outside]) * margin)
    a = -0.5 * (1.0 / (ratio * ratio) - 1.0 / (null * null)) / tau / UNIT
    b = -log(ratio / null) / tau
    return a / LN_2, b / LN_2


def indicator_points(p: float, tau: float, margin: float, *, up: bool = True, down: bool = True) -> Coefficients:
    """Return (a, b) for tilts of a rate ``p`` by more than ``margin`` in logits, in the directions asked for."""
    tilts = np.concatenate((-TILTS[::-1] if down else TILTS[:0], TILTS if up else TILTS[:0]))
    tilts = tilts[np.abs(tilts) > margin]
    centre = logit(p)
    return _bernoulli(expit(centre + np.sign(tilts) * margin), expit(centre + tilts), tau)


def unseen_points(rows: int) -> Coefficients:
    """Return (a, b) for something never seen in ``rows``: q0 is what one would miss once in 1,000 references."""
    null = 1.0 - 0.001 ** (1.0 / max(rows, 1))
    return _bernoulli(np.full(UNSEEN_TILTS.size, null), expit(logit(null) + UNSEEN_TILTS), 1.0)


def _bernoulli(null: FloatArray, rate: FloatArray, tau: float) -> Coefficients:
    won = log(rate / null) / tau
    lost = (np.log1p(-rate) - np.log1p(-null)) / tau
    return (won - lost) / LN_2, lost / LN_2
