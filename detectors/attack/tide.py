"""The tide: what lifts everybody's evidence at once is a change of the population, and no one's attack.

After a block of queries, the median over owners of their mean evidence there tells how odd everybody is. As far as it
lies above what blocks of the reference show, it is taken off each query's evidence in the next block. To lift a
median, an attacker must be half of all owners: many ids, or half of all regions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from regate.detectors.columns import HashArray, IntArray

BLOCK = 128
# A median of fewer owners says nothing about everybody.
LEAST_OWNERS = 8
USUAL_QUANTILE = 0.99
# Whom a change touches most lies as far above the median as the median has moved.
FACTOR = 2.0


@dataclass(slots=True)
class Tide:
    """The block under way, and what the last one takes off."""

    owner: HashArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    logs: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    off: int = 0  # units of evidence

    def less(self, owner: HashArray, logs: IntArray, order: IntArray, usual: int) -> IntArray:
        """Return evidence less the tide.

        :param owner: of each entry, as ``logs``.
        :param order: places of the entries in the order of queries.
        :param usual: the largest median that is usual.
        """
        found = np.empty_like(logs)
        held = len(self.logs)
        every, all_logs = np.concatenate([self.owner, owner[order]]), np.concatenate([self.logs, logs[order]])
        for start in range(0, len(all_logs), BLOCK):
            block = slice(start, start + BLOCK)
            own = order[max(start - held, 0) : max(start + BLOCK - held, 0)]
            found[own] = logs[own] - self.off
            if start + BLOCK <= len(all_logs):
                median = median_of(every[block], all_logs[block])
                self.off = 0 if median is None else round(FACTOR * max(median - usual, 0))
                self.owner, self.logs = every[start + BLOCK :], all_logs[start + BLOCK :]
        if len(all_logs) < BLOCK:
            self.owner, self.logs = every, all_logs
        return found


def median_of(owner: HashArray, logs: IntArray) -> int | None:
    """Return the median over owners of their mean evidence; None when they are too few."""
    _, inverse, count = np.unique(owner, return_inverse=True, return_counts=True)
    if len(count) < LEAST_OWNERS:
        return None
    total: IntArray = np.zeros(len(count), dtype=np.int64)
    np.add.at(total, inverse, logs)
    return round(float(np.median(total / count)))


def usual_of(owner: HashArray, logs: IntArray, order: IntArray) -> int:
    """Return the largest median that is usual in a reference; a huge one when its blocks have too few owners."""
    every, in_order = owner[order], logs[order]
    starts = range(0, len(logs) - BLOCK + 1, BLOCK)
    found = [median_of(every[at : at + BLOCK], in_order[at : at + BLOCK]) for at in starts]
    known = [one for one in found if one is not None]
    return round(float(np.quantile(known, USUAL_QUANTILE))) if known else 1 << 50
