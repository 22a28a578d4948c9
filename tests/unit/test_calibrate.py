from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest
from benchmarks.calibration.continuations import NULLS
from benchmarks.calibration.loop import blocks_of, numeric_config, numeric_rows, watch
from benchmarks.calibration.nulls import measure

from regate.detectors.build import build_profile
from regate.detectors.calibrate import extended, threshold
from regate.detectors.charts import Bank
from regate.detectors.profile import Profile
from regate.detectors.simulate import Exceedances

BUDGET = 64_000.0


def built(values: np.ndarray, seconds: float = 60.0, seed: int = 0, budget: float = BUDGET) -> Profile:
    rows = numeric_rows({"x": values})
    return build_profile(
        numeric_config(["x"]), rows.key, rows, budget_events=budget, calibrate_seconds=seconds, seed=seed
    )


def counts(levels: list[float], alarms: list[int], blocks: int, steps: int = 10**6) -> Exceedances:
    return Exceedances(
        np.array(levels), np.array(alarms), np.full(len(levels), blocks), np.zeros((len(levels), 1), dtype=int), steps
    )


def test_calibration_is_a_function_of_its_input_alone() -> None:
    values = np.random.default_rng(3).standard_normal(8000)
    first = built(values, seconds=2.0)
    assert built(values, seconds=2.0).digest == first.digest
    assert built(values, seconds=2.0, seed=1).digest != first.digest
    assert first.calibration.block_updates > 0
    assert all(log_h <= 0 for log_h in first.calibration.log10_threshold)


def test_the_amount_of_simulation_is_capped_and_says_so() -> None:
    values = np.random.default_rng(3).standard_normal(8000)
    short, enough = built(values, seconds=0.2).calibration, built(values, seconds=60.0).calibration
    assert short.capped
    assert not enough.capped
    assert short.block_updates < enough.block_updates
    assert built(values, seconds=0.0).calibration.log10_threshold == ()


def test_the_threshold_is_where_the_upper_rate_meets_the_budget() -> None:
    # An exact power law of slope -1.2: rate = .2 * level^-1.2, many alarms, so upper and estimate nearly agree.
    levels = [2.0**k for k in range(3, 12)]
    blocks = 10**9
    alarms = [int(blocks * 0.2 * level**-1.2) for level in levels]
    found = threshold(counts(levels, alarms, blocks), 1000.0, float("inf")) * 1000.0
    assert found == pytest.approx((0.2 * 1000.0) ** (1 / 1.2), rel=0.02)
    few = [max(1, alarm // 10_000) for alarm in alarms]
    assert threshold(counts(levels, few, blocks // 10_000), 1000.0, float("inf")) * 1000.0 > found


def test_nothing_is_extrapolated_below_the_lowest_rate_that_was_seen() -> None:
    levels = [2.0**k for k in range(3, 12)]
    blocks = 10**6
    alarms = [int(blocks * 0.2 * level**-2.0) for level in levels]
    seen = counts(levels, alarms, blocks)
    # 20 alarms in 10^6 blocks end the support: from there threshold / ceiling stays what it is.
    assert threshold(seen, 1e6, float("inf")) == pytest.approx(threshold(seen, 1e7, float("inf")))
    assert threshold(seen, 1e6, float("inf")) > threshold(seen, 1e3, float("inf")) / 100
    # The reference's own blocks may end it earlier.
    assert threshold(seen, 1e4, 300.0) == pytest.approx(threshold(seen, 100.0, float("inf")))
    assert threshold(seen, 1e4, 300.0) > threshold(seen, 1e4, float("inf"))


def test_too_few_alarms_anywhere_leave_the_ceiling() -> None:
    assert threshold(counts([2.0, 4.0, 8.0], [19, 3, 0], 1000), 100.0, float("inf")) == 1.0
    assert threshold(counts([2.0, 4.0], [0, 0], 1000), 100.0, float("inf")) == 1.0
    # Streams too short for their run length say nothing.
    assert threshold(counts([2.0, 4.0], [500, 400], 10**6, steps=100), 100.0, float("inf")) == 1.0


def test_the_ceiling_is_never_passed() -> None:
    alarms = [int(10**6 * min(0.5, 30.0 / level)) for level in (50.0, 100.0, 200.0, 400.0)]
    assert threshold(counts([50.0, 100.0, 200.0, 400.0], alarms, 10**6), 300.0, float("inf")) == 1.0


def test_false_alarms_of_normal_streams_stay_near_the_budget() -> None:
    """A small form of benchmarks/calibration/normal.py: 4 streams of 120,000 rows, nominal 6.25 alarms."""
    alarms = 0
    for seed in range(4):
        values = np.random.default_rng((7, seed)).standard_normal(120_000)
        profile = built(values[:20_000], seconds=4.0, seed=seed)
        assert profile.calibration.log10_threshold[1] < -0.5  # far below the ceiling, or it would be no calibration
        alarms += len(watch(Bank(profile), blocks_of(profile, numeric_rows({"x": values[20_000:]})), BUDGET))
    # Poisson 99.9 % around 6.25.
    assert 1 <= alarms <= 16


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_the_budget_holds_at_other_traffic(scale: float) -> None:
    """Watched at a tenth and ten times the profile's traffic: nominal 10 alarms each."""
    values = np.random.default_rng(11).standard_normal(200_000 + 20_000)
    profile = built(values[:20_000], seconds=4.0, budget=20_000.0 / scale)
    found = watch(Bank(profile), blocks_of(profile, numeric_rows({"x": values[20_000:]})), 20_000.0)
    assert len(found) <= 21  # Poisson 99.9 %


def test_beyond_its_support_a_steep_curve_goes_on_flatter_and_a_flat_one_keeps_its_ratio() -> None:
    levels = [2.0**k for k in range(1, 12)]
    blocks = 10**9
    steep = counts(levels, [int(blocks * 0.2 * level**-3.0) for level in levels], blocks)
    flat = counts(levels, [int(blocks * 0.02 * level**-1.1) for level in levels], blocks)
    at = threshold(steep, 100.0, float("inf"))
    # Slope 3, taken for 2.5: ten times the run length needs 10^(1/2.5) times the level.
    assert extended(steep, 1000.0, 100.0) == pytest.approx(at * 10 ** (1 / 2.5 - 1), rel=0.03)
    assert extended(flat, 1000.0, 100.0) == pytest.approx(threshold(flat, 100.0, float("inf")), rel=0.01)


def test_the_budget_is_used_on_dependent_rows_and_on_many_categories() -> None:
    """A small form of benchmarks/calibration/nulls.py: far below the budget is a failure too."""
    options = Namespace(
        references=6,
        continuations=4,
        reference_rows=20_000,
        periods=2.0,
        budget_events=BUDGET,
        calibrate_seconds=8.0,
        moved=None,
        seed=3,
    )
    for name in ("ar5", "zipf"):
        row = measure(NULLS[name], options)
        # 48 nominal alarms; 200 runs give .85 and .65. Before spreads came from an autoregression and worlds were
        # balanced: .28 and .47.
        assert {"ar5": 0.5, "zipf": 0.4}[name] <= row["ratio"] <= 1.5, row
