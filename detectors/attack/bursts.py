"""Machine-regular gaps: who asks different questions as if by a clock, where no client of the reference does.

Gaps between a client's distinct queries are looked at by thirty. Retries are no queries here, and at least two thirds
must be fresh inputs: load tests that go round a short list, crawlers that sweep a value and A/B clients are no such
client however regular they are. Nothing grows: arrays stand beside the slots of client memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from regate.detectors.attack.clients import FRESH, Clients, Steps, grow
from regate.detectors.attack.inputs import scrambled
from regate.detectors.attack.queries import ByteArray, Queries
from regate.detectors.attack.sign import Sign
from regate.detectors.columns import BoolArray, FloatArray, HashArray, IntArray

GAPS = 30
REGULAR = 0.1  # coefficient of variation
TICK_US = 100  # gaps are counted in whole ticks, so that sums are exact
# Shorter than a millisecond is the resolution of clocks; longer ones are pauses.
LEAST_TICKS, MOST_TICKS = 10, 10_000_000
# Of 64 marks thirty different inputs set 24; twenty can set twenty at most.
LEAST_MARKS = 21
# So many reference clients must have asked thirty times, or nobody knows what is usual.
LEAST_TOLD = 5
TRIMMED = 0.005
ARRAYS = ("client", "last_us", "gaps", "total", "squares", "marks", "since_us")


@dataclass(frozen=True, slots=True)
class PaceReference:
    """A reason: the lane is off."""

    reason: str = "not fitted"
    clients: int = 0  # of the reference, that asked often enough
    trimmed: tuple[int, ...] = ()  # regular ones, for review


@dataclass(frozen=True, slots=True)
class Windows:
    """Thirty gaps each that were completed: arrays of one length."""

    client: HashArray
    time_us: IntArray
    since_us: IntArray
    variation: FloatArray  # coefficient of variation
    mean_us: FloatArray
    marks: IntArray

    @property
    def regular(self) -> BoolArray:
        """Return which are a machine's."""
        slow = self.mean_us >= LEAST_TICKS * TICK_US
        return np.asarray((self.variation < REGULAR) & slow & (self.marks >= LEAST_MARKS))


