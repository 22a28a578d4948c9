from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from regate.config.model import Detection, Feature, ModelConfig
from regate.detectors.build import build_profile
from regate.detectors.charts import CHART_FIELDS, POINT_FIELDS, Bank, BankState
from regate.detectors.columns import Column, ModelKey, Numeric, Slice
from regate.detectors.marks import Outcomes
from regate.detectors.profile import Calibration, Profile

KEY = ModelKey("t", "m", "1", "d")
DELTA = 64 / 1e6


def rows(features: dict[str, Column], n: int) -> Slice:
    zeros = np.zeros(n, dtype=np.int64)
    return Slice(KEY, n, zeros.astype(np.uint64), zeros, zeros, features=features)


def normal(seed: int, n: int, names: str = "xy") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(n) for name in names}


def numeric(values: dict[str, np.ndarray]) -> Slice:
    return rows({name: Numeric(column) for name, column in values.items()}, len(next(iter(values.values()))))


@pytest.fixture(scope="module")
def profile() -> Profile:
    reference = numeric(normal(1, 20_000))
    wrong = (np.random.default_rng(2).random(20_000) < 0.1).astype(np.float64)
    alone = Detection(families={"output_drift": 0, "multivariate_drift": 0})
    config = ModelConfig(model="m", features={name: Feature(type="numeric") for name in "xy"}, detection=alone)
    guess = Numeric(np.zeros(20_000))
    return build_profile(config, KEY, replace(reference, prediction=guess), Numeric(wrong), calibrate_seconds=0)


@pytest.fixture(scope="module")
def bank(profile: Profile) -> Bank:
    return Bank(profile)


