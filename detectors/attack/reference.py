"""The attack reference: what benign clients' queries look like, fitted on reference rows without labels of attacks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from regate.config.canonical import digest_bytes
from regate.detectors.arrays import pack
from regate.detectors.attack import dependence, geometry, habits, lattice, sketch, tails, training
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
    evidence,
    lane_values,
    sums,
)
from regate.detectors.attack.habits import Habits
from regate.detectors.attack.inputs import Inputs, bits_of, inputs_of, mixed, scrambled
from regate.detectors.attack.queries import Queries
from regate.detectors.attack.training import Training
from regate.detectors.classes import class_hash
from regate.detectors.columns import BoolArray, Categorical, FloatArray, HashArray, IntArray, Numeric, Slice
from regate.detectors.probabilities import chosen, class_matrix

# False findings a query that the lanes may give, all together.
RATE = 3e-5
# Of the clients of the reference so many, those with the largest sums, are kept out of the tails and listed for review:
# one attacker in the reference must not blind a lane.
TRIMMED = 0.005
LEAST_CLIENTS = 10
LEAST_ROWS = 500


@dataclass(frozen=True)
class AttackReference:
    """Everything that is fitted. Equal references give equal ones."""

    inputs: Inputs
    sketch: sketch.Sketch
    lattice: lattice.Lattice
    geometry: geometry.Geometry
    tree: dependence.Tree
    tails: Tails
    tau: float
    bar: int  # in units of 2^-20 nats
    trimmed: tuple[int, ...] = ()  # client hashes for review
    clients: int = 0
    rows: int = 0
    training: Training | None = None
    habits: Habits = field(default_factory=Habits)  # what the views beside client memory compare with

    @cached_property
    def digest(self) -> str:
        """Return the address of everything that client memory depends on."""
        from regate.detectors.attack.codec import packed  # noqa: PLC0415  (the codec knows this class)

        return digest_bytes(pack(*packed(self)))

    def queries(self, rows: Slice, counted: BoolArray | None = None) -> Queries:
        """Return the slim rows of a slice; rows without a client have client 0.

        :param counted: rows that are in the counts of the reference themselves.
        """
        x = self.inputs.matrix(rows)
        bits = bits_of(x)
        hashed = mixed(bits)
        weights = self.lattice.weights(hashed, bits, counted)
        place = self.geometry.score(x)
        lanes = np.empty((rows.n, len(OWN_LANES)), dtype=np.float32)
        lanes[:, 0] = weights.sum(axis=1)
        lanes[:, 1:4] = place
        lanes[:, 4] = self.tree.score(x, counted)
        lanes[:, 5] = margins(rows)
        none = np.zeros(rows.n, dtype=np.uint64)
        return Queries(
            event_id=rows.event_id,
            time_us=rows.event_time_us,
            client=none if rows.client is None else rows.client,
            label=labels(rows),
            sketch=self.sketch.of(x),
            blocks=sketch.block_hashes(hashed),
            off=lattice.by_block(weights),
            lanes=lanes,
            member=np.zeros(rows.n, dtype=np.bool_) if self.training is None else self.training.holds(hashed),
            latency_us=latencies(rows),
        )


def margins(rows: Slice) -> FloatArray:
    """Return -ln of how far the answer is from another one; 0 where events carry no scores."""
    found = class_matrix(rows.scores) if rows.scores else None
    if found is None or found[1].shape[0] < 1:
        return np.zeros(rows.n)
    p = np.clip(np.nan_to_num(found[1], nan=0.0), 0.0, 1.0)
    if len(p) == 1:
        gap = np.abs(2.0 * p[0] - 1.0)
    else:
        top = np.partition(p, len(p) - 2, axis=0)
        gap = top[-1] - top[-2]
    return np.asarray(-np.log(gap + 0.001))


def latencies(rows: Slice) -> IntArray:
    """Return latencies in microseconds, -1 where unknown."""
    if rows.latency_ms is None:
        return np.full(rows.n, -1, dtype=np.int64)
    known = np.isfinite(rows.latency_ms) & (rows.latency_ms >= 0)
    return np.where(known, np.rint(np.where(known, np.minimum(rows.latency_ms, 1e9), 0.0) * 1e3), -1).astype(np.int64)


def labels(rows: Slice) -> HashArray:
    """Return the hash of each answer's class, 0 where it is unknown (or a number)."""
    answer = chosen(rows.prediction, rows.scores)
    if isinstance(answer, Categorical):
        table = np.array([class_hash(name) for name in answer.categories] + [0], dtype=np.uint64)
        return np.asarray(table[answer.codes])
    if isinstance(rows.prediction, Numeric):
        values = rows.prediction.values
        distinct, inverse = np.unique(np.nan_to_num(values, nan=-1.5), return_inverse=True)
        if len(distinct) <= 256:
            table = np.array([class_hash(f"{value:g}") for value in distinct], dtype=np.uint64)
            return np.asarray(np.where(np.isnan(values), np.uint64(0), table[inverse]))
    return np.zeros(rows.n, dtype=np.uint64)


