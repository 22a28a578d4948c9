"""From traffic to a verdict: a frozen incident, reviewed, put to real models while the lanes of profiles listen."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from benchmarks.attacks.traffic import attack, benign, benign_client, table, woven
from tests import models
from tests.suites import KeptStore, by_name, outcomes
from typer.testing import CliRunner

from regate.config.errors import ConfigError
from regate.config.model import Feature, ModelConfig, Output
from regate.config.settings import Bus as BusSettings
from regate.config.settings import Settings
from regate.daemon.artefacts import LocalStore
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.port import TopicPartition
from regate.daemon.bus.provision import provision
from regate.daemon.bus.topics import Topics
from regate.daemon.cli.main import app
from regate.daemon.control import profile_records
from regate.daemon.profiles import read_profile
from regate.daemon.roles.validate import Entry, ValidateState
from regate.daemon.validate.lanes import LaterLanes, lanes_in_force, lanes_of
from regate.daemon.validate.observation import KIND, Observation
from regate.daemon.validate.worker import Worker
from regate.daemon.wire.cloudevents import decode_event
from regate.detectors.attack.evidence import UNIT
from regate.scenarios.catalog.loading import load_catalog
from regate.scenarios.contracts import RunResult, TargetSpec
from regate.scenarios.runner import Surroundings, run_suite
from regate.scenarios.subject import NOBODY, Lanes

POPULATION = table(3)
WIDTH = 14
CONFIG = ModelConfig(
    model="loan",
    features={f"f{number:03}": Feature(type="numeric") for number in range(WIDTH)},
    output=Output(type="binary", classes=("0", "1"), positive="1"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traffic, a profile, and the incident frozen, reviewed and named in a suite."""
    made = tmp_path_factory.mktemp("replay")
    rng = np.random.default_rng((9, 0))
    parts = [("evil", "square", attack(POPULATION, "square", rng, 120))]
    parts += [(f"good-{kind}", kind, benign_client(POPULATION, kind, rng, 60)) for kind in ("fresh", "what-if")]
    pq.write_table(pa.table(benign(POPULATION, 120, 30, 1).columns()), made / "normal.parquet")
    pq.write_table(pa.table(woven(POPULATION, parts, rng).columns()), made / "incident.parquet")
    (made / "loan.yaml").write_text(json.dumps(CONFIG.model_dump(mode="json")))
    config = ["--config", str(made / "loan.yaml")]
    call("profile", "build", str(made / "normal.parquet"), "-o", str(made / "p"), "--calibrate-seconds", "0", *config)
    told = call(
        *("patterns", "freeze", "--client", "evil", "--profile", str(made / "p"), "--json"),
        *("--from", str(made / "incident.parquet"), "--out", str(made / "catalog"), *config),
    )
    path = Path(json.loads(told)["record"])
    path.write_text(path.read_text().replace("status: queued", "status: active"))
    (made / "catalog/suite-attacks.yaml").write_text(
        yaml.safe_dump(
            {"name": "attacks", "version": "1.0.0", "title": "t", "scenarios": [{"id": path.stem, "version": "1.0.0"}]}
        )
    )
    return made


@pytest.fixture(scope="module")
def attacked(folder: Path) -> TargetSpec:
    """The very model that the traffic was answered by."""
    weights = POPULATION.weights / POPULATION.scale
    return models.linear(folder / "attacked.onnx", weights, -float(POPULATION.centre @ weights))


