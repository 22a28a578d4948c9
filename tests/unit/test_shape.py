"""The shape chart: another distribution with the mean and spread of the reference; and who names an incident."""

from __future__ import annotations

import numpy as np
import pytest

from regate.config.model import Feature, ModelConfig
from regate.detectors.build import build_profile
from regate.detectors.cells import BLOCK_CELLS, BLOCK_EVENTS, Block
from regate.detectors.clocks import RowClock
from regate.detectors.columns import FloatArray, ModelKey, Numeric, Slice
from regate.detectors.finding import Finding
from regate.detectors.profile import Profile
from regate.detectors.sections import MIDDLE, PRESENT, NumericSpec
from regate.detectors.watch import Watch

KEY = ModelKey("t", "m", "1", "d")
REFERENCE, AT, AFTER = 8_000, 3_200, 4_800
BUDGET = 1e6


def rows(columns: dict[str, FloatArray]) -> Slice:
    n = len(next(iter(columns.values())))
    zeros = np.zeros(n, dtype=np.int64)
    features = {name: Numeric(values) for name, values in columns.items()}
    return Slice(KEY, n, zeros.astype(np.uint64), zeros, zeros, features=features)  # type: ignore[arg-type]


def built(columns: dict[str, FloatArray]) -> Profile:
    config = ModelConfig(model="m", features={name: Feature(type="numeric") for name in columns})
    return build_profile(config, KEY, rows(columns), budget_events=BUDGET, calibrate_seconds=5.0)


def findings(profile: Profile, columns: dict[str, FloatArray]) -> list[Finding]:
    part = rows(columns)
    watch = Watch(profile, RowClock(BUDGET, part.n))
    stats = profile.accumulate(part, np.arange(part.n) // BLOCK_EVENTS, -(-part.n // BLOCK_EVENTS))
    blocks = [Block(0, number * BLOCK_CELLS, number * BLOCK_CELLS, row, 0) for number, row in enumerate(stats)]
    return watch.take(blocks)


@pytest.fixture(scope="module")
def profile() -> Profile:
    rng = np.random.default_rng(1)
    return built({"x": rng.standard_normal(REFERENCE)})


def test_two_humps_with_the_same_mean_and_spread_are_found_by_the_shape(profile: Profile) -> None:
    rng = np.random.default_rng(2)
    humps = np.where(rng.random(AFTER) < 0.5, 0.8, -0.8) + 0.6 * rng.standard_normal(AFTER)
    found = findings(profile, {"x": np.concatenate([rng.standard_normal(AT), humps])})
    assert [(one.subject, one.carriers[0].statistic) for one in found if one.type == "finding"] == [("x", "shape")]
    assert AT < found[0].detected_us < AT + 2_500
    assert float(found[0].effect) == pytest.approx(-0.09, abs=0.03)  # .5 of the rows were in the middle half, .41 are


def test_the_middle_half_is_counted_and_missing_values_are_not(profile: Profile) -> None:
    spec = next(one for one in profile.layout.sections if isinstance(one, NumericSpec))
    values = np.array([0.0, 0.6, -0.6, 0.8, -3.0, np.nan])
    stats = profile.accumulate(rows({"x": values}), np.zeros(6, dtype=np.int64), 1)[0]
    assert (stats[spec.first + PRESENT], stats[spec.first + MIDDLE]) == (5, 3)


def test_few_values_have_no_shape() -> None:
    rng = np.random.default_rng(3)
    columns = {"x": rng.standard_normal(REFERENCE), "flag": (rng.random(REFERENCE) < 0.9).astype(np.float64)}
    shapes = [chart.subject for chart in built(columns).charts if chart.statistic == "shape"]
    assert shapes == ["x"]


def test_of_causes_with_like_evidence_the_larger_change_names_the_incident() -> None:
    rng = np.random.default_rng(4)
    profile = built({"small": rng.standard_normal(REFERENCE), "large": rng.standard_normal(REFERENCE)})
    named = []
    for seed in range(8):
        rng = np.random.default_rng((5, seed))
        moved = {"small": 0.5, "large": 0.9}
        found = findings(
            profile,
            {
                name: np.concatenate([rng.standard_normal(AT), rng.standard_normal(800) + shift])
                for name, shift in moved.items()
            },
        )
        named.append(found[0].subject)
    assert named.count("large") >= 7, named
