"""How attacks are counted: one attacker among normal clients, our lanes and the peers on the same queries.

Only `Memory.take` is asked. A finding counts for an attack when it names one of the attacker's clients, or, naming
none, when its query is one of the attack's. All other findings are false.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from benchmarks.attacks.peers import Blacklight, Peer, Prada, first
from benchmarks.attacks.traffic import BENIGN, START_US, Traffic
from scipy.stats import chi2

from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.reference import AttackReference
from regate.detectors.columns import Categorical, ModelKey, Numeric, Slice

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

KEY = ModelKey("default", "benchmark", "1", "production")
SLICE = 2_000
LONG = 100  # queries of a normal client: more than any has in the references
_MIX = np.uint64(0x9E3779B97F4A7C15)
# How an attacker's queries come: normal ones of his own after each, or a new client id after so many.
PLAIN = "plain"
WAYS: dict[str, tuple[int, int | None]] = {
    PLAIN: (0, None),
    "1 between": (1, None),
    "3 between": (3, None),
    "id a query": (0, 1),
    "id each 5": (0, 5),
}


@dataclass(frozen=True, slots=True)
class Rows:
    """Answered queries in order.

    :param p: probabilities ``[n, classes]``.
    :param client: numbers of clients.
    """

    x: FloatArray
    p: FloatArray
    client: IntArray
    kind: npt.NDArray[np.str_]

    @property
    def n(self) -> int:
        return len(self.x)

    @property
    def label(self) -> IntArray:
        """Return the class of each answer; a score of exactly .5 speaks for the later one."""
        last = self.p.shape[1] - 1
        return np.asarray(last - np.argmax(self.p[:, ::-1], axis=1))


def answered(traffic: Traffic, p: FloatArray | None = None) -> Rows:
    """Return traffic with its answers, its own scores where none are given."""
    _, number = np.unique(traffic.client, return_inverse=True)
    return Rows(traffic.x, both(traffic.score) if p is None else p, number.astype(np.int64), traffic.kind)


def alone(x: FloatArray, p: FloatArray, kind: str = "between") -> Rows:
    """Return rows of one client."""
    return Rows(x, p, np.zeros(len(x), dtype=np.int64), np.full(len(x), kind))


def both(score: FloatArray) -> FloatArray:
    """Return the probabilities of two classes."""
    return np.stack([1.0 - score, score], axis=1)


def sliced(rows: Rows, codes: BoolArray | None = None, first_id: int = 1, start_us: int = START_US) -> Slice:
    """Return rows as the product gets them.

    :param codes: features that are names of categories.
    """
    features: dict[str, Numeric | Categorical] = {}
    for at in range(rows.x.shape[1]):
        values = np.ascontiguousarray(rows.x[:, at])
        if codes is not None and codes[at]:
            known, inverse = np.unique(values, return_inverse=True)
            features[f"f{at:03}"] = Categorical(inverse.astype(np.int32), tuple(f"c{value:g}" for value in known))
        else:
            features[f"f{at:03}"] = Numeric(values)
    two = rows.p.shape[1] == 2
    times = start_us + np.arange(rows.n, dtype=np.int64) * 100_000
    return Slice(
        KEY,
        rows.n,
        np.arange(first_id, first_id + rows.n, dtype=np.uint64),
        times,
        times,
        features,
        prediction=Numeric(rows.label.astype(np.float64)),
        scores={"": np.ascontiguousarray(rows.p[:, 1])}
        if two
        else {str(at): np.ascontiguousarray(rows.p[:, at]) for at in range(rows.p.shape[1])},
        client=hashed(rows.client),
    )


def hashed(client: IntArray) -> npt.NDArray[np.uint64]:
    """Return client ids as 64-bit values, one for each number."""
    return np.asarray((client.astype(np.uint64) + np.uint64(1)) * _MIX)


def referenced(rows: Rows, codes: BoolArray | None = None) -> AttackReference:
    own = sliced(rows, codes)
    reference = fitted(own, tuple(own.features))
    assert isinstance(reference, AttackReference), reference
    return reference


def findings(memory: Memory, rows: Slice) -> list[tuple[int, int]]:
    """Return (row, client hash) of each finding, 0 for one that names no client."""
    told = []
    for start in range(0, rows.n, SLICE):
        part = memory.reference.queries(rows.cut(slice(start, start + SLICE)))
        told += [(start + alarm.row, int(getattr(alarm, "client", 0) or 0)) for alarm in memory.take(part)]
    return told


@dataclass(frozen=True, slots=True)
class Episode:
    """What one attacker asked.

    :param goal: number of the query that reached his goal, from 1; None when none did, or there is none to reach.
    """

    x: FloatArray
    p: FloatArray
    goal: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Attack queries until the finding, and what else was said."""

    needed: int | None
    goal: int | None
    false: int = 0

    @property
    def before(self) -> bool:
        """Whether it was found before it reached its goal."""
        return self.needed is not None and self.goal is not None and self.needed < self.goal


