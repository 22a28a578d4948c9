"""The last blocks of one model, bounded: what it takes to compute a finding again."""

from __future__ import annotations

import numpy as np

from regate.detectors.cells import Block
from regate.detectors.columns import FloatArray, IntArray

# Enough for the slowest onsets that charts look for, and at most this many bytes whatever the width.
MAX_BLOCKS = 4096
MAX_BYTES = 8_000_000
FIRST, LAST, STRATUM, NUMBER = range(4)


class History:
    """A ring of blocks: marks (first and last cell, stratum, block number), delta and statistics."""

    def __init__(self, width: int) -> None:
        self.capacity = max(16, min(MAX_BLOCKS, MAX_BYTES // (8 * (width + 5))))
        self._marks: IntArray = np.zeros((self.capacity, 4), dtype=np.int64)
        self._delta: FloatArray = np.zeros(self.capacity)
        self._stats: IntArray = np.zeros((self.capacity, width), dtype=np.int64)
        self._count = 0

    def add(self, block: Block, number: int, delta: float) -> None:
        """Take the next block; the oldest one gives way."""
        at = self._count % self.capacity
        self._marks[at] = (block.first, block.last, block.stratum, number)
        self._delta[at] = delta
        self._stats[at] = block.stats
        self._count += 1

    def since(self, number: int) -> dict[str, IntArray | FloatArray]:
        """Return the blocks kept from block ``number`` on, oldest first."""
        order = np.arange(max(0, self._count - self.capacity), self._count) % self.capacity
        order = order[self._marks[order, NUMBER] >= number]
        return {"marks": self._marks[order], "delta": self._delta[order], "stats": self._stats[order]}

    def restore(self, kept: dict[str, IntArray | FloatArray]) -> None:
        """Take back what `since` gave, when it has this width."""
        stats = kept["stats"]
        if stats.ndim != 2 or stats.shape[1] != self._stats.shape[1]:
            return
        count = min(len(stats), self.capacity)
        if count:
            self._marks[:count] = kept["marks"][-count:]
            self._delta[:count] = kept["delta"][-count:]
            self._stats[:count] = stats[-count:]
        self._count = count
