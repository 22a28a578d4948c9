"""The attack lanes of one model at work: ordered queries in, findings about clients and regions out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from regate.detectors.attack.beside import Beside
from regate.detectors.attack.clients import Clients, Steps
from regate.detectors.attack.evidence import LANES, UNIT, Sums, accumulate, evidence, lane_values, sums
from regate.detectors.attack.ongoing import QUIET_US
from regate.detectors.attack.queries import ByteArray, Queries, SketchArray
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.tails import CAP
from regate.detectors.attack.tide import Tide
from regate.detectors.attack.views import CLIENT, View, owners, seen_by
from regate.detectors.columns import BoolArray, FloatArray, HashArray, IntArray

_TOLD_LANES = 3
# A region's finding is a client's when he asked at least so many of its last eight queries.
MOSTLY = 4
# Of so many whose evidence was above the bar it is known when that was.
MOST_ABOVE = 10_000


@dataclass(frozen=True, slots=True)
class Alarm:
    """One finding: which query crossed the bar, and what spoke most there."""

    row: int  # in the queries given
    client: int  # 0: nobody's in particular
    view: str
    owner: int  # of the memory in which it was seen
    since_us: int  # when its evidence began to grow
    queries: int  # distinct ones since then
    level: float  # nats
    bar: float
    lanes: tuple[tuple[str, float], ...]  # -ln p of the lanes that said most at the query that crossed
    askers: IntArray  # lower halves of the ids of who asked the queries that are remembered
    sketch: SketchArray  # of those queries
    blocks: ByteArray


@dataclass(frozen=True, slots=True)
class Piece:
    """What client memory said of some queries."""

    queries: Queries
    rows: IntArray  # where they are among all that were given
    steps: Steps


@dataclass(frozen=True, slots=True)
class Above:
    """Entries whose evidence was above the bar, in order of queries."""

    client: HashArray  # whom it was about, 0: nobody in particular
    owner: HashArray  # in whose memory
    time_us: IntArray


@dataclass(slots=True)
class Seen:
    """One view at work."""

    view: View
    table: Clients
    tide: Tide = field(default_factory=Tide)
    last: dict[int, int] = field(default_factory=dict)  # whom it was about, or the owner: when it was above the bar
    above: list[Above] = field(default_factory=list)  # of the last queries taken

    def take(
        self,
        reference: AttackReference,
        queries: Queries,
        rows: IntArray,
        owner: HashArray,
        unlike: FloatArray,
        beside: Beside,
        pieces: list[Piece],
    ) -> list[Alarm]:
        """Take some queries; return alarms.

        :param rows: of the queries, where they are among all that were given.
        :param unlike: of all that were given, by `resemblance`; the view by client, the first, writes it.
        """
        known, table = self.view, self.table
        steps = table.take(queries, reference.tau, owner)
        if known.kind == CLIENT:
            beside.take(queries, steps, table)
            pieces.append(Piece(queries, rows, steps))
            unlike[rows] = reference.resemblance.of(steps, queries.n)
        values = lane_values(steps, queries.lanes, reference.sketch.step, unlike[rows])
        logs = evidence(known.tails, steps, sums(known.tails, steps, values))
        order = np.argsort(steps.row)
        logs = self.tide.less(owner[steps.row], logs, order, known.usual)
        if reference.training is not None and known.kind.by_client:
            logs = logs + np.rint(reference.training.evidence(queries.member[steps.row]) * UNIT).astype(np.int64)
        logs = np.minimum(logs, round(known.kind.most * known.bar))
        time_us = queries.time_us[steps.row]
        told = self._summed(steps, logs, time_us, owner)
        client = self._whose(queries, steps, told.count)
        over = np.flatnonzero(told.level > known.bar)
        over = over[np.argsort(steps.row[over])]
        seen = Above(client[over], owner[steps.row[over]], time_us[over])
        told.alarm[over[self._resumed(seen)]] = True
        self.above.append(seen)
        found = []
        for at in np.flatnonzero(told.alarm).tolist():
            row = int(steps.row[at])
            found.append(
                Alarm(
                    int(rows[row]),
                    int(client[at]),
                    known.kind.name,
                    int(owner[row]),
                    int(told.since_us[at]),
                    int(told.count[at]),
                    float(told.level[at]) / UNIT,
                    known.bar / UNIT,
                    self._said(steps, values, at, member=bool(queries.member[row])),
                    steps.chain.who[kept := steps.remembered(at)],
                    steps.chain.sketch[kept],
                    steps.chain.blocks[kept],
                )
            )
        return found

    def _whose(self, queries: Queries, steps: Steps, count: IntArray) -> HashArray:
        """Return the client that each entry is about: who asked most, or all that it is about; else 0."""
        client = queries.client[steps.row]
        if self.view.kind.by_client:
            return client
        return np.where(steps.own + 1 >= np.minimum(MOSTLY, count), client, np.uint64(0))

    def _summed(self, steps: Steps, logs: IntArray, time_us: IntArray, owner: HashArray) -> Sums:
        """Add up evidence. Who was told and comes back after an hour begins anew: what he had asked was told."""
        table, bar, returns = self.table, self.view.bar, steps.returns
        if not returns.any():
            return accumulate(table, steps, logs, bar, time_us)
        none = np.zeros(len(logs), dtype=np.int64)
        all_sums = Sums(none, none != 0, none.copy(), none.copy())
        for number in np.unique(returns).tolist():
            if number:
                back = np.array([table.slots[one] for one in np.unique(owner[returns == number]).tolist()])
                back = back[table.told[back]]
                table.sum[back], table.told[back], table.since_count[back] = 0, False, 0
            at = np.flatnonzero(returns[steps.row] == number)
            slot = steps.slot[at]
            if not at.size:
                continue
            part = replace(steps, slot=slot, first=np.r_[True, slot[1:] != slot[:-1]])
            sums = accumulate(table, part, logs[at], bar, time_us[at])
            for name in ("level", "alarm", "since_us", "count"):
                getattr(all_sums, name)[at] = getattr(sums, name)
        return all_sums

    def _resumed(self, seen: Above) -> BoolArray:
        """Return which entries are above the bar again after a quiet time: what goes on then is another incident."""
        if not len(seen.time_us):
            return np.zeros(0, dtype=np.bool_)
        whom, which = np.unique(np.where(seen.client != 0, seen.client, seen.owner), return_inverse=True)
        order = np.argsort(which, kind="stable")
        own, times = which[order], seen.time_us[order]
        first = np.r_[True, own[1:] != own[:-1]]
        before = np.r_[times[:1], times[:-1]]
        start = times[first]
        before[first] = [self.last.get(one, now) for one, now in zip(whom.tolist(), start.tolist(), strict=True)]
        resumed = np.zeros(len(order), dtype=np.bool_)
        resumed[order] = times - before > QUIET_US
        newest = np.maximum(times, before)[np.r_[first[1:], True]]
        for at in np.argsort(newest, kind="stable").tolist():  # the latest last
            self.last.pop(int(whom[at]), None)
            self.last[int(whom[at])] = int(newest[at])
        while len(self.last) > MOST_ABOVE:
            del self.last[next(iter(self.last))]
        return resumed

    def _said(
        self, steps: Steps, values: dict[str, np.ndarray], at: int, *, member: bool
    ) -> tuple[tuple[str, float], ...]:
        """Return the lanes that said most."""
        kind, lanes = int(steps.kind[at]), self.view.tails.lanes
        said = [(name, float(lanes[kind, name].of(values[name][at : at + 1])[0])) for name in LANES[kind]]
        if member:
            said.append(("training record", CAP))
        return tuple(sorted(said, key=lambda one: -one[1])[:_TOLD_LANES])


@dataclass(slots=True)
class Memory:
    """All views under one reference."""

    reference: AttackReference
    capacity: int | None = None  # owners a view, for tests
    queries: int = 0
    nameless: int = 0  # queries without a client: seen by region only
    views: tuple[Seen, ...] = field(init=False)
    pieces: list[Piece] = field(default_factory=list)  # of the last queries taken
    beside: Beside = field(init=False)  # what looks at the same queries, and at labels, in other ways

    def __post_init__(self) -> None:
        """Begin with empty tables."""
        self.beside = Beside(self.reference.habits)
        self.views = tuple(
            Seen(
                view,
                Clients(
                    capacity=(self.capacity if view.kind.by_client else None) or view.kind.capacity,
                    keeps=view.kind.keeps,
                ),
            )
            for view in self.reference.views
        )

    @property
    def evicted(self) -> int:
        """Return how many owners had to give way."""
        return sum(seen.table.evicted for seen in self.views)

    def above(self) -> dict[tuple[int, int], IntArray]:
        """Return when evidence was above a bar in the last queries taken: times by (client, 0) and (0, region)."""
        parts = [part for seen in self.views for part in seen.above if len(part.time_us)]
        if not parts:
            return {}
        client = np.concatenate([part.client for part in parts])
        owner = np.where(client != 0, np.uint64(0), np.concatenate([part.owner for part in parts]))
        order = np.lexsort((times := np.concatenate([part.time_us for part in parts]), owner, client))
        client, owner, times = client[order], owner[order], times[order]
        starts = np.flatnonzero(np.r_[True, (client[1:] != client[:-1]) | (owner[1:] != owner[:-1])])
        parts_of = np.split(times, starts[1:])
        names = zip(client[starts].tolist(), owner[starts].tolist(), strict=True)
        return dict(zip(names, parts_of, strict=True))

    def take(self, queries: Queries) -> list[Alarm]:
        """Take queries in order of (event time, event id); return alarms by query, the client's own first."""
        self.queries += queries.n
        self.pieces = []
        self.nameless += int((queries.client == 0).sum())
        found: list[tuple[int, int, Alarm]] = []
        unlike = np.ones(queries.n)
        for number, seen in enumerate(self.views):
            seen.above = []
            rows = np.flatnonzero(seen_by(seen.view.kind, queries))
            owner = owners(seen.view.kind, queries)
            # Whoever is in a piece must find room in it; what is found does not depend on how queries are cut.
            most = max(seen.table.capacity // 2, 1) if seen.view.kind.by_client else max(len(rows), 1)
            for start in range(0, len(rows), most):
                piece = rows[start : start + most]
                own, whose = queries.some(piece), owner[piece]
                alarms = seen.take(self.reference, own, piece, whose, unlike, self.beside, self.pieces)
                found += [(alarm.row, number, alarm) for alarm in alarms]
        return [alarm for *_, alarm in sorted(found, key=lambda one: one[:2])]
