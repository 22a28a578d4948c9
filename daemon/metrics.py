"""Prometheus metrics of one process. Reads the bus on its own connection: a slow scraper never meets the loop."""

from __future__ import annotations

import threading

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from regate.config.errors import ConfigError, RegateError
from regate.config.settings import Metrics
from regate.daemon.budgets import Ledger
from regate.daemon.bus.port import Bus
from regate.daemon.bus.topics import Topics
from regate.daemon.shell.clock import Clock

# Model labels beyond this many would be what kills the scraper, not what helps a person.
MOST_MODELS = 1000
OVERFLOW = "other"


class MetricsServer:
    """Serves ``/metrics``; what it says of budgets is at most `Metrics.interval_seconds` old.

    :raises ConfigError: when the port is taken.
    """

    def __init__(self, settings: Metrics, bus: Bus, topics: Topics, clock: Clock) -> None:
        assert settings.port is not None
        self._settings, self._bus, self._topics, self._clock = settings, bus, topics, clock
        self._log = structlog.get_logger().bind(part="metrics")
        self._stop = threading.Event()
        registry = CollectorRegistry()
        self._remaining = Gauge(
            "regate_budget_remaining_ratio",
            "Share of the false-alarm budget of the last period that is left; the least of the models in `other`.",
            ["model"],
            registry=registry,
        )
        self._spent = Gauge(
            "regate_budget_spent_findings",
            "Findings of the last period that did not turn out to be true.",
            ["model"],
            registry=registry,
        )
        self._failures = Counter(
            "regate_metrics_read_failures_total", "Times that the bus could not be read for metrics.", registry=registry
        )
        try:
            self._server, _ = start_http_server(settings.port, settings.host, registry=registry)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot listen on {settings.host}:{settings.port}: {error.strerror}",
                hint="choose another metrics.port",
            ) from error
        self._thread = threading.Thread(target=self._work, name="metrics", daemon=True)

    @property
    def port(self) -> int:
        """Return the port that is listened on."""
        return int(self._server.server_port)

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading and serving."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self._server.shutdown()
        self._server.server_close()

    def _work(self) -> None:
        ledger: Ledger | None = None
        while not self._stop.is_set():
            try:
                ledger = ledger or Ledger.of(self._bus, self._bus.reader(), self._topics)
                self.tell(ledger)
            except RegateError as error:  # the bus is away: said, counted, tried again
                self._failures.inc()
                self._log.warning("metrics_read_failed", reason=error.message)
                if ledger is not None:
                    ledger.reader.close()
                ledger = None
            self._stop.wait(self._settings.interval_seconds)
        if ledger is not None:
            ledger.reader.close()

    def tell(self, ledger: Ledger) -> None:
        """Set the gauges from what the bus says now."""
        budgets = sorted(ledger.read(self._clock.now_ms()).items())
        self._remaining.clear()
        self._spent.clear()
        for name, budget in budgets[:MOST_MODELS]:
            self._remaining.labels(name).set(budget.remaining_ratio)
            self._spent.labels(name).set(budget.spent)
        rest = [budget for _, budget in budgets[MOST_MODELS:]]
        if rest:
            self._remaining.labels(OVERFLOW).set(min(budget.remaining_ratio for budget in rest))
            self._spent.labels(OVERFLOW).set(sum(budget.spent for budget in rest))
