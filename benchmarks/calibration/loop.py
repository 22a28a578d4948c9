"""The watching loop of the calibration benchmarks: the product's own profile and bank, in process."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from regate.config.model import Feature, ModelConfig
from regate.detectors.cells import BLOCK_EVENTS
from regate.detectors.charts import Bank
from regate.detectors.columns import Column, FloatArray, IntArray, ModelKey, Numeric, Slice
from regate.detectors.profile import Profile

KEY = ModelKey("default", "benchmark", "1", "production")
BLOCK = BLOCK_EVENTS


def rows_of(features: dict[str, Column], n: int) -> Slice:
    zeros = np.zeros(n, dtype=np.int64)
    return Slice(KEY, n, zeros.astype(np.uint64), zeros, zeros, features=features)


def numeric_rows(columns: dict[str, FloatArray]) -> Slice:
    n = next(iter(columns.values())).size
    return rows_of({name: Numeric(values) for name, values in columns.items()}, n)


def numeric_config(names: list[str]) -> ModelConfig:
    return ModelConfig(model="benchmark", features={name: Feature(type="numeric") for name in names})


def blocks_of(profile: Profile, rows: Slice) -> IntArray:
    whole = rows.n // BLOCK * BLOCK
    group = np.arange(rows.n) // BLOCK
    return profile.accumulate(rows, group, int(group[-1]) + 1)[: whole // BLOCK]


@dataclass(frozen=True)
class Alarm:
    block: int
    chart: str
    onset_block: int


def watch(bank: Bank, blocks: IntArray, budget_events: float, *, stop: bool = False) -> list[Alarm]:
    """Step the bank over blocks; an alarm restarts everything (or ends the run with ``stop``)."""
    bar = bank.threshold(budget_events)
    state, alarms = bank.start(), []
    everything = np.ones(len(bank.charts), dtype=np.bool_)
    for index, block in enumerate(blocks):
        result = bank.step(state, block, 0, BLOCK / budget_events, mark=index)
        state = result.state
        if result.total >= bar:
            carrier = int(np.argmax(result.log_r + np.log10(np.maximum(bank.weights, 1e-300))))
            onset = int(bank.explain(state).onset_mark[carrier])
            alarms.append(Alarm(index, bank.charts[carrier].name, onset))
            if stop:
                return alarms
            state = bank.restart(state, everything)
    return alarms


def poisson_interval(count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a Poisson mean."""
    tail = (1.0 - level) / 2.0
    low = chi2.ppf(tail, 2 * count) / 2.0 if count else 0.0
    return float(low), float(chi2.ppf(1.0 - tail, 2 * count + 2) / 2.0)


def ratio(count: int, nominal: float) -> dict[str, float]:
    low, high = poisson_interval(count)
    return {
        "alarms": count,
        "nominal": round(nominal, 3),
        "ratio": round(count / nominal, 3) if nominal else math.nan,
        "low": round(low / nominal, 3),
        "high": round(high / nominal, 3),
    }
