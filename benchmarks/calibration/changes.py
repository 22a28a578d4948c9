"""Changes made to real rows: what each kind of chart should find, in the size that it says it can."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from regate.detectors.columns import Categorical, FloatArray, Numeric, Slice
from regate.detectors.layout import ChartSpec
from regate.detectors.numerics import expit, logit

# The least shift of a mean that is tried, in sigma.
LEAST_SHIFT = 0.5
# Twice the smallest change that a chart says it finds; scores end at 4, so a larger ratio moves nothing more.
TIMES = 2.0
LARGEST_RATIO = 4.0
LARGEST_RATE = 0.98
NEW = "never seen before"


def size_of(chart: ChartSpec, rate: float) -> float:
    """Return the change to try: a shift in sigma, a ratio of scales, or the new rate."""
    if chart.form == "mean":
        return max(LEAST_SHIFT, TIMES * chart.minimal_effect)
    if chart.form == "scale":
        return float(min(chart.minimal_effect**TIMES, LARGEST_RATIO))
    least = min(rate + chart.minimal_effect, LARGEST_RATE)
    return float(min(expit(logit(rate) + TIMES * (logit(least) - logit(rate))), LARGEST_RATE))


def changed(rows: Slice, chart: ChartSpec, size: float, rate: float, source: Slice, rng: np.random.Generator) -> Slice:
    """Return the rows with one column changed so that the chart's statistic moves by ``size``."""
    column, known = rows.features[chart.subject], source.features[chart.subject]
    if isinstance(column, Numeric) and isinstance(known, Numeric):
        if chart.form == "mean":
            after = Numeric(column.values + size * (float(np.nanstd(known.values)) or 1.0))
        elif chart.form == "scale":
            after = Numeric(_stretched(column.values, known.values, size, rng))
        else:
            share = (size - rate) / (1.0 - rate)
            after = Numeric(np.where(rng.random(rows.n) < share, np.nan, column.values))
        return replace(rows, features={**rows.features, chart.subject: after})
    if not isinstance(column, Categorical):
        raise TypeError(f"{chart.name}: neither numeric nor categorical")
    turned = rng.random(rows.n) < (size - rate) / (1.0 - rate)
    categories = (*column.categories, NEW)
    if chart.statistic == "missing":
        code = -1
    elif chart.statistic in {"unseen", "rare"}:
        code = len(column.categories)
    else:
        code = column.categories.index(chart.statistic.removeprefix("="))
    if chart.statistic != "missing":
        turned &= column.codes >= 0
    codes = np.where(turned, code, column.codes).astype(np.int32)
    return replace(rows, features={**rows.features, chart.subject: Categorical(codes, categories)})


def _stretched(values: FloatArray, known: FloatArray, ratio: float, rng: np.random.Generator) -> FloatArray:
    """Return values spread ``ratio`` times as far about the mean; where all were one value, noise."""
    if float(np.nanstd(known)) <= 0:
        return np.asarray(values + (ratio - 1.0) * rng.standard_normal(values.size))
    mean = float(np.nanmean(known))
    return np.asarray(mean + ratio * (values - mean))
