"""The attack lanes of one model at work: ordered queries in, findings about clients and regions out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from regate.detectors.attack.beside import Beside
from regate.detectors.attack.clients import Clients, Steps
from regate.detectors.attack.evidence import LANES, UNIT, accumulate, evidence, lane_values, sums
from regate.detectors.attack.queries import ByteArray, Queries, SketchArray
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.tails import CAP
from regate.detectors.attack.tide import Tide
from regate.detectors.attack.views import CLIENT, View, owners, seen_by
from regate.detectors.columns import FloatArray, HashArray, IntArray

_TOLD_LANES = 3
# A region's finding is a client's when he asked at least so many of its last eight queries.
MOSTLY = 4


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


@dataclass(slots=True)
class Seen:
    """One view at work."""

    view: View
    table: Clients
    tide: Tide = field(default_factory=Tide)

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
            unlike[rows] = reference.resemblance.unlike(steps, queries.n)
        values = lane_values(steps, queries.lanes, reference.sketch.step, unlike[rows])
        logs = evidence(known.tails, steps, sums(known.tails, steps, values))
        order = np.argsort(steps.row)
        logs = self.tide.less(owner[steps.row], logs, order, known.usual)
        if reference.training is not None and known.kind.by_client:
            logs = logs + np.rint(reference.training.evidence(queries.member[steps.row]) * UNIT).astype(np.int64)
        told = accumulate(table, steps, logs, known.bar, queries.time_us[steps.row], known.kind.most)
        found = []
        for at in np.flatnonzero(told.alarm).tolist():
            row = int(steps.row[at])
            found.append(
                Alarm(
                    int(rows[row]),
                    self._whose(queries, steps, at, int(told.count[at])),
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

    def _whose(self, queries: Queries, steps: Steps, at: int, count: int) -> int:
        """Return the client that an entry's alarm is about: who asked most, or all that it is about."""
        mostly = self.view.kind.by_client or int(steps.own[at]) + 1 >= min(MOSTLY, count)
        return int(queries.client[steps.row[at]]) if mostly else 0

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
            Seen(view, Clients(capacity=(self.capacity if view.kind.by_client else None) or view.kind.capacity))
            for view in self.reference.views
        )

    @property
    def evicted(self) -> int:
        """Return how many owners had to give way."""
        return sum(seen.table.evicted for seen in self.views)

    def level(self, view: str, owner: int) -> int | None:
        """Return an owner's evidence in a view; None when he is not remembered any more."""
        for seen in self.views:
            if seen.view.kind.name == view and (slot := seen.table.slots.get(owner)) is not None:
                return int(seen.table.sum[slot])
        return None

    def last_us(self, view: str, owner: int) -> int | None:
        """Return when an owner's memory was last written to."""
        for seen in self.views:
            if seen.view.kind.name == view and (slot := seen.table.slots.get(owner)) is not None:
                return int(seen.table.last_us[slot])
        return None

    def take(self, queries: Queries) -> list[Alarm]:
        """Take queries in order of (event time, event id); return alarms by query, the client's own first."""
        self.queries += queries.n
        self.pieces = []
        self.nameless += int((queries.client == 0).sum())
        found: list[tuple[int, int, Alarm]] = []
        unlike = np.ones(queries.n)
        for number, seen in enumerate(self.views):
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
