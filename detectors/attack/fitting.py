"""Fitting the attack reference on reference rows, without labels of attacks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from regate.detectors.attack import dependence, geometry, habits, lattice, resemblance, sketch, tails, training
from regate.detectors.attack.clients import EDIT, FRESH, NEAR, Clients, Steps
from regate.detectors.attack.evidence import (
    LANES,
    OWN_LANES,
    SUM_CAP,
    SUM_UNIT,
    UNIT,
    UNITS,
    Tails,
    accumulate,
    counted,
    evidence,
    lane_values,
    sums,
)
from regate.detectors.attack.inputs import Inputs, bits_of, inputs_of, mixed, scrambled
from regate.detectors.attack.queries import WIDTH, ByteArray, Queries, SketchArray
from regate.detectors.attack.reference import AttackReference, labels
from regate.detectors.attack.tide import usual_of
from regate.detectors.attack.training import Training
from regate.detectors.attack.views import CLIENT, KINDS, REGION, Kind, View, owners, seen_by
from regate.detectors.columns import BoolArray, FloatArray, HashArray, IntArray, Slice

# False findings a query that the lanes may give, all together.
RATE = 3e-5
# Of the clients of the reference so many, those with the largest sums, are kept out of the tails and listed for review:
# one attacker in the reference must not blind a lane.
TRIMMED = 0.005
LEAST_CLIENTS = 10
# A few odd owners in a small reference must not make a bar that nothing reaches.
MOST_BEYOND = 6.0
LEAST_ROWS = 500
SAMPLED = 4_096
_SECOND = 2  # a tree is one when it has a second query


def fitted(
    rows: Slice, watched: tuple[str, ...], seed: int = 0, trained: Slice | None = None, weight: float = 1.0
) -> AttackReference | str:
    """Return the reference, or in a sentence why there is none.

    :param watched: features in the order of the configuration.
    :param trained: rows that the model was trained on; of them only a salted filter is kept.
    :param weight: of the family: multiplies the rate of false findings that the bar allows.
    """
    inputs = inputs_of(rows.features, watched)
    if not inputs.names or rows.n < LEAST_ROWS:
        had = f"{rows.n} reference rows of {len(inputs.names)} features"
        return f"no attack lanes: {had}; {LEAST_ROWS} rows of at least one are needed"
    client: HashArray = np.zeros(rows.n, dtype=np.uint64) if rows.client is None else rows.client
    clients = len(np.unique(client[client != 0]))
    x = inputs.matrix(rows)
    bits = bits_of(x)
    hashed = mixed(bits)
    made = sketch.fitted(x)
    z = made.scaled(x)
    sketched, blocks = made.of(z), sketch.block_hashes(hashed)
    tau = sketch.tau_of(sketched, seed)
    bare = Queries(
        rows.event_id,
        rows.event_time_us,
        client,
        labels(rows),
        sketched,
        blocks,
        np.zeros_like(blocks),
        sketch.part_hashes(hashed),
        np.zeros((rows.n, len(OWN_LANES)), dtype=np.float32),
        np.zeros(rows.n, dtype=np.bool_),
        np.full(rows.n, -1, dtype=np.int64),
    )
    order = np.lexsort((rows.event_id, rows.event_time_us))
    fresh = _fresh(bare, order, tau)
    # What is alike must count once: edits, jitter and retries of one row would teach its oddities.
    _, first = np.unique(hashed[fresh].sum(axis=1, dtype=np.uint64), return_index=True)
    model = np.sort(fresh[first])
    counted = np.zeros(rows.n, dtype=np.bool_)
    counted[model] = True
    start = AttackReference(
        inputs=inputs,
        sketch=made,
        lattice=lattice.fitted(hashed[model], bits[model]),
        geometry=geometry.fitted(z[model]),
        tree=dependence.fitted(x[model]),
        tau=tau,
        resemblance=resemblance.fitted(bare.parts[model], seed),
        sampled=_sampled(sketched, blocks, seed),
        clients=clients,
        rows=rows.n,
        training=None if trained is None else _training(inputs, trained, hashed, client, seed),
    )
    queries = start.queries(rows, counted).some(order)
    return _views(start, queries, RATE * weight)


def _sampled(sketched: SketchArray, blocks: ByteArray, seed: int) -> tuple[SketchArray, ByteArray]:
    """Return some queries: what is normal to ask, for patterns that come back."""
    rng = np.random.default_rng((seed, 22))
    order = rng.permutation(len(blocks))[:SAMPLED]
    return sketched[order], blocks[order]


def _training(inputs: Inputs, trained: Slice, hashed: np.ndarray, client: HashArray, seed: int) -> Training:
    """Return the filter of training rows, with how often the reference's clients ask about them."""
    salt = int(scrambled(np.array([seed + 1], dtype=np.uint64) ^ hashed[:1].sum(dtype=np.uint64))[0])
    found = training.made(mixed(bits_of(inputs.matrix(trained))), salt)
    return replace(found, usual=training.usual_share(found.holds(hashed), client))


