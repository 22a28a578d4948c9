"""Tails: how seldom a lane is so large, as -ln p on the reference, with an exponential end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.columns import FloatArray

CAP = 10.0
LEAST_VALUES = 20


@dataclass(frozen=True, slots=True)
class Tail:
    """Sorted reference values, and an exponential tail beyond ``start``; empty: too few values to know."""

    values: FloatArray
    start: float
    scale: float
    above: float  # ln of (n + 1) / (k + 1), what -ln p is at ``start``
    cap: float
    unit: float

    def of(self, x: FloatArray) -> FloatArray:
        """Return -ln p of each value, capped."""
        if not self.values.size:
            return np.zeros(len(x))
        n = len(self.values)
        count = n - np.searchsorted(self.values, x, side="left")
        found = np.log((n + 1.0) / (count + 1.0))
        far = x > self.start
        found = np.where(far, np.maximum(self.above + (x - self.start) / self.scale, 0.0), found)
        return np.minimum(found, self.cap)

    def beyond(self, x: FloatArray, base: float) -> FloatArray:
        """Return how far -ln p of each value is above a base that most values do not reach, else 0."""
        found = np.zeros(len(x))
        n = len(self.values)
        if n:
            # Where so many of the reference's values are no smaller, -ln p is not above the base.
            least = int(np.floor((n + 1.0) * np.exp(-base)))
            at = np.flatnonzero(x > min(self.values[n - max(least, 1)], self.start))
            found[at] = np.maximum(self.of(x[at]) - base, 0.0)
        return found


def fitted(values: FloatArray, unit: float, cap: float = CAP) -> Tail:
    """Return the tail of reference values; empty when there are fewer than 20."""
    n = len(values)
    if n < LEAST_VALUES:
        return none(unit, cap)
    ordered = np.sort(values)
    k = int(np.clip(n // 100, 5, 50))
    start = float(ordered[-k - 1])
    scale = max(float((ordered[-k:] - start).mean()), unit)
    return Tail(ordered, start, scale, float(np.log((n + 1.0) / (k + 1.0))), cap, unit)


def none(unit: float, cap: float = CAP) -> Tail:
    """Return the tail that says nothing."""
    return Tail(np.zeros(0), 0.0, 1.0, 0.0, cap, unit)
