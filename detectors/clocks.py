"""What time is to the charts of one model: event time in the daemon, rows in a backtest.

A clock turns blocks into marks (what a finding calls its onset and its end), into the share of the
budget period that has passed, and into the traffic that the threshold belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from regate.detectors.cells import BLOCK_CELLS, BLOCK_EVENTS, CELL_US, Block, block_cells
from regate.detectors.columns import IntArray

HOUR_US = 3_600_000_000
DAY_HOURS = 24
# Thresholds are calibrated on full blocks. Where time cut blocks of 64 to 42, 30, 15 and 6 events, they gave 1.5, 1.5,
# 3.3 and 3.6 times the budget; with 60 they gave .7.
FULL_SHARE = 0.9


class Clock(Protocol):
    """Blocks as marks, shares of the budget period and traffic."""

    def first(self, block: Block) -> int:
        """Return the mark where the block begins."""

    def last(self, block: Block) -> int:
        """Return the mark of the last thing inside the block."""

    def note(self, block: Block) -> None:
        """Count the block towards the traffic."""

    def share(self, block: Block) -> float:
        """Return the share of the budget period since the last block; call once a block, in order."""

    def traffic(self) -> float | None:
        """Return events a budget period, or None as long as it is not known."""

    def block_cells(self) -> int:
        """Return how many cells a block may span."""

    def full_blocks(self) -> bool:
        """Tell whether blocks have about the events that thresholds are calibrated on."""

    def cell(self, mark: int) -> int:
        """Return the cell that a mark lies in."""


@dataclass(slots=True)
class RowClock:
    """Rows in file order. Marks are row numbers; a block of rows stands for a minute: cells are multiples of 60."""

    budget_events: float
    rows: int  # of the whole file: the last block may be shorter
    offset: int = 0  # row number of cell 0's first row

    def first(self, block: Block) -> int:
        """Return the row where the block begins."""
        return self.offset + block.first // BLOCK_CELLS * BLOCK_EVENTS

    def last(self, block: Block) -> int:
        """Return the last row of the block."""
        return min(self.offset + (block.last // BLOCK_CELLS + 1) * BLOCK_EVENTS, self.rows) - 1

    def note(self, block: Block) -> None:
        """Do nothing: the traffic is given."""

    def share(self, block: Block) -> float:
        """Return rows of the block over rows of the budget."""
        return max(block.events, 1) / self.budget_events

    def traffic(self) -> float | None:
        """Return the events of the budget period."""
        return self.budget_events

    def block_cells(self) -> int:
        """Return what strata of a few rows a cell are joined over."""
        return BLOCK_CELLS

    def full_blocks(self) -> bool:
        """Return True: blocks are counted off."""
        return True

    def cell(self, mark: int) -> int:
        """Return the cell of a row."""
        return (mark - self.offset) // BLOCK_EVENTS * BLOCK_CELLS


def row_cells(row: IntArray) -> IntArray:
    """Return the cells of rows, counted from the first one watched: a block of rows stands for a minute.

    >>> import numpy as np
    >>> row_cells(np.array([63, 64, 130])).tolist()
    [0, 60, 120]
    """
    return row // BLOCK_EVENTS * BLOCK_CELLS


@dataclass(slots=True)
class EventClock:
    """Event time. Marks are microseconds since the epoch; traffic is that of the last day."""

    period_us: int
    events_per_second: float | None = None  # of the profile, until the first hour was watched
    ended_us: int | None = None  # end of the last block
    started_us: int | None = None
    hours: dict[int, int] = field(default_factory=dict)  # hour since the epoch -> events
    block_events: int = BLOCK_EVENTS  # what the profile's thresholds are calibrated on

    def first(self, block: Block) -> int:
        """Return the time where the block's first cell begins."""
        return block.first * CELL_US

    def last(self, block: Block) -> int:
        """Return the time where the block's last cell ends."""
        return (block.last + 1) * CELL_US

    def note(self, block: Block) -> None:
        """Add the block's events to its hour; forget what is older than a day."""
        if self.started_us is None:
            self.started_us = self.first(block)
        hour = self.first(block) // HOUR_US
        self.hours[hour] = self.hours.get(hour, 0) + block.events
        newest = max(self.hours)
        for old in [old for old in self.hours if old <= newest - DAY_HOURS]:
            del self.hours[old]

    def share(self, block: Block) -> float:
        """Return the time since the last block ended over the budget period, > 0."""
        end = self.last(block)
        before = self.first(block) if self.ended_us is None else self.ended_us
        self.ended_us = max(end, before)
        return max(end - before, 1) / self.period_us

    def traffic(self) -> float | None:
        """Return the events of the last day, scaled to the period; the profile's figure in the first hour."""
        watched_us = 0 if self.ended_us is None or self.started_us is None else self.ended_us - self.started_us
        if watched_us < HOUR_US:
            known = self.events_per_second
            return None if known is None else known * self.period_us / 1e6
        newest = max(self.hours)
        start_us = max((newest - DAY_HOURS + 1) * HOUR_US, self.started_us or 0)
        span_us = max((self.ended_us or 0) - start_us, HOUR_US)
        return sum(self.hours.values()) * self.period_us / span_us

    def block_cells(self) -> int:
        """Return a minute, or longer for a profile whose traffic is low."""
        return block_cells(self.events_per_second, self.block_events)

    def full_blocks(self) -> bool:
        """Return whether this traffic fills blocks before time cuts them."""
        traffic = self.traffic()
        longest = self.block_cells() * CELL_US / self.period_us
        return traffic is not None and traffic * longest >= FULL_SHARE * self.block_events

    def cell(self, mark: int) -> int:
        """Return the cell of a time."""
        return mark // CELL_US
