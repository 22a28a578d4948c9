"""The validate role as it runs: the shell, the core, the worker and real sandboxed models, on a bus."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import models
from tests.suites import HOSTILE_SPEC, hostile

from regate.config.canonical import canonical_json, digest_bytes
from regate.config.model import ModelConfig
from regate.config.settings import Bus as BusSettings
from regate.config.settings import Settings, Shell
from regate.daemon.artefacts import LocalStore
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.placement import partition_of
from regate.daemon.bus.port import Bus, OutRecord, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.roles.validate import ValidateCore
from regate.daemon.shell.runner import Runner
from regate.daemon.validate.window import Collector
from regate.daemon.validate.worker import Worker
from regate.daemon.wire.cloudevents import decode_event, encode_event, rfc3339
from regate.daemon.wire.internal import Control
from regate.scenarios.contracts import RunRequest, RunResult, TargetSpec
from regate.scenarios.rows import Rows
from regate.scenarios.sandbox.client import OpenTarget, open_onnx

PARTITIONS = 3
NOW = 1_750_000_000_000
SHARD = partition_of("default/loan", PARTITIONS)


class World:
    """A bus with all topics, and as many lives of the validate role as the test starts."""

    def __init__(self, bus: Bus, prefix: str, folder: Path) -> None:
        names = BusSettings(
            prefix=prefix, telemetry_topic=f"{prefix}.telemetry", labels_topic=f"{prefix}.labels", partitions=PARTITIONS
        )
        self.settings = Settings(bus=names, shell=Shell(step_seconds=0.02), artefacts=folder)
        self.bus, self.topics, self.store = bus, Topics(names), LocalStore(folder)
        self.admin, self.reader = bus.admin(), bus.reader()
        self.admin.create(self.topics.specs(3, 2))
        self._lives: list[Callable[[], None]] = []

    def send(self, logical: str, value: bytes, key: bytes = b"", partition: int = SHARD, at: int = NOW) -> None:
        writer = self.bus.writer()
        writer.send(OutRecord(self.topics.name(logical), value, key, (), partition, at))
        writer.flush()
        writer.close(1.0)

    def configure(self, config: ModelConfig) -> None:
        document = canonical_json(config.model_dump(mode="json"))
        control = Control(kind="model", name="default/loan", digest=digest_bytes(document), document=document.decode())
        self.send("control", encode_event("control", "c", "k", NOW, control)[0], b"model/default/loan", 0)

    def ask(self, request: RunRequest) -> None:
        self.send("validations", encode_event("run-request", request.id, request.scope, NOW, request)[0], b"loan")

    def live(self, open_target: OpenTarget = open_onnx) -> tuple[Runner, Worker, Callable[[], None]]:
        """Start a life; the callable ends it. A killed life's worker writes nothing more."""
        worker = Worker(self.bus, self.topics, self.settings, self.store, open_target=open_target)
        core = ValidateCore()
        runner = Runner(self.bus, self.topics, core, self.settings, self.store, on_commit=worker.offer)
        stopped = threading.Event()
        thread = threading.Thread(target=runner.run, args=(stopped.is_set,))
        worker.start()
        thread.start()

        def end() -> None:
            if not stopped.is_set():
                worker.stop()
                stopped.set()
                thread.join(20)

        self._lives.append(end)
        return runner, worker, end

    def close(self) -> None:
        for end in self._lives:
            end()
        self.admin.close()
        self.reader.close()

    def read(self, logical: str) -> list[Any]:
        found = []
        for number in range(self.admin.partitions(self.topics.name(logical))):
            partition = TopicPartition(self.topics.name(logical), number)
            found += self.reader.read(partition, self.reader.beginning(partition), self.reader.end(partition))
        return found

    def results(self, n: int, seconds: float = 60.0) -> list[RunResult]:
        deadline, wake = time.monotonic() + seconds, threading.Event()
        while time.monotonic() < deadline:
            found = [decode_event(record.value, "run-result", RunResult) for record in self.read("runs")]
            if len(found) >= n:
                return found
            wake.wait(0.05)
        pytest.fail(f"no {n} results within {seconds} s; observations: {self.read('observations')}")


