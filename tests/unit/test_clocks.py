"""Which traffic fills blocks, so that a calibrated threshold speaks of them."""

from __future__ import annotations

import numpy as np
import pytest

from regate.detectors.cells import BLOCK_EVENTS, Block
from regate.detectors.clocks import EventClock, RowClock

MONTH_US = 30 * 86_400 * 1_000_000


@pytest.mark.parametrize("rate", [0.001, 0.1, 1.0, 50.0])
def test_blocks_last_until_a_tenth_of_the_traffic_fills_them(rate: float) -> None:
    clock = EventClock(MONTH_US, rate)
    assert clock.full_blocks()
    assert clock.block_cells() * rate * 0.1 >= BLOCK_EVENTS or clock.block_cells() == 86_400
    assert clock.block_cells() >= 60


def test_unknown_traffic_fills_nothing() -> None:
    assert not EventClock(MONTH_US).full_blocks()


def test_the_traffic_of_the_last_day_counts_not_the_profiles() -> None:
    clock = EventClock(MONTH_US, 50.0)
    for minute in range(120):
        block = Block(0, minute * 60, minute * 60 + 59, np.array([6]), 0)
        clock.note(block)
        clock.share(block)
    assert not clock.full_blocks()
    # What is a fiftieth of one profile's traffic is a tenth of another's.
    clock.events_per_second = 1.0
    assert clock.full_blocks()


def test_rows_are_counted_off() -> None:
    assert RowClock(1e6, rows=10).full_blocks()
