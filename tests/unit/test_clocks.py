"""Which traffic fills blocks, so that a calibrated threshold speaks of them."""

from __future__ import annotations

import numpy as np
import pytest

from regate.detectors.cells import Block
from regate.detectors.clocks import EventClock, RowClock

MONTH_US = 30 * 86_400 * 1_000_000


@pytest.mark.parametrize(("rate", "full"), [(0.1, False), (0.9, False), (1.0, True), (50.0, True)])
def test_a_minute_must_hold_about_a_block(rate: float, full: bool) -> None:
    assert EventClock(MONTH_US, rate).full_blocks() is full


def test_unknown_traffic_fills_nothing() -> None:
    assert not EventClock(MONTH_US).full_blocks()


def test_the_traffic_of_the_last_day_counts_not_the_profiles() -> None:
    clock = EventClock(MONTH_US, 50.0)
    for minute in range(120):
        block = Block(0, minute * 60, minute * 60 + 59, np.array([6]), 0)
        clock.note(block)
        clock.share(block)
    assert not clock.full_blocks()


def test_rows_are_counted_off() -> None:
    assert RowClock(1e6, rows=10).full_blocks()
