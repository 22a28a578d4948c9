"""Whole runs: equal digests, nondeterminism, failures within the budget, and what a result must say (R23, R24)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import typer
from tests import models
from tests.suites import HOSTILE_SPEC, KeptStore, catalog_of, hostile, outcomes, run
from typer.testing import CliRunner, Result

from regate.config.errors import ConfigError, RetryableError
from regate.daemon.cli.validate import validate
from regate.scenarios.catalog.loading import load_catalog
from regate.scenarios.contracts import RunResult, TargetSpec
from regate.scenarios.runner import Surroundings, run_suite
from regate.scenarios.stream import decode_stream, replay

FUZZING, FAIRNESS, LOAD, WINDOW = (
    "scn-fuzzing-0001",
    "scn-fairness-0001",
    "scn-load-0001",
    "scn-production_window-0001",
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> TargetSpec:
    return models.train(tmp_path_factory.mktemp("models") / "honest.onnx")


def suite(target: TargetSpec, *, seed: int = 11, store: KeptStore | None = None, attempt: int = 1) -> RunResult:
    """Everything but load, whose seconds add nothing to a digest."""
    return run_suite(
        models.request(target, seed=seed, window={"events": 2000}),
        models.config(),
        models.rows(),
        store or KeptStore(),
        budget_seconds=60,
        attempt=attempt,
        catalog=catalog_of((FUZZING, {}), (FAIRNESS, {}), (WINDOW, {})),
    )


def test_the_same_run_three_times_has_one_digest(honest: TargetSpec) -> None:
    runs = [suite(honest, attempt=i) for i in (1, 2, 3)]
    assert len({run.digest for run in runs}) == 1
    assert len({run.stream_digest for run in runs}) == 1
    assert len({run.environment_digest for run in runs}) == 1
    assert len({run.seconds for run in runs}) > 1  # measured, beside the digest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_same_run_a_hundred_times_has_one_digest(honest: TargetSpec) -> None:
    assert len({suite(honest).digest for _ in range(100)}) == 1


def test_load_is_in_the_digest_by_its_answers_and_not_by_its_times(honest: TargetSpec) -> None:
    quick = {"parameters": {"rates": [400, 800, 1600], "requests": 80, "rounds": 1, "patience_seconds": 2}}
    first, second = (run(honest, LOAD, changes=quick) for _ in range(2))
    assert first.measured != second.measured
    assert first.digest == second.digest


def test_another_seed_or_target_has_another_digest(honest: TargetSpec, tmp_path: Path) -> None:
    other = models.plain(tmp_path / "m")
    assert len({suite(honest).digest, suite(honest, seed=12).digest, suite(other).digest}) == 3


def test_the_digest_depends_neither_on_the_process_nor_on_its_hash_seed(honest: TargetSpec, tmp_path: Path) -> None:
    config = tmp_path / "model.yaml"
    config.write_text(
        json.dumps(models.config().model_dump(mode="json"))  # JSON is YAML
    )
    command = [sys.executable, "-c", _VALIDATE, honest.uri, str(config)]
    found = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}
        )
        assert done.returncode == 0, done.stderr
        found.add(done.stdout.strip())
    assert len(found) == 1


_VALIDATE = """
import sys
from pathlib import Path
from regate.config.loading import load
from regate.config.model import ModelConfig
from regate.config.canonical import digest_bytes
from tests import models
from tests.suites import run
from regate.scenarios.contracts import TargetSpec
spec = TargetSpec(uri=sys.argv[1], digest=digest_bytes(Path(sys.argv[1]).read_bytes()))
config = load(ModelConfig, Path(sys.argv[2]))
print(run(spec, "scn-fuzzing-0001", config=config, rows=models.rows()).digest)
"""


def test_the_recorded_stream_replays_and_shows_another_model(honest: TargetSpec, tmp_path: Path) -> None:
    from regate.scenarios.sandbox.client import open_onnx
    from regate.scenarios.sandbox.process import Limits

    store = KeptStore()
    result = suite(honest, store=store)
    exchanges = decode_stream(store.get(f"stream-{result.stream_digest.removeprefix('sha256:')}.msgpack"))
    assert {exchange.scenario for exchange in exchanges} == {FUZZING, FAIRNESS, WINDOW}
    for spec, same in ((honest, True), (models.plain(tmp_path / "other"), False)):
        target = open_onnx(spec, models.config(), Limits(), lambda: False)
        assert (replay(exchanges, target) == []) is same
        target.close()


@pytest.mark.parametrize("scenario", [FUZZING, FAIRNESS, LOAD, WINDOW])
def test_r24_a_random_model_is_nondeterministic_and_never_passes(scenario: str, tmp_path: Path) -> None:
    quick = {"parameters": {"rates": [400, 800, 1600], "requests": 80, "rounds": 1, "patience_seconds": 1}}
    result = run(
        models.random_scores(tmp_path / "m"),
        scenario,
        rows=models.rows(),
        changes=quick if scenario == LOAD else {},
        window={"events": 2000},
    )
    assert set(outcomes(result).values()) == {"error"}
    assert "differently the second time" in result.checks[0].message


def test_r24_a_model_that_learns_while_asked_is_nondeterministic() -> None:
    result = run(HOSTILE_SPEC, FAIRNESS, open_target=hostile("drift"))
    assert set(outcomes(result).values()) == {"error"}


def test_a_state_that_changed_is_no_steady_state() -> None:
    result = run(HOSTILE_SPEC, FAIRNESS, open_target=hostile("restless"))
    found = outcomes(result)
    assert found.pop("steady_state") == "fail"
    assert set(found.values()) == {"pass"}


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("segfault", "crash"), ("eat", "memory"), ("fork", "forked"), ("hang", "hang"), ("short", "protocol")],
)
def test_r23_a_misbehaving_target_gives_errors_for_every_check(behaviour: str, reason: str) -> None:
    began = time.monotonic()
    result = run(
        HOSTILE_SPEC,
        FUZZING,
        open_target=hostile(behaviour, "/dev/null"),
        changes={"abort": {"seconds": 4.0, "memory_mb": 256}},
    )
    assert time.monotonic() - began < 9
    assert result.outcome == "error"
    assert set(outcomes(result)) == {*load_catalog().records[FUZZING].bounds, "steady_state"}
    assert set(outcomes(result).values()) == {"error"}
    assert reason in result.checks[0].message or reason == "protocol"


def test_r23_a_hanging_model_file_is_an_error_and_the_next_scenario_gets_a_fresh_child(tmp_path: Path) -> None:
    """A real ONNX file with an endless loop, and a budget that ends in the second scenario."""
    began = time.monotonic()
    result = run_suite(
        models.request(models.slow(tmp_path / "m", 10**12)),
        models.config(),
        None,
        KeptStore(),
        budget_seconds=4.0,
        catalog=catalog_of((FUZZING, {"abort": {"seconds": 1.5}}), (FAIRNESS, {}), (WINDOW, {"level": "end_to_end"})),
    )
    assert time.monotonic() - began < 8
    assert [check.outcome for check in result.checks if check.scenario == FUZZING] == ["error"] * 8
    assert {check.outcome for check in result.checks if check.scenario == FAIRNESS} == {"error"}
    assert result.outcome == "error"


def test_a_spent_budget_names_every_check_that_was_not_run(honest: TargetSpec) -> None:
    result = run(honest, FUZZING, budget_seconds=0.0)
    assert set(outcomes(result).values()) == {"error"}
    assert "budget" in result.checks[0].message
    assert result.errored == 8


def test_other_bytes_than_asked_for_are_an_error(honest: TargetSpec) -> None:
    forged = honest.model_copy(update={"digest": "sha256:" + "1" * 64})
    result = run(forged, FUZZING)
    assert set(outcomes(result).values()) == {"error"}
    assert honest.digest in result.checks[0].message


def test_a_missing_file_is_an_error_and_says_so() -> None:
    gone = TargetSpec(uri="gone.onnx", digest="sha256:" + "1" * 64)
    result = run(gone, FUZZING)
    assert set(outcomes(result).values()) == {"error"}
    assert "FileNotFoundError" in result.checks[0].message


def test_another_suite_than_asked_for_is_an_error(honest: TargetSpec) -> None:
    result = run(honest, FUZZING, suite_digest="sha256:" + "2" * 64)
    assert set(outcomes(result).values()) == {"error"}


def test_an_unknown_suite_or_bound_is_refused(honest: TargetSpec) -> None:
    with pytest.raises(ConfigError, match="no suite 'nightly'"):
        run(honest, FUZZING, suite="nightly")
    with pytest.raises(ConfigError, match="no scenario checks"):
        run(honest, FUZZING, config=models.config(validation={"bounds": {f"{FUZZING}/typo": 1.0}}))


def test_a_cancelled_run_raises_and_has_no_result(honest: TargetSpec) -> None:
    with pytest.raises(RetryableError):
        run_suite(
            models.request(honest),
            models.config(),
            None,
            KeptStore(),
            budget_seconds=10,
            around=Surroundings(cancelled=lambda: True),
        )


def test_a_result_is_plain_json_and_complete(honest: TargetSpec) -> None:
    result = suite(honest)
    again = RunResult.model_validate_json(result.model_dump_json())
    assert again == result
    assert result.passed + result.skipped == len(result.checks)
    assert result.skipped == 2  # no baseline to agree with, no scores were served
    assert result.environment["target.digest"] == honest.digest
    assert result.suite_digest == catalog_of((FUZZING, {}), (FAIRNESS, {}), (WINDOW, {})).suite_digest("default")
    assert all(check.scenario_digest.startswith("sha256:") and check.failure_mode for check in result.checks)


# --- the command line -----------------------------------------------------------------------------------------------


APP = typer.Typer()
APP.command()(validate)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(APP, list(arguments))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, honest: TargetSpec) -> dict[str, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("cli")
    config = models.config().model_dump(mode="json")
    config["validation"]["suite"] = "quick"
    (folder / "model.yaml").write_text(json.dumps(config))
    rows = models.rows(3000)
    columns: dict[str, Any] = {name: pa.array(values) for name, values in rows.features.items()}
    columns["owner"] = pa.array([value == "true" for value in rows.features["owner"]])
    columns |= {"prediction": pa.array(rows.prediction), "label": pa.array(rows.label)}
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    suites = folder / "catalog"
    suites.mkdir()
    (suites / "suite-quick.yaml").write_text(
        "name: quick\nversion: 1.0.0\ntitle: no load\nscenarios:\n"
        + "".join(f"  - {{id: {name}, version: 1.0.0}}\n" for name in (FUZZING, FAIRNESS, WINDOW))
    )
    return {
        "honest": honest.uri,
        "plain": models.plain(folder / "plain.onnx").uri,
        "random": models.random_scores(folder / "random.onnx").uri,
        "config": str(folder / "model.yaml"),
        "rows": str(folder / "rows.parquet"),
        "catalog": str(suites),
        "junit": str(folder / "out.xml"),
    }


@pytest.mark.parametrize(
    ("target", "with_rows", "code", "outcome"),
    [("honest", True, 0, "pass"), ("plain", True, 1, "fail"), ("random", True, 2, "error")],
)
def test_the_command_line_says_the_outcome_by_its_exit_code(
    files: dict[str, str], target: str, with_rows: bool, code: int, outcome: str
) -> None:
    options = ["--config", files["config"], "--suite", "quick", "--catalog", files["catalog"], "--json"]
    options += ["--rows", files["rows"]] if with_rows else []
    done = command("--target", files[target], *options, "--junit", files["junit"])
    assert done.exit_code == code, done.output
    result = json.loads(done.stdout)
    assert result["outcome"] == outcome
    cases = ET.parse(files["junit"]).getroot().findall(".//testcase")
    assert len(cases) == len(result["checks"])
    assert sum(case.find("failure") is not None for case in cases) == result["failed"]
    assert sum(case.find("error") is not None for case in cases) == result["errored"]


def test_too_little_data_exits_with_three(files: dict[str, str], tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    few = tmp_path / "few.parquet"
    pq.write_table(pq.read_table(files["rows"]).slice(0, 60), few)
    options = ["--config", files["config"], "--suite", "quick", "--catalog", files["catalog"], "--rows", str(few)]
    done = command("--target", files["honest"], *options)
    assert done.exit_code == 3, done.output
    assert "inconclusive" in done.stdout


def test_wrong_use_names_the_next_step(files: dict[str, str]) -> None:
    done = command("--target", "gone.onnx", "--config", files["config"])
    assert isinstance(done.exception, ConfigError)  # the program's main makes it one line and exit code 78
    assert "cannot read gone.onnx" in str(done.exception)
    listed = command("--list")
    assert listed.exit_code == 0
    assert f"{FAIRNESS}/ratio >= 0.8" in listed.stdout
    assert np.all([name in listed.stdout for name in (FUZZING, LOAD, WINDOW)])
