"""From lanes to evidence: tails by kind of query, a sum that wants company, and a CUSUM for each client."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.attack.clients import EDIT, FRESH, NEAR, Clients, Steps
from regate.detectors.attack.queries import LaneArray
from regate.detectors.attack.tails import Tail
from regate.detectors.columns import BoolArray, FloatArray, IntArray

# Lanes that need no memory, in the order in which queries carry them.
OWN_LANES = ("novelty", "range", "residual", "distance", "dependence", "margin")
# Each lane with the unit below which differences mean nothing.
UNITS = {
    "novelty": 3.0,
    "range": 1.0,
    "residual": 0.5,
    "distance": 0.5,
    "dependence": 2.0,
    "line": 0.7,
    "margin": 0.7,
    "step": 0.35,
    "changed off": 3.0,
    "changed new": 3.0,
    "tree": 0.25,
    "spread": 0.35,
    "flip": 0.35,
}
LANES: dict[int, tuple[str, ...]] = {
    FRESH: ("novelty", "range", "residual", "distance", "dependence", "line", "margin"),
    EDIT: ("step", "changed off", "changed new", "tree", "spread", "flip"),
    NEAR: ("novelty", "line", "step", "changed off", "tree", "flip"),
}
# With too few reference values of a kind only these speak, as multiples of their units.
BOLD = ("changed off", "changed new")
BOLD_CAP = 5.0
# These speak of the same, of values off the lattice or of values that do not go together: the largest counts, not all.
SAME = (("novelty", "changed off"), ("residual", "dependence"))
# A lane alone says at most 8.5: it takes two kinds of evidence to be sure.
LANE_BASE = 1.5
# Many tiny steps alone are a finer sensor that is read for longer: they add at most so much to what the rest says.
MANNER_ALONE = 2.5
# Nats that such a query takes off: a sensor that is read for long would else keep what it once had for ever.
MANNER_DECAY = 0.15
SUM_UNIT, SUM_CAP = 2.0, 30.0
# A kind of query rarer than e^-4.6 in the reference is evidence by itself.
RARE_KIND = 4.6
KAPPA = 0.1
MOST_EVIDENCE = 20.0
# Evidence of a tree of edits is shared: a burst is one event, not as many as it has queries.
BURST = 3.0
# How values go together counts as far as a query is unlike the one before it (`resemblance`), or as far as its values
# alone are odd: nats of novelty beyond the base.
TOGETHER = ("residual", "distance", "dependence")
UNLIKE = "unlike"
ODD_VALUES, VERY_ODD_VALUES = 4.0, 8.0
# Evidence adds up in whole units, so that it does not depend on how queries are cut into slices.
UNIT = float(1 << 20)
_FLIPPED = 20.0
_STEP_FLOOR = 0.3


@dataclass(frozen=True, slots=True)
class Tails:
    """Tails of every lane and of the sum, by kind; ``seldom`` is -ln of a kind's share of the reference."""

    lanes: dict[tuple[int, str], Tail]
    sums: dict[int, Tail]
    seldom: FloatArray  # [3]
    largest_tree: IntArray  # [3] of each kind in the reference: turns of edits, size of others
    changes: float  # blocks in which half of the reference's fresh queries differ from what they share most with


def lane_values(steps: Steps, own: LaneArray, step: float, unlike: FloatArray) -> dict[str, FloatArray]:
    """Return every lane of the entries of a slice; what does not apply to a kind is not read.

    :param own: lanes of the slice's queries that need no memory.
    :param unlike: of each query of the slice.
    """
    values = {name: own[steps.row, place].astype(np.float64) for place, name in enumerate(OWN_LANES)}
    near = np.where(np.isfinite(steps.distance), steps.distance, 0.0)
    values["step"] = -np.log(near * step + _STEP_FLOOR * step)
    values["changed off"], values["changed new"] = steps.changed_off, steps.changed_new
    values["tree"] = np.log(counted(steps).astype(np.float64))
    values["spread"] = -np.log(steps.spread * step + _STEP_FLOOR * step)  # no turn, no value: -inf
    values["flip"] = np.where(steps.flip, _FLIPPED + values["step"], 0.0)
    values["line"] = steps.line
    values[UNLIKE] = unlike[steps.row]
    return values


def counted(steps: Steps) -> IntArray:
    """Return how large the tree of each entry is: edits count by turns, as a sweep is one however long it is."""
    return np.asarray(np.where(steps.kind == EDIT, steps.turns + 1, steps.tree))


