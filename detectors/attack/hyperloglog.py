"""How many distinct clients there were, in 256 bytes (HyperLogLog: Flajolet, Fusy, Gandouet, Meunier 2007)."""

from __future__ import annotations

import numpy as np

from regate.detectors.attack.inputs import scrambled
from regate.detectors.attack.queries import ByteArray
from regate.detectors.columns import HashArray, IntArray

REGISTERS = 256  # it errs by 6.5 %


def empty() -> ByteArray:
    """Return the registers of nobody."""
    return np.zeros(REGISTERS, dtype=np.uint8)


def registers(client: HashArray) -> tuple[IntArray, ByteArray]:
    """Return the register of each client and its rank."""
    mixed = scrambled(client ^ np.uint64(0x9E3779B97F4A7C15))
    low = mixed & np.uint64((1 << 32) - 1)
    # The rank is the place of the highest bit among 32; float64 holds such a number exactly.
    _, exponent = np.frexp(low.astype(np.float64))
    return (mixed >> np.uint64(56)).astype(np.int64), (33 - exponent).astype(np.uint8)


def distinct(ranks: ByteArray) -> float:
    """Return how many clients registers have seen."""
    m = float(len(ranks))
    raw = (0.7213 / (1.0 + 1.079 / m)) * m * m / float(np.exp2(-ranks.astype(np.float64)).sum())
    empty = int((ranks == 0).sum())
    return m * float(np.log(m / empty)) if raw <= 2.5 * m and empty else raw
