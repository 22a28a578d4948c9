"""Statistics add up: any cut of the rows, any order, any grouping gives the same integers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.served_streams import config, reference, served

from regate.detectors.accumulate import accumulate
from regate.detectors.columns import Categorical, ModelKey, Numeric, Slice
from regate.detectors.grids import indicator_points, mean_points, scale_points
from regate.detectors.layout import Layout
from regate.detectors.numerics import LN_2, UNIT, normal_quantile
from regate.detectors.outcomes import reference_outcomes
from regate.detectors.ranktable import build_table
from regate.detectors.sections import CategoricalSpec, NumericSpec
from regate.detectors.views import event_view

KEY = ModelKey("t", "m", "1", "d")
LAYOUT = Layout(
    (
        NumericSpec("x", 1, (build_table(np.random.default_rng(1).standard_normal(3000)),)),
        CategoricalSpec("c", 6, kept=("a", "b"), rare=("r",)),
    ),
    "none",
    "UTC",
)
values = st.one_of(st.just(np.nan), st.floats(-1e300, 1e300), st.sampled_from([0.0, -0.0, 1.0]))


def statistics(x: np.ndarray, codes: np.ndarray, categories: tuple[str, ...], group: np.ndarray) -> np.ndarray:
    zeros = np.zeros(x.size, dtype=np.int64)
    part = Slice(
        KEY, x.size, zeros.astype(np.uint64), zeros, zeros, {"x": Numeric(x), "c": Categorical(codes, categories)}
    )
    return accumulate(LAYOUT, event_view(part, zeros.astype(np.int16)), group, 3)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(values, st.integers(-1, 3), st.integers(0, 2)), min_size=1, max_size=60),
    st.lists(st.integers(0, 60), max_size=5),
    st.randoms(use_true_random=False),
)
def test_any_cut_and_order_gives_the_same_integers(rows: list, cuts: list[int], random) -> None:
    x = np.array([row[0] for row in rows])
    codes = np.array([row[1] for row in rows], dtype=np.int32)
    group = np.array([row[2] for row in rows])
    whole = statistics(x, codes, ("a", "b", "r", "new"), group)
    order = list(range(len(rows)))
    random.shuffle(order)
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    total = np.zeros_like(whole)
    # A later slice may know its categories in another order.
    other = np.array([3, 2, 1, 0, -1])
    for start, stop in itertools.pairwise(edges):
        at = np.array(order[start:stop])
        total += statistics(x[at], other[codes[at]].astype(np.int32), ("new", "r", "b", "a"), group[at])
    assert (whole == total).all()
    assert (whole[:, 1] + whole[:, 2] == whole[:, 0]).all()


@pytest.mark.parametrize("size", [1, 64])
@pytest.mark.parametrize("offset", [0.0, 0.05])
@pytest.mark.parametrize("form", ["mean", "scale"])
def test_no_bet_gains_on_average_where_nothing_changed(form: str, offset: float, size: int) -> None:
    """E[E] <= 1 for each grid point, exactly by quadrature over one event, up to the edge of the margin."""
    grid = normal_quantile((np.arange(400_000) + 0.5) / 400_000)
    z = grid + offset if form == "mean" else grid * np.exp(offset)
    a, b = mean_points(1.0, 0.05, 10**9) if form == "mean" else scale_points(1.0, 0.05)
    s = z if form == "mean" else z * z
    for slope, intercept in zip(a, b, strict=True):
        # Heavy upper tails of E are cut by the grid's end, which only lowers the mean by a little.
        expected = np.exp((slope * s * UNIT + intercept) * LN_2).mean() ** size
        assert expected <= 1.0 + 1e-3


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-4, 0.5), st.floats(0.1, 1.0), st.floats(-1.0, 1.0))
def test_no_bet_on_a_rate_gains_inside_its_margin(p: float, margin: float, share: float) -> None:
    a, b = indicator_points(p, 1.0, margin)
    logit = np.log(p / (1 - p)) + share * margin
    rate = 1.0 / (1.0 + np.exp(-logit))
    expected = rate * np.exp((a + b) * LN_2) + (1.0 - rate) * np.exp(b * LN_2)
    assert (expected <= 1.0 + 1e-12).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 16))
def test_every_family_adds_up_over_any_shards(seed: int, shards: int) -> None:
    """Of all families' statistics, telemetry and outcomes, over 1 to 16 shards in any order: the same integers."""
    rng = np.random.default_rng(seed)
    profile = reference()
    events, labels = served(1_500, seed=3)
    outcomes, _ = reference_outcomes(events, labels, config().output, profile.layout.shape.cohorts)
    assert outcomes is not None
    group = rng.integers(0, 5, events.n)
    zeros = np.zeros(events.n, dtype=np.int16)
    whole = profile.accumulate(events, group, 5) + profile.accumulate_outcomes(outcomes, zeros, group, 5)
    total = np.zeros_like(whole)
    owner = rng.integers(0, shards, events.n)
    for shard in rng.permutation(shards):
        mine = owner == shard
        total += profile.accumulate(events.some(mine), group[mine], 5)
        total += profile.accumulate_outcomes(outcomes.some(mine), zeros[mine], group[mine], 5)
    assert (total == whole).all()
