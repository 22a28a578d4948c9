"""The training-record probe: who asks about rows that the model was trained on wants to know whether they were.

A salted Bloom filter (Bloom 1970) of training rows, 20 bits a row: one row in ten thousand that was not trained on
looks as if it had been. Raw rows are never stored, and without the salt nobody can ask the filter of a guess.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.attack.inputs import scrambled
from regate.detectors.attack.queries import ByteArray
from regate.detectors.columns import BoolArray, FloatArray, HashArray

BITS_A_ROW = 20
HASHES = 13  # of one row, nearly the best for 20 bits
# Normal clients may ask about customers who were in the training data. A client's share of such queries is compared
# with the largest among all but one in a hundred clients of the reference.
USUAL_QUANTILE = 0.99
LEAST_QUERIES = 10
LEAST_SHARE = 1e-4  # what the filter itself errs by
MEMBER_SHARE = 0.5  # of the queries of who probes


@dataclass(frozen=True, slots=True)
class Training:
    """The filter, its salt, and how often normal clients hit it."""

    bits: ByteArray
    salt: int
    rows: int
    usual: float = LEAST_SHARE

    def holds(self, hashed: np.ndarray) -> BoolArray:
        """Return which rows are in the filter, by the hashes of their values (``uint64[n, features]``)."""
        return self.has(total(hashed))

    def has(self, word: HashArray) -> BoolArray:
        """Return which rows are in the filter, by the `total` of each."""
        found = np.ones(len(word), dtype=np.bool_)
        for place in _places(word, self.salt, len(self.bits) * 8):
            found &= (self.bits[place >> 3] >> (place & 7).astype(np.uint8)) & 1 == 1
        return found

    def evidence(self, member: BoolArray) -> FloatArray:
        """Return the log likelihood ratio of each query, of who probes against who does not."""
        hit = np.log(MEMBER_SHARE / self.usual)
        miss = np.log((1.0 - MEMBER_SHARE) / (1.0 - self.usual))
        return np.where(member, float(hit), float(miss))


def made(hashed: np.ndarray, salt: int) -> Training:
    """Return the filter of training rows."""
    distinct = np.unique(total(hashed))
    size = max(64, -(-BITS_A_ROW * len(distinct) // 8))
    bits: ByteArray = np.zeros(size, dtype=np.uint8)
    for place in _places(distinct, salt, size * 8):
        np.bitwise_or.at(bits, place >> 3, np.left_shift(1, place & 7).astype(np.uint8))
    return Training(bits, salt, len(distinct))


def usual_share(member: BoolArray, client: HashArray) -> float:
    """Return how often normal clients ask about training rows: nearly the most that any does."""
    _, inverse, count = np.unique(client, return_inverse=True, return_counts=True)
    share = np.bincount(inverse, weights=member.astype(np.float64)) / count
    told = share[count >= LEAST_QUERIES]
    most = float(np.quantile(told, USUAL_QUANTILE)) if told.size else 0.0
    return float(np.clip(max(most, (float(member.sum()) + 0.5) / (len(member) + 1.0)), LEAST_SHARE, MEMBER_SHARE))


def total(hashed: np.ndarray) -> HashArray:
    """Return one number a row, of the hashes of its values."""
    return np.asarray(hashed.sum(axis=1, dtype=np.uint64))


def _places(word: HashArray, salt: int, size: int) -> list[np.ndarray]:
    """Return the bits of each row, by double hashing (Kirsch and Mitzenmacher 2006)."""
    one = scrambled(word ^ np.uint64(salt))
    two = scrambled(one + np.uint64(salt)) | np.uint64(1)
    return [((one + np.uint64(k) * two) % np.uint64(size)).astype(np.int64) for k in range(HASHES)]