def call(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.stdout


def lanes(folder: Path) -> Lanes:
    return lanes_of(read_profile(folder / "p"))


def run(folder: Path, target: TargetSpec, listening: Lanes, config: ModelConfig = CONFIG, **more: Any) -> RunResult:
    return run_suite(
        models.request(target, suite="attacks", **more),
        config,
        None,
        KeptStore(),
        budget_seconds=60.0,
        catalog=load_catalog([folder / "catalog"]),
        around=Surroundings(now_ms=lambda: 5_000, lanes=listening),
    )


def test_the_attack_is_found_again_and_the_answers_are_those_of_then(folder: Path, attacked: TargetSpec) -> None:
    result = run(folder, attacked, lanes(folder))
    assert outcomes(result) == {"detected_within": "pass", "agreement": "pass", "steady_state": "pass"}
    found = by_name(result)
    assert found["detected_within"].observed == found["detected_within"].threshold
    assert found["detected_within"].critical
    assert "still flips the class" in found["agreement"].message
    assert run(folder, attacked, lanes(folder)).digest == result.digest


def test_blinded_lanes_fail(folder: Path, attacked: TargetSpec) -> None:
    profile = read_profile(folder / "p")
    assert profile.attack is not None
    deaf = tuple(replace(view, bar=10_000 * UNIT) for view in profile.attack.views)
    result = run(folder, attacked, lanes_of(replace(profile, attack=replace(profile.attack, views=deaf))))
    assert outcomes(result)["detected_within"] == "fail"
    assert result.outcome == "fail"


@pytest.mark.parametrize("listening", ["nobody", "profile without lanes"])
def test_without_lanes_the_run_is_inconclusive(folder: Path, attacked: TargetSpec, listening: str) -> None:
    profile = replace(read_profile(folder / "p"), attack=None, notes=("no attack lanes: events carry no client",))
    result = run(folder, attacked, NOBODY if listening == "nobody" else lanes_of(profile))
    assert set(outcomes(result).values()) == {"inconclusive"}
    assert result.outcome == "inconclusive"
    why = NOBODY.off if listening == "nobody" else "events carry no client"
    assert why in by_name(result)["detected_within"].message


def test_a_model_that_does_not_flip_any_more_is_told(folder: Path, tmp_path: Path) -> None:
    mended = models.linear(tmp_path / "mended.onnx", np.zeros(WIDTH), 3.0)
    found = by_name(run(folder, mended, lanes(folder)))
    assert found["agreement"].outcome == "warn"
    assert "no longer works on this target" in found["agreement"].message


def test_a_model_that_lacks_inputs_in_the_frozen_rows_is_not_asked(folder: Path, attacked: TargetSpec) -> None:
    closed = CONFIG.features["f003"].model_copy(update={"privacy": "hash"})
    config = CONFIG.model_copy(update={"features": {**CONFIG.features, "f003": closed}})
    result = outcomes(run(folder, attacked, lanes(folder), config))
    assert result == {"detected_within": "pass", "agreement": "skipped", "steady_state": "pass"}


def test_the_verb_runs_it_with_the_profile_and_is_undecided_without(folder: Path, attacked: TargetSpec) -> None:
    told = ["validate", "--target", attacked.uri, "--config", str(folder / "loan.yaml"), "--suite", "attacks"]
    told += ["--catalog", str(folder / "catalog"), "--json"]
    passed = json.loads(call(*told, "--profile", str(folder / "p")))
    assert passed["outcome"] == "pass"
    undecided = json.loads(call(*told, code=3))
    assert "--profile" in undecided["checks"][0]["message"]


def test_check_config_refuses_a_suite_with_a_queued_record(folder: Path, tmp_path: Path) -> None:
    assert "suite attacks" in call("check-config", "--catalog", str(folder / "catalog"))
    for path in (folder / "catalog").iterdir():
        data = path.read_bytes().replace(b"status: active", b"status: queued") if path.suffix == ".yaml" else None
        (tmp_path / path.name).write_bytes(data or path.read_bytes())
    with pytest.raises(ConfigError, match="only queued"):
        call("check-config", "--catalog", str(tmp_path))
    (tmp_path / "regate.yml").write_text(f"catalogs: [{tmp_path}]\n")
    with pytest.raises(ConfigError, match="only queued"):
        call("check-config", "--settings", str(tmp_path / "regate.yml"))
    (tmp_path / "suite-attacks.yaml").unlink()
    assert "queued for review, in no suite: scn-attack-" in call("validate", "--list", "--catalog", str(tmp_path))


def test_the_worker_of_the_daemon_runs_a_suite_of_the_settings_folders(
    folder: Path, attacked: TargetSpec, tmp_path: Path
) -> None:
    names = BusSettings(partitions=2)
    settings = Settings(bus=names, artefacts=tmp_path, catalogs=(folder / "catalog",))
    bus, topics = MemoryBus(), Topics(names)
    provision(bus.admin(), topics)
    config = CONFIG.model_copy(update={"validation": CONFIG.validation.model_copy(update={"suite": "attacks"})})
    now = time.time_ns() // 1_000_000
    request = models.request(attacked, suite="attacks", requested_ms=now, deadline_ms=now + 60_000)
    found = []
    for profile in (None, read_profile(folder / "p")):
        for record in profile_records(profile, 1) if profile is not None else ():
            bus.writer().send(replace(record, topic=topics.name(record.topic)))
        state = ValidateState(0, now, {request.id: Entry(request, 1)}, models={"default/loan": config})
        worker = Worker(bus, topics, settings, LocalStore(tmp_path))
        worker.start()
        worker.offer({"0": state})
        found.append(result_of(bus, topics, request.id, len(found)))
        worker.stop()
    assert [result.outcome for result in found] == ["inconclusive", "pass"]
    assert "no profile" in found[0].checks[0].message


def result_of(bus: MemoryBus, topics: Topics, request: str, nth: int) -> RunResult:
    """Wait for the nth result that workers wrote."""
    reader, wake, name = bus.reader(), threading.Event(), topics.name("observations")
    for _ in range(600):
        seen = [
            decode_event(record.value, KIND, Observation)
            for partition in (TopicPartition(name, 0), TopicPartition(name, 1))
            for record in reader.read(partition, reader.beginning(partition), reader.end(partition))
        ]
        assert not [one for one in seen if one.kind == "failed"], seen
        results = [one.result for one in seen if one.result is not None and one.request_id == request]
        if len(results) > nth:
            return results[nth]
        wake.wait(0.05)
    pytest.fail("no result within 30 s")


def test_the_daemon_takes_the_profile_in_force(folder: Path) -> None:
    bus, topics, profile = MemoryBus(), Topics(BusSettings(partitions=2)), read_profile(folder / "p")
    provision(bus.admin(), topics)
    later = LaterLanes(lambda: lanes_in_force(bus, topics, profile.key))
    writer = bus.writer()
    for record in profile_records(profile, 1):
        writer.send(replace(record, topic=topics.name(record.topic)))
    writer.flush()
    assert later.off == ""
    (rows,) = load_catalog([folder / "catalog"]).frozen.values()
    assert later.hear(rows) == lanes(folder).hear(rows)
    other = replace(profile.key, version="9")
    assert "no profile" in lanes_in_force(bus, topics, other).off
