"""Fixtures shared by all tests: a real broker, the two buses, and the data that only developers have."""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from regate.daemon.bus.broker import Broker
from regate.daemon.bus.kafka import KafkaBus
from regate.daemon.bus.kafka_client import Timeouts
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.port import Bus

ROOT = Path(__file__).resolve().parents[1]
# Shorter than in service, so that a dead member's partitions are taken over while a test waits.
TEST_TIMEOUTS = Timeouts(session=6.0, heartbeat=0.5, metadata_age=1.0)


def pytest_configure(config: pytest.Config) -> None:
    """Bear with one habit of kafka-python: sockets of failed connection attempts are left to the collector."""
    config.addinivalue_line("filterwarnings", "ignore:unclosed <socket:ResourceWarning")
    warnings.filterwarnings("ignore", "unclosed <socket", ResourceWarning)  # for what is collected between tests


@dataclass(frozen=True)
class ForeignBroker:
    """A Kafka that somebody else runs, named by REGATE_TEST_BOOTSTRAP."""

    bootstrap: str


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker | ForeignBroker]:
    """One Kafka for the session, with `.bootstrap`. No Kafka is a failure, never a skip."""
    named = os.environ.get("REGATE_TEST_BOOTSTRAP")
    if named:
        yield ForeignBroker(named)
        return
    embedded = Broker(tmp_path_factory.mktemp("broker"))
    embedded.start()
    try:
        yield embedded
    finally:
        embedded.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Callable[[], Broker]]:
    """Start a broker that a test may kill and freeze as it likes (some 3 s each)."""
    started: list[Broker] = []

    def start() -> Broker:
        embedded = Broker(tmp_path / f"broker-{len(started)}")
        started.append(embedded)
        embedded.start()
        return embedded

    yield start
    for embedded in started:
        embedded.stop()


@pytest.fixture
def topic_prefix() -> str:
    """Return a prefix of topics, groups and ids that no other test uses on the shared broker."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def kafka_bus(broker: Broker | ForeignBroker) -> Iterator[KafkaBus]:
    """Return the session's Kafka behind the bus port."""
    found = KafkaBus(broker.bootstrap, timeouts=TEST_TIMEOUTS)
    yield found
    found.close()


@pytest.fixture
def memory_bus() -> MemoryBus:
    """Return an empty in-memory bus on the real clock."""
    return MemoryBus(session_seconds=TEST_TIMEOUTS.session)


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def bus(request: pytest.FixtureRequest) -> Bus:
    """Return each bus in turn: what holds on one holds on the other."""
    found: Bus = request.getfixturevalue(f"{request.param}_bus")
    return found


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of development data, beside the checkout. Its absence is a failure."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.fail(
            "development data is missing: expected ../shared/data beside the checkout; run: pytest -m 'not shared'"
        )
    return folder