def _fresh(bare: Queries, order: IntArray, tau: float) -> IntArray:
    """Return the rows that are neither retries nor near to what their client has asked before."""
    ordered = bare.some(order)
    own = np.flatnonzero(ordered.client != 0)
    if not own.size:
        return order
    steps = Clients(capacity=len(np.unique(bare.client))).take(ordered.some(own), tau)
    return np.asarray(order[np.r_[own[steps.row[steps.kind == FRESH]], np.flatnonzero(ordered.client == 0)]])


@dataclass(frozen=True, slots=True)
class _Asked:
    """Reference queries as one view sees them."""

    queries: Queries
    unlike: FloatArray  # of each query, by `resemblance`
    owner: HashArray

    def some(self, rows: BoolArray) -> _Asked:
        return _Asked(self.queries.some(rows), self.unlike[rows], self.owner[rows])

    def seen_as(self, kind: Kind) -> _Asked:
        own = self.some(seen_by(kind, self.queries))
        return replace(own, owner=owners(kind, own.queries))


def _views(start: AttackReference, queries: Queries, rate: float) -> AttackReference:
    """Fit each view; who stands out by client is kept out of all of them."""
    everyone = np.unique(queries.client[queries.client != 0])
    asked = _Asked(queries, np.ones(queries.n), queries.client)
    if len(everyone) < LEAST_CLIENTS:
        return replace(start, views=(_view(REGION, start, asked.seen_as(REGION), rate, 0),))
    known = queries.some(queries.client != 0)
    steps = Clients(capacity=len(everyone)).take(known, start.tau)
    asked.unlike[queries.client != 0] = start.resemblance.of(steps, known.n)
    odd = _odd(start, asked.seen_as(CLIENT), len(everyone))
    usual = asked.some(~np.isin(queries.client, odd))
    views = tuple(_view(kind, start, usual.seen_as(kind), rate * kind.share, len(odd)) for kind in KINDS)
    usually = habits.fitted(known, steps, odd, start.inputs.names)
    return replace(start, views=views, trimmed=tuple(int(one) for one in odd), habits=usually)


def _odd(start: AttackReference, asked: _Asked, clients: int) -> HashArray:
    """Return the clients with the largest sums."""
    table, steps, values = _walked(start, asked)
    known = _tails(steps, values, np.ones(len(steps.row), dtype=np.bool_))
    level = _levels(table, steps, evidence(known, steps, sums(known, steps, values)), asked)
    first = np.flatnonzero(steps.first)
    peak = np.maximum.reduceat(level, first)
    client = asked.owner[steps.row[first]]
    order = np.lexsort((client, -peak))
    return np.asarray(client[order[: int(np.ceil(TRIMMED * clients))]])


def _view(kind: Kind, start: AttackReference, asked: _Asked, rate: float, hidden: int) -> View:
    table, steps, values = _walked(start, asked)
    whole = _tails(steps, values, np.ones(len(steps.row), dtype=np.bool_))
    owner = asked.owner[steps.row]
    logs = _judged(owner, steps, values, whole)
    excursions = _excursions(steps, _levels(table, steps, logs, asked))
    bar = _bar(excursions, asked.queries.n, rate, hidden)
    return View(kind, whole, round(bar * UNIT), usual_of(owner, logs, np.argsort(steps.row)))


def _walked(start: AttackReference, asked: _Asked) -> tuple[Clients, Steps, dict[str, FloatArray]]:
    """Return the memory of all reference queries, and their entries with their lanes."""
    table = Clients(capacity=max(len(np.unique(asked.owner)), 1))
    steps = table.take(asked.queries, start.tau, asked.owner)
    return table, steps, lane_values(steps, asked.queries.lanes, start.sketch.step, asked.unlike)


