"""The only place of the shell where time is read, so that a simulation can own it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, monotonic time for durations."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()


class ManualClock:
    """A clock that moves when told to: simulations and tests."""

    def __init__(self, now_ms: int = 1_750_000_000_000) -> None:
        self._start = self._now = now_ms

    def now_ms(self) -> int:
        """Return the set time."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds since the clock was made."""
        return (self._now - self._start) / 1000

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += round(seconds * 1000)
