"""Bets on correlations: none gains on average inside its margin, by quadrature, for scores as they are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regate.detectors.multivariate_drift import LEAST_SHARE, Z_STEP, bets_of, halves_of
from regate.detectors.numerics import LN_2, UNIT, Z_CLIP, normal_quantile

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(200)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
PAIR = WEIGHTS[:, None] * WEIGHTS[None, :]


def kept(z: np.ndarray) -> np.ndarray:
    """Return scores as the statistics hold them: clipped, in steps of 2^-8."""
    return np.rint(np.clip(z, -Z_CLIP, Z_CLIP) * Z_STEP) / Z_STEP


def worst(r: float, margin: float, rows: int, q: float, *, exact: bool) -> float:
    """Return the largest E[E] of one event over all bets on ``r`` where the correlation is ``q``."""
    x = NODES[:, None]
    y = q * x + np.sqrt(1.0 - q * q) * NODES[None, :]
    product = x * y if exact else kept(x) * kept(y)
    a, b = bets_of(r, margin, 1.0, rows)
    assert a.size
    return max(float((np.exp((one * UNIT * product + two) * LN_2) * PAIR).sum()) for one, two in zip(a, b, strict=True))


@pytest.mark.parametrize("exact", [True, False])
@settings(max_examples=60, deadline=None)
@given(
    st.floats(-0.95, 0.95), st.floats(0.05, 0.6), st.sampled_from([4_000, 20_000, 10**9]), st.sampled_from([-1, 0, 1])
)
def test_no_bet_on_a_correlation_gains_inside_its_margin(
    exact: bool, r: float, margin: float, rows: int, edge: int
) -> None:
    q = float(np.clip(r + edge * margin, -1.0, 1.0))
    assert worst(r, margin, rows, q, exact=exact) <= 1.0 + 1e-3


def test_a_bet_gains_beyond_its_margin() -> None:
    """Otherwise the test above would say nothing."""
    assert worst(0.0, 0.05, 10**9, 0.6, exact=False) > 1.05


@settings(max_examples=40, deadline=None)
@given(st.floats(LEAST_SHARE, 1.0 - LEAST_SHARE), st.floats(-0.95, 0.95))
def test_a_feature_of_two_categories_has_scores_that_no_bet_gains_by(share: float, q: float) -> None:
    """A threshold on one of two normal variables with correlation ``q``, beside the other one."""
    low, high = (score / Z_STEP for score in halves_of(share))
    latent = normal_quantile((np.arange(4_000) + 0.5) / 4_000)[:, None]
    other = q * latent + np.sqrt(1.0 - q * q) * NODES[None, :]
    category = np.where(latent < normal_quantile(share), low, high)
    product = category * kept(other)
    weight = WEIGHTS[None, :] / 4_000
    mean = float((product * weight).sum())
    assert abs(float((np.square(category) * weight).sum())) <= 1.0 + 1e-2  # less than a normal score varies
    a, b = bets_of(mean, 0.05, 1.0, 10**9)
    for one, two in zip(a, b, strict=True):
        assert float((np.exp((one * UNIT * product + two) * LN_2) * weight).sum()) <= 1.0 + 1e-3
