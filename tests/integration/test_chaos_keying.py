"""Telemetry keyed by client on more partitions than labels: the real daemon says what the cores say in one slice.

The other keyings run in tests/simulation/test_keying.py; all of them must equal the same reference.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.integration.chaos import Ground, drifting, essence, recovered

from regate.daemon.bus.broker import Broker
from regate.daemon.bus.kafka import KafkaBus

pytestmark = pytest.mark.kafka


def test_keyed_by_client_on_six_telemetry_and_three_label_partitions_the_findings_are_the_same(
    kafka_bus: KafkaBus, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    stream = drifting(3_000, seed=11, start_us=time.time_ns() // 1000 - 200_000_000)
    ground = Ground(kafka_bus, broker.bootstrap, tmp_path, topic_prefix, telemetry=6, labels=3)
    world = ground.world("keyed")
    with world.daemon(role="watch") as daemon:
        recovered(daemon, 9 + world.settings.bus.partitions)
        ground.send(stream, 0.0, keying="client")
        world.drained([daemon], roles=("observe", "decide"))
        assert daemon.end() == 0
    said = essence(world.findings())
    assert {(one["kind"], one["subject"]) for one in said} == {("change", "income"), ("harm", "error")}
    assert said == essence(stream.reference())
