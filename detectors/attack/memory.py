"""The attack lanes of one model at work: ordered queries in, findings about clients out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from regate.detectors.attack.clients import Clients
from regate.detectors.attack.evidence import LANES, UNIT, accumulate, evidence, lane_values, sums
from regate.detectors.attack.patterns import Patterns
from regate.detectors.attack.queries import Queries
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.tails import CAP
from regate.detectors.columns import IntArray

_TOLD_LANES = 3


@dataclass(frozen=True, slots=True)
class Alarm:
    """One finding about a client: which query crossed the bar, and what spoke most there."""

    row: int  # in the queries given
    client: int
    since_us: int  # when its evidence began to grow
    queries: int  # distinct ones since then
    level: float  # nats
    bar: float
    lanes: tuple[tuple[str, float], ...]  # -ln p of the lanes that said most at the query that crossed


@dataclass(slots=True)
class Memory:
    """Client memory under one reference."""

    reference: AttackReference
    table: Clients = field(default_factory=Clients)
    queries: int = 0
    nameless: int = 0  # queries without a client: seen, but by no client's memory
    patterns: Patterns = field(init=False)  # other views of the same queries, and of labels

    def __post_init__(self) -> None:
        """Begin the views of the reference's habits."""
        self.patterns = Patterns(self.reference.habits)

    def take(self, queries: Queries) -> list[Alarm]:
        """Take queries in order of (event time, event id)."""
        self.queries += queries.n
        named = np.flatnonzero(queries.client != 0)
        self.nameless += queries.n - len(named)
        # Whoever is in a piece must find room in it; what is found does not depend on how queries are cut.
        most = max(self.table.capacity // 2, 1)
        pieces = [named[start : start + most] for start in range(0, len(named), most)]
        return [alarm for piece in pieces for alarm in self._taken(queries.some(piece), piece)]

    def _taken(self, own: Queries, named: IntArray) -> list[Alarm]:
        known = self.reference
        steps = self.table.take(own, known.tau)
        self.patterns.take(own, steps, self.table)
        values = lane_values(steps, own.lanes, known.sketch.step)
        logs = evidence(known.tails, steps, sums(known.tails, steps, values))
        if known.training is not None:
            logs = logs + np.rint(known.training.evidence(own.member[steps.row]) * UNIT).astype(np.int64)
        told = accumulate(self.table, steps, logs, known.bar, own.time_us[steps.row])
        found = []
        for at in np.flatnonzero(told.alarm).tolist():
            row = int(steps.row[at])
            kind = int(steps.kind[at])
            said = [
                (name, float(known.tails.lanes[kind, name].of(values[name][at : at + 1])[0])) for name in LANES[kind]
            ]
            if own.member[row]:
                said.append(("training record", CAP))
            said.sort(key=lambda one: -one[1])
            found.append(
                Alarm(
                    int(named[row]),
                    int(own.client[row]),
                    int(told.since_us[at]),
                    int(told.count[at]),
                    float(told.level[at]) / UNIT,
                    known.bar / UNIT,
                    tuple(said[:_TOLD_LANES]),
                )
            )
        return sorted(found, key=lambda one: one.row)
