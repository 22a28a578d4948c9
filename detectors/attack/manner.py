"""The manner of a tool: how its queries step, flip, change and leave the lattice, as small histograms.

Other inputs, the same tool: the histograms are nearly the same. They are compared group by group by the Bhattacharyya
coefficient, and only a close match counts: a wrong "it is back" is worse than none.
"""

from __future__ import annotations

import numpy as np

from regate.detectors.attack.clients import FRESH, Steps
from regate.detectors.attack.queries import Queries
from regate.detectors.columns import FloatArray, IntArray

# Edges of each group; values are counted by the interval they fall into.
_CHANGED = (1.5, 2.5, 5.5, 10.5, 15.5)
_DISTANCE = (0.5, 1.5, 3.0, 6.0, 12.0, 24.0, 48.0)
_WEIGHT = (0.25, 8.0, 32.0)
_LINE = (0.7, 2.0)
_RANGE = (1e-9, 2.0)
GROUPS = (
    3,
    2,
    len(_CHANGED) + 1,
    len(_DISTANCE) + 1,
    len(_WEIGHT) + 1,
    len(_WEIGHT) + 1,
    len(_LINE) + 1,
    len(_RANGE) + 1,
)
WIDTH = sum(GROUPS)
_NOVELTY, _BEYOND = 0, 1  # places of the own lanes
# So many queries make a manner.
ENOUGH = 30
LEAST_IN_GROUP = 8
SMOOTHING = 0.25
ALIKE = 0.93


def counted(steps: Steps, at: IntArray, queries: Queries) -> IntArray:
    """Return the histograms of some entries, one after the other."""
    kind, child = steps.kind[at], steps.kind[at] != FRESH
    some = at[child]
    own = queries.lanes[steps.row[at]].astype(np.float64)
    parts = [
        np.bincount(kind, minlength=3),
        np.bincount(steps.flip[some].astype(np.int64), minlength=2),
        _histogram(steps.changed[at].astype(np.float64), _CHANGED),
        _histogram(steps.distance[some], _DISTANCE),
        _histogram(own[:, _NOVELTY], _WEIGHT),
        _histogram(steps.changed_off[some], _WEIGHT),
        _histogram(steps.line[at], _LINE),
        _histogram(own[:, _BEYOND], _RANGE),
    ]
    return np.concatenate(parts).astype(np.int64)


def _histogram(values: FloatArray, edges: tuple[float, ...]) -> IntArray:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)


def likeness(one: IntArray, other: IntArray) -> float:
    """Return how alike two manners are, 0 to 1: the mean over groups, the least alike of them counting twice."""
    found = []
    start = 0
    for width in GROUPS:
        left, right = one[start : start + width], other[start : start + width]
        start += width
        few = int(left.sum()) < LEAST_IN_GROUP, int(right.sum()) < LEAST_IN_GROUP
        if all(few):
            continue
        if any(few):
            found.append(0.5)
            continue
        p = (left + SMOOTHING) / (left.sum() + SMOOTHING * width)
        q = (right + SMOOTHING) / (right.sum() + SMOOTHING * width)
        found.append(float(np.sqrt(p * q).sum()))
    return (sum(found) + min(found)) / (len(found) + 1) if found else 0.0
