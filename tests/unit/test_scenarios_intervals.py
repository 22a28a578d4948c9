"""Intervals against published values and against simulated coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from regate.scenarios.intervals import Interval, absolute, difference, mean, quantile, ratio, wilson, z_of
from regate.scenarios.record import Bound
from regate.scenarios.subject import outcome_of

Z = z_of(0.95)


def test_wilson_reproduces_newcombe_1998() -> None:
    """Newcombe (1998) "Two-sided confidence intervals for the single proportion", table I, method 3."""
    for hits, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        interval = wilson(hits, n, Z)
        assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_difference_reproduces_newcombe_1998_method_10() -> None:
    """Newcombe (1998) "Interval estimation for the difference", table II, method 10."""
    for (a, m), (b, n), low, high in (
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ):
        interval = difference(wilson(a, m, Z), wilson(b, n, Z))
        assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_ratio_is_consistent_with_its_inverse_and_open_above_zero() -> None:
    first, second = wilson(30, 100, Z), wilson(60, 100, Z)
    forth, back = ratio(first, second), ratio(second, first)
    assert forth.low == pytest.approx(1 / back.high)
    assert forth.high == pytest.approx(1 / back.low)
    assert forth.low < forth.value < forth.high
    assert ratio(second, wilson(0, 100, Z)).high == math.inf


@pytest.mark.parametrize(("p", "q", "n"), [(0.5, 0.5, 200), (0.2, 0.3, 150), (0.05, 0.1, 400)])
def test_difference_and_ratio_cover_the_truth_as_often_as_promised(p: float, q: float, n: int) -> None:
    random = np.random.default_rng(5)
    hits = [0, 0]
    for a, b in zip(random.binomial(n, p, 2000), random.binomial(n, q, 2000), strict=True):
        first, second = wilson(a, n, Z), wilson(b, n, Z)
        gap, quotient = difference(first, second), ratio(first, second)
        hits[0] += gap.low <= p - q <= gap.high
        hits[1] += quotient.low <= p / q <= quotient.high
    assert all(0.93 <= hit / 2000 <= 0.975 for hit in hits)


def test_quantile_and_mean_cover_and_stay_open_with_too_few_values() -> None:
    random = np.random.default_rng(6)
    inside = [quantile(random.exponential(size=150), 0.95, Z) for _ in range(1000)]
    truth = -math.log(0.05)
    assert 0.93 <= np.mean([i.low <= truth <= i.high for i in inside]) <= 0.99
    assert quantile(random.random(20), 0.95, Z).high == math.inf
    assert quantile(np.empty(0), 0.95, Z).high == math.inf
    centre = [mean(random.normal(1, 2, 100), Z) for _ in range(1000)]
    assert 0.93 <= np.mean([i.low <= 1 <= i.high for i in centre]) <= 0.97
    assert mean(np.array([1.0]), Z).high == math.inf


def test_absolute_folds_around_zero() -> None:
    assert absolute(Interval(-0.1, -0.3, 0.1)) == Interval(0.1, 0.0, 0.3)
    assert absolute(Interval(-0.2, -0.3, -0.1)) == Interval(0.2, 0.1, 0.3)


@pytest.mark.parametrize(
    ("low", "high", "n", "comparator", "outcome"),
    [
        (0.1, 0.2, 100, "<=", "pass"),
        (0.1, 0.4, 100, "<=", "inconclusive"),
        (0.35, 0.4, 100, "<=", "fail"),
        (0.35, 0.4, 100, ">=", "pass"),
        (0.1, 0.4, 100, ">=", "inconclusive"),
        (0.1, 0.2, 100, ">=", "fail"),
        (0.1, 0.2, 9, "<=", "inconclusive"),
        (0.35, 0.4, 9, "<=", "inconclusive"),
    ],
)
def test_only_an_interval_past_the_bound_fails(low: float, high: float, n: int, comparator: str, outcome: str) -> None:
    bound = Bound.model_validate({"comparator": comparator, "bound": 0.3, "min_n": 10})
    assert outcome_of(bound, Interval((low + high) / 2, low, high), n) == outcome


def test_an_unknown_value_is_inconclusive() -> None:
    assert outcome_of(Bound(comparator="<=", bound=1.0), Interval(math.nan, 0, 0), 100) == "inconclusive"
