from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from regate.config.errors import ConfigError
from regate.config.model import Detection, Feature, ModelConfig
from regate.detectors.arrays import pack, unpack
from regate.detectors.build import build_profile
from regate.detectors.columns import Categorical, Column, ModelKey, Numeric, Slice
from regate.detectors.layout import ChartSpec
from regate.detectors.profile import Profile

KEY = ModelKey("t", "m", "1", "d")
N = 6000
RNG = np.random.default_rng(12)
CODES = RNG.choice(5, size=N, p=[0.5, 0.3, 0.15, 0.0494, 0.0006]).astype(np.int32)
COLUMNS: dict[str, Column] = {
    "income": Numeric(RNG.lognormal(size=N)),
    "gaps": Numeric(np.where(RNG.random(N) < 0.05, np.nan, RNG.standard_normal(N))),
    "fixed": Numeric(np.full(N, 3.5)),
    "late": Numeric(np.where(np.arange(N) < 3100, 0.0, RNG.standard_normal(N))),
    "clock": Numeric(np.arange(N, dtype=float)),
    "empty": Numeric(np.full(N, np.nan)),
    "colour": Categorical(CODES, ("red", "blue", "green", "grey", "teal")),
    "id": Categorical(np.arange(N, dtype=np.int32), tuple(f"u{index}" for index in range(N))),
    "flag": Categorical((RNG.random(N) < 0.2).astype(np.int32), ("false", "true")),
    "note": Categorical(np.zeros(N, dtype=np.int32), ("text",)),
}
KINDS = {"colour": "categorical", "id": "categorical", "flag": "boolean", "note": "text"}


def rows(columns: dict[str, Column] = COLUMNS, times: np.ndarray | None = None) -> Slice:
    zeros = np.zeros(N, dtype=np.int64)
    return Slice(KEY, N, zeros.astype(np.uint64), zeros if times is None else times, zeros, features=columns)


def config(
    names: tuple[str, ...] = tuple(COLUMNS), detection: Detection | None = None, **weights: float
) -> ModelConfig:
    return ModelConfig(
        model="m",
        features={
            name: Feature(type=KINDS.get(name, "numeric"), weight=weights.get(name, 1.0))  # type: ignore[arg-type]
            for name in names
        },
        detection=detection or Detection(),
    )


@pytest.fixture(scope="module")
def profile() -> Profile:
    return build_profile(config(), KEY, rows(), calibrate_seconds=0)


def by_name(profile: Profile) -> dict[str, ChartSpec]:
    return {chart.name.removeprefix("feature_drift/"): chart for chart in profile.charts}


def test_bytes_give_exactly_the_same_profile_back(profile: Profile) -> None:
    again = Profile.from_bytes(profile.to_bytes())
    assert again.to_bytes() == profile.to_bytes()
    assert again.digest == profile.digest
    assert again.charts == profile.charts
    assert again.calibration == profile.calibration
    part, group = rows(), np.arange(N) // 64
    assert (again.accumulate(part, group, 94) == profile.accumulate(part, group, 94)).all()
    for name in ("chart", "a", "b", "centre"):
        assert (getattr(again.points, name) == getattr(profile.points, name)).all()


