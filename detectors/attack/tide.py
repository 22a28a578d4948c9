"""The tide: what lifts everybody's evidence at once is a change of the population, and no one's attack.

After a block of queries, what three fifths of its owners exceed in mean evidence tells how odd everybody is: its level.
As far as that lies above what blocks of the reference show, it is taken off each query's evidence in the next block. To
lift it, an attacker must be most of the owners: many ids, or most regions. (The median, tried first, was lifted by
attackers who were a tenth of the owners.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from regate.detectors.attack.evidence import UNIT
from regate.detectors.columns import HashArray, IntArray

BLOCK = 128
# Fewer owners say nothing about everybody.
LEAST_OWNERS = 8
USUAL_QUANTILE = 0.99
# Whom a change touches most lies as far above the level as the level has moved.
FACTOR = 2.0
# Nats above what is usual that are no tide yet: a few attackers among the owners of a block lift its level a little.
SLACK = 0.1


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
        :param usual: the highest level that is usual.
        """
        held = len(self.logs)
        every, all_logs = np.concatenate([self.owner, owner[order]]), np.concatenate([self.logs, logs[order]])
        whole = len(all_logs) // BLOCK
        off = np.empty(whole + 1, dtype=np.int64)
        off[0], least = self.off, usual + round(SLACK * UNIT)
        for number, level in enumerate(levels(every, all_logs)):
            off[number + 1] = 0 if level is None else round(FACTOR * max(level - least, 0))
        self.off = int(off[-1])
        self.owner, self.logs = every[whole * BLOCK :].copy(), all_logs[whole * BLOCK :].copy()
        found = np.empty_like(logs)
        found[order] = all_logs[held:] - off[np.arange(held, len(all_logs)) // BLOCK]
        return found


def levels(owner: HashArray, logs: IntArray) -> list[int | None]:
    """Return of each whole block what three fifths of its owners exceed in mean evidence; None when they are too few.

    :param owner: of each entry, in the order of queries, as ``logs``.
    """
    whole = len(logs) // BLOCK
    if not whole:
        return []
    block = np.repeat(np.arange(whole), BLOCK)
    order = np.lexsort((owner[: whole * BLOCK], block))
    block, own = block[order], owner[order]
    first = np.flatnonzero(np.r_[True, (own[1:] != own[:-1]) | (block[1:] != block[:-1])])
    mean = np.add.reduceat(logs[order], first) / np.diff(np.r_[first, len(own)])
    owners = np.bincount(block[first], minlength=whole)
    start = np.cumsum(owners) - owners
    mean = mean[np.lexsort((mean, block[first]))]
    level = mean[start + (owners - 1) * 2 // 5]
    return [
        round(one) if many >= LEAST_OWNERS else None for one, many in zip(level.tolist(), owners.tolist(), strict=True)
    ]


def usual_of(owner: HashArray, logs: IntArray, order: IntArray) -> int:
    """Return the highest level that is usual in a reference; a huge one when its blocks have too few owners."""
    known = [one for one in levels(owner[order], logs[order]) if one is not None]
    return round(float(np.quantile(known, USUAL_QUANTILE))) if known else 1 << 50
