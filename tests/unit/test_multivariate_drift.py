"""Multivariate drift: dependence that changes alone is found; what follows from one feature is no incident."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

from regate.config.model import Feature, ModelConfig
from regate.detectors.build import build_profile
from regate.detectors.cells import BLOCK_EVENTS, Block
from regate.detectors.clocks import RowClock, row_cells
from regate.detectors.columns import Categorical, Column, ModelKey, Numeric, Slice
from regate.detectors.finding import Finding
from regate.detectors.multivariate_drift import (
    AT_ONCE,
    LONG,
    MAX_DIRECT,
    MOST_ROWS,
    CrossSpec,
    combined,
    halves_of,
    signs,
)
from regate.detectors.profile import Profile
from regate.detectors.ranktable import build_table
from regate.detectors.sections import CategoricalSpec, NumericSpec
from regate.detectors.views import event_view
from regate.detectors.watch import Watch

KEY = ModelKey("default", "joint", "1", "production")
AT, ROWS, REFERENCE = 3_200, 6_400, 20_000
Columns = dict[str, Column]


def numeric(z: np.ndarray) -> Columns:
    return {f"x{number:02}": Numeric(row) for number, row in enumerate(z)}


def rows_of(columns: Columns, n: int) -> Slice:
    index = np.arange(n, dtype=np.int64)
    return Slice(KEY, n, (index + 1).astype(np.uint64), index, index, features=columns)


def config_of(columns: Columns) -> ModelConfig:
    kinds = {name: "numeric" if isinstance(one, Numeric) else "boolean" for name, one in columns.items()}
    return ModelConfig(model="joint", features={name: Feature(type=kind) for name, kind in kinds.items()})


def profile_of(columns: Columns, n: int = REFERENCE) -> Profile:
    return build_profile(config_of(columns), KEY, rows_of(columns, n), budget_events=1e6, calibrate_seconds=5)


def found(profile: Profile, columns: Columns, n: int = ROWS) -> list[Finding]:
    rows = rows_of(columns, n)
    group = np.arange(n) // BLOCK_EVENTS
    stats = profile.accumulate(rows, group, int(group[-1]) + 1)
    cells = row_cells(np.arange(len(stats)) * BLOCK_EVENTS).tolist()
    blocks = [Block(0, cell, cell, row, 0) for cell, row in zip(cells, stats, strict=True)]
    return [one for one in Watch(profile, RowClock(1e6, n)).take(blocks) if one.type == "finding"]


def alike(rng: np.random.Generator, features: int, rows: int, r: float) -> np.ndarray:
    z = rng.standard_normal((features, rows))
    return np.sqrt(r) * rng.standard_normal(rows) + np.sqrt(1.0 - r) * z


@lru_cache(maxsize=2)
def eight(r: float = 0.0) -> Profile:
    return profile_of(numeric(alike(np.random.default_rng(1), 8, REFERENCE, r)))


@pytest.mark.parametrize("features", [8, 2], ids=["all pairs of eight", "one pair of eight"])
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5, 6])
def test_a_correlation_that_flips_is_found_within_400_events_and_by_no_single_feature(features: int, seed: int) -> None:
    rng = np.random.default_rng((2, seed))
    z = rng.standard_normal((8, ROWS))
    z[:features, AT:] = alike(rng, features, ROWS - AT, 0.6)
    (first,) = found(eight(), numeric(z))
    assert (first.family, first.kind, first.unit) == ("multivariate_drift", "change", "correlation")
    assert AT <= first.detected_us < AT + 400
    assert {carrier.family for carrier in first.carriers} == {"multivariate_drift"}
    if features == 2:
        assert first.subject == "x00 × x01"  # noqa: RUF001
        assert float(first.effect) == pytest.approx(0.6, abs=0.3)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("move", ["mean", "spread", "both", "slowly"])
def test_one_feature_that_moves_is_one_incident_and_its_correlations_are_in_it(move: str, seed: int) -> None:
    """All pairs are correlated, so that products move with the feature."""
    z = alike(np.random.default_rng((3, seed)), 8, ROWS, 0.6)
    if move == "spread":
        z[0, AT:] *= 1.6
    else:
        z[0, AT:] += {"mean": 1.0, "both": 0.7, "slowly": 0.4}[move]
    if move == "both":
        z[0, AT:] *= 1.4
    first, *others = found(eight(0.6), numeric(z))
    assert (first.family, first.subject) == ("feature_drift", "x00")
    assert first.detected_us >= AT
    assert "multivariate_drift" not in {one.family for one in others}


@pytest.mark.parametrize("r", [0.0, 0.6])
@pytest.mark.parametrize("seed", [11, 12])
def test_where_nothing_changes_nothing_is_found(r: float, seed: int) -> None:
    assert found(eight(r), numeric(alike(np.random.default_rng(seed), 8, ROWS, r))) == []


def flagged(rng: np.random.Generator, n: int, r: np.ndarray) -> Columns:
    """Return a number and a flag whose correlation (before the cut) is ``r``, and a flag of its own."""
    x, y = rng.standard_normal(n), rng.standard_normal(n)
    flag = r * x + np.sqrt(1.0 - r * r) * y > 0.5
    other = rng.random(n) < 0.2
    codes = {"flag": flag.astype(np.int32), "other": other.astype(np.int32)}
    return {"x": Numeric(x)} | {name: Categorical(code, ("false", "true")) for name, code in codes.items()}


def test_a_flag_that_begins_to_follow_a_number_is_found() -> None:
    profile = profile_of(flagged(np.random.default_rng(5), REFERENCE, np.zeros(REFERENCE)))
    stream = flagged(np.random.default_rng(6), ROWS, np.where(np.arange(ROWS) < AT, 0.0, 0.7))
    (first,) = found(profile, stream)
    assert (first.family, first.subject) == ("multivariate_drift", "x × flag")  # noqa: RUF001
    assert float(first.effect) > 0  # upwards: the later name is the upper one, however frequent
    assert AT <= first.detected_us < AT + 600


def test_many_features_are_paired_by_sixteen_combinations_of_variance_one() -> None:
    rng = np.random.default_rng(7)
    z = alike(rng, 24, REFERENCE, 0.5)  # alone a combination would vary by its own mix of signs
    profile = profile_of(numeric(z))
    spec = next(one for one in profile.layout.sections if isinstance(one, CrossSpec))
    mixed = spec.scores(event_view(rows_of(numeric(z), REFERENCE), np.zeros(REFERENCE, dtype=np.int16)))
    assert mixed.shape == (MAX_DIRECT, REFERENCE)
    assert (mixed == np.rint(mixed)).all()
    np.testing.assert_allclose((mixed / 256).std(axis=1), 1.0, atol=0.02)
    assert (signs(24) == signs(24)).all()
    late = alike(rng, 24, ROWS, 0.5)
    late[12:, AT:] = alike(rng, 12, ROWS - AT, 0.5)  # one half no longer goes with the other
    (first,) = found(profile, numeric(late))
    assert first.family == "multivariate_drift"
    assert first.subject.startswith("mix ")


# -- sums ----------------------------------------------------------------------------------------------------------


def cross(strata: int = 1) -> CrossSpec:
    rng = np.random.default_rng(3)
    specs = tuple(
        NumericSpec(f"x{n:02}", 0, tuple(build_table(rng.standard_normal(2_000)) for _ in range(strata)))
        for n in range(4)
    )
    flag = CategoricalSpec("flag", 0, ("false", "true"), ())
    halves = ((), (), (), (), halves_of(0.8))
    return CrossSpec("multivariate", 0, (*(one.name for one in specs), "flag"), halves, (), (*specs, flag))


def stream(n: int) -> Slice:
    rng = np.random.default_rng(9)
    columns = numeric(rng.standard_normal((4, n)))
    columns["x01"] = Numeric(np.where(rng.random(n) < 0.1, np.nan, rng.standard_normal(n)))
    columns["flag"] = Categorical(rng.integers(-1, 3, n).astype(np.int32), ("true", "new", "false"))
    return rows_of(columns, n)


@pytest.mark.parametrize("strata", [1, 3])
@pytest.mark.parametrize("groups", [1, 7, 800])
def test_products_add_up_exactly_over_1_to_16_shards_in_any_order(groups: int, strata: int) -> None:
    spec, rows = cross(strata), stream(3_000)
    assert (groups == 800) == (rows.n < groups * LONG)  # short groups are summed another way
    rng = np.random.default_rng(4)
    group, stratum = rng.integers(0, groups, rows.n), rng.integers(0, strata, rows.n).astype(np.int16)

    def sums(mine: np.ndarray) -> np.ndarray:
        into = np.zeros((groups, spec.width), dtype=np.int64)
        spec.add(event_view(rows.some(mine), stratum[mine]), group[mine], groups, into)
        return into

    whole = sums(np.ones(rows.n, dtype=bool))
    z = spec.scores(event_view(rows, stratum)).astype(np.int64)
    left, right = np.triu_indices(5, 1)
    by_hand = np.zeros_like(whole)
    np.add.at(by_hand, group, (z[left] * z[right]).T)
    assert (whole == by_hand).all()
    for shards in (1, 2, 5, 16):
        owner = rng.integers(0, shards, rows.n)
        assert (sum(sums(owner == shard) for shard in range(shards)) == whole).all()


def test_no_slice_is_so_long_that_sums_would_not_be_exact() -> None:
    assert MOST_ROWS * (4 * 256) ** 2 <= 2**53


def test_combinations_are_the_same_however_many_features_are_held_at_once() -> None:
    rng = np.random.default_rng(12)
    z = np.rint(rng.standard_normal((3 * AT_ONCE + 5, 300)) * 256)

    def write(row: int, into: np.ndarray) -> None:
        into[:] = z[row]

    assert (combined(len(z), 300, write) == signs(len(z)) @ z).all()


def test_a_profile_brings_the_pairs_back_from_its_bytes() -> None:
    n = 2_000
    flags = flagged(np.random.default_rng(5), n, np.zeros(n))
    for columns in (flags, numeric(np.random.default_rng(8).standard_normal((20, n)))):
        made = profile_of(columns, n)
        again = Profile.from_bytes(made.to_bytes())
        assert again.digest == made.digest
        rows, group = rows_of(columns, n), np.zeros(n, dtype=np.int64)
        assert (made.accumulate(rows, group, 1) == again.accumulate(rows, group, 1)).all()


def test_a_feature_with_another_reference_restarts_its_own_pairs_only() -> None:
    z = np.random.default_rng(10).standard_normal((4, 4_000))
    before = profile_of(numeric(z), 4_000)
    z[3] = np.exp(z[3]) + np.random.default_rng(11).standard_normal(4_000)
    after = profile_of(numeric(z), 4_000)
    same = {chart.name for chart in before.charts} & {
        one.name for one, two in zip(before.charts, after.charts, strict=True) if one.digest == two.digest
    }
    pairs = {name for name in same if name.startswith("multivariate_drift")}
    others = (("x00", "x01"), ("x00", "x02"), ("x01", "x02"))
    assert pairs == {f"multivariate_drift/{one} × {two}/correlation" for one, two in others}  # noqa: RUF001
