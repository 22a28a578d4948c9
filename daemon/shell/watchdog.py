"""A thread that ends the process when a step hangs: calls around a commit have no timeout of their own."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

from regate.daemon.shell.counters import Counters

EXIT_HUNG = 75  # like RetryableError: the supervisor starts us again, recovery does the rest


def _end(role: str, seconds: float) -> NoReturn:
    sys.stderr.write(f'{{"event":"watchdog","role":"{role}","seconds":{seconds:.1f},"level":"error"}}\n')
    sys.stderr.flush()
    os._exit(EXIT_HUNG)  # a hung client thread would block a clean exit


class Watchdog:
    """Watch the loops of this process; call ``act(role, seconds)`` when one is busy for too long."""

    def __init__(
        self,
        loops: Sequence[tuple[str, Counters]],
        limit_seconds: float,
        act: Callable[[str, float], object] = _end,
    ) -> None:
        self._loops, self._limit, self._act = loops, limit_seconds, act
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin watching."""
        self._thread.start()

    def stop(self) -> None:
        """End watching."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._limit / 4)):
            now = time.monotonic()
            for role, counters in self._loops:
                since = counters.busy_since
                if since is not None and now - since > self._limit:
                    self._act(role, now - since)
