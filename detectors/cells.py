"""Cells and blocks: one second of event time with mergeable integers, and closed cells joined to blocks.

Fragments of a cell add up whatever their order, partition or slicing; closed cells come in order of
(cell, stratum), and a block is a function of that sequence alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from regate.config.canonical import canonical_json
from regate.detectors.columns import IntArray, ModelKey
from regate.detectors.layout import Layout

CELL_US = 1_000_000
# A change waits for the end of its block, half a block on average: with 64 that alone was more than an oracle needs.
BLOCK_EVENTS = 16
BLOCK_CELLS = 60  # a block spans at most a minute of event time, or longer where traffic is low
LONGEST_CELLS = 86_400
# Down to this share of the profile's traffic a block holds `BLOCK_EVENTS`; thresholds are calibrated no further.
LEAST_TRAFFIC = 0.1
# A dense table of (cell, stratum) beats sorting as long as it is not much longer than the slice.
_DENSE_FACTOR = 4
_DENSE_LEAST = 4096

StratumArray = npt.NDArray[np.int16]


def layout_digest(layout: Layout) -> str:
    """Return the address of what statistics depend on: fragments of equal layouts add up.

    A profile whose weights or margins differ has another digest, but its fragments are the same.
    """
    shape = layout.shape
    state = hashlib.sha256(canonical_json([layout.strata, layout.time_zone, shape.positive, shape.cohorts]))
    for section in (*layout.sections, *layout.outcome_sections):
        meta, arrays = section.pack()
        state.update(canonical_json([section.type, section.first, meta]))
        for name in sorted(arrays):
            state.update(np.ascontiguousarray(arrays[name]).tobytes())
    return state.hexdigest()


def block_cells(events_per_second: float | None, events: int = BLOCK_EVENTS) -> int:
    """Return how many cells a block may span, so that a tenth of the profile's traffic still fills it.

    >>> block_cells(None), block_cells(100.0), block_cells(1.0)
    (60, 60, 160)
    """
    if events_per_second is None or events_per_second <= 0:
        return BLOCK_CELLS
    wanted = math.ceil(min(events / (LEAST_TRAFFIC * events_per_second), LONGEST_CELLS))
    return max(BLOCK_CELLS, wanted)


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows grouped by (cell, stratum): ``group[row]`` indexes ``cell`` and ``stratum``, both ascending."""

    group: IntArray
    cell: IntArray
    stratum: StratumArray


