"""A tenth or ten times the traffic that the profile was built for: the false-alarm budget still holds."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import chi2

from regate.config.model import Feature, ModelConfig
from regate.detectors.build import build_profile
from regate.detectors.cells import BLOCK_EVENTS, Block, block_cells
from regate.detectors.clocks import EventClock
from regate.detectors.columns import ModelKey, Numeric, Slice
from regate.detectors.profile import Profile
from regate.detectors.watch import Watch

KEY = ModelKey("default", "benchmark", "1", "production")
RATE = 1.0  # events a second that the profile is built for
PERIOD_SECONDS = 57_600
NAMES = ("x", "y")
CHUNK = 2_000  # blocks made at once


def normal_rows(rng: np.random.Generator, n: int) -> Slice:
    zeros = np.zeros(n, dtype=np.int64)
    features = {name: Numeric(rng.standard_normal(n)) for name in NAMES}
    return Slice(KEY, n, zeros.astype(np.uint64), zeros, zeros, features=features)


def interval(count: int, periods: float) -> tuple[float, float]:
    """Exact 95 % interval of the alarms a period."""
    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return low / periods, chi2.ppf(0.975, 2 * count + 2) / 2 / periods


@cache
def calibrated() -> Profile:
    rng = np.random.default_rng(1)
    config = ModelConfig(model="benchmark", features={name: Feature(type="numeric") for name in NAMES})
    rows = normal_rows(rng, 20_000)
    return build_profile(config, KEY, rows, budget_events=RATE * PERIOD_SECONDS, calibrate_seconds=20.0, seed=1)


def alarms(scale: float, periods: float, seed: int) -> int:
    """Watch an unchanged stream at a multiple of the traffic; every finding is false and restarts the charts."""
    rate = RATE * scale
    # As cells join: until they hold a block, or as long as a block of this profile may last.
    seconds = int(min(block_cells(RATE), np.ceil(BLOCK_EVENTS / rate)))
    profile = calibrated()
    clock = EventClock(PERIOD_SECONDS * 1_000_000, RATE)
    watch = Watch(profile, clock, on_finding="restart")
    rng = np.random.default_rng((seed, round(scale * 10)))
    found, at = 0, 1_750_000_000
    left = int(periods * PERIOD_SECONDS / seconds)
    while left > 0:
        events = rng.poisson(rate * seconds, min(CHUNK, left))
        left -= events.size
        rows = normal_rows(rng, int(events.sum()))
        stats = profile.accumulate(rows, np.repeat(np.arange(events.size), events), events.size)
        for index, count in enumerate(events):
            if count:
                block = Block(0, at, at + seconds - 1, stats[index], 0)
                found += len(watch.step(block))
            at += seconds
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "periods"), [(0.1, 60), (0.5, 40), (1.0, 40), (10.0, 25)])
def test_the_budget_holds_at_other_traffic(scale: float, periods: float) -> None:
    count = alarms(scale, periods, seed=3)
    low, high = interval(count, periods)
    said = f"traffic x {scale}: {count} alarms in {periods:g} budget periods, {low:.2f} to {high:.2f} a period"
    print(said)
    assert low <= 1.0, said
