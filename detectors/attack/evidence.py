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
    "flip": 0.35,
}
LANES: dict[int, tuple[str, ...]] = {
    FRESH: ("novelty", "range", "residual", "distance", "dependence", "line", "margin"),
    EDIT: ("step", "changed off", "changed new", "tree", "flip"),
    NEAR: ("novelty", "range", "line", "step", "changed off", "tree", "flip"),
}
# With too few reference values of a kind only these speak, as multiples of their units.
BOLD = ("changed off", "changed new")
BOLD_CAP = 5.0
# These speak of the same values: the larger one counts, not both.
SAME = ("novelty", "changed off")
# A lane alone says at most 8.5: it takes two kinds of evidence to be sure.
LANE_BASE = 1.5
# Tiny steps alone are a finer sensor: they add at most so much to what the rest says.
STEP_ALONE = 2.5
SUM_UNIT, SUM_CAP = 2.0, 30.0
# A kind of query rarer than e^-4.6 in the reference is evidence by itself.
RARE_KIND = 4.6
KAPPA = 0.1
MOST_EVIDENCE = 20.0
# Evidence of a tree of edits is shared: a burst is one event, not as many as it has queries.
BURST = 3.0
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
    largest_tree: IntArray  # [3] of each kind in the reference
    changes: float  # blocks in which half of the reference's fresh queries differ from what they share most with


def lane_values(steps: Steps, own: LaneArray, step: float) -> dict[str, FloatArray]:
    """Return every lane of the entries of a slice; what does not apply to a kind is not read."""
    values = {name: own[steps.row, place].astype(np.float64) for place, name in enumerate(OWN_LANES)}
    near = np.where(np.isfinite(steps.distance), steps.distance, 0.0)
    values["step"] = -np.log(near * step + _STEP_FLOOR * step)
    values["changed off"], values["changed new"] = steps.changed_off, steps.changed_new
    values["tree"] = np.log(np.maximum(steps.tree, 1).astype(np.float64))
    values["flip"] = np.where(steps.flip, _FLIPPED + values["step"], 0.0)
    values["line"] = steps.line
    return values


def sums(tails: Tails, steps: Steps, values: dict[str, FloatArray]) -> FloatArray:
    """Return S of each entry: what its lanes say together."""
    total = np.zeros(len(steps.row))
    for kind, names in LANES.items():
        at = np.flatnonzero(steps.kind == kind)
        if not at.size:
            continue
        rest, step, grid = np.zeros(at.size), np.zeros(at.size), np.zeros(at.size)
        for name in names:
            tail = tails.lanes[kind, name]
            if tail.values.size:
                said = tail.of(values[name][at])
            elif name in BOLD:
                said = np.minimum(values[name][at] / UNITS[name], BOLD_CAP)
            else:
                continue
            said = np.maximum(said - LANE_BASE, 0.0)
            if name == "step":
                step = said
            elif name in SAME:
                grid = np.maximum(grid, said)
            else:
                rest += said
        rest += grid
        total[at] = rest + np.minimum(step, rest + STEP_ALONE)
    return total


def evidence(tails: Tails, steps: Steps, total: FloatArray) -> IntArray:
    """Return the evidence of each entry in units of 2^-20 nats."""
    found = np.zeros(len(total))
    for kind, tail in tails.sums.items():
        at = np.flatnonzero(steps.kind == kind)
        if at.size:
            seldom = max(float(tails.seldom[kind]) - RARE_KIND, 0.0)
            found[at] = (tail.of(total[at]) if tail.values.size else total[at]) + seldom
    logs = np.minimum(np.log(KAPPA) + (1.0 - KAPPA) * found, MOST_EVIDENCE)
    child = (steps.kind != FRESH) & (logs > 0)
    # Twice as large as any of the reference, a tree is no burst any more: its evidence counts in full again.
    size = np.where(steps.tree > 2 * tails.largest_tree[steps.kind], 1, steps.tree)
    logs = np.where(child, logs / (1.0 + (size - 1) / BURST), logs)
    # What a query has in common with one before it was evidence then, and is not again.
    again = (steps.kind == FRESH) & (logs > 0)
    logs = np.where(again, logs * np.minimum(steps.changed / tails.changes, 1.0) ** 2, logs)
    return np.asarray(np.rint(logs * UNIT).astype(np.int64))


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
    over = level > bar
    index = np.arange(n)
    zero = np.maximum.accumulate(np.where(level <= 0, index, -1))
    since = np.where(zero >= start[who], zero, start[who] - 1)  # the last zero, or all of the slice
    counted = np.r_[0, np.cumsum(over)]
    earlier = counted[index] - counted[since + 1]  # entries over the bar since then, without this one
    silent = (since < start[who]) & table.told[slot][who]
    alarm = over & (earlier == 0) & ~silent
    ends = start + length - 1
    table.sum[slot] = level[ends]
    again = earlier[ends] + over[ends] > 0
    table.told[slot] = again | ((since[ends] < start) & table.told[slot])
    # An excursion that was under way before the slice goes on from what the table knows of it.
    under_way = (since < start[who]) & (table.since_count[slot][who] > 0)
    began = np.where(under_way, table.since_us[slot][who], time_us[np.minimum(since + 1, n - 1)])
    count = index - since + np.where(under_way, table.since_count[slot][who], 0)
    count = np.where(level > 0, count, 0)
    table.since_us[slot], table.since_count[slot] = began[ends], count[ends]
    return Sums(level, alarm, began, count)
