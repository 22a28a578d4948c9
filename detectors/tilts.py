"""Bets for statistics that are no normal scores: bounded values tilted, and residuals of probabilities.

*Tilted values.* With K the cumulant of the reference's standardised values z, ``exp(l*z - K(l))`` has mean 1 under
the reference, and is the likelihood ratio of the reference tilted by l: the bet that mean charts of normal scores
make, where K is l^2/2. Source: exponential families; as an e-value Gruenwald, de Heide, Koolen (2024).

*Residuals.* For r at most 1 with mean 0 and variance v, ``E exp(l*r) <= exp(v*(e^l - 1 - l))`` (Bennett 1962). With
v of each row added up beside r the bet is fair wherever the probabilities hold, however the inputs move.
"""

from __future__ import annotations

import numpy as np

from regate.detectors.columns import FloatArray
from regate.detectors.grids import ALWAYS_SHIFT, SHIFTS, STEADY, Coefficients
from regate.detectors.numerics import LN_2, UNIT, exp, log

# Tilts of residuals. The best bet on a change of d logits beyond the margin is log(1 + d).
RESIDUALS = np.array([0.15, 0.3, 0.6, 1.2])
# A bet that one value of the reference multiplies by more than e^6 rests on a handful of rows.
LARGEST_FACTOR = 6.0


def bennett(tilt: FloatArray) -> FloatArray:
    """Return ``e^|l| - 1 - |l|``."""
    size = np.abs(tilt)
    return np.asarray(exp(size) - 1.0 - size)


def rise_points(values: FloatArray, tau: float, margin: float) -> Coefficients:
    """Return (a, b) for a rise of the mean of ``values`` (the reference's, one stratum) by more than ``margin`` sd.

    s is the sum of values in units of 2^-16.
    """
    mean, sd = float(values.mean()), float(values.std())
    if sd <= 0.0:
        return np.zeros(0), np.zeros(0)
    z = (values - mean) / sd
    least = min(ALWAYS_SHIFT, STEADY * float(np.sqrt(tau / values.size)))
    tilt = SHIFTS[(least <= SHIFTS) & (SHIFTS * max(float(z.max()), 1.0) <= LARGEST_FACTOR)]
    cumulant = np.array([float(log(exp(one * z).mean())) for one in tilt])
    a = tilt / sd / tau / UNIT
    b = -(tilt * mean / sd + cumulant + tilt * margin) / tau
    return a / LN_2, b / LN_2


def residual_points(tau: float, margin: float) -> Coefficients:
    """Return (a, b) for probabilities that are off by more than ``margin`` logits, both ways.

    s is the sum of residuals, n that of their variances, both in units of 2^-16.
    """
    tilt = np.concatenate((-RESIDUALS[::-1], RESIDUALS))
    a = tilt / tau / UNIT
    b = -(bennett(tilt) + np.abs(tilt) * margin) / tau / UNIT
    return a / LN_2, b / LN_2
