"""The manner of a tool: how its queries step, flip, change and leave the lattice, as small histograms.

Other inputs, the same tool: the histograms are nearly the same. They are compared group by group by the Bhattacharyya
coefficient, and only a close match counts: a wrong "it is back" is worse than none. What tells tools apart best is how
far each query lies from those before it, at a fine scale, and how these distances follow each other
(`python -m benchmarks.attacks.pairings`).
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
# Distances from remembered queries, in steps of the sketch: fine, and roughly for pairs of them.
_APART = (0.5, 1.0, 2.0, 3.0, 4.5, 6.5, 9.0, 13.0, 18.0, 26.0, 37.0, 52.0, 74.0, 105.0, 150.0)
_ROUGHLY = (3.0, 12.0, 48.0)
_TURN = (-0.85, -0.6, -0.35, -0.1, 0.1, 0.35, 0.6, 0.85)  # cosine of the last two steps
GROUPS = (
    3,
    2,
    len(_CHANGED) + 1,
    len(_DISTANCE) + 1,
    len(_WEIGHT) + 1,
    len(_WEIGHT) + 1,
    len(_LINE) + 1,
    len(_RANGE) + 1,
    len(_APART) + 1,
    len(_APART) + 1,
    len(_APART) + 1,
    len(_APART) + 1,
    (len(_ROUGHLY) + 1) ** 2,
    len(_TURN) + 1,
)
WIDTH = sum(GROUPS)
_NOVELTY, _BEYOND = 0, 1  # places of the own lanes
# So many queries make a manner.
ENOUGH = 30
LEAST_IN_GROUP = 8
SMOOTHING = 0.25
ALIKE = 0.94


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
    return np.concatenate([*parts, *_walk(steps, at)]).astype(np.int64)


def _walk(steps: Steps, at: IntArray) -> list[IntArray]:
    """Return how entries lie to the remembered queries before them: the last, the one before it, nearest, farthest.

    And pairs of the last two distances, and how the last two steps turn.
    """
    apart: list[list[float]] = [[], [], [], []]
    pairs, turns = [], []
    for entry in at.tolist():
        place = steps.chain.sketch[steps.remembered(entry)].astype(np.float64)
        if len(place) < 2:
            continue
        step = place[-1] - place[-2]
        far = np.sqrt(np.square(place[:-1] - place[-1]).sum(axis=1))
        for group, value in zip(apart, (far[-1], far[-2:][0], far.min(), far.max()), strict=True):
            group.append(float(value))
        if len(place) < 3:
            continue
        before = place[-2] - place[-3]
        length = float(np.sqrt(np.square(before).sum()))
        rough = np.searchsorted(_ROUGHLY, [length, far[-1]], side="right")
        pairs.append(int(rough[0]) * (len(_ROUGHLY) + 1) + int(rough[1]))
        if length and far[-1]:
            turns.append(float(step @ before) / (length * float(far[-1])))
    return [
        *(_histogram(np.array(group), _APART) for group in apart),
        np.bincount(np.array(pairs, dtype=np.int64), minlength=(len(_ROUGHLY) + 1) ** 2),
        _histogram(np.array(turns), _TURN),
    ]


def _histogram(values: FloatArray, edges: tuple[float, ...]) -> IntArray:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)


def likeness(one: IntArray, other: IntArray) -> float:
    """Return how alike two manners are, 0 to 1: the mean over groups."""
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
    return sum(found) / len(found) if found else 0.0