def _tails(steps: Steps, values: dict[str, FloatArray], keep: BoolArray) -> Tails:
    made: dict[tuple[int, str], tails.Tail] = {}
    for kind, names in LANES.items():
        at = (steps.kind == kind) & keep
        for name in names:
            own = values[name][at]
            own = own[np.isfinite(own)]
            # A lane that never varies in the reference (no scores, no labels) says nothing.
            constant = own.size and float(own.min()) == float(own.max()) and name in {"margin", "flip"}
            cap = tails.CAP
            if name == "tree":  # one sample a tree, not one a query: no more is known of it than of so many
                cap = min(cap, float(np.log1p((steps.tree[at] == _SECOND).sum())))
            made[kind, name] = tails.none(UNITS[name]) if constant else tails.fitted(own, UNITS[name], cap)
    share = np.array([float(((steps.kind == kind) & keep).sum() + 1) for kind in (FRESH, EDIT, NEAR)])
    seldom = -np.log(share / (float(keep.sum()) + 3.0))
    trees = counted(steps)
    largest = [int(trees[keep & (steps.kind == kind)].max(initial=1)) for kind in (FRESH, EDIT, NEAR)]
    # The first query of an owner shares with none.
    others = steps.changed[keep & (steps.kind == FRESH) & ~steps.first]
    changes = max(float(np.median(others)), 1.0) if others.size else float(WIDTH)
    partial = Tails(made, {}, seldom, np.array(largest, dtype=np.int64), changes)
    total, _ = sums(partial, steps, values)
    own_sums = {
        kind: tails.fitted(total[(steps.kind == kind) & keep], SUM_UNIT, SUM_CAP) for kind in (FRESH, EDIT, NEAR)
    }
    return replace(partial, sums=own_sums)


def _judged(owner: HashArray, steps: Steps, values: dict[str, FloatArray], whole: Tails) -> IntArray:
    """Return the evidence of each entry, two-fold by owner: nobody is judged by what he himself has taught.

    :param owner: of each entry.
    """
    fold = (owner >> np.uint64(7)) & np.uint64(1)
    logs = np.zeros(len(owner), dtype=np.int64)
    for side in (0, 1):
        mine = fold == side
        other = _tails(steps, values, ~mine)
        if any(not other.sums[kind].values.size and whole.sums[kind].values.size for kind in other.sums):
            other = whole  # half of the owners show too little of some kind
        # How long a burst may be is known from all: half of them do not show the longest.
        other = replace(other, largest_tree=whole.largest_tree)
        logs[mine] = evidence(other, steps, sums(other, steps, values))[mine]
    return logs


def _levels(table: Clients, steps: Steps, logs: IntArray, asked: _Asked) -> IntArray:
    """Return each owner's CUSUM at each of his entries, of memory in which nothing has been added up yet."""
    return accumulate(table, steps, logs, 1 << 60, asked.queries.time_us[steps.row]).level


def _excursions(steps: Steps, level: IntArray) -> FloatArray:
    """Return the height of every excursion of every owner in nats, from one return to 0 to the next, in order."""
    if not len(level):
        return np.zeros(0)
    peak = np.maximum.reduceat(level, np.flatnonzero(steps.first | (level <= 0)))
    return np.sort(peak[peak > 0] / UNIT)


def _bar(excursions: FloatArray, queries: int, rate: float, hidden: int) -> float:
    """Return h: what theory asks, or the tail of excursions where the reference shows longer ones.

    :param excursions: in nats, sorted.
    :param hidden: clients that were kept out for their large sums.
    """
    least = float(np.log(1.0 / rate))
    k = int(np.clip(len(excursions) // 20, 5, 40))
    if len(excursions) <= k:
        return least
    base = float(excursions[-k - 1])
    # The clients kept out had the largest, unseen here: censored, each is at least as large as the largest seen.
    exceeded = float((excursions[-k:] - base).sum()) + hidden * float(excursions[-1] - base)
    scale = max(exceeded / k, 0.1)
    by_tail = base + scale * float(np.log(max((k + hidden) / (queries * rate), 1.0)))
    return max(least, min(by_tail, least + MOST_BEYOND))
