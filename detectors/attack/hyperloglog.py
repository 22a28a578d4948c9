"""How many distinct things there were, a byte a register (HyperLogLog: Flajolet, Fusy, Gandouet, Meunier 2007)."""

from __future__ import annotations

import numpy as np

from regate.detectors.attack.inputs import scrambled
from regate.detectors.attack.queries import ByteArray
from regate.detectors.columns import HashArray, IntArray

BITS = 8
REGISTERS = 1 << BITS  # it errs by 6.5 %


def empty() -> ByteArray:
    """Return the registers of nobody."""
    return np.zeros(REGISTERS, dtype=np.uint8)


def registers(client: HashArray, bits: int = BITS) -> tuple[IntArray, ByteArray]:
    """Return the register of each client, of two to the power of so many bits, and its rank."""
    mixed = scrambled(client ^ np.uint64(0x9E3779B97F4A7C15))
    low = mixed & np.uint64((1 << 32) - 1)
    # The rank is the place of the highest bit among 32; float64 holds such a number exactly.
    _, exponent = np.frexp(low.astype(np.float64))
    return (mixed >> np.uint64(64 - bits)).astype(np.int64), (33 - exponent).astype(np.uint8)


def distinct(ranks: ByteArray) -> float:
    """Return how many clients registers have seen."""
    m = float(len(ranks))
    raw = (0.7213 / (1.0 + 1.079 / m)) * m * m / float(np.exp2(-ranks.astype(np.float64)).sum())
    empty = int((ranks == 0).sum())
    return m * float(np.log(m / empty)) if raw <= 2.5 * m and empty else raw


def growing(ranks: ByteArray) -> float:
    """Return how many there were, by an estimate that never falls when a register rises (Ertl 2017, without its cap).

    `distinct` changes its formula on the way and may fall there: when it first reached a number would not be clear.
    """
    m = len(ranks)
    count = np.bincount(ranks)
    x, y = float(count[0]) / m, 1.0
    if x == 1.0:
        return 0.0
    empty = x
    while True:  # sigma: x, x^2, x^4, ... with weights 1, 1, 2, 4, ...
        x *= x
        before, empty = empty, empty + x * y
        if empty == before:
            break
        y += y
    full = float((count[1:] * np.exp2(-np.arange(1.0, len(count)))).sum())
    return m * m / (2.0 * float(np.log(2.0)) * (full + m * empty))