def blocks(profile: Profile, part: Slice) -> np.ndarray:
    return profile.accumulate(part, np.arange(part.n) // 64, part.n // 64)


def outcomes(profile: Profile, wrong: np.ndarray) -> np.ndarray:
    strata = np.zeros(wrong.size, dtype=np.int16)
    return profile.accumulate_outcomes(Outcomes(wrong), strata, np.arange(wrong.size) // 64, wrong.size // 64)


def run(bank: Bank, state: BankState, part: np.ndarray) -> tuple[BankState, list[float]]:
    totals = []
    for block in part:
        result = bank.step(state, block, 0, DELTA, mark=1000 + 64 * state.blocks)
        state = result.state
        totals.append(result.total)
    return state, totals


def chart(bank: Bank, name: str) -> int:
    return [spec.name for spec in bank.charts].index(name)


def test_one_step_is_the_formula_of_shiryaev_and_roberts(profile: Profile, bank: Bank) -> None:
    block = blocks(profile, numeric(normal(3, 128)))
    state = bank.step(bank.start(), block[0], 0, DELTA).state
    result = bank.step(state, block[1], 0, 2 * DELTA)
    points = profile.points
    s = np.array([spec.s_column for spec in bank.charts])[points.chart]
    n = np.array([spec.n_column for spec in bank.charts])[points.chart]
    first, second = (2.0 ** (part[s] * points.a[0] + part[n] * points.b[0]) for part in block)
    by_hand = (DELTA * first + 2 * DELTA) * second * bank.watchable[points.chart]
    np.testing.assert_allclose(2.0**result.state.log2_r, by_hand, rtol=1e-8)
    mean = [by_hand[points.chart == index].mean() for index in range(len(bank.charts))]
    np.testing.assert_allclose(10.0**result.log_r, mean, rtol=1e-8)
    assert result.total == pytest.approx(np.log10((bank.weights * mean).sum()))
    assert (result.state.log2_r * 2.0**32 % 1.0 == 0).all()


def test_a_shift_is_found_with_its_onset_and_size(profile: Profile, bank: Bank) -> None:
    state, before = run(bank, bank.start(), blocks(profile, numeric(normal(4, 6400))))
    assert max(before) < 0
    moved = normal(5, 1280)
    moved["y"] = moved["y"] + 0.8
    state, after = run(bank, state, blocks(profile, numeric(moved)))
    assert int(np.argmax(np.array(after) > 0)) <= 2
    told = bank.explain(state)
    carrier = int(np.argmax(told.log_r))
    assert bank.charts[carrier].name == "feature_drift/y/mean"
    assert abs(int(told.onset_block[carrier]) - 100) <= 1
    assert told.onset_mark[carrier] == 1000 + 64 * told.onset_block[carrier]
    assert told.effect[carrier] == pytest.approx(0.8, abs=0.1)


def test_scale_and_rate_effects_are_in_their_own_units(profile: Profile, bank: Bank) -> None:
    wide = normal(6, 6400)
    wide["x"] = wide["x"] * 1.5
    part = blocks(profile, numeric(wide))
    wrong = (np.random.default_rng(7).random(6400) < 0.3).astype(np.int64)
    part = part + outcomes(profile, wrong)
    state, _ = run(bank, bank.start(), part)
    told = bank.explain(state)
    assert told.effect[chart(bank, "feature_drift/x/scale")] == pytest.approx(1.45, abs=0.1)
    assert told.effect[chart(bank, "performance/error/rate")] == pytest.approx(0.2, abs=0.02)
    assert bank.charts[chart(bank, "performance/error/rate")].kind == "harm"


def test_fewer_errors_are_no_harm(profile: Profile, bank: Bank) -> None:
    part = blocks(profile, numeric(normal(8, 6400)))
    part = part + outcomes(profile, np.zeros(6400, dtype=np.int64))
    state, _ = run(bank, bank.start(), part)
    assert bank.log_r(state)[chart(bank, "performance/error/rate")] < -2


def test_a_followed_chart_leaves_the_mean_and_the_rest_is_scaled_at_most_twice(bank: Bank) -> None:
    log_r = np.full(len(bank.charts), -1.0)
    lead = chart(bank, "feature_drift/x/mean")
    log_r[lead] = 400.0
    rest = np.ones(len(bank.charts), dtype=np.bool_)
    rest[lead] = False
    assert bank.total(log_r) > 390
    assert bank.total(log_r, rest) == pytest.approx(-1.0)
    only = np.zeros(len(bank.charts), dtype=np.bool_)
    light = chart(bank, "data_quality/x/missing")
    only[light] = True
    assert bank.total(log_r, only) == pytest.approx(-1.0 + np.log10(2 * bank.weights[light]))
    assert bank.total(log_r, np.zeros(len(bank.charts), dtype=np.bool_)) < -1e5


def test_restart_forgets_only_the_charts_named(profile: Profile, bank: Bank) -> None:
    state, _ = run(bank, bank.start(), blocks(profile, numeric(normal(9, 640))))
    named = np.zeros(len(bank.charts), dtype=np.bool_)
    named[0] = True
    log_r, before = bank.log_r(bank.restart(state, named)), bank.log_r(state)
    assert log_r[0] < -1e5
    assert log_r[1:].tolist() == before[1:].tolist()


def test_the_state_of_a_chart_moves_to_another_bank(profile: Profile, bank: Bank) -> None:
    state, _ = run(bank, bank.start(), blocks(profile, numeric(normal(10, 640))))
    fresh = replace(bank.start(), blocks=state.blocks, events=state.events)
    for index in range(len(bank.charts)):
        fresh = bank.load(fresh, index, bank.dump(state, index))
    for name in (*POINT_FIELDS, *CHART_FIELDS):
        assert getattr(fresh, name).tolist() == getattr(state, name).tolist()


def test_the_threshold_follows_traffic_and_is_the_ceiling_outside(profile: Profile) -> None:
    calibrated = replace(profile, calibration=Calibration((5.0, 6.0, 7.0), (-1.0, -2.0, -3.0)))
    bank = Bank(calibrated)
    assert bank.threshold(1e5) == pytest.approx(-1.0)
    assert bank.threshold(10**6.5) == pytest.approx(-2.5)
    assert bank.threshold(0.9e5) == bank.threshold(1.1e7) == bank.threshold(0.0) == 0.0
    assert Bank(profile).threshold(1e6) == 0.0


@pytest.mark.parametrize("size", [16, 64, 256])
def test_r_minus_elapsed_time_does_not_grow_whatever_the_block_size(profile: Profile, bank: Bank, size: int) -> None:
    """E[R] <= elapsed time under the null is what the ceiling promises; margins make it smaller."""
    part = numeric(normal(11, 640_000))
    statistics = profile.accumulate(part, np.arange(part.n) // size, part.n // size)
    state, r = bank.start(), []
    horizon = 12_800 // size
    for number, block in enumerate(statistics):
        result = bank.step(state, block, 0, size / 12_800)
        state = result.state
        if (number + 1) % horizon == 0:
            r.append(10.0**result.total)
            state = bank.start()
    assert len(r) == 50
    assert np.mean(r) < 1.1
