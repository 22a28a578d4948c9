"""R27 for the gate: a served model that really changes, runs in a sandbox, and a daemon killed while it judges."""

from __future__ import annotations

import random
import threading
import time
import warnings
from pathlib import Path

import pytest
from tests.integration.chaos import Daemon, Ground, World, outline, recovered, replay

from regate.config.model import ModelConfig, Validation
from regate.config.policy import Clear, Policy, Queue
from regate.daemon.bus.broker import Broker
from regate.daemon.bus.kafka import KafkaBus
from regate.daemon.demo.data import Parts, write_applications
from regate.daemon.demo.served import Served, serve
from regate.daemon.states import send_command
from regate.daemon.wire.cloudevents import decode_event
from regate.daemon.wire.encode import plan_times
from regate.daemon.wire.internal import Command
from regate.daemon.wire.sending import Sending, send
from regate.scenarios.contracts import RunResult, TargetSpec

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]
SEED = 7
ROWS = Parts(learned=14_000, steady=8_000, population=9_000, concept=9_000)
STREAM_SECONDS, KILLS = 180.0, 6
QUIET_SECONDS = 12.0


def deploy(world: World, config: ModelConfig) -> None:
    assert config.target is not None
    assert config.baseline is not None
    base = config.baseline
    command = Command(
        id="deploy-1",
        kind="deploy",
        tenant=config.tenant,
        model=config.model,
        deployment=config.deployment,
        model_version=config.version,
        target=TargetSpec(
            uri=config.target.uri, digest=config.target.digest, name=config.model, version=config.version
        ),
        baseline=TargetSpec(uri=base.target.uri, digest=base.target.digest, name=base.name, version=base.version),
        actor="test",
        issued_ms=time.time_ns() // 1_000_000,
    )
    send_command(world.ground.bus, world.topics, command)


def answered(world: World) -> tuple[bool, int]:
    """Whether every request has its result, and how many decisions there are that are no renewals."""
    runs = {decode_event(record.value, "run-result", RunResult).request_id for record in world.records("runs")}
    return len(runs) == len(world.records("validations")), len(outline(world.decisions()))


def settled(worlds: list[World], seconds: float = 240.0) -> None:
    """Wait until nothing is under way in any world and no gate has moved for a while."""
    deadline, before, since = time.monotonic() + seconds, None, time.monotonic()
    while time.monotonic() < deadline:
        now = [answered(world) for world in worlds]
        if now != before or not all(done for done, _ in now):
            before, since = now, time.monotonic()
        elif time.monotonic() - since > QUIET_SECONDS:
            return
        time.sleep(0.5)
    pytest.fail(f"still under way: {before}")


def stream(ground: Ground, served: Served) -> None:
    table = served.stream
    start_us = time.time_ns() // 1000
    writer = ground.bus.writer()
    send(
        table,
        writer,
        Sending(
            telemetry=ground.topic("telemetry"),
            labels=ground.topic("labels"),
            key="none",
            label_delay_rows=int(3 * table.rows / STREAM_SECONDS),
        ),
        times_us=plan_times(table, start_us, speed=None, rate=table.rows / STREAM_SECONDS),
        run="chaos",
        now_us=lambda: time.time_ns() // 1000,
        wait=time.sleep,
    )
    writer.close(10.0)


def kill_now_and_then(daemon: Daemon, moments: list[float], began: float) -> None:
    for moment in moments:
        time.sleep(max(0.0, began + moment - time.monotonic()))
        daemon.kill()
        daemon.start()


def test_r27_the_gate_of_a_killed_daemon_tells_the_story_of_an_undisturbed_one(
    kafka_bus: KafkaBus, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    data = tmp_path / "applications.parquet"
    write_applications(data, ROWS, SEED)
    rate = 26_000 / STREAM_SECONDS
    with warnings.catch_warnings():
        # numpy and protobuf warn about each other during the export, which turns a warning into a wrong error.
        warnings.simplefilter("ignore")
        served = serve(
            data, tmp_path, events_per_second=rate, calibrate_seconds=5.0, seed=SEED, progress=lambda *_: None
        )
    # Two daemons share this machine: how fast a model answers is not what is compared.
    bounds = {"scn-load-0001/latency_ms": 10_000.0}
    config = served.config.model_copy(update={"validation": Validation(bounds=bounds)})
    policy = Policy(clear=Clear(dwell_seconds=5.0), queue=Queue(cool_down_seconds=5.0))
    ground = Ground(kafka_bus, broker.bootstrap, tmp_path, topic_prefix)
    calm, wild = (ground.world(n, config=config, profiles=[served.profile], policy=policy) for n in ("calm", "wild"))
    draw = random.Random(SEED)
    with calm.daemon() as quiet, wild.daemon() as hunted:
        for world, daemon in ((calm, quiet), (wild, hunted)):
            recovered(daemon, world.shards)
            deploy(world, config)
        settled([calm, wild])
        moments = [(turn + draw.uniform(0.1, 0.9)) * STREAM_SECONDS / KILLS for turn in range(KILLS)]
        killer = threading.Thread(target=kill_now_and_then, args=(hunted, moments, time.monotonic()))
        killer.start()
        stream(ground, served)
        killer.join()
        settled([calm, wild])
        assert quiet.end() == 0
        assert hunted.end() == 0
    assert {"approve", "hold"} & {verdict for _, verdict, _, _ in outline(calm.decisions())}
    for world in (calm, wild):
        print(world.settings.instance, *outline(world.decisions()), sep="\n  ")
    assert outline(wild.decisions()) == outline(calm.decisions()), f"seed {SEED}"
    for world in (calm, wild):
        assert replay(world).differences == []
