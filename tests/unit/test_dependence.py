from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from regate.detectors.dependence import (
    inflation,
    mean_margin,
    mean_moved,
    rate_margin,
    scale_moved,
    sums_variance,
)

N = 20_000


def ar(rho: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(N + 500)
    return lfilter([np.sqrt(1 - rho * rho)], [1.0, -rho], noise)[500:]


def halves(series: np.ndarray) -> list[np.ndarray]:
    return [series[: N // 2], series[N // 2 :]]


@pytest.mark.parametrize("seed", range(20))
def test_independent_rows_keep_tau_at_1(seed: int) -> None:
    series = np.random.default_rng(seed).standard_normal(N)
    assert inflation(halves(series), 1.0) == type(inflation([], 1.0))(1.0, 1)


@pytest.mark.parametrize(("rho", "tau"), [(0.5, 3.0), (0.9, 19.0)])
def test_tau_of_an_autoregression_is_found(rho: float, tau: float) -> None:
    found = [inflation(halves(ar(rho, seed)), 1.0) for seed in range(8)]
    assert np.median([one.tau for one in found]) == pytest.approx(tau, rel=0.35)
    assert min(one.tau for one in found) > 0.75 * tau
    assert all(one.reach >= tau / 2 for one in found)


def test_volatility_clusters_show_in_the_squares_only() -> None:
    series = np.random.default_rng(3).standard_normal(N) * np.exp(0.5 * ar(0.98, 4))
    series /= series.std()
    assert inflation(halves(series), 1.0).tau < 2.0
    assert inflation(halves(series**2), 2.0).tau > 5.0


def test_a_reference_that_moves_widens_its_margin_and_a_still_one_does_not() -> None:
    still = np.random.default_rng(6).standard_normal(N)
    assert mean_margin(N, 1.0, mean_moved(halves(still), 1.0)) == 0.05
    moving = still + np.linspace(-0.5, 0.5, N)
    assert mean_moved(halves(moving), 1.0) > 0.3
    assert abs(scale_moved(halves(still**2), 1.0)) < 0.06
    assert scale_moved(halves((2.0 * still) ** 2), 1.0) > 0.5


def test_margins_of_rates_shrink_with_what_was_seen_and_grow_with_dependence() -> None:
    assert rate_margin(10_000, 20_000, 1.0) == 0.1
    assert rate_margin(25, 20_000, 1.0) == pytest.approx(0.594, abs=0.01)
    assert rate_margin(25, 20_000, 4.0) == pytest.approx(2 * rate_margin(25, 20_000, 1.0))


def test_empty_and_constant_series_are_harmless() -> None:
    assert inflation([np.zeros(0), np.zeros(0)], 1.0).tau == 1.0
    assert inflation([np.zeros(1000), np.zeros(1000)], 1.0).tau == 1.0
    assert mean_moved([np.zeros(0)], 1.0) == 0.0


def test_tau_of_short_memory_comes_from_an_autoregression_not_from_the_noisiest_block_length() -> None:
    taus, reaches = [], []
    for seed in range(12):
        noise = np.random.default_rng((21, seed)).standard_normal(20_500)
        series = lfilter([np.sqrt(0.75)], [1.0, -0.5], noise)[500:]
        shown = inflation([series[:10_000], series[10_000:]], 1.0)
        taus.append(shown.tau)
        reaches.append(shown.reach)
    assert 2.7 < min(taus) <= max(taus) < 3.3  # 3 in truth
    assert max(reaches) <= 16


def test_sums_of_an_autoregression_have_the_variance_that_theory_gives() -> None:
    noise = np.random.default_rng(5).standard_normal(100_500)
    series = lfilter([np.sqrt(1 - 0.49)], [1.0, -0.7], noise)[500:]
    lags = np.arange(1, 64)
    truth = 64 + 2 * ((64 - lags) * 0.7**lags).sum()
    assert sums_variance(series, 64)[-1] == pytest.approx(truth, rel=0.05)
