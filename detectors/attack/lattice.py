"""The lattice: which values each feature takes. Real data repeat; what an optimiser makes does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.attack.inputs import PatternArray, scrambled
from regate.detectors.attack.queries import WIDTH, ByteArray
from regate.detectors.columns import BoolArray, FloatArray, IntArray

OWN_BITS, POOL_BITS = 22, 18
# A value is off where its feature had it less than this often, off the grid where all features together had.
OWN_LEAST, POOL_LEAST = 2, 3
LARGEST_WEIGHT = 8.0
# Share of a feature's reference values that come twice.
REPEATING = 0.05


@dataclass(frozen=True, slots=True)
class Off:
    """Values off the lattice, one by one: normal queries have few. Whole 64ths add up exactly in any order."""

    row: IntArray
    feature: IntArray
    weight: FloatArray

    def by_block(self, n: int) -> FloatArray:
        """Return ``float64[n, 16]``: the weight of each block of features in each of ``n`` queries."""
        place = self.row * WIDTH + self.feature % WIDTH
        total = np.bincount(place, self.weight, minlength=n * WIDTH).astype(np.float64)
        return total.reshape(n, WIDTH)


@dataclass(frozen=True, slots=True)
class Lattice:
    """Hashed counts of (feature, value) and of values of all features; weights of a value off one, off both."""

    own: ByteArray  # [2^22]
    pool: ByteArray  # [2^18]
    weight: FloatArray  # [2, features]: off, off the grid as well

    def off(self, mixed: np.ndarray, bits: PatternArray, counted: BoolArray | None = None) -> Off:
        """Return the values that their features do not have, with how odd each is.

        :param counted: rows that are in the counts themselves; one of each of theirs is left out.
        """
        n, d = max(len(mixed), 1), mixed.shape[1]
        known = np.flatnonzero(self.weight.any(axis=0))  # others say nothing, whatever their values
        words = mixed.T if len(known) == d else mixed.T[known]
        less: ByteArray = np.zeros(len(mixed), dtype=np.uint8) if counted is None else counted.astype(np.uint8)
        # No place is out of bounds: "clip" only means that numpy does not look.
        at = np.flatnonzero(self.own.take(own_place(words), mode="clip") < OWN_LEAST + less)
        feature, row = known[at // n], at % n
        # The second table is asked only about what the first does not have.
        value = bits.T.reshape(-1).take(feature * n + row)
        pool = self.pool.take(pool_place(value)) < POOL_LEAST + less[row]
        return Off(row, feature, self.weight.reshape(-1).take(feature + d * pool))


def halves(weights: FloatArray) -> ByteArray:
    """Return weights as `Queries.off` keeps them."""
    return np.minimum(np.rint(2.0 * weights), 255).astype(np.uint8)


def own_place(mixed: np.ndarray) -> IntArray:
    """Return where (feature, value) is counted."""
    return np.asarray((mixed >> np.uint64(64 - OWN_BITS)).view(np.int64))


def pool_place(bits: PatternArray) -> IntArray:
    """Return where a value of any feature is counted."""
    word = scrambled(bits.astype(np.uint64) + np.uint64(1))
    return np.asarray((word >> np.uint64(64 - POOL_BITS)).view(np.int64))


def fitted(mixed: np.ndarray, bits: PatternArray) -> Lattice:
    """Return the lattice of distinct reference rows."""
    own = _counted(own_place(mixed), OWN_BITS)
    # A feature of ever new values has no lattice: its values would only fill the table.
    repeats = (own[own_place(mixed)] > 1).mean(axis=0) >= REPEATING
    own = _counted(own_place(mixed[:, repeats]), OWN_BITS)
    pool = _counted(pool_place(bits[:, repeats]), POOL_BITS)
    off = own[own_place(mixed)].astype(np.int64) - 1 < OWN_LEAST
    both = off & (pool[pool_place(bits)].astype(np.int64) - 1 < POOL_LEAST)
    rate = np.stack([off.mean(axis=0), both.mean(axis=0)])
    floor = 1.0 / (2.0 * max(len(mixed), 1))
    weight = np.clip(-np.log(np.maximum(rate, floor)), 0.0, LARGEST_WEIGHT)
    return Lattice(own, pool, np.round(weight * 64.0) / 64.0)


def _counted(place: IntArray, bits: int) -> ByteArray:
    count = np.bincount(place.ravel(), minlength=1 << bits)
    return np.asarray(np.minimum(count, 255).astype(np.uint8))