def sums(tails: Tails, steps: Steps, values: dict[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Return S of each entry, what its lanes say together; and the same without what manner alone says."""
    total, bare = np.zeros(len(steps.row)), np.zeros(len(steps.row))
    for kind, names in LANES.items():
        at = np.flatnonzero(steps.kind == kind)
        if not at.size:
            continue
        said = {name: _said(tails.lanes[kind, name], name, values[name][at]) for name in names}
        if kind == FRESH:
            # A join of cases as they are is excused, not one of values that nobody has.
            odd = np.clip((said["novelty"] - ODD_VALUES) / (VERY_ODD_VALUES - ODD_VALUES), 0.0, 1.0)
            said |= {name: said[name] * np.maximum(values[UNLIKE][at], odd) for name in TOGETHER}
        none = np.zeros(at.size)
        grid, joint = (np.maximum.reduce([said.pop(name, none) for name in same]) for same in SAME)
        flip, step, tree = (said.pop(name, none) for name in ("flip", "step", "tree"))
        far = np.minimum(said.pop("distance", none), grid + said.get("range", none))
        rest = sum(said.values(), grid + joint + far + flip)
        step = np.maximum(step - flip, 0.0)  # a flip is the rarer the smaller its step: both speak of the same step
        bare[at] = rest + np.minimum(step + (tree if kind == NEAR else 0.0), rest)
        total[at] = rest + np.minimum(step + tree, rest + MANNER_ALONE)
    return total, bare


def _said(tail: Tail, name: str, values: FloatArray) -> FloatArray:
    if not tail.values.size and name in BOLD:
        return np.maximum(np.minimum(values / UNITS[name], BOLD_CAP) - LANE_BASE, 0.0)
    return tail.beyond(values, LANE_BASE)


def evidence(tails: Tails, steps: Steps, both: tuple[FloatArray, FloatArray]) -> IntArray:
    """Return the evidence of each entry in units of 2^-20 nats, of its sums."""
    logs = _logs(tails, steps.kind, both[0])
    logs = np.where(both[1] > 0, logs, np.minimum(logs, -MANNER_DECAY))  # manner alone never adds up to a finding
    # A tree is one event, not as many as it has queries: a burst. Its evidence is shared ...
    shared = (steps.kind != FRESH) & (logs > 0)
    slowly = np.where((steps.kind == EDIT) & (steps.turns == 0), 1.0, BURST)
    logs = np.where(shared, logs / (1.0 + (steps.tree - 1) / slowly), logs)
    # ... and beyond what the reference shows it is no burst any more: what its queries say counts in full again, but
    # not their manner alone. Edits count by turns; sensors may be read for longer, but not for twice as long.
    most = tails.largest_tree[steps.kind] * np.where(steps.kind == NEAR, 2, 1)
    longer = np.flatnonzero(shared & (counted(steps) > most))
    logs[longer] = np.maximum(logs[longer], _logs(tails, steps.kind[longer], both[1][longer]))
    # What a query has in common with one before it was evidence then, and is not again.
    again = (steps.kind == FRESH) & (logs > 0)
    logs = np.where(again, logs * np.minimum(steps.changed / tails.changes, 1.0) ** 2, logs)
    return np.asarray(np.rint(logs * UNIT).astype(np.int64))


def _logs(tails: Tails, which: IntArray, total: FloatArray) -> FloatArray:
    found = np.zeros(len(total))
    for kind, tail in tails.sums.items():
        at = np.flatnonzero(which == kind)
        if at.size:
            seldom = max(float(tails.seldom[kind]) - RARE_KIND, 0.0)
            found[at] = (tail.of(total[at]) if tail.values.size else total[at]) + seldom
    return np.asarray(np.minimum(np.log(KAPPA) + (1.0 - KAPPA) * found, MOST_EVIDENCE))


@dataclass(frozen=True, slots=True)
class Sums:
    """The CUSUM of each entry, and which entries are findings."""

    level: IntArray
    alarm: BoolArray
    since_us: IntArray  # time of the first entry since the last 0
    count: IntArray  # entries since then


def accumulate(table: Clients, steps: Steps, logs: IntArray, bar: int, time_us: IntArray) -> Sums:
    """Add evidence to each client's CUSUM; a client is told once, and again when its evidence was back at 0."""
    n = len(logs)
    if not n:
        none: IntArray = np.zeros(0, dtype=np.int64)
        return Sums(none, np.zeros(0, dtype=np.bool_), none, none)
    start = np.flatnonzero(steps.first)
    length = np.diff(np.r_[start, n])
    who = np.repeat(np.arange(len(start)), length)
    slot = steps.slot[start]
    total = np.cumsum(logs)
    walk = total - (total[start] - logs[start])[who] + table.sum[slot][who]
    # max(0, W + e) is the walk less its lowest point so far, if that is below 0; by client, so far apart from others.
    apart = int(np.abs(walk).max()) * 2 + 1
    lowest = np.minimum.accumulate(walk - who * apart) + who * apart
    level = walk - np.minimum(lowest, 0)
    index = np.arange(n)
    zero = np.maximum.accumulate(np.where(level <= 0, index, -1))
    since = np.where(zero >= start[who], zero, start[who] - 1)  # the last zero, or all of the slice
    # An excursion that was under way before the slice goes on from what the table knows of it.
    under_way = (since < start[who]) & (table.since_count[slot][who] > 0)
    count = index - since + np.where(under_way, table.since_count[slot][who], 0)
    count = np.where(level > 0, count, 0)
    over = level > bar
    counted = np.r_[0, np.cumsum(over)]
    earlier = counted[index] - counted[since + 1]  # entries over the bar since then, without this one
    silent = (since < start[who]) & table.told[slot][who]
    alarm = over & (earlier == 0) & ~silent
    ends = start + length - 1
    table.sum[slot] = level[ends]
    again = earlier[ends] + over[ends] > 0
    table.told[slot] = again | ((since[ends] < start) & table.told[slot])
    began = np.where(under_way, table.since_us[slot][who], time_us[np.minimum(since + 1, n - 1)])
    table.since_us[slot], table.since_count[slot] = began[ends], count[ends]
    return Sums(level, alarm, began, count)