def group_rows(cell: IntArray, stratum: StratumArray) -> Groups:
    """Group rows by cell and stratum (at least one row)."""
    low = int(cell.min())
    width = int(stratum.max()) + 1
    place = cell - low if width == 1 else (cell - low) * width + stratum
    size = int(place.max()) + 1
    if size == 1:
        found: IntArray = np.zeros(1, dtype=np.int64)
        group: IntArray = np.zeros(len(cell), dtype=np.int64)
    elif size <= _DENSE_FACTOR * len(cell) + _DENSE_LEAST:
        found = np.flatnonzero(np.bincount(place, minlength=size)).astype(np.int64)
        number: IntArray = np.zeros(size, dtype=np.int64)
        number[found] = np.arange(len(found))
        group = number[place]
    else:
        found, group = np.unique(place, return_inverse=True)
    return Groups(group, found // width + low, (found % width).astype(np.int16))


@dataclass(frozen=True, slots=True)
class Fragments:
    """What one step of one observe shard adds to the cells of one model version."""

    key: ModelKey
    layout: str  # `layout_digest` of the profile; "" while the model has none: stats then count events only
    cell: IntArray  # [F]
    stratum: StratumArray  # [F]
    stats: IntArray  # [F, D]; column 0 counts events
    historical: IntArray  # [F] events that were older than max_event_age at arrival
    last_arrival_us: int = 0
    counters: dict[str, int] = field(default_factory=dict)  # duplicate, late, future, historical


@dataclass(frozen=True, slots=True)
class Closed:
    """Merged statistics of cells, one row a (cell, stratum), ascending."""

    cell: IntArray
    stratum: StratumArray
    stats: IntArray
    historical: IntArray

    def __len__(self) -> int:
        return len(self.cell)


class OpenCells:
    """The cells of one model that wait for their watermark; fragments are added up on the way out."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._waiting: list[Closed] = []

    def add(self, rows: Closed) -> None:
        """Take rows of any cells, merged or not."""
        if len(rows):
            self._waiting.append(rows)

    def merged(self) -> Closed:
        """Return everything that waits, added up."""
        if not self._waiting:
            return _empty(self.width)
        if len(self._waiting) > 1 or not _ascending(self._waiting[0]):
            self._waiting = [_merge(self._waiting)]
        return self._waiting[0]

    def last(self) -> int | None:
        """Return the newest cell that waits."""
        return max((int(rows.cell.max()) for rows in self._waiting), default=None)

    def close(self, limit: int) -> Closed:
        """Remove and return the cells before ``limit``."""
        if not any(int(rows.cell.min()) < limit for rows in self._waiting):
            return _empty(self.width)
        everything = self.merged()
        cut = int(np.searchsorted(everything.cell, limit))
        self._waiting = [_rows(everything, slice(cut, None))] if cut < len(everything) else []
        return _rows(everything, slice(0, cut))


def _empty(width: int) -> Closed:
    none: IntArray = np.zeros(0, dtype=np.int64)
    return Closed(none, np.zeros(0, dtype=np.int16), np.zeros((0, width), dtype=np.int64), none)


def _rows(rows: Closed, cut: slice) -> Closed:
    return Closed(rows.cell[cut], rows.stratum[cut], rows.stats[cut], rows.historical[cut])


def _ascending(rows: Closed) -> bool:
    step, within = np.diff(rows.cell), np.diff(rows.stratum)
    return bool(np.all((step > 0) | ((step == 0) & (within > 0))))


def _merge(parts: list[Closed]) -> Closed:
    cell = np.concatenate([part.cell for part in parts])
    stratum = np.concatenate([part.stratum for part in parts])
    order = np.lexsort((stratum, cell))
    cell, stratum = cell[order], stratum[order]
    new = np.flatnonzero(np.concatenate([[True], (np.diff(cell) != 0) | (np.diff(stratum) != 0)]))
    stats = np.add.reduceat(np.concatenate([part.stats for part in parts])[order], new, axis=0)
    historical = np.add.reduceat(np.concatenate([part.historical for part in parts])[order], new)
    return Closed(cell[new], stratum[new], stats, historical)


@dataclass(slots=True)
class Block:
    """Joined cells of one stratum, ``first`` to ``last`` inclusive."""

    stratum: int
    first: int
    last: int
    stats: IntArray  # [D]
    historical: int

    @property
    def events(self) -> int:
        """Return the number of telemetry events."""
        return int(self.stats[0])


class Joiner:
    """Joins closed cells of one stratum until a block holds ``events`` or spans ``cells``."""

    def __init__(self, cells: int = BLOCK_CELLS, events: int = BLOCK_EVENTS) -> None:
        self.forming: dict[int, Block] = {}
        self.cells, self.events = cells, events

    def take(self, closed: Closed, limit: int) -> Iterator[Block]:
        """Take closed cells in order, then everything up to cell ``limit``; yield the blocks that end."""
        for row in range(len(closed)):
            cell, stratum = int(closed.cell[row]), int(closed.stratum[row])
            yield from self._overdue(cell)
            block = self.forming.get(stratum)
            if block is None:
                block = Block(stratum, cell, cell, closed.stats[row].copy(), int(closed.historical[row]))
                self.forming[stratum] = block
            else:
                block.last = cell
                block.stats += closed.stats[row]
                block.historical += int(closed.historical[row])
            if block.events >= self.events:
                yield self.forming.pop(stratum)
        yield from self._overdue(limit)

    def _overdue(self, cell: int) -> Iterator[Block]:
        if not self.forming:
            return
        due = sorted(
            (block.first, stratum) for stratum, block in self.forming.items() if block.first + self.cells <= cell
        )
        for _, stratum in due:
            yield self.forming.pop(stratum)