def test_damaged_and_newer_bytes_are_refused(profile: Profile) -> None:
    data = profile.to_bytes()
    with pytest.raises(ConfigError, match="profile build"):
        Profile.from_bytes(data[: len(data) // 2])
    with pytest.raises(ConfigError, match="profile build"):
        Profile.from_bytes(b"something else")
    meta, arrays = unpack(data)
    with pytest.raises(ConfigError, match="schema 99"):
        Profile.from_bytes(pack({**meta, "profile": 99}, arrays))


def test_the_same_reference_gives_the_same_digest_and_another_another(profile: Profile) -> None:
    assert build_profile(config(), KEY, rows(), calibrate_seconds=0).digest == profile.digest
    moved = {**COLUMNS, "income": Numeric(COLUMNS["income"].values + 1e-9)}  # type: ignore[union-attr]
    assert build_profile(config(), KEY, rows(moved), calibrate_seconds=0).digest != profile.digest


def test_a_changed_weight_or_column_changes_only_the_digests_of_its_own_charts(profile: Profile) -> None:
    before = by_name(profile)
    heavier = by_name(build_profile(config(income=2.0), KEY, rows(), calibrate_seconds=0))
    assert {name for name in before if before[name].digest != heavier[name].digest} == {
        "income/mean",
        "income/scale",
        "income/shape",
        "data_quality/income/missing",
    }
    fewer = by_name(build_profile(config(("gaps", "colour")), KEY, rows(), calibrate_seconds=0))
    assert all(chart.digest == before[name].digest for name, chart in fewer.items())


def test_columns_that_say_nothing_are_listed_with_both_numbers(profile: Profile) -> None:
    charts = by_name(profile)
    assert charts["income/mean"].watchable
    assert charts["income/mean"].tau == 1.0
    assert not charts["clock/mean"].watchable  # rises for ever: tau is as long as the reference
    assert str(N) in charts["clock/mean"].reason
    assert not charts["empty/mean"].watchable
    assert "0 reference rows" in charts["empty/mean"].reason
    assert not charts["id/rare"].watchable
    assert set(profile.unwatchable) == {chart for chart in profile.charts if not chart.watchable}
    assert "note: no chart for text" in profile.notes


def test_a_constant_column_is_watched_and_one_that_began_to_move_is_wide(profile: Profile) -> None:
    charts = by_name(profile)
    assert charts["fixed/mean"].watchable
    assert charts["fixed/mean"].margin == 0.05 or charts["fixed/mean"].margin < 0.06
    assert not charts["late/scale"].watchable or charts["late/scale"].margin > 0.5


def test_categories_share_one_weight_and_rare_ones_one_chart(profile: Profile) -> None:
    charts = by_name(profile)
    colours = [chart for name, chart in charts.items() if name.startswith(("colour/=", "colour/rare"))]
    assert {chart.statistic for chart in colours} == {"=red", "=blue", "=green", "=grey", "rare"}
    assert sum(chart.weight for chart in colours) == pytest.approx(1.0)
    # Of two categories one rate says it all.
    assert [name for name in charts if name.startswith("flag/=")] == ["flag/=true"]


def test_charts_beyond_max_charts_are_dropped_by_weight_and_listed() -> None:
    small = config(("income", "gaps"), Detection(max_charts=5, families={"multivariate_drift": 0}), gaps=0.1)
    profile = build_profile(small, KEY, rows(), calibrate_seconds=0)
    assert [chart.name for chart in profile.charts] == [
        "feature_drift/income/mean",
        "feature_drift/income/scale",
        "feature_drift/income/shape",
        "feature_drift/gaps/mean",
        "data_quality/income/missing",
    ]
    assert profile.dropped[:2] == ("feature_drift/gaps/scale", "feature_drift/gaps/shape")


def test_a_reference_that_supports_nothing_is_refused() -> None:
    ever = {"clock": COLUMNS["clock"]}
    with pytest.raises(ConfigError, match="no feature is watched"):
        build_profile(config(("note",)), KEY, rows(), calibrate_seconds=0)
    with pytest.raises(ConfigError, match="at least 200"):
        build_profile(config(("clock",)), KEY, replace(rows(ever), n=10), calibrate_seconds=0)


def test_strata_have_their_own_tables_and_rates() -> None:
    times = np.arange(N, dtype=np.int64) * 1_800_000_000  # one event each half hour
    hour = times // 3_600_000_000 % 24
    values = hour + np.random.default_rng(1).standard_normal(N)
    busy = Categorical((np.random.default_rng(2).random(N) < hour / 24).astype(np.int32), ("false", "true"))
    columns: dict[str, Column] = {"income": Numeric(values), "flag": busy}
    plain = build_profile(config(("income", "flag")), KEY, rows(columns, times), calibrate_seconds=0)
    hourly = build_profile(
        config(("income", "flag"), Detection(strata="hour")), KEY, rows(columns, times), calibrate_seconds=0
    )
    assert hourly.points.a.shape[0] == 24
    # What the hour explains is not dependence any more.
    assert by_name(plain)["income/mean"].tau > 5.0
    assert by_name(hourly)["income/mean"].tau == 1.0
    rate = hourly.points.centre[:, [chart.name for chart in hourly.charts].index("feature_drift/flag/=true")]
    assert (np.diff(rate[[0, 6, 12, 18]]) > 0.1).all()
    assert hourly.stratum(times)[:4].tolist() == [0, 0, 1, 1]
    assert Profile.from_bytes(hourly.to_bytes()).digest == hourly.digest


def test_power_says_what_is_found_and_more_takes_less_time(profile: Profile) -> None:
    chart = by_name(profile)["income/mean"]
    assert 0.05 < chart.minimal_effect < 0.5
    events = [delay for _, delay in chart.delays]
    assert events == sorted(events, reverse=True)
