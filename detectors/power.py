"""What a chart can see: expected delay of a change, and the smallest change that is found in time.

The best bet of a chart's grid gains ``E_change[log E]`` a block. From a head start of one block it has to
reach the threshold, diluted by its share of the mean. This is a first-order estimate: the benchmarks measure.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from regate.detectors.charts import Bank
from regate.detectors.columns import FloatArray
from regate.detectors.layout import ChartSpec
from regate.detectors.numerics import UNIT, expit, logit
from regate.detectors.profile import Profile

# A change that takes longer than this (events) to find is not called detectable.
HORIZON = 10_000
# The traffic assumed where the profile knows none.
DEFAULT_TRAFFIC = 1e6
# Shifts of z beyond this cannot happen to a whole block: scores are clipped at 4.
LARGEST_SHIFT = 3.0
EFFECTS: dict[str, tuple[float, ...]] = {
    "mean": (0.25, 0.5, 1.0),
    "scale": (0.7, 1.2, 1.5, 2.0),
    "indicator": (0.5, 1.0, 2.0),
    "tilt": (0.5, 1.0),
}


def with_power(profile: Profile) -> Profile:
    """Return the profile with minimal detectable effect and expected delays in each watchable chart."""
    bank = Bank(profile)
    traffic = profile.budget_events or DEFAULT_TRAFFIC
    threshold = 10.0 ** bank.threshold(traffic)
    delta = profile.block_rows / traffic
    grid = np.bincount(profile.points.chart, minlength=len(profile.charts))
    charts = []
    for index, chart in enumerate(profile.charts):
        if not chart.watchable:
            charts.append(chart)
            continue
        share = float(bank.weights[index]) / int(grid[index])
        bits = float(np.log2(max(threshold / (share * delta), 2.0)))
        charts.append(_with_power(profile, index, bits))
    return replace(profile, charts=tuple(charts))


def _with_power(profile: Profile, index: int, bits: float) -> ChartSpec:
    chart = profile.charts[index]
    own = profile.points.chart == index
    # The stratum with the strongest bets stands for the chart.
    stratum = int(np.abs(profile.points.a[:, own]).sum(axis=1).argmax())
    a, b = profile.points.a[stratum, own], profile.points.b[stratum, own]
    rate = float(profile.points.centre[stratum, index])

    per_block = profile.block_rows * (UNIT * chart.sd * chart.sd if chart.form == "tilt" else 1.0)

    def delay(expected: float) -> float:
        gain = float((expected * a + b).max()) * per_block
        return bits / gain * profile.block_rows if gain > 0 else float("inf")

    sizes = _sizes(chart, rate)
    found = np.array([delay(_expected(chart, rate, float(size))) for size in sizes]) <= HORIZON
    minimal = float(sizes[found.argmax()]) if found.any() else float(sizes[-1])
    delays = [(_effect(chart, rate, size), delay(_expected(chart, rate, size))) for size in EFFECTS[chart.form]]
    return replace(
        chart,
        minimal_effect=round(_effect(chart, rate, minimal), 6),
        delays=tuple((round(effect, 6), float(round(events))) for effect, events in delays if np.isfinite(events)),
    )


def _sizes(chart: ChartSpec, rate: float) -> FloatArray:
    """Return candidate changes, smallest first: shifts, ratios above 1, or tilts in logits."""
    if chart.form == "mean":
        return np.linspace(0.01, LARGEST_SHIFT, 300)
    if chart.form == "scale":
        return np.linspace(1.01, 4.0, 300)
    if chart.form == "tilt":
        return np.linspace(0.02, 4.0, 400)
    return np.linspace(0.02, max(1.0, 4.0 - float(logit(rate))), 400)


def _expected(chart: ChartSpec, rate: float, size: float) -> float:
    """Return the expected s of one trial after a change of ``size``."""
    if chart.form == "mean":
        return rate + size * chart.sd * UNIT
    if chart.form == "tilt":
        return size
    if chart.form == "scale":
        return size * size * UNIT
    return float(expit(logit(rate) + size))


def _effect(chart: ChartSpec, rate: float, size: float) -> float:
    """Return a change in the chart's own unit."""
    if chart.form == "indicator":
        return float(expit(logit(rate) + size)) - rate
    return size * chart.sd if chart.form == "mean" else size
