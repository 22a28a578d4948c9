"""The lattice: which values each feature takes. Real data repeat; what an optimiser makes does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.attack.inputs import scrambled
from regate.detectors.attack.queries import WIDTH, ByteArray
from regate.detectors.columns import BoolArray, FloatArray, IntArray

OWN_BITS, POOL_BITS = 22, 18
# A value is off where its feature had it less than this often, off the grid where all features together had.
OWN_LEAST, POOL_LEAST = 2, 3
LARGEST_WEIGHT = 8.0
# Share of a feature's reference values that come twice.
REPEATING = 0.05


@dataclass(frozen=True, slots=True)
class Lattice:
    """Hashed counts of (feature, value) and of values of all features; weights of a value off one, off both."""

    own: ByteArray  # [2^22]
    pool: ByteArray  # [2^18]
    weight: FloatArray  # [2, features]: off, off the grid as well

    def weights(self, mixed: np.ndarray, bits: IntArray, counted: BoolArray | None = None) -> FloatArray:
        """Return ``float64[n, features]``: how odd each value is, 0 for one that its feature has.

        :param counted: rows that are in the counts themselves; one of each of theirs is left out.
        """
        less = np.zeros((len(mixed), 1), dtype=np.int64) if counted is None else counted[:, None].astype(np.int64)
        own = self.own[own_place(mixed)].astype(np.int64)
        own = np.where(own < 255, own - less, own)
        off = own < OWN_LEAST
        if not bool(off.any()):
            return np.zeros(mixed.shape)
        pool = self.pool[pool_place(bits)].astype(np.int64)
        pool = np.where(pool < 255, pool - less, pool)
        return np.where(off, np.where(pool < POOL_LEAST, self.weight[1], self.weight[0]), 0.0)


def own_place(mixed: np.ndarray) -> np.ndarray:
    """Return where (feature, value) is counted."""
    return np.asarray(mixed >> np.uint64(64 - OWN_BITS))


def pool_place(bits: IntArray) -> np.ndarray:
    """Return where a value of any feature is counted."""
    return np.asarray(scrambled(bits.astype(np.uint64) + np.uint64(1)) >> np.uint64(64 - POOL_BITS))


def fitted(mixed: np.ndarray, bits: IntArray) -> Lattice:
    """Return the lattice of distinct reference rows."""
    own = _counted(own_place(mixed), OWN_BITS)
    # A feature of ever new values has no lattice: its values would only fill the table.
    repeats = (own[own_place(mixed).astype(np.int64)] > 1).mean(axis=0) >= REPEATING
    own = _counted(own_place(mixed[:, repeats]), OWN_BITS)
    pool = _counted(pool_place(bits[:, repeats]), POOL_BITS)
    off = own[own_place(mixed).astype(np.int64)].astype(np.int64) - 1 < OWN_LEAST
    both = off & (pool[pool_place(bits).astype(np.int64)].astype(np.int64) - 1 < POOL_LEAST)
    rate = np.stack([off.mean(axis=0), both.mean(axis=0)])
    floor = 1.0 / (2.0 * max(len(mixed), 1))
    weight = np.clip(-np.log(np.maximum(rate, floor)), 0.0, LARGEST_WEIGHT)
    return Lattice(own, pool, np.round(weight * 64.0) / 64.0)


def _counted(place: np.ndarray, bits: int) -> ByteArray:
    count = np.bincount(place.astype(np.int64).ravel(), minlength=1 << bits)
    return np.asarray(np.minimum(count, 255).astype(np.uint8))


def by_block(weights: FloatArray) -> ByteArray:
    """Return ``uint8[n, 16]``: weights added up over each block of features, in halves."""
    found = np.zeros((len(weights), WIDTH), dtype=np.uint8)
    for block in range(min(weights.shape[1], WIDTH)):
        found[:, block] = np.minimum(np.rint(2.0 * weights[:, block::WIDTH].sum(axis=1)), 255).astype(np.uint8)
    return found
