"""One daemon process: its roles, each a thread that owns its consumer and producer; schedule; signals."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import NoReturn

import structlog

from regate.config.errors import RegateError
from regate.config.settings import Settings
from regate.daemon.assembly import Part, assemble
from regate.daemon.bus.port import Bus
from regate.daemon.bus.topics import Topics
from regate.daemon.metrics import MetricsServer
from regate.daemon.scheduler import Scheduler
from regate.daemon.shell.clock import Clock, SystemClock
from regate.daemon.shell.watchdog import Watchdog

SCHEDULING_ROLES = {"all", "gate"}


class Process:
    """Runs roles until stopped. The first role that fails stops the others; its error is raised."""

    def __init__(
        self, bus: Bus, topics: Topics, settings: Settings, roles: set[str], clock: Clock | None = None
    ) -> None:
        self._stop = threading.Event()
        self._error: BaseException | None = None
        # The promise is about the process, whose interpreter needs some of the time itself.
        self._stop_seconds = settings.shell.stop_seconds * 0.8
        self._log = structlog.get_logger().bind(instance=settings.instance)
        clock = clock or SystemClock()
        self.parts: list[Part] = assemble(bus, topics, settings, roles, clock)
        self._watchdog = Watchdog(
            [(part.runner.core.name, part.runner.counters) for part in self.parts], settings.shell.watchdog_seconds
        )
        self._scheduler = None
        if roles & SCHEDULING_ROLES:
            self._scheduler = Scheduler(settings.schedule, topics, bus.writer(), clock, settings.bus.partitions)
        self._metrics = (
            MetricsServer(settings.metrics, bus, topics, clock) if settings.metrics.port is not None else None
        )
        self._threads = [
            threading.Thread(target=self._work, args=(part,), name=part.runner.core.name, daemon=True)
            for part in self.parts
        ]

    def start(self) -> None:
        """Start all roles."""
        self._watchdog.start()
        for part in self.parts:
            part.start()
        for thread in self._threads:
            thread.start()
        if self._scheduler is not None:
            self._scheduler.start()
        if self._metrics is not None:
            self._metrics.start()
            self._log.info("metrics", port=self._metrics.port)

    def run(self) -> None:
        """Start, wait until stopped, end cleanly.

        :raises RegateError: what ended a role, for its exit code.
        """
        self.start()
        # A short timeout lets the main thread run signal handlers.
        while not self._stop.wait(0.5):
            pass
        self.join(self._stop_seconds, self._leave)

    def stop(self) -> None:
        """Ask all roles to finish their step and leave."""
        self._stop.set()

    def join(self, seconds: float | None = None, late: Callable[[], object] | None = None) -> None:
        """Wait for all roles, stop the rest, raise what ended us. After so many seconds call ``late``."""
        alarm = None
        if seconds is not None and late is not None:
            alarm = threading.Timer(seconds, late)
            alarm.daemon = True
            alarm.start()
        for thread in self._threads:
            thread.join()
        if self._scheduler is not None:
            self._scheduler.stop()
        if self._metrics is not None:
            self._metrics.stop()
        for part in self.parts:
            part.stop()
        self._watchdog.stop()
        if alarm is not None:
            alarm.cancel()
        if self._error is not None:
            raise self._error

    def _leave(self) -> NoReturn:
        """End now: a bus that does not answer holds a step or a close. What is not committed is done again."""
        self._log.warning("stop_cut_short", seconds=self._stop_seconds, hint="regate kafka status")
        os._exit(self._error.exit_code if isinstance(self._error, RegateError) else 0 if self._error is None else 70)

    def _work(self, part: Part) -> None:
        try:
            part.runner.run(self._stop.is_set)
        except RegateError as error:
            self._log.error("role_ended", role=part.runner.core.name, error=error.message, hint=error.hint)
            self._fail(error)
        except Exception as error:  # noqa: BLE001  (logged with its traceback, ends the process, raised by join)
            self._log.exception("role_crashed", role=part.runner.core.name)
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._stop.set()


def stop_on_signals(process: Process, install: Callable[..., object] = signal.signal) -> None:
    """SIGTERM and SIGINT end the process cleanly: the step in hand is finished, the group is left."""

    def ask(_number: int, _frame: object) -> None:
        process.stop()

    install(signal.SIGTERM, ask)
    install(signal.SIGINT, ask)