def fitted(
    rows: Slice, watched: tuple[str, ...], seed: int = 0, trained: Slice | None = None, weight: float = 1.0
) -> AttackReference | str:
    """Return the reference, or in a sentence why there is none.

    :param watched: features in the order of the configuration.
    :param trained: rows that the model was trained on; of them only a salted filter is kept.
    :param weight: of the family: multiplies the rate of false findings that the bar allows.
    """
    if rows.client is None or not bool((rows.client != 0).any()):
        return "no attack lanes: reference events carry no client"
    inputs = inputs_of(rows.features, watched)
    clients = len(np.unique(rows.client[rows.client != 0]))
    if not inputs.names or rows.n < LEAST_ROWS or clients < LEAST_CLIENTS:
        return (
            f"no attack lanes: {clients} clients with {rows.n} reference rows of {len(inputs.names)} features; "
            f"{LEAST_CLIENTS} clients and {LEAST_ROWS} rows are needed"
        )
    x = inputs.matrix(rows)
    bits = bits_of(x)
    hashed = mixed(bits)
    made = sketch.fitted(x)
    sketched, blocks = made.of(x), sketch.block_hashes(hashed)
    tau = sketch.tau_of(sketched, seed)
    bare = Queries(
        rows.event_id,
        rows.event_time_us,
        rows.client,
        labels(rows),
        sketched,
        blocks,
        np.zeros_like(blocks),
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
        geometry=geometry.fitted(x[model], made.centre, made.scale),
        tree=dependence.fitted(x[model]),
        tails=Tails({}, {}, np.zeros(3), np.ones(3, dtype=np.int64), 1.0),
        tau=tau,
        bar=0,
        clients=clients,
        rows=rows.n,
        training=None if trained is None else _training(inputs, trained, hashed, rows.client, seed),
    )
    queries = start.queries(rows, counted).some(order)
    known = queries.some(queries.client != 0)
    return _with_tails(start, known, RATE * weight)


def _training(inputs: Inputs, trained: Slice, hashed: np.ndarray, client: HashArray, seed: int) -> Training:
    """Return the filter of training rows, with how often the reference's clients ask about them."""
    salt = int(scrambled(np.array([seed + 1], dtype=np.uint64) ^ hashed[:1].sum(dtype=np.uint64))[0])
    found = training.made(mixed(bits_of(inputs.matrix(trained))), salt)
    return replace(found, usual=training.usual_share(found.holds(hashed), client))


def _fresh(bare: Queries, order: IntArray, tau: float) -> IntArray:
    """Return the rows that are neither retries nor near to what their client has asked before."""
    ordered = bare.some(order)
    own = np.flatnonzero(ordered.client != 0)
    steps = Clients(capacity=max(len(np.unique(bare.client)), 1)).take(ordered.some(own), tau)
    return np.asarray(order[np.r_[own[steps.row[steps.kind == FRESH]], np.flatnonzero(ordered.client == 0)]])


def _with_tails(start: AttackReference, queries: Queries, rate: float) -> AttackReference:
    """Fit tails, find the clients that stand out, fit again without them; then the bar."""
    steps, values, client = _walked(start, queries)
    everyone = np.unique(client)
    odd = np.zeros(0, dtype=np.uint64)
    tails_all = _tails(steps, values, np.ones(len(client), dtype=np.bool_))
    highest = _highest(start, queries, tails_all)
    count = int(np.ceil(TRIMMED * len(everyone)))
    order = sorted(highest, key=lambda one: (-highest[one], one))
    odd = np.array(order[:count], dtype=np.uint64)
    keep = ~np.isin(client, odd)
    fitted_tails = _tails(steps, values, keep)
    bar = _bar(start, queries.some(~np.isin(queries.client, odd)), steps, values, client, keep, fitted_tails, rate)
    usual = habits.fitted(queries, steps, odd, start.inputs.names)
    trimmed = tuple(int(one) for one in odd)
    return replace(start, tails=fitted_tails, bar=round(bar * UNIT), trimmed=trimmed, habits=usual)


