"""How unlikely a combination of values is beside its values one by one: a Chow-Liu tree (1968) on binned features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.attack.queries import ByteArray
from regate.detectors.columns import FloatArray, IntArray

BINS = 12
MOST_FEATURES = 128
PSEUDO = 0.5


@dataclass(frozen=True, slots=True)
class Tree:
    """Edges of the tree and the log ratio of each pair of bins; ``edges`` are bin bounds, missing the last bin."""

    features: IntArray  # [k] columns
    bounds: FloatArray  # [k, BINS - 1], padded with inf
    left: IntArray  # [k - 1] places in ``features``
    right: IntArray
    ratio: FloatArray  # [k - 1, BINS + 1, BINS + 1] log(p_a p_b / p_ab)
    count: IntArray  # [k - 1, BINS + 1, BINS + 1] reference rows
    marginal: IntArray  # [k, BINS + 1]
    rows: int

    def score(self, x: FloatArray, counted: np.ndarray | None = None) -> FloatArray:
        """Return the log of the product of marginals over the tree's probability: large is odd.

        :param counted: rows that are in the counts themselves; one is left out for each of theirs.
        """
        if not len(self.left):
            return np.zeros(len(x))
        bins = self.binned(x)
        edge, width = np.arange(len(self.left)), BINS + 1
        pair = bins.T[self.left] * np.uint8(width)  # a pair of bins is below 13^2: it fits a byte
        pair += bins.T[self.right]
        place = pair.astype(np.int64)
        place += (edge * width**2)[:, None]
        # No place is out of bounds: "clip" only means that numpy does not look.
        found = self.ratio.reshape(-1).take(place, mode="clip").sum(axis=0)
        if counted is not None and bool(counted.any()):
            rows = np.flatnonzero(counted)
            a, b = bins[rows[:, None], self.left], bins[rows[:, None], self.right]
            one, other = self.marginal[self.left, a] - 1, self.marginal[self.right, b] - 1
            found[rows] = _log_ratio(self.count[edge, a, b] - 1, one, other, self.rows - 1).sum(axis=1)
        return np.asarray(found)

    def binned(self, x: FloatArray) -> ByteArray:
        """Return ``uint8[n, k]``: the bin of each value, `BINS` where it is missing."""
        values = x.T[self.features]
        found: ByteArray = np.zeros(values.shape, dtype=np.uint8)
        over = np.empty(values.shape, dtype=np.bool_)
        # Compared with each bound in turn: a search branches on every value, and costs five times as much.
        for bound in self.bounds.T:
            found += np.greater_equal(values, bound[:, None], out=over).view(np.uint8)
        np.copyto(found, BINS, where=np.isnan(values))
        return found.T


def _log_ratio(pair: IntArray, left: IntArray, right: IntArray, rows: int) -> FloatArray:
    p, q = (left + 0.5) / (rows + 1.0), (right + 0.5) / (rows + 1.0)
    prior = PSEUDO * BINS * p * q
    together = (pair + prior) / (rows + PSEUDO * BINS)
    return np.asarray(np.log(p * q / together))


def fitted(x: FloatArray) -> Tree:
    """Return the tree of distinct reference rows."""
    n = len(x)
    active = np.array([len(np.unique(column[~np.isnan(column)])) for column in x.T])
    spread = np.nan_to_num(np.nanstd(x, axis=0))
    usable = np.flatnonzero((active > 1) & (spread > 0))
    if len(usable) > MOST_FEATURES:
        changes = np.array([float((x[1:, j] != x[:-1, j]).mean()) for j in usable])
        usable = np.sort(usable[np.argsort(-changes, kind="stable")[:MOST_FEATURES]])
    bounds = np.full((len(usable), BINS - 1), np.inf)
    for place, feature in enumerate(usable):
        values = x[~np.isnan(x[:, feature]), feature]
        distinct = np.unique(values)
        if len(distinct) <= BINS:
            cut = 0.5 * (distinct[1:] + distinct[:-1])
        else:
            cut = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
        bounds[place, : len(cut)] = cut
    empty = np.zeros((0, BINS + 1, BINS + 1))
    none = np.zeros(0, dtype=np.int64)
    marginal = np.zeros((len(usable), BINS + 1), dtype=np.int64)
    start = Tree(usable, bounds, none, none, empty, empty.astype(np.int64), marginal, n)
    if len(usable) < 2:
        return start
    bins = start.binned(x)
    for place in range(len(usable)):
        marginal[place] = np.bincount(bins[:, place], minlength=BINS + 1)
    pairs = _pairs(bins)
    left, right = _spanning(pairs, marginal, n)
    count = pairs[left, :, right, :]
    ratio = _log_ratio(count, marginal[left][:, :, None], marginal[right][:, None, :], n)
    return Tree(usable, bounds, left, right, ratio, count, marginal, n)


def _pairs(bins: ByteArray) -> IntArray:
    """Return ``int64[k, BINS + 1, k, BINS + 1]``: how often each pair of bins came together."""
    n, k = bins.shape
    width = BINS + 1
    total = np.zeros((k * width, k * width))
    for first in range(0, n, 2_000):
        part = bins[first : first + 2_000]
        hot = np.zeros((len(part), k * width))
        hot[np.arange(len(part))[:, None], np.arange(k) * width + part] = 1.0
        total += hot.T @ hot  # whole numbers: exact in any order
    return np.rint(total).astype(np.int64).reshape(k, width, k, width)


def _spanning(pairs: IntArray, marginal: IntArray, n: int) -> tuple[IntArray, IntArray]:
    """Return the edges of the spanning tree with the most mutual information (Prim)."""
    k = len(marginal)
    p = marginal / n
    joint = pairs / n
    with np.errstate(divide="ignore", invalid="ignore"):
        term = joint * np.log(joint / (p[:, :, None, None] * p[None, None, :, :]))
    information = np.nan_to_num(term).sum(axis=(1, 3))
    # Only dependence that a reference of this length can tell from chance: bins of noise would learn its rows.
    information = information - (BINS - 1) ** 2 / (2.0 * n)
    reached = np.zeros(k, dtype=np.bool_)
    reached[0] = True
    best, source = information[0].copy(), np.zeros(k, dtype=np.int64)
    left, right = [], []
    for _ in range(k - 1):
        best[reached] = -np.inf
        nearest = int(np.argmax(best))
        left.append(int(source[nearest]))
        right.append(nearest)
        reached[nearest] = True
        better = information[nearest] > best
        best = np.where(better, information[nearest], best)
        source = np.where(better, nearest, source)
    return np.array(left, dtype=np.int64), np.array(right, dtype=np.int64)
