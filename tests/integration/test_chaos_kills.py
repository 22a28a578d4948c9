"""R27: SIGKILL at random points, on a real broker; what is there afterwards is what an undisturbed run says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from tests.integration.chaos import Ground, drifting, essence, hunt, outline, replay

from regate.daemon.bus.broker import Broker
from regate.daemon.bus.kafka import KafkaBus

pytestmark = pytest.mark.kafka
SEED = 20_261_123


def survive(ground: Ground, kills: int) -> None:
    calm, wild = ground.world("calm"), ground.world("wild")
    rows = max(6_000, 400 * kills)
    stream = drifting(rows, seed=SEED, start_us=time.time_ns() // 1000 - rows * 20_000 - 80_000_000)
    with calm.daemon() as quiet, wild.daemon() as hunted:
        hunt(hunted, wild.shards, kills, SEED, lambda first, last: ground.send(stream, 2.0, part=(first, last)))
        for world, daemon in ((calm, quiet), (wild, hunted)):
            world.drained([daemon])
            assert daemon.end() == 0, daemon.said()
    assert {("change", "income"), ("harm", "error")} <= {(one.kind, one.subject) for one in calm.findings()}
    assert essence(wild.findings()) == essence(calm.findings()), f"seed {SEED}"
    assert outline(wild.decisions()) == outline(calm.decisions())
    for world in (calm, wild):
        done = replay(world)
        assert done.differences == []
        assert done.outputs > 0


def test_r27_killed_five_times_the_journal_replays_and_the_findings_are_those_of_an_undisturbed_run(
    kafka_bus: KafkaBus, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    survive(Ground(kafka_bus, broker.bootstrap, tmp_path, topic_prefix), 5)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_r27_killed_fifty_times(kafka_bus: KafkaBus, broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    survive(Ground(kafka_bus, broker.bootstrap, tmp_path, topic_prefix), 50)