def _walked(start: AttackReference, queries: Queries) -> tuple[Steps, dict[str, FloatArray], HashArray]:
    """Return the entries of all reference queries with their lanes and clients."""
    table = Clients(capacity=max(len(np.unique(queries.client)), 1))
    steps = table.take(queries, start.tau)
    return steps, lane_values(steps, queries.lanes, start.sketch.step), queries.client[steps.row]


def _tails(steps: Steps, values: dict[str, FloatArray], keep: BoolArray) -> Tails:
    made: dict[tuple[int, str], tails.Tail] = {}
    for kind, names in LANES.items():
        at = (steps.kind == kind) & keep
        for name in names:
            own = values[name][at]
            # A lane that never varies in the reference (no scores, no labels) says nothing.
            constant = own.size and float(own.min()) == float(own.max()) and name in {"margin", "flip"}
            made[kind, name] = tails.none(UNITS[name]) if constant else tails.fitted(own, UNITS[name])
    share = np.array([float(((steps.kind == kind) & keep).sum() + 1) for kind in (FRESH, EDIT, NEAR)])
    seldom = -np.log(share / (float(keep.sum()) + 3.0))
    largest = [int(steps.tree[keep & (steps.kind == kind)].max(initial=1)) for kind in (FRESH, EDIT, NEAR)]
    # The first query of a client shares with none.
    shared = steps.changed[keep & (steps.kind == FRESH) & ~steps.first]
    changes = max(float(np.median(shared)), 1.0) if shared.size else 16.0
    partial = Tails(made, {}, seldom, np.array(largest, dtype=np.int64), changes)
    total = sums(partial, steps, values)
    own_sums = {
        kind: tails.fitted(total[(steps.kind == kind) & keep], SUM_UNIT, SUM_CAP) for kind in (FRESH, EDIT, NEAR)
    }
    return replace(partial, sums=own_sums)


def _levels(start: AttackReference, queries: Queries, known: Tails) -> tuple[Steps, IntArray]:
    """Return the entries of all queries and each client's CUSUM at each; nothing depends on slices, so there is one."""
    table = Clients(capacity=max(len(np.unique(queries.client)), 1))
    steps = table.take(queries, start.tau)
    logs = evidence(known, steps, sums(known, steps, lane_values(steps, queries.lanes, start.sketch.step)))
    return steps, accumulate(table, steps, logs, 1 << 60, queries.time_us[steps.row]).level


def _highest(start: AttackReference, queries: Queries, known: Tails) -> dict[int, int]:
    """Return each client's largest CUSUM."""
    steps, level = _levels(start, queries, known)
    first = np.flatnonzero(steps.first)
    peak = np.maximum.reduceat(level, first)
    return dict(zip(queries.client[steps.row[first]].tolist(), peak.tolist(), strict=True))


def _bar(
    start: AttackReference,
    queries: Queries,
    steps: Steps,
    values: dict[str, FloatArray],
    client: HashArray,
    keep: BoolArray,
    whole: Tails,
    rate: float,
) -> float:
    """Return h: what theory asks, or the tail of excursions where the reference shows longer ones."""
    least = float(np.log(1.0 / rate))
    # Two-fold by client: nobody is judged by what he himself has taught.
    fold = (client >> np.uint64(7)) & np.uint64(1)
    maxima: list[float] = []
    for side in (0, 1):
        other = _tails(steps, values, keep & (fold != side))
        if any(not other.sums[kind].values.size and whole.sums[kind].values.size for kind in other.sums):
            other = whole  # half of the clients show too little of some kind
        mine = queries.some(((queries.client >> np.uint64(7)) & np.uint64(1)) == side)
        if mine.n:
            maxima += [value / UNIT for value in _excursions(start, mine, other)]
    if not maxima:
        return least
    ordered = np.sort(np.array(maxima))
    k = int(np.clip(len(ordered) // 20, 5, 40))
    if len(ordered) <= k:
        return least
    base = float(ordered[-k - 1])
    scale = max(float((ordered[-k:] - base).mean()), 0.1)
    by_tail = base + scale * float(np.log(max(k / (queries.n * rate), 1.0)))
    # Where little is asked for, what was seen bounds it; a smaller rate goes beyond that by as much as in theory.
    beyond = max(float(np.log(RATE / rate)), 0.0)
    return max(least, min(by_tail, 1.1 * float(ordered[-1]) + beyond))


def _excursions(start: AttackReference, queries: Queries, known: Tails) -> list[int]:
    """Return the height of every excursion of every client, from one return to 0 to the next."""
    steps, level = _levels(start, queries, known)
    peak = np.maximum.reduceat(level, np.flatnonzero(steps.first | (level <= 0)))
    return [int(value) for value in peak if value > 0]
