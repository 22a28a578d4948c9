"""The shape of traffic in time: how much the number of events changes from one second to the next.

Not how many there are: a model that is asked ten times as often is not another population. For traffic without
memory ``(now - before)^2 / (now + before)`` is 1 on average at any rate. Where the reference is burstier than that,
the squared log ratio of the two counts is used, which does not depend on the rate there either.

A second counts when the one before it had events too. Seconds are whole only when their cells close, so decide adds
them to the statistics; a view has this source only for a reference, where its rows say all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from regate.detectors.cells import CELL_US, Closed
from regate.detectors.columns import Column, FloatArray, IntArray, Numeric
from regate.detectors.sections import OUTSIDE, PRESENT, SUM_Z, SUM_Z2, NumericSpec, Section

COUNTS, RATIOS = "rhythm/counts", "rhythm/ratios"
# With fewer events a second a count says little of its shape.
LEAST_A_SECOND = 4.0
# Traffic this much burstier than without memory is told by ratios.
BURSTY = 2.0
NO_CELL = -(1 << 62)


@dataclass(slots=True)
class Pace:
    """The last second that closed."""

    cell: int = NO_CELL
    events: int = 0


def bursts(source: str, now: IntArray, before: IntArray) -> FloatArray:
    """Return by how much counts of events differ.

    >>> bursts(COUNTS, np.array([30, 10]), np.array([10, 10])).tolist()
    [10.0, 0.0]
    """
    if source == COUNTS:
        return np.asarray((now - before) ** 2 / np.maximum(now + before, 1))
    return np.asarray(np.log((now + 0.5) / (before + 0.5)) ** 2)


def sources(event_time_us: IntArray) -> dict[str, Column]:
    """Return both sources of reference rows: the value of a second at its first row, missing elsewhere."""
    seconds, first, count = np.unique(event_time_us // CELL_US, return_index=True, return_counts=True)
    follows = np.flatnonzero(np.diff(seconds) == 1) + 1
    found: dict[str, Column] = {}
    for source in (COUNTS, RATIOS):
        values = np.full(event_time_us.size, np.nan)
        values[first[follows]] = bursts(source, count[follows], count[follows - 1])
        found[source] = Numeric(values)
    return found


def source_for(event_time_us: IntArray) -> str | None:
    """Return the source that suits this traffic, None where a second has too few events."""
    seconds, count = np.unique(event_time_us // CELL_US, return_counts=True)
    follows = np.flatnonzero(np.diff(seconds) == 1) + 1
    if not follows.size or float(count[follows].mean()) < LEAST_A_SECOND:
        return None
    return RATIOS if float(bursts(COUNTS, count[follows], count[follows - 1]).mean()) > BURSTY else COUNTS


def section_of(sections: Sequence[Section]) -> NumericSpec | None:
    """Return the section of the rhythm, None where a layout has none."""
    return next((one for one in sections if isinstance(one, NumericSpec) and one.source in {COUNTS, RATIOS}), None)


def counted(spec: NumericSpec, closed: Closed, pace: Pace) -> Closed:
    """Return closed cells with their rhythm added, each to the first row of its second; moves ``pace`` on."""
    if not len(closed):
        return closed
    first = np.flatnonzero(np.r_[True, np.diff(closed.cell) != 0])
    cell, events = closed.cell[first], np.add.reduceat(closed.stats[:, 0], first)
    before_cell, before = np.r_[pace.cell, cell[:-1]], np.r_[pace.events, events[:-1]]
    pace.cell, pace.events = int(cell[-1]), int(events[-1])
    at = np.flatnonzero((before_cell == cell - 1) & (events > 0) & (before > 0))
    if not at.size:
        return closed
    stats = closed.stats.copy()
    values = bursts(spec.source, events[at], before[at])
    rows, stratum = first[at], closed.stratum[first[at]]
    for which in np.unique(stratum):
        table, own = spec.tables[int(which)], stratum == which
        cells = table.cells(values[own])
        z, z2 = table.scores
        here = rows[own]
        stats[here, spec.first + PRESENT] += 1
        stats[here, spec.first + SUM_Z] += z[cells].astype(np.int64)
        stats[here, spec.first + SUM_Z2] += z2[cells].astype(np.int64)
        stats[here, spec.first + OUTSIDE] += (cells == 0) | (cells >= table.edges.size)
    return replace(closed, stats=stats)
