"""How often the alarm statistic passes a level when nothing changes, by simulation.

Traffic enters only as a unit: with R counted in blocks (a head start of 1 a block) the run length to
level A is one curve, and the threshold for t blocks a period is A / t.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from regate.detectors.bootstrap import Blocks
from regate.detectors.columns import FloatArray, IntArray

# How often progress is told.
_TELL_EVERY = 2000


@dataclass(frozen=True)
class Exceedances:
    """Per level: how many alarms in how many blocks, and by which chart."""

    level: FloatArray
    alarms: IntArray
    blocks: IntArray
    by_chart: IntArray  # [levels, charts]
    steps: int


class Way(StrEnum):
    """What a simulated stream is made of."""

    WORLDS = "worlds"  # each stream lives in one world
    LATE = "late"  # long circular segments of the second half: what moves slowly stays together
    LATE_SHORT = "late_short"  # short ones: what happened far apart may come close together


# Blocks of a short segment.
SHORT_SEGMENT = 4


@dataclass(frozen=True)
class Plan:
    """What to simulate: ``lanes[l]`` independent streams against each level, for ``steps`` blocks."""

    level: FloatArray
    lanes: IntArray
    steps: int
    way: Way
    seed: tuple[int, ...]


@dataclass(frozen=True)
class Odds:
    """E of each block and grid point, and whose points they are."""

    evidence: FloatArray
    point_weight: FloatArray
    point_chart: IntArray
    charts: int


def simulate(odds: Odds, blocks: Blocks, plan: Plan, tell: Callable[[float], None]) -> Exceedances:
    """Run the plan; an alarm restarts its stream."""
    rng = np.random.default_rng(plan.seed)
    level_of = np.repeat(np.arange(plan.level.size), plan.lanes)
    bar = plan.level[level_of]
    draw = _worlds(blocks, plan.lanes, rng) if plan.way is Way.WORLDS else _late(blocks, rng)
    length = min(SHORT_SEGMENT, blocks.segment_blocks) if plan.way is Way.LATE_SHORT else blocks.segment_blocks
    at = draw(np.arange(bar.size))
    left = rng.integers(1, length + 1, size=bar.size)  # so that not all change segment at once
    r = np.zeros((bar.size, odds.point_weight.size))
    taken = np.empty_like(r)
    alarms = np.zeros(plan.level.size, dtype=np.int64)
    by_chart = np.zeros((plan.level.size, odds.charts), dtype=np.int64)
    for step in range(plan.steps):
        np.take(odds.evidence, at, axis=0, out=taken, mode="clip")
        r += odds.point_weight
        r *= taken
        hit = r.sum(axis=1) >= bar
        if hit.any():
            lane = np.flatnonzero(hit)
            np.add.at(alarms, level_of[lane], 1)
            np.add.at(by_chart, (level_of[lane], odds.point_chart[r[lane].argmax(axis=1)]), 1)
            r[lane] = 0.0
        at = blocks.following[at]
        left -= 1
        over = np.flatnonzero(left <= 0)
        if over.size:
            at[over] = draw(over)
            left[over] = length
        if step % _TELL_EVERY == 0:
            tell(step / plan.steps)
    return Exceedances(plan.level, alarms, plan.lanes * plan.steps, by_chart, plan.steps)


Draw = Callable[[IntArray], IntArray]


def _late(blocks: Blocks, rng: np.random.Generator) -> Draw:
    def draw(lanes: IntArray) -> IntArray:
        return np.asarray(blocks.late[rng.integers(blocks.late.size, size=lanes.size)])

    return draw


def _worlds(blocks: Blocks, lanes_of_level: IntArray, rng: np.random.Generator) -> Draw:
    worlds, starts = blocks.worlds.shape
    # Every level meets the same worlds, so that levels can be compared.
    world = np.concatenate([np.arange(count) for count in lanes_of_level]) % worlds

    def draw(lanes: IntArray) -> IntArray:
        return np.asarray(blocks.worlds[world[lanes], rng.integers(starts, size=lanes.size)])

    return draw