def _none() -> IntArray:
    return np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class Pace:
    """Sums of the gaps under way, by slot of client memory; who has left a slot is known by the client's number."""

    reference: PaceReference
    client: HashArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    last_us: IntArray = field(default_factory=_none)
    gaps: IntArray = field(default_factory=_none)
    total: IntArray = field(default_factory=_none)
    squares: IntArray = field(default_factory=_none)
    marks: HashArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    since_us: IntArray = field(default_factory=_none)

    def take(self, steps: Steps, queries: Queries, table: Clients) -> list[Sign]:
        """Take the entries of a slice; return who was found regular."""
        if self.reference.reason:
            return []
        found = self.windows(steps, queries, len(table.seen))
        signs = []
        for at in np.flatnonzero(found.regular).tolist():
            variation, seconds = float(found.variation[at]), float(found.mean_us[at]) / 1e6
            said = (
                f"client {{subject}} asks something new every {seconds:.3g} s, by the clock: {GAPS} gaps vary by "
                f"{variation:.1%}, and none of {self.reference.clients} clients of the reference is so regular"
            )
            signs.append(
                Sign(
                    "pace",
                    "",
                    int(found.time_us[at]),
                    int(found.since_us[at]),
                    GAPS,
                    "queries",
                    float(-np.log(max(variation, 1e-4))),
                    float(-np.log(REGULAR)),
                    said,
                    int(found.client[at]),
                )
            )
        return signs

    def windows(self, steps: Steps, queries: Queries, slots: int) -> Windows:
        """Add gaps; return the windows that they complete."""
        grow(self, ARRAYS, slots)
        n = len(steps.row)
        if not n:
            none = np.zeros(0)
            return Windows(np.zeros(0, dtype=np.uint64), _none(), _none(), none, none, _none())
        time_us, client = queries.time_us[steps.row], queries.client[steps.row]
        start = np.flatnonzero(steps.first)
        who = np.cumsum(steps.first) - 1
        slot = steps.slot[start]
        self._reset(slot, client[start], time_us[start])
        before = np.r_[0, time_us[:-1]]
        before[start] = self.last_us[slot]
        there = before >= 0  # the first query of all has no gap before it
        ticks = np.where(there, np.clip((time_us - before) // TICK_US, 0, MOST_TICKS), 0)
        count = np.cumsum(there)
        within = count - (count[start] - there[start])[who] + self.gaps[slot][who]
        # A window ends with its thirtieth gap: the entry that brings it belongs to it.
        number = np.maximum(within - 1, 0) // GAPS
        edge = np.flatnonzero(steps.first | np.r_[True, number[1:] != number[:-1]])
        owner, head = who[edge], steps.first[edge]
        carried = np.where(head, 1, 0)
        sums = [
            np.add.reduceat(values, edge) + carried * getattr(self, name)[slot][owner]
            for values, name in ((there.astype(np.int64), "gaps"), (ticks, "total"), (ticks * ticks, "squares"))
        ]
        bit = np.uint64(1) << (_word(queries.blocks[steps.row]) >> np.uint64(58))
        bits = np.bitwise_or.reduceat(np.where(steps.kind == FRESH, bit, np.uint64(0)), edge)
        bits |= np.where(head, self.marks[slot][owner], np.uint64(0))
        since = np.where(head, self.since_us[slot][owner], before[edge])
        ends = np.r_[edge[1:], n] - 1
        whole = sums[0] == GAPS
        last = np.flatnonzero(np.r_[owner[1:] != owner[:-1], True])
        keep = np.where(whole[last], 0, 1)
        place = slot[owner[last]]
        self.last_us[place] = time_us[ends[last]]
        for values, name in zip(sums, ("gaps", "total", "squares"), strict=True):
            getattr(self, name)[place] = keep * values[last]
        self.marks[place] = np.where(keep == 1, bits[last], np.uint64(0))
        self.since_us[place] = np.where(keep == 1, since[last], time_us[ends[last]])
        mean = sums[1][whole] / GAPS
        spread = np.maximum(sums[2][whole] / GAPS - mean * mean, 0.0) * GAPS / (GAPS - 1)
        return Windows(
            client[ends[whole]],
            time_us[ends[whole]],
            since[whole],
            np.sqrt(spread) / np.maximum(mean, 1e-9),
            mean * TICK_US,
            np.bitwise_count(bits[whole]).astype(np.int64),
        )

    def _reset(self, slot: IntArray, client: HashArray, time_us: IntArray) -> None:
        new = self.client[slot] != client
        own = slot[new]
        self.client[own] = client[new]
        self.last_us[own] = -1
        self.since_us[own] = time_us[new]
        for name in ("gaps", "total", "squares", "marks"):
            getattr(self, name)[own] = 0


def _word(blocks: ByteArray) -> HashArray:
    halves = np.ascontiguousarray(blocks).view(np.uint64)
    return np.asarray(scrambled(scrambled(halves[:, 0]) ^ halves[:, 1]))


def fitted(steps: Steps, queries: Queries, clients: int) -> PaceReference:
    """Return whether reference clients (all their entries at once) leave room for this lane."""
    found = Pace(PaceReference("")).windows(steps, queries, int(steps.slot.max(initial=-1)) + 1)
    told = len(np.unique(found.client))
    regular = tuple(int(one) for one in np.unique(found.client[found.regular]))
    if told < LEAST_TOLD:
        return PaceReference(f"only {told} clients of the reference asked more than {GAPS} different things")
    if len(regular) > TRIMMED * clients:
        return PaceReference(f"{len(regular)} of {told} clients of the reference ask by the clock themselves")
    return PaceReference("", told, regular)
