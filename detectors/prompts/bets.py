"""Bets against clients: that so many of their texts are in code as no client of the reference would send.

As in `attack/poison.py`: a bet is a product of likelihood ratios, an e-process; begun anew at every loss it is an
e-detector, which by chance reaches the bar less than once in e^bar texts (Shin, Ramdas, Rinaldo 2024).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log

import numpy as np

from regate.detectors.arrays import Arrays

UNIT = float(1 << 20)
CAPACITY = 4_096  # clients with evidence; those without need no memory
# Who stops is forgiven as fast as he was found.
_MOST = 2.0
LOW, MIDDLE, HIGH, SINCE, TEXTS, HITS, LAST = range(7)


@dataclass(slots=True)
class Bets:
    """Evidence by client, in whole units so that it adds up the same everywhere."""

    capacity: int = CAPACITY
    entries: dict[int, list[int]] = field(default_factory=dict)
    dropped: int = 0

    def take(self, client: int, bound: float, bar: float, time_us: int, *, hit: bool) -> list[int] | None:
        """Take one text; return the client's entry when its evidence is above the bar and this text is some of it.

        :param bound: share of texts in code that a normal client stays below.
        """
        own = self.entries.get(client)
        if own is None:
            if not hit:
                return None
            if len(self.entries) >= self.capacity:
                self._make_room()
            own = self.entries[client] = [0, 0, 0, time_us, 0, 0, 0]
        for at, odds in ((LOW, 3.0 * bound), (MIDDLE, max(0.25, 2.0 * bound)), (HIGH, max(0.6, 1.5 * bound))):
            share = min(odds, 0.95)
            gain = log(share / bound) if hit else log((1.0 - share) / (1.0 - bound))
            own[at] = min(max(own[at] + round(gain * UNIT), 0), round(_MOST * bar * UNIT))
        own[TEXTS] += 1
        own[HITS] += hit
        own[LAST] = time_us
        level = max(own[LOW : HIGH + 1])
        if level <= 0:
            del self.entries[client]
        return own if hit and level >= bar * UNIT else None

    def _make_room(self) -> None:
        """Drop the quarter with the least evidence, of equals those unseen for longest."""
        order = sorted(self.entries.items(), key=lambda item: (max(item[1][LOW : HIGH + 1]), item[1][LAST], item[0]))
        for client, _ in order[: max(self.capacity // 4, 1)]:
            del self.entries[client]
            self.dropped += 1

    def state(self) -> Arrays:
        """Return everything as arrays."""
        return {
            "client": np.fromiter(self.entries, np.uint64, len(self.entries)),
            "entries": np.array(list(self.entries.values()), dtype=np.int64).reshape(len(self.entries), LAST + 1),
        }

    def restore(self, arrays: Arrays) -> None:
        """Take back what `state` gave."""
        self.entries = dict(zip(arrays["client"].tolist(), arrays["entries"].tolist(), strict=True))
