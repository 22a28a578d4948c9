"""Exponentials, logarithms and normal scores, from one place.

Everything that decides goes through here, so that one test with golden vectors guards it. Statistics
are rounded to 2^-32 after each step, far above the last-digit differences between processors.
Sums that decide are exact integers or numpy's own pairwise sums, never BLAS, whose order of addition
depends on the machine.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from regate.detectors.columns import FloatArray, IntArray

# z and z^2 are kept as integers in these units: sums are exact in any order up to 2^63 / (16 * 2^16) events.
UNIT = 1 << 16
Z_CLIP = 4.0
LOG2_10 = 3.321928094887362
LN_2 = 0.6931471805599453
# log2 of "no evidence at all": low enough never to matter, and its rounding is exact in float64.
NOTHING = -float(1 << 20)
_ROUND = float(1 << 32)


def log2_add(x: FloatArray, y: FloatArray) -> FloatArray:
    """Return log2(2^x + 2^y), elementwise, without overflow."""
    high = np.maximum(x, y)
    return np.asarray(high + np.log2(1.0 + np.exp2(np.minimum(x, y) - high)))


def round_log2(x: FloatArray) -> FloatArray:
    """Round to 2^-32, so that the last digits of exp and log do not travel from step to step."""
    return np.asarray(np.rint(x * _ROUND) / _ROUND)


def log(x: FloatArray | float) -> FloatArray:
    """Return the natural logarithm."""
    return np.asarray(np.log(x))


def exp(x: FloatArray | float) -> FloatArray:
    """Return the exponential."""
    return np.asarray(np.exp(x))


def exp2(x: FloatArray | float) -> FloatArray:
    """Return 2^x."""
    return np.asarray(np.exp2(x))


def log2(x: FloatArray | float) -> FloatArray:
    """Return the logarithm to base 2; of 0 it is ``NOTHING``."""
    values = np.asarray(x, dtype=np.float64)
    return np.where(values > 0, np.log2(np.where(values > 0, values, 1.0)), NOTHING)


def logit(p: FloatArray | float) -> FloatArray:
    """Return log(p / (1 - p))."""
    values = np.asarray(p, dtype=np.float64)
    return np.asarray(np.log(values) - np.log1p(-values))


def expit(x: FloatArray | float) -> FloatArray:
    """Return 1 / (1 + exp(-x))."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(x, dtype=np.float64))))


def normal_quantile(p: FloatArray | float) -> FloatArray:
    """Return the standard normal quantile of ``p`` in (0, 1)."""
    return np.asarray(ndtri(np.asarray(p, dtype=np.float64)))


def normal_density(x: FloatArray) -> FloatArray:
    """Return the standard normal density; 0 at infinity."""
    finite = np.isfinite(x)
    return np.where(finite, np.exp(-0.5 * np.square(np.where(finite, x, 0.0))) / np.sqrt(2.0 * np.pi), 0.0)


def to_units(x: FloatArray) -> IntArray:
    """Return ``x`` in integer units of 2^-16."""
    return np.asarray(np.rint(x * UNIT), dtype=np.int64)
