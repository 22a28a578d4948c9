"""Climbs: who walks from query to query and has the model ever surer of one answer, as inversion does.

A walk is a run of a client's different queries of one tree, each near to or an edit of one before, with one answer;
another tree or answer begins another, and what is fresh in between, as normal queries are, does not count. Of n
exchangeable queries the k-th is surer than all before it with probability 1/k, whatever their distribution, and
independently (Renyi 1962). So a bet on such records is a martingale for readings of a sensor, what-if questions about
one case and whatever else comes in no order; an ascent sets them again and again. Edits that never turn are one sweep,
however long, and do not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from regate.detectors.attack.clients import EDIT, NEAR, Clients, Steps, grow
from regate.detectors.attack.queries import Queries
from regate.detectors.attack.sign import Sign
from regate.detectors.columns import BoolArray, FloatArray, HashArray, IntArray

_MARGIN = 5  # place among the own lanes: -ln of how far the answer is from another one
# An ascent sets a record with at least about every fifth query; the first seven have no better odds than chance.
RECORD_SHARE = 0.2
WARM = 8
# Nats. By theory less than one in a million walks within chance reaches it; random walks of few steps do more often.
BAR = 14.0
ROOM = 1.25  # times the largest of the reference's clients
TRIMMED = 0.005
LEAST_CLIENTS = 10
UNIT = float(1 << 20)
MOST = 1 << 30  # units
ARRAYS = ("client", "best", "count", "level", "label", "root", "since_us")
_FINE = float(1 << 20)


@dataclass(frozen=True, slots=True)
class ClimbReference:
    """A reason: the view is off."""

    reason: str = "not fitted"
    bar: float = BAR  # nats
    clients: int = 0  # of the reference, with a walk
    trimmed: tuple[int, ...] = ()  # that climb, for review


@dataclass(frozen=True, slots=True)
class Walked:
    """Entries that belong to a walk: arrays of one length, clients one after the other."""

    entry: IntArray
    level: FloatArray  # nats
    count: IntArray  # queries of the walk with it
    since_us: IntArray
    told: BoolArray  # above the bar


@dataclass(slots=True)
class Climb:
    """The walk under way of each slot of client memory; who has left a slot is known by the client's number."""

    reference: ClimbReference
    client: HashArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    best: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))  # how sure, in 2^-20 of a nat
    count: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    level: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))  # in 2^-20 nats
    label: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint32))  # a part of the answer's hash
    root: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint16))  # number of the tree
    since_us: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def take(self, steps: Steps, queries: Queries, table: Clients) -> list[Sign]:
        """Take the entries of a slice; return who climbs."""
        if self.reference.reason:
            return []
        found = self.walks(steps, queries, len(table.seen))
        signs = []
        for at in np.flatnonzero(found.told).tolist():
            row = int(steps.row[found.entry[at]])
            said = (
                f"client {{subject}} has the model ever surer of one answer: {int(found.count[at])} queries that go on "
                "from each other set records far more often than queries in no order would, as in model inversion"
            )
            signs.append(
                Sign(
                    "climb",
                    "",
                    int(queries.time_us[row]),
                    int(found.since_us[at]),
                    int(found.count[at]),
                    "queries",
                    float(found.level[at]),
                    self.reference.bar,
                    said,
                    int(queries.client[row]),
                )
            )
        return signs

    def walks(self, steps: Steps, queries: Queries, slots: int) -> Walked:
        """Go on with the walks."""
        grow(self, ARRAYS, slots)
        at = np.flatnonzero((steps.kind == NEAR) | ((steps.kind == EDIT) & (steps.turns > 0)))
        n = len(at)
        if not n:
            none = np.zeros(0, dtype=np.int64)
            return Walked(none, np.zeros(0), none, none, none > 0)
        row, slot = steps.row[at], steps.slot[at]
        time_us, label = queries.time_us[row], queries.label[row].astype(np.uint32)
        sure = -np.rint(queries.lanes[row, _MARGIN].astype(np.float64) * _FINE).astype(np.int64)
        first = np.r_[True, slot[1:] != slot[:-1]]
        start = np.flatnonzero(first)
        who, own = np.cumsum(first) - 1, slot[start]
        self._reset(own, queries.client[row[start]])
        root = steps.chain.root[steps.place[at]].astype(np.uint16)
        goes_on = np.r_[False, (label[1:] == label[:-1]) & (root[1:] == root[:-1])]
        goes_on[start] = (self.count[own] > 0) & (self.label[own] == label[start]) & (self.root[own] == root[start])
        # Walks of the slice, the first of a client perhaps one that was under way.
        edge = np.flatnonzero(~goes_on | first)
        walk = np.cumsum(~goes_on | first) - 1
        carried = goes_on[edge]
        had = own[who[edge]]
        count = np.arange(n) - edge[walk] + 1 + np.where(carried, self.count[had], 0)[walk]
        apart = np.int64(1) << 34
        top = np.maximum.accumulate(sure + walk * apart) - walk * apart  # with it
        top = np.where(carried[walk], np.maximum(top, self.best[had][walk]), top)
        highest = np.r_[np.int64(0), top[:-1]]
        highest[edge] = np.where(carried, self.best[had], sure[edge])
        level = self._levels(sure > highest, count, walk, edge, np.where(carried, self.level[had], 0))
        since = np.where(carried, self.since_us[had], time_us[edge])[walk]
        ends = np.r_[start[1:], n] - 1
        self.best[own], self.count[own] = top[ends], np.minimum(count[ends], MOST)
        self.label[own], self.root[own] = label[ends], root[ends]
        self.level[own], self.since_us[own] = np.minimum(level[ends], MOST), since[ends]
        return Walked(at, level / UNIT, count, since, level > round(self.reference.bar * UNIT))

    @staticmethod
    def _levels(record: BoolArray, count: IntArray, walk: IntArray, edge: IntArray, carried: IntArray) -> IntArray:
        """Return what bets on records have won in each walk, never below 0, in units."""
        chance = 1.0 / np.maximum(count, WARM)
        won = np.where(record, np.log(RECORD_SHARE / chance), np.log((1.0 - RECORD_SHARE) / (1.0 - chance)))
        won = np.where(count >= WARM, np.rint(won * UNIT), 0.0).astype(np.int64)
        total = np.cumsum(won)
        path = total - (total - won)[edge][walk] + carried[walk]
        apart = int(np.abs(path).max()) * 2 + 1
        lowest = np.minimum.accumulate(path - walk * apart) + walk * apart
        return np.asarray(path - np.minimum(lowest, 0))

    def _reset(self, slot: IntArray, client: HashArray) -> None:
        new = self.client[slot] != client
        self.client[slot[new]] = client[new]
        self.count[slot[new]] = 0


def fitted(steps: Steps, queries: Queries, clients: int) -> ClimbReference:
    """Return the bar that reference clients (all their entries at once) leave room for, or why the view is off."""
    if not queries.lanes[:, _MARGIN].any():
        return ClimbReference("events of the reference carry no scores")
    if clients < LEAST_CLIENTS:
        return ClimbReference(f"the reference has {clients} clients")
    found = Climb(ClimbReference("")).walks(steps, queries, int(steps.slot.max(initial=-1)) + 1)
    client = queries.client[steps.row[found.entry]]
    climbing = tuple(int(one) for one in np.unique(client[found.told]))
    if len(climbing) > TRIMMED * clients:
        return ClimbReference(f"{len(climbing)} of {clients} clients of the reference climb themselves")
    usual = found.level[~np.isin(client, np.array(climbing, dtype=np.uint64))]
    bar = max(BAR, ROOM * float(usual.max(initial=0.0)))
    return ClimbReference("", bar, len(np.unique(client[found.count > 1])), climbing)
