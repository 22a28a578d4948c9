"""MinHash signatures of 64 bytes: how much of two texts is the same, from one byte for each of 64 parts of all hashes.

One permutation, with empty parts filled from others (Shrivastava 2017); one byte a slot (Li and König 2010).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from regate.detectors.attack.inputs import scrambled
from regate.detectors.columns import HashArray, IntArray

ByteArray = npt.NDArray[np.uint8]

SLOTS = 64
SHINGLE = 5
# Two slots a band: texts that share a third of their shingles meet in a band with probability .97.
BANDS = 32
_CHANCE = 1.0 / 256.0
_BASE = np.uint64(0x100000001B3)


def shingles(skeleton: str, size: int = SHINGLE, salt: int = 0) -> HashArray:
    """Return the distinct hashes of all runs of ``size`` characters, sorted; under another salt others."""
    codes = np.frombuffer(skeleton.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    n = len(codes) - size + 1
    if n < 1:
        return np.zeros(0, dtype=np.uint64)
    total = np.zeros(n, dtype=np.uint64)
    for place in range(size):
        total = total * _BASE + codes[place : place + n]
    hashes = np.sort(scrambled(total ^ np.uint64(salt)))
    first = np.ones(n, dtype=np.bool_)
    np.not_equal(hashes[1:], hashes[:-1], out=first[1:])
    return hashes[first]


def signature(hashes: HashArray) -> ByteArray:
    """Return ``uint8[64]`` of sorted distinct hashes (at least one)."""
    first = np.searchsorted(hashes, _STARTS)
    least = hashes[np.minimum(first, len(hashes) - 1)]
    full = least >> np.uint64(58) == _PARTS
    for empty in np.flatnonzero(~full).tolist():
        probe = _PROBES[empty]
        least[empty] = least[probe[full[probe]][0]]
    return (scrambled(least + _SALTS) >> np.uint64(56)).astype(np.uint8)


def similarity(left: ByteArray, right: ByteArray) -> float:
    """Return the share of shingles that two texts have in common (Jaccard), estimated: standard error .06 at a half."""
    same = float((left == right).mean())
    return max(0.0, (same - _CHANCE) / (1.0 - _CHANCE))


def bands(own: ByteArray) -> list[int]:
    """Return 32 keys; texts that are alike share some."""
    pairs = own.reshape(BANDS, -1).astype(np.int64)
    return ((np.arange(BANDS) << 16) | (pairs[:, 0] << 8) | pairs[:, 1]).tolist()  # type: ignore[no-any-return]


def _probes() -> IntArray:
    """Return where each empty slot looks for a full one: an order of all slots of its own, the same for all texts."""
    mixed = scrambled(np.arange(1, SLOTS * SLOTS + 1, dtype=np.uint64)).reshape(SLOTS, SLOTS)
    return np.argsort(mixed, axis=1, kind="stable")


_PARTS: HashArray = np.arange(SLOTS, dtype=np.uint64)
_STARTS: HashArray = _PARTS << np.uint64(58)
_PROBES = _probes()
_SALTS: HashArray = np.arange(SLOTS, dtype=np.uint64) << np.uint64(32)