def own_queries(episode: Episode, normal: Rows, between: int) -> tuple[Rows, BoolArray]:
    """Return what the attacker's clients ask, with normal queries after each, and which are the attack."""
    n, width = episode.x.shape
    if not between:
        return alone(episode.x, episode.p, "attack"), np.ones(n, dtype=bool)
    more = np.arange(n * between) % normal.n
    x = np.concatenate([episode.x[:, None], normal.x[more].reshape(n, between, width)], axis=1).reshape(-1, width)
    classes = episode.p.shape[1]
    p = np.concatenate([episode.p[:, None], normal.p[more].reshape(n, between, classes)], axis=1).reshape(-1, classes)
    own = np.arange(len(x)) % (between + 1) == 0
    return Rows(x, p, np.zeros(len(x), dtype=np.int64), np.where(own, "attack", "between")), own


def world(
    reference: AttackReference,
    episode: Episode,
    around: Rows,
    between_rows: Rows,
    way: str,
    seed: int,
    codes: BoolArray | None = None,
) -> Outcome:
    """Return what our lanes say of one attacker among normal clients, with an empty memory."""
    between, renewed = WAYS[way]
    own, attack = own_queries(episode, between_rows, between)
    rng = np.random.default_rng((seed, 71))
    when = np.r_[np.sort(rng.random(own.n)), np.sort(rng.random(around.n))]
    order = np.argsort(when, kind="stable")
    clients = 1_000_000 + (np.zeros(own.n, dtype=np.int64) if renewed is None else np.arange(own.n) // renewed)
    rows = Rows(
        np.concatenate([own.x, around.x])[order],
        np.concatenate([own.p, around.p])[order],
        np.r_[clients, around.client][order],
        np.r_[own.kind, around.kind][order],
    )
    evil = np.r_[attack, np.zeros(around.n, dtype=bool)][order]
    names = set(hashed(np.unique(clients)).tolist())
    needed, false = None, 0
    for row, client in findings(Memory(reference), sliced(rows, codes)):
        if client in names or (client == 0 and evil[row]):
            needed = int(evil[: row + 1].sum()) if needed is None else needed
        else:
            false += 1
    return Outcome(needed, episode.goal, false)


def peer_world(peer: Peer, episode: Episode, between_rows: Rows, way: str) -> Outcome:
    """Return what a peer says. Blacklight has one store for everybody: new ids change nothing. PRADA starts anew."""
    between, renewed = WAYS[way]
    own, attack = own_queries(episode, between_rows, between)
    if renewed is not None and renewed <= getattr(peer, "least", 0):
        return Outcome(None, episode.goal)
    row = first(peer, own.x, own.label)
    return Outcome(None if row is None else int(attack[:row].sum()), episode.goal)


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return found, queries until then (of all episodes, missed ones as never), and found before the goal."""
    known = sorted(math.inf if one.needed is None else one.needed for one in outcomes)
    middle = 0.5 * (known[(len(known) - 1) // 2] + known[len(known) // 2])
    late = known[math.ceil(0.95 * len(known)) - 1]
    return {
        "found": sum(one.needed is not None for one in outcomes),
        "of": len(outcomes),
        "median": middle if math.isfinite(middle) else None,
        "p95": late if math.isfinite(late) else None,
        "reached": sum(one.goal is not None for one in outcomes),
        "before": sum(one.before for one in outcomes),
    }


@dataclass(frozen=True)
class Place:
    """A reference with everything around an attack on it.

    :param around: normal clients beside the attacker, another set for each episode, in turn.
    """

    name: str
    reference: AttackReference
    live: Rows
    around: list[Rows]
    between: Rows
    codes: BoolArray | None = None

    def peers(self) -> tuple[Peer, Peer]:
        return Blacklight(self.reference), Prada(self.reference.sketch.scale)

    def row(
        self, by: str, attack: str, episodes: Sequence[Episode], ways: Sequence[str] = tuple(WAYS)
    ) -> dict[str, Any]:
        """Measure one attack: a row of the table."""
        outcomes = {
            way: [
                world(self.reference, one, self.around[at % len(self.around)], self.between, way, at, self.codes)
                for at, one in enumerate(episodes)
            ]
            for way in ways
        }
        peers = {
            peer.name: {way: summary([peer_world(peer, one, self.between, way) for one in episodes]) for way in ways}
            for peer in self.peers()
        }
        return {
            "by": by,
            "data": self.name,
            "attack": attack,
            "queries": int(np.median([len(one.x) for one in episodes])),
            "lanes": {way: summary(some) for way, some in outcomes.items()},
            "false": sum(one.false for some in outcomes.values() for one in some),
            **peers,
        }

    def normal(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return false findings by kind of normal client, and what the detectors cost there."""
        memory, label = Memory(self.reference), self.live.label
        began = time.perf_counter()
        told = findings(memory, sliced(self.live, self.codes))
        cost = {"lanes": _cost(time.perf_counter() - began, held(memory), self.live.n)}
        false = {"lanes": np.bincount([row for row, _ in told], minlength=self.live.n)}
        for peer in self.peers():
            began = time.perf_counter()
            false[peer.name], kept = flagged(peer, self.live.x, label, self.live.client)
            cost[peer.name] = _cost(time.perf_counter() - began, kept, self.live.n)
        asked = np.bincount(self.live.client)[self.live.client]
        rows = []
        for kind, long in itertools.product(BENIGN, (False, True)):
            own = (self.live.kind == kind) & ((asked > LONG) == long)
            if not own.any():
                continue
            rows.append(
                {
                    "data": self.name,
                    "kind": f"{kind}, long" if long else kind,
                    "queries": int(own.sum()),
                    "clients": len(np.unique(self.live.client[own])),
                    **{name: int(count[own].sum()) for name, count in false.items()},
                }
            )
        sizes = {"data": self.name, "features": self.live.x.shape[1], "queries": self.live.n}
        return rows, {**sizes, "clients": len(np.unique(self.live.client)), **cost}


def flagged(peer: Peer, x: FloatArray, label: IntArray, client: IntArray) -> tuple[IntArray, int]:
    """Return 1 at the first query of each client that a peer flags, and the bytes it holds when all are done."""
    flags, kept = np.zeros(len(x), dtype=np.int64), 0
    order = np.argsort(client, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(client[order])) + 1):
        seen, told = peer.start(), False
        for row in rows.tolist():
            # A flagged client stays flagged: it counts once, but memory goes on.
            if seen.ask(x[row], int(label[row])) and not told:
                flags[row], told = 1, True
        kept += seen.held
    return flags, kept


def _cost(seconds: float, kept: int, queries: int) -> dict[str, float]:
    return {"us": round(seconds / queries * 1e6, 1), "bytes": kept}


def held(memory: Memory) -> int:
    """Return the bytes of everything that a memory holds beside its reference."""
    return _held([getattr(memory, one.name) for one in fields(memory) if one.name != "reference"])


def _held(thing: object) -> int:
    if isinstance(thing, np.ndarray):
        return thing.nbytes
    if isinstance(thing, dict):
        return 100 * len(thing) + _held([one for one in thing.values() if not isinstance(one, int)])
    if isinstance(thing, (list, tuple)):
        return sum(_held(one) for one in thing)
    if is_dataclass(thing):
        return _held([getattr(thing, one.name) for one in fields(thing)])
    return 0


def interval(count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided interval of a Poisson mean.

    >>> [round(end, 2) for end in interval(4)]
    [1.09, 10.24]
    """
    tail = 0.5 * (1.0 - confidence)
    low = float(chi2.ppf(tail, 2 * count)) / 2.0 if count else 0.0
    return low, float(chi2.ppf(1.0 - tail, 2 * count + 2)) / 2.0