@pytest.fixture
def world(bus: Bus, topic_prefix: str, tmp_path: Path) -> Iterator[World]:
    made = World(bus, topic_prefix, tmp_path / "artefacts")
    yield made
    made.close()


@pytest.fixture
def memory_world(tmp_path: Path) -> Iterator[World]:
    made = World(MemoryBus(), "t", tmp_path / "artefacts")
    yield made
    made.close()


def quick_config(**changes: Any) -> ModelConfig:
    """Without cohorts, and with a bound of latency that a busy machine keeps."""
    validation = {"bounds": {"scn-load-0001/latency_ms": 5000.0}, "budget_seconds": 60.0}
    return models.config(**{"cohorts": (), "validation": validation, **changes})


def now_request(target: TargetSpec, name: str = "r1", **changes: Any) -> RunRequest:
    now = time.time_ns() // 1_000_000
    return models.request(target, id=name, requested_ms=now, deadline_ms=now + 120_000, **changes)


def event(i: int, rows: Rows, at: int, **changes: Any) -> bytes:
    region, owner = rows.features["region"][i], rows.features["owner"][i] == "true"
    inputs = {"income": float(rows.features["income"][i]), "age": float(rows.features["age"][i])}
    base = {
        "event_id": f"e{i}",
        "event_time": rfc3339(at),
        "model": "loan",
        "inputs": {**inputs, "region": region, "owner": owner},
        "prediction": str(rows.prediction[i]) if rows.prediction is not None else None,
    }
    return json.dumps({**base, **changes}).encode()


def serve(world: World, rows: Rows, at: int) -> None:
    """Put served requests on all telemetry partitions, one a millisecond, and their labels behind them."""
    writer = world.bus.writer()
    for i in range(rows.n):
        value = event(i, rows, at + i)
        writer.send(OutRecord(world.topics.name("telemetry"), value, None, (), i % 3, at + i))
        label = {"event_id": f"e{i}", "event_time": rfc3339(at + i), "model": "loan", "label": str(rows.label[i])}
        writer.send(OutRecord(world.topics.name("labels"), json.dumps(label).encode(), None, (), i % 2, at + i + 1))
    writer.flush()
    writer.close(5.0)


def collect(world: World, request: RunRequest, events: int) -> Rows | None:
    collector = Collector(world.reader, world.admin, world.topics, world.settings.limits)
    return collector.collect(request, quick_config(), events)


