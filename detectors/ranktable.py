"""The rank table: how a numeric value becomes a normal score, with ties and atoms treated fairly.

A table has at most 4,096 cells. A cell holds E[z | cell] and E[z^2 | cell] of the normal scores that
its share of the reference spans. By Jensen's inequality an e-value of these conditional means is at
most the e-value of the scores themselves, so nothing needs to be drawn at random at a tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from regate.detectors.columns import FloatArray, IntArray
from regate.detectors.numerics import UNIT, Z_CLIP, normal_density, normal_quantile, to_units

MAX_CELLS = 4096
# Up to this many distinct values each one is an atom with a cell of its own (two edges each).
MAX_ATOMS = MAX_CELLS // 2 - 1
# The bucket index: below this many edges a binary search is as fast; the more edges share a bucket, the less it pays.
SMALL_TABLE = 64
BUCKETS = 1 << 14
MAX_STEPS = 4
# Half of a normal distribution lies within so many sigma.
MIDDLE_HALF = 0.67449


@dataclass(frozen=True)
class BucketIndex:
    """Equal buckets over the inner part of the edges: 3 to 4 times as fast as a binary search, same answer.

    Edges and values go through the same monotone arithmetic, so an edge in an earlier bucket is never above a
    value; only the few edges of its own bucket are left to compare.
    """

    low: float
    high: float
    scale: float
    first: IntArray  # per bucket: how many edges lie in earlier ones
    steps: int  # the most edges in one bucket

    def find(self, values: FloatArray, edges: FloatArray) -> IntArray:
        """Return the cells of values in ``[low, high)``."""
        found = self.first[((values - self.low) * self.scale).astype(np.int64)]
        for _ in range(self.steps):
            # Beyond the edges of its bucket the next edge is above the value, so nothing is added.
            found += edges[found] <= values
        return found


def index_of(edges: FloatArray) -> BucketIndex | None:
    """Return the index over the inner edges, or None where it would not pay."""
    if edges.size < SMALL_TABLE:
        return None
    tail = edges.size // 50  # far values would stretch the buckets; they are searched
    low, high = float(edges[tail]), float(edges[-1 - tail])
    scale = BUCKETS / (high - low)
    if not np.isfinite(scale) or scale <= 0.0:
        return None
    inner = edges[(edges >= low) & (edges < high)]
    bucket = ((inner - low) * scale).astype(np.int64)
    count = np.bincount(bucket, minlength=BUCKETS + 1)
    if count.max() > MAX_STEPS:
        return None
    before = int(np.searchsorted(edges, low, side="left"))
    return BucketIndex(low, high, scale, before + np.cumsum(count) - count, int(count.max()))


@dataclass(frozen=True)
class RankTable:
    """Cells ``[edge[i-1], edge[i])`` with the expected score and squared score of each.

    ``edges`` is ascending, ``z`` and ``z2`` have one entry more, in units of 2^-16. Cell 0 lies below
    the reference's smallest value, the last cell above its largest: both are counted as outside.
    ``rows`` is the number of reference values; a table of none scores everything 0.
    """

    edges: FloatArray
    z: IntArray
    z2: IntArray
    rows: int

    @cached_property
    def scores(self) -> tuple[FloatArray, FloatArray]:
        """Return ``z`` and ``z2`` as float64, with a last entry 0 for missing values."""
        return np.append(self.z, 0).astype(np.float64), np.append(self.z2, 0).astype(np.float64)

    @cached_property
    def middle(self) -> tuple[int, int]:
        """Return the cells, from and up to, whose score is that of the reference's middle half."""
        half = int(MIDDLE_HALF * UNIT)
        low, high = np.searchsorted(self.z, -half, side="left"), np.searchsorted(self.z, half, side="right")
        return max(int(low), 1), min(int(high), self.edges.size)

    @cached_property
    def coarse(self) -> FloatArray:
        """Return ``z`` as whole multiples of 2^-8, whose products add up exactly; a last entry 0 for missing values."""
        return np.rint(self.scores[0] / (1 << 8))

    def cells(self, values: FloatArray) -> IntArray:
        """Return the cell of each value; NaN gets the cell after the last."""
        index = self._index
        if index is None:
            return self._searched(values)
        inside = (values >= index.low) & (values < index.high)
        found = index.find(np.where(inside, values, index.low), self.edges)
        if not inside.all():
            others = np.flatnonzero(~inside)
            found[others] = self._searched(values[others])
        return found

    def _searched(self, values: FloatArray) -> IntArray:
        found = np.searchsorted(self.edges, values, side="right")
        missing = np.isnan(values)
        if missing.any():
            found[missing] = self.edges.size + 1
        return found

    @cached_property
    def _index(self) -> BucketIndex | None:
        return index_of(self.edges)

    def score(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return z and z^2 of each value as floats; NaN where missing.

        >>> table = build_table(np.arange(1000.0))
        >>> z, z2 = table.score(np.array([499.5, 2000.0, np.nan]))
        >>> bool(abs(z[0]) < 0.01), bool(z[1] > 3), bool(np.isnan(z[2]))
        (True, True, True)
        """
        cells = self.cells(values)
        missing = cells > self.edges.size
        z, z2 = self.scores
        return np.where(missing, np.nan, z[cells] / UNIT), np.where(missing, np.nan, z2[cells] / UNIT)


def build_table(values: FloatArray) -> RankTable:
    """Return the table of a reference sample; missing values (NaN) are left out."""
    sample = np.sort(values[~np.isnan(values)])
    if sample.size == 0:
        return RankTable(np.zeros(1), np.zeros(2, dtype=np.int64), np.full(2, UNIT, dtype=np.int64), 0)
    edges = _edges(sample)
    below = np.searchsorted(sample, edges, side="left")  # how many reference values lie under each edge
    ranks = np.concatenate(([0], below, [sample.size]))
    z, z2 = _expected_scores(ranks, sample.size)
    return RankTable(edges, to_units(z), to_units(z2), int(sample.size))


def _edges(sample: FloatArray) -> FloatArray:
    distinct, counts = np.unique(sample, return_counts=True)
    if distinct.size <= MAX_ATOMS:
        starts, atoms = distinct, distinct
    else:
        # Equal shares of the reference; a value that holds as much as a whole share is an atom as well.
        share = sample.size / (MAX_CELLS // 2)
        starts = sample[np.minimum((np.arange(MAX_CELLS // 2) * share).astype(np.int64), sample.size - 1)]
        atoms = np.append(distinct[counts >= share], distinct[-1])
        starts = np.append(starts, atoms)
    return np.unique(np.concatenate((starts, np.nextafter(atoms, np.inf))))


def _expected_scores(ranks: IntArray, n: int) -> tuple[FloatArray, FloatArray]:
    """Return E[z | cell] and E[z^2 | cell] of cells that hold reference ranks ``ranks[i] .. ranks[i+1]``."""
    low, high = ranks[:-1] / n, ranks[1:] / n
    with np.errstate(divide="ignore", invalid="ignore"):
        z_low, z_high = normal_quantile(low), normal_quantile(high)
    f_low, f_high = normal_density(z_low), normal_density(z_high)
    mass = high - low
    filled = mass > 0
    width = np.where(filled, mass, 1.0)
    inner_low = np.where(np.isfinite(z_low), z_low, 0.0) * f_low
    inner_high = np.where(np.isfinite(z_high), z_high, 0.0) * f_high
    # A cell without reference values stands at one rank; at the ends it is beyond all, at what half a rank expects.
    end = 0.5 / (n + 1)
    beyond = normal_density(normal_quantile(np.array([end])))[0] / end
    point = np.where(low <= 0.0, -beyond, np.where(low >= 1.0, beyond, normal_quantile(np.clip(low, end, 1.0 - end))))
    z = np.where(filled, (f_low - f_high) / width, point)
    z2 = np.where(filled, 1.0 + (inner_low - inner_high) / width, point * point)
    return np.clip(z, -Z_CLIP, Z_CLIP), np.clip(z2, 0.0, Z_CLIP * Z_CLIP)
