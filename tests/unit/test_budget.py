"""What was spent of a budget: true findings cost nothing, everything else does."""

from __future__ import annotations

from urllib.request import urlopen

import pytest
from tests.telemetry_streams import CONFIG, KEY, profile
from tests.told import CHART, finding

from regate.config.settings import Bus, Metrics
from regate.daemon.budgets import DAY_MS, Ledger
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.placement import partition_of
from regate.daemon.bus.port import OutRecord
from regate.daemon.bus.provision import provision
from regate.daemon.bus.topics import Topics
from regate.daemon.control import document_record, profile_records
from regate.daemon.metrics import MetricsServer
from regate.daemon.shell.clock import SystemClock
from regate.daemon.wire.cloudevents import encode_event
from regate.detectors.budget import spending
from regate.detectors.finding import Finding


def test_what_turned_out_true_spends_nothing() -> None:
    told = [
        finding(1),
        finding(2),
        finding(2, "recovered"),
        finding(3),
        finding(3, "confirmed"),
        finding(3, "recovered"),
        finding(4),
        finding(4, "accepted"),
        finding(5, historical=True),
        finding(6, carriers=()),
    ]
    budget = spending(profile(), told, allowed=4.0, watched_ratio=0.5)
    assert (budget.found, budget.true, budget.spent, budget.open) == (4, 2, 2, 1)
    assert budget.remaining_ratio == 0.5
    assert budget.nominal == 2.0
    assert sum(chart.share for chart in budget.charts) == pytest.approx(1.0)
    assert sum(chart.nominal for chart in budget.charts) == pytest.approx(2.0)
    lead = next(chart for chart in budget.charts if chart.chart == CHART)
    assert (lead.led, lead.true) == (4, 2)


def test_an_overdrawn_budget_is_empty_not_negative() -> None:
    budget = spending(profile(), [finding(number) for number in range(3)], allowed=1.0, watched_ratio=1.0)
    assert (budget.spent, budget.remaining_ratio) == (3, 0.0)


NOW = 100 * DAY_MS


def put(bus: MemoryBus, topics: Topics, at_ms: int, *told: Finding) -> None:
    writer = bus.writer()
    partition = partition_of(KEY.placement, 2)
    for one in told:
        value, headers = encode_event("finding", one.id, one.scope, at_ms, one)
        writer.send(OutRecord(topics.name("findings"), value, None, headers, partition, at_ms))
    writer.flush()


def world() -> tuple[MemoryBus, Topics]:
    bus, topics = MemoryBus(), Topics(Bus(partitions=2))
    provision(bus.admin(), topics)
    writer = bus.writer()
    for record in [document_record(CONFIG, 1), *profile_records(profile(), 1)]:
        name = topics.name(record.topic)
        writer.send(OutRecord(name, record.value, record.key, record.headers, 0, NOW - 15 * DAY_MS))
    writer.flush()
    return bus, topics


def test_the_ledger_reads_the_last_period_once() -> None:
    bus, topics = world()
    put(bus, topics, NOW - 40 * DAY_MS, finding(1))
    put(bus, topics, NOW - 10 * DAY_MS, finding(2))
    ledger = Ledger.of(bus, bus.reader(), topics)
    (budget,) = ledger.read(NOW).values()
    assert (budget.found, budget.nominal) == (1, 0.5)  # 15 of 30 days watched
    put(bus, topics, NOW, finding(2, "confirmed"), finding(3))
    (budget,) = ledger.read(NOW + 1).values()
    assert (budget.found, budget.true, budget.spent) == (2, 1, 1)
    (budget,) = ledger.read(NOW + 21 * DAY_MS).values()  # 2 is older than a period now
    assert (budget.found, budget.nominal) == (1, 1.0)


def test_an_unreadable_finding_is_counted_not_fatal() -> None:
    bus, topics = world()
    writer = bus.writer()
    writer.send(OutRecord(topics.name("findings"), b"no json", None, (), 0, NOW))
    writer.flush()
    ledger = Ledger.of(bus, bus.reader(), topics)
    (budget,) = ledger.read(NOW).values()
    assert (budget.found, ledger.unreadable) == (0, 1)


def test_prometheus_sees_what_is_left() -> None:
    bus, topics = world()
    put(bus, topics, NOW, finding(1))

    class Fixed(SystemClock):
        def now_ms(self) -> int:
            return NOW

    server = MetricsServer(Metrics(port=0), bus, topics, Fixed())
    try:
        ledger = Ledger.of(bus, bus.reader(), topics)
        server.tell(ledger)
        text = urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10).read().decode()
    finally:
        server.stop()
    assert f'regate_budget_remaining_ratio{{model="{KEY}"}} 0.0' in text
    assert f'regate_budget_spent_findings{{model="{KEY}"}} 1.0' in text