def test_a_request_becomes_a_result_with_window_labels_and_artefacts(world: World, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000
    rows = models.rows(600)
    serve(world, rows, now - 5_000)
    world.configure(quick_config())
    target = models.train(tmp_path / "m.onnx")
    world.live()
    world.ask(now_request(target, window={"events": 400, "until_ms": now}))
    (result,) = world.results(1)
    assert result.outcome == "pass", [check for check in result.checks if check.outcome not in {"pass", "skipped"}]
    checks = {check.id: check for check in result.checks}
    assert checks["scn-production_window-0001/agreement_served"].n == 400
    assert checks["scn-production_window-0001/accuracy"].n == 400
    kept = Rows.from_arrow(world.store.get(f"rows-{result.window_digest.removeprefix('sha256:')}.arrow"))
    assert kept.digest() == result.window_digest
    np.testing.assert_array_equal(kept.features["income"], rows.features["income"][-400:])
    assert world.store.names("stream-") == [f"stream-{result.stream_digest.removeprefix('sha256:')}.msgpack"]


def test_the_window_is_the_last_events_before_the_request_whatever_else_is_there(memory_world: World) -> None:
    rows = models.rows(300)
    serve(memory_world, rows, NOW)
    memory_world.send("telemetry", event(0, rows, NOW, event_id="x1", model="other"), partition=1, at=NOW + 100)
    memory_world.send("telemetry", event(0, rows, NOW, event_id="x2", model_version="2"), partition=1, at=NOW + 100)
    memory_world.send("telemetry", event(7, rows, NOW), partition=2, at=NOW + 400)  # a duplicate of e7
    memory_world.send("telemetry", b"garbage", partition=0, at=NOW + 400)
    memory_world.send("telemetry", event(0, rows, NOW, event_id="late"), partition=0, at=NOW + 900)
    request = models.request(HOSTILE_SPEC, window={"events": 100, "until_ms": NOW + 500})
    window = collect(memory_world, request, 100)
    assert window is not None
    assert window.n == 100
    assert set(window.features["income"]) == set(rows.features["income"][-100:])
    assert window.label is not None
    assert window.label.tolist() == rows.label[-100:].tolist()
    everything = collect(memory_world, request, 10_000)
    assert everything is not None
    assert everything.n == 300
    candidate = collect(memory_world, request.model_copy(update={"role": "candidate"}), 10_000)
    assert candidate is not None
    assert candidate.n == 301  # version 2 was asked too
    again = collect(memory_world, request, 100)
    assert again is not None
    assert again.digest() == window.digest()


def test_a_deployment_without_traffic_has_no_window(memory_world: World) -> None:
    assert collect(memory_world, models.request(HOSTILE_SPEC, window={"events": 100}), 100) is None


def test_r23_the_poll_loop_never_notices_a_hanging_target(memory_world: World, tmp_path: Path) -> None:
    config = quick_config(validation={"budget_seconds": 3.0})
    memory_world.configure(config)
    runner, _, _ = memory_world.live()
    memory_world.ask(now_request(models.slow(tmp_path / "m", 10**12)))
    (result,) = memory_world.results(1)
    assert result.outcome == "error"
    assert result.errored == len(result.checks)
    assert runner.counters.longest_gap < 1.0
    assert runner.counters.steps > 2


def test_r23_a_run_whose_daemon_dies_is_attempt_two_of_the_same_run(memory_world: World, tmp_path: Path) -> None:
    memory_world.configure(quick_config())
    _, _, end = memory_world.live(hostile("hang"))
    target = models.train(tmp_path / "m.onnx")
    request = now_request(target)
    memory_world.ask(request)
    deadline, wake = time.monotonic() + 20, threading.Event()
    while not memory_world.read("observations"):  # the attempt has begun
        assert time.monotonic() < deadline
        wake.wait(0.02)
    end()
    memory_world.live()
    (result,) = memory_world.results(1)
    assert (result.attempt, result.outcome, result.request_id) == (2, "pass", request.id)
    assert len(memory_world.read("runs")) == 1


def test_a_model_without_configuration_is_an_error_and_not_a_silence(memory_world: World) -> None:
    memory_world.live()
    memory_world.ask(now_request(HOSTILE_SPEC))
    (result,) = memory_world.results(1)
    assert (result.outcome, result.checks[0].id) == ("error", "run/no_configuration")


def test_a_suite_that_does_not_exist_is_an_error_after_three_attempts(memory_world: World) -> None:
    memory_world.configure(quick_config())
    memory_world.live()
    memory_world.ask(now_request(HOSTILE_SPEC, suite="nightly"))
    (result,) = memory_world.results(1)
    assert (result.outcome, result.attempt) == ("error", 3)
    assert "no suite 'nightly'" in result.checks[0].message


def test_private_features_are_validated_and_not_kept(memory_world: World, tmp_path: Path) -> None:
    config = quick_config()
    private = {**config.features, "region": config.features["region"].model_copy(update={"privacy": "hash"})}
    now = time.time_ns() // 1_000_000
    serve(memory_world, models.rows(300), now - 5_000)
    memory_world.configure(config.model_copy(update={"features": private}))
    memory_world.live()
    memory_world.ask(now_request(models.train(tmp_path / "m.onnx"), window={"events": 300, "until_ms": now}))
    (result,) = memory_world.results(1)
    agreed = next(check for check in result.checks if check.id.endswith("agreement_served"))
    assert (agreed.outcome, agreed.n) == ("pass", 300)
    assert memory_world.store.names() == []
