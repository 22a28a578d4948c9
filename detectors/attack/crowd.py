"""Many new clients that ask once or twice each: the shape of credential stuffing and of one attack under many names.

A window of event time counts its queries, those by clients that nobody had seen before it, and how many such clients
there were (HyperLogLog: Flajolet, Fusy, Gandouet, Meunier 2007). Which clients were seen is kept in bitmaps of fixed
size, a bit a client: two that share a bit make a new client look known, never a known one new.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from regate.detectors.arrays import Arrays
from regate.detectors.attack import hyperloglog, tails
from regate.detectors.attack.hyperloglog import distinct, registers
from regate.detectors.attack.inputs import scrambled
from regate.detectors.attack.queries import ByteArray, Queries
from regate.detectors.attack.sign import Sign
from regate.detectors.columns import BoolArray, FloatArray, HashArray, IntArray

BITS = 19  # a bitmap (64 kB in a snapshot) knows some 100,000 clients before it gives way to the next
FULL = 0.2
# The smallest width is taken in which half of the reference's windows hold so many queries.
WIDTHS_US = (10_000_000, 60_000_000, 600_000_000, 3_600_000_000)
LEAST_QUERIES = 32
LEAST_WINDOWS = 24
# In the first windows everybody is new.
WARM_WINDOWS = 5
TRIMMED = 0.005
# -ln p that each of volume and share must have on the reference.
BAR = float(np.log(1e5))
LEAST_GROWTH = 1.5  # times the largest window of the reference
LEAST_NEW = 64
LEAST_SHARE = 0.5  # new clients for each query: with more than half, each asks once or twice
USUAL_SHARE = 0.9  # where windows of the reference have so many, each query is somebody new
# A window is looked at whenever it has so many more queries: what is found does not depend on slices.
STRIDE = 128
MOST_PIECES = 256
NUMBERS = ("window", "windows", "volume", "newcomers", "filled")


@dataclass(frozen=True, slots=True)
class CrowdReference:
    """Width of a window, and from which volume and share of new clients on it is a crowd; a reason: the lane is off."""

    width_us: int = 0
    volume: int = 0
    share: float = 1.0
    reason: str = "not fitted"


def _bitmap() -> BoolArray:
    return np.zeros(1 << BITS, dtype=np.bool_)


@dataclass(slots=True)
class Crowd:
    """The window under way, and who was seen before it."""

    reference: CrowdReference
    before: BoolArray = field(default_factory=_bitmap)
    known: BoolArray = field(default_factory=_bitmap)
    filled: int = 0  # places of ``known``
    here: list[IntArray] = field(default_factory=list)  # places of this window
    ranks: ByteArray = field(default_factory=hyperloglog.empty)  # of clients that are new in this window
    window: int = -1
    windows: int = 0
    volume: int = 0
    newcomers: int = 0  # queries of clients that are new in this window

    def take(self, queries: Queries) -> list[Sign]:
        """Take queries with ids, in order."""
        if self.reference.reason:
            return []
        # Late queries count in the window under way.
        window = np.maximum.accumulate(np.maximum(queries.time_us // self.reference.width_us, self.window))
        found: list[Sign] = []
        starts = np.flatnonzero(np.r_[True, window[1:] != window[:-1]]) if queries.n else np.zeros(0, dtype=np.int64)
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), queries.n], strict=True):
            if int(window[start]) != self.window:
                self._turn(int(window[start]))
            at = start
            while at < stop:
                end = min(stop, at + STRIDE - self.volume % STRIDE)
                self._add(queries.client[at:end])
                if self.volume % STRIDE == 0 and (sign := self._sign(int(queries.time_us[end - 1]))) is not None:
                    found.append(sign)
                at = end
        return found

    def _turn(self, window: int) -> None:
        """Begin a window: who was in the last one is known now."""
        places = self._places()
        self.filled += int(np.count_nonzero(~self.known[places]))
        self.known[places] = True
        if self.filled > FULL * (1 << BITS):
            self.before, self.known, self.filled = self.known, _bitmap(), 0
        self.here, self.ranks = [], hyperloglog.empty()
        self.windows += self.window >= 0
        self.window, self.volume, self.newcomers = window, 0, 0

    def _places(self) -> IntArray:
        return np.unique(np.concatenate(self.here)) if self.here else np.zeros(0, dtype=np.int64)

    def _add(self, client: HashArray) -> None:
        place = (scrambled(client) >> np.uint64(64 - BITS)).astype(np.int64)
        new = ~(self.known[place] | self.before[place])
        self.here.append(place)
        if len(self.here) >= MOST_PIECES:  # a window may be long; places are bounded, pieces must be
            self.here = [self._places()]
        register, rank = registers(client[new])
        np.maximum.at(self.ranks, register, rank)
        self.volume += len(client)
        self.newcomers += int(np.count_nonzero(new))

    def figures(self) -> tuple[int, float, int]:
        """Return queries of the window, its new clients, and the queries of those."""
        return self.volume, distinct(self.ranks), self.newcomers

    def _sign(self, now_us: int) -> Sign | None:
        volume, clients, queries = self.figures()
        share = clients / volume
        known = self.reference
        crowded = volume >= known.volume and share >= known.share and clients >= LEAST_NEW
        if self.windows < WARM_WINDOWS or not crowded:
            return None
        seconds = known.width_us // 1_000_000
        said = (
            f"{volume} queries within {seconds} s, {clients:.0f} of their clients were never seen before and ask "
            f"{queries / clients:.1f} times each: the reference has fewer than {known.volume} queries in such a time"
        )
        level = BAR * max(volume / known.volume, 1.0)
        start_us = self.window * known.width_us
        return Sign("crowd", "pattern:new-clients", now_us, start_us, volume, "queries", level, BAR, said)

    def state(self) -> tuple[dict[str, int], Arrays]:
        """Return everything as numbers and arrays."""
        maps = {name: np.packbits(getattr(self, name)) for name in ("before", "known")}
        numbers = {name: int(getattr(self, name)) for name in NUMBERS}
        return numbers, {**maps, "here": self._places(), "ranks": self.ranks.copy()}

    def restore(self, said: dict[str, int], arrays: Arrays) -> None:
        """Take back what `state` gave."""
        for name, value in said.items():
            setattr(self, name, value)
        for name in ("before", "known"):
            setattr(self, name, np.unpackbits(arrays[name]).astype(np.bool_))
        self.here, self.ranks = [arrays["here"]], arrays["ranks"].copy()


def fitted(queries: Queries) -> CrowdReference:
    """Return what windows of reference queries (with ids, in order) look like, or why it cannot be said."""
    width = _width(queries.time_us)
    if width is None:
        return CrowdReference(reason="the reference is too short, or has too few queries, to know its busiest windows")
    crowd = Crowd(CrowdReference(width, reason=""))
    rows = []
    window = queries.time_us // width
    for number in np.unique(window):
        crowd._turn(int(number))  # noqa: SLF001  (the same module)
        crowd._add(queries.client[window == number])  # noqa: SLF001
        volume, clients, _ = crowd.figures()
        rows.append((float(volume), clients / volume))
    figures = np.array(rows)
    settled = figures[len(figures) // 4 :]  # everybody is new at first
    far, most = _bar(np.log(figures[:, 0]))
    share, _ = _bar(settled[:, 1])
    if share > USUAL_SHARE:
        return CrowdReference(reason="nearly every query of the reference comes from a new client")
    least = max(float(np.exp(far)), LEAST_GROWTH * float(np.exp(most)))
    return CrowdReference(width, int(np.ceil(least)), max(share, LEAST_SHARE), "")


def _width(time_us: IntArray) -> int | None:
    for width in WIDTHS_US:
        _, count = np.unique(time_us // width, return_counts=True)
        if len(count) >= LEAST_WINDOWS and float(np.median(count)) >= LEAST_QUERIES:
            return width
    return None


def _bar(values: FloatArray) -> tuple[float, float]:
    """Return where the tail of windows reaches the bar, and the largest value, both without the largest .5 %."""
    kept = np.sort(values)[: len(values) - int(np.ceil(TRIMMED * len(values)))]
    tail = tails.fitted(kept, 0.01, BAR)
    far = tail.start + tail.scale * (BAR - tail.above) if tail.values.size else float(kept[-1])
    return max(far, float(kept[-1])), float(kept[-1])
