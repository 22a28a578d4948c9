"""The training-record probe: who asks about training rows is found at once, and the rows themselves are nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.attacks.traffic import Traffic, benign, table, woven
from tests.attack_traffic import client_hash, config_of, rows_of
from typer.testing import CliRunner

from regate.daemon.cli.main import app
from regate.detectors.attack.codec import packed, unpacked
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.training import LEAST_SHARE, made, usual_share
from regate.detectors.build import build_profile
from regate.detectors.columns import Slice

POPULATION = table(11)
TRAINED = POPULATION.draw(np.random.default_rng(21), 3_000)


def asked(inputs: np.ndarray, name: str, seed: int = 0) -> Traffic:
    return woven(POPULATION, [(name, "x", inputs)], np.random.default_rng(seed))


@pytest.fixture(scope="module")
def normal() -> Slice:
    return rows_of(benign(POPULATION, 120, 30, 1))


@pytest.fixture(scope="module")
def reference(normal: Slice) -> AttackReference:
    found = fitted(normal, tuple(normal.features), trained=rows_of(asked(TRAINED, "trainer")))
    assert isinstance(found, AttackReference)
    assert found.training is not None
    return found


def test_who_asks_about_training_rows_is_found_within_three_queries(reference: AttackReference) -> None:
    needed = []
    for seed in range(20):
        rows = np.random.default_rng((22, seed)).choice(len(TRAINED), 30, replace=False)
        found = Memory(reference).take(reference.queries(rows_of(asked(TRAINED[rows], "prober", seed))))
        needed.append(found[0].row + 1)
        assert found[0].client == client_hash("prober")
        assert ("training record", 10.0) in found[0].lanes
    assert max(needed) <= 3, needed


def test_other_real_rows_are_not_training_rows(reference: AttackReference) -> None:
    found = []
    for seed in range(20):
        rows = POPULATION.draw(np.random.default_rng((23, seed)), 200)
        found += Memory(reference).take(reference.queries(rows_of(asked(rows, "normal", seed))))
    assert len(found) <= 1


def test_the_filter_errs_seldom_and_only_one_way() -> None:
    rng = np.random.default_rng(24)
    inside, outside = (rng.integers(0, 1 << 63, (20_000, 5)).astype(np.uint64) for _ in range(2))
    training = made(inside, 7)
    assert training.holds(inside).all()
    assert training.holds(outside).mean() < 5e-4
    assert len(training.bits) * 8 / 20_000 == pytest.approx(20, abs=0.1)
    assert made(inside[:10], 8).bits.tolist() != made(inside[:10], 9).bits.tolist()


def test_clients_who_ask_about_their_own_customers_are_normal() -> None:
    client = np.repeat(np.arange(1, 51, dtype=np.uint64), 20)
    member = np.zeros(1_000, dtype=np.bool_)
    assert usual_share(member, client) == pytest.approx(5e-4, rel=0.1)
    member[:20] = True  # one client in fifty asks about nothing else
    assert usual_share(member, client) > 0.4
    assert usual_share(np.zeros(100_000, dtype=np.bool_), np.repeat(client, 100)) == LEAST_SHARE


def test_a_profile_holds_the_filter_and_no_row(normal: Slice) -> None:
    trained = rows_of(asked(TRAINED, "trainer"))
    profile = build_profile(config_of(normal), normal.key, normal, calibrate_seconds=0, trained=trained)
    assert profile.attack is not None
    assert profile.attack.training is not None
    assert unpacked(*packed(profile.attack)).training is not None
    data = profile.to_bytes()
    unseen = [row for row in TRAINED if not (normal.features["f001"].values == row[1]).any()]  # type: ignore[union-attr]
    assert len(unseen) > 100
    assert not any(np.float64(row[1]).tobytes() + np.float64(row[2]).tobytes() in data for row in unseen)


def test_the_option_of_the_command_line(tmp_path: Path) -> None:
    traffic = benign(POPULATION, 60, 30, 3)
    probing = asked(TRAINED[:20], "prober")
    columns = {
        name: np.concatenate([np.asarray(values), np.asarray(probing.columns()[name])])
        for name, values in traffic.columns().items()
    }
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    names = [f"f{index:03}" for index in range(TRAINED.shape[1])]
    pq.write_table(pa.table(dict(zip(names, TRAINED.T, strict=True))), tmp_path / "train.parquet")
    asked_for = ["backtest", str(tmp_path / "log.parquet"), "--reference-rows", str(len(traffic.x))]
    more = ["--training-data", str(tmp_path / "train.parquet"), "--calibrate-seconds", "0", "--json"]
    result = CliRunner().invoke(app, [*asked_for, *more])
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    attacks = [one for one in found if one.get("family") == "attack" and one["type"] == "finding"]
    assert [one["subject"] for one in attacks] == ["prober"]
    assert attacks[0]["row"] < len(traffic.x) + 8  # a reference of 60 clients knows less
