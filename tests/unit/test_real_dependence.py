"""Small forms of benchmarks/calibration/real.py: the budget on real dependence, and shifts found all the same."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest
from benchmarks.calibration.real import measure


def options(**changed: object) -> Namespace:
    plain: dict[str, object] = {
        "runs": 12,
        "shift_runs": 4,
        "rows": 6400,
        "max_reference": None,
        "segment_rows": None,
        "budget_events": 12_800.0,
        "calibrate_seconds": 4.0,
        "seed": 1,
    }
    return Namespace(**{**plain, **changed})


@pytest.mark.shared
@pytest.mark.parametrize("stream", ["bike_sharing", "elec2_8f"])
def test_the_budget_holds_and_shifts_are_found(stream: str, shared_data: Path) -> None:
    result = measure(shared_data / "streams" / f"{stream}.parquet", options())
    for row in result["false_alarms"]:
        # 12 runs of half a budget period each: nominal 6 alarms; Poisson 99.9 % is 15.
        assert row["alarms"] <= 15, row
    assert {row["form"] for row in result["changes"]} >= {"mean", "scale", "indicator"}
    # 4 runs a chart, watched for half a budget period.
    assert result["found_share"] >= 0.95, result["changes"]
    assert all(str(row["rows"]) in row["reason"] for row in result["unwatchable"]), result["unwatchable"]


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("stream", ["airlines", "metro_traffic", "bike_sharing", "elec2_8f"])
def test_realised_over_nominal_on_real_streams(stream: str, shared_data: Path) -> None:
    result = measure(
        shared_data / "streams" / f"{stream}.parquet",
        options(runs=200, shift_runs=20, rows=None, budget_events=64_000.0, calibrate_seconds=60.0),
    )
    assert all(row["high"] <= 1.25 for row in result["false_alarms"])
    assert result["found_share"] >= 0.95
