"""A monotone map from a score to a probability, learned on the reference by pooling adjacent violators.

Source: Ayer, Brunk, Ewing, Reid, Silverman (1955); as calibration of scores: Zadrozny and Elkan (2002).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.columns import BoolArray, FloatArray, IntArray
from regate.detectors.numerics import to_units

# Steps before pooling. More follow the noise of the reference; fewer blur what the score says.
MOST_STEPS = 48
# A step holds at least so many rows, or its rate is a guess.
LEAST_ROWS = 25


@dataclass(frozen=True, slots=True)
class Steps:
    """``values[i]`` (units of 2^-16) holds on ``[edges[i-1], edges[i])``; there is one value more than edges."""

    edges: FloatArray
    values: IntArray

    def at(self, x: FloatArray) -> IntArray:
        """Return the value of each number; of NaN any."""
        return np.asarray(self.values[np.searchsorted(self.edges, x, side="right")])


def isotonic(x: FloatArray, hit: BoolArray) -> Steps:
    """Return the non-decreasing steps that best fit P(hit | x) by least squares (at least one row).

    A step's rate is (k + 1/2) / (n + 1): no probability is exactly 0 or 1, whatever the reference shows.

    >>> steps = isotonic(np.arange(1000) / 1000, np.arange(1000) % 10 < np.arange(1000) // 100)
    >>> [round(float(p), 2) for p in steps.at(np.array([0.05, 0.55, 0.95])) / 65536]
    [0.01, 0.52, 0.88]
    """
    edges = np.unique(np.quantile(x, np.linspace(0.0, 1.0, MOST_STEPS + 1)[1:-1], method="higher"))
    edges = edges[edges > x.min()]
    place = np.searchsorted(edges, x, side="right")
    rows = np.bincount(place, minlength=edges.size + 1)
    hits = np.bincount(place[hit], minlength=edges.size + 1)
    pooled: list[list[int]] = []  # hits, rows, first bin
    for first, (k, n) in enumerate(zip(hits.tolist(), rows.tolist(), strict=True)):
        pooled.append([k, n, first])
        while len(pooled) > 1 and _pools(pooled[-2], pooled[-1]):
            last = pooled.pop()
            pooled[-1][0] += last[0]
            pooled[-1][1] += last[1]
    rate = np.array([(k + 0.5) / (n + 1.0) for k, n, _ in pooled])
    starts = np.array([first for _, _, first in pooled[1:]], dtype=np.int64)
    # A half more than was seen may turn the order of two close steps over.
    return Steps(edges[starts - 1], to_units(np.maximum.accumulate(rate)))


def _pools(low: list[int], high: list[int]) -> bool:
    violated = high[0] * low[1] <= low[0] * high[1]
    return violated or low[1] < LEAST_ROWS or high[1] == 0
