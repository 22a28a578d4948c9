"""Ridge regression on normal scores of features and their squares, as one step function a feature.

The normal equations are sums of small integers, exact in float64 in any order, and are solved by plain elimination:
equal rows give equal steps on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.columns import FloatArray
from regate.detectors.isotonic import Steps
from regate.detectors.numerics import Z_CLIP, normal_quantile, to_units

# Values of a feature with one score each: enough for a smooth curve.
CELLS = 64
# Scores are fitted in units of 2^-8: sums of squares of 2^15 rows stay below 2^53, where float64 is exact.
GRAIN = 256.0
MOST_ROWS = 1 << 15
# Of the rows' variance: keeps features that say the same from cancelling each other out.
PENALTY = 0.01


@dataclass(frozen=True)
class Additive:
    """``base`` and one step function a feature, in units of 2^-16."""

    base: int
    steps: tuple[Steps, ...]


@dataclass(frozen=True)
class _Scored:
    edges: FloatArray
    z: FloatArray  # [cells] in units of GRAIN, whole numbers
    square: FloatArray
    place: FloatArray  # [rows] z of each row, 0 where missing
    place_square: FloatArray


def additive(features: list[FloatArray], y: FloatArray) -> Additive:
    """Return the additive model of ``y`` (0 to 16) on the features (NaN is missing, and counts as average)."""
    skip = -(-y.size // MOST_ROWS)
    scored = [_scores(values[::skip]) for values in features]
    target = np.rint(y[::skip] * GRAIN)
    columns = [column for one in scored for column in (one.place, one.place_square)]
    X = np.stack([np.full(target.size, GRAIN), *columns], axis=1)
    gram, right = X.T @ X, X.T @ target
    gram[np.diag_indices_from(gram)] += PENALTY * GRAIN * GRAIN * target.size * (np.arange(len(right)) > 0)
    beta = _solved(gram, right)
    steps = []
    for index, one in enumerate(scored):
        first, second = beta[1 + 2 * index], beta[2 + 2 * index]
        steps.append(Steps(one.edges, to_units((first * one.z + second * one.square) / GRAIN)))
    return Additive(int(to_units(np.array(beta[0]))), tuple(steps))


def _scores(values: FloatArray) -> _Scored:
    known = ~np.isnan(values)
    sample = values[known]
    if not sample.size:
        none = np.zeros(values.size)
        return _Scored(np.zeros(0), np.zeros(1), np.zeros(1), none, none)
    edges = np.unique(np.quantile(sample, np.linspace(0.0, 1.0, CELLS + 1)[1:-1], method="higher"))
    edges = edges[edges > sample.min()]
    cell = np.searchsorted(edges, values, side="right")
    counts = np.bincount(cell[known], minlength=edges.size + 1)
    middle = (np.cumsum(counts) - counts / 2) / sample.size
    z = np.clip(normal_quantile(middle), -Z_CLIP, Z_CLIP)
    z = np.rint((z - (z * counts).sum() / sample.size) * GRAIN)
    square = z * z / GRAIN
    square = np.rint(square - (square * counts).sum() / sample.size)
    return _Scored(edges, z, square, np.where(known, z[cell], 0.0), np.where(known, square[cell], 0.0))


def _solved(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Solve a positive definite system by elimination, without a library whose last digits depend on the machine."""
    work = np.concatenate((matrix, right[:, None]), axis=1)
    for row in range(len(right)):
        work[row] /= work[row, row]
        factor = work[:, row].copy()
        factor[row] = 0.0
        work -= factor[:, None] * work[row]
    return work[:, -1]
