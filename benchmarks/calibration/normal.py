"""False alarms on synthetic nulls: realised over nominal, with exact 95 % intervals.

    python -m benchmarks.calibration.normal --streams 10 --rows 200000 --reference-rows 20000 --budget-events 64000

Each null is unchanged from first to last row; every alarm is false and restarts the statistic.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from benchmarks.calibration.loop import blocks_of, numeric_config, ratio, rows_of, watch
from scipy.signal import lfilter
from scipy.stats import binom

from regate.config.model import Feature, ModelConfig
from regate.detectors.build import build_profile
from regate.detectors.charts import Bank
from regate.detectors.columns import Categorical, Column, Numeric

Make = Callable[[np.random.Generator, int], dict[str, Column]]


def _ar(rng: np.random.Generator, n: int, rho: float) -> np.ndarray:
    noise = rng.standard_normal(n + 1000)
    return lfilter([np.sqrt(1 - rho * rho)], [1.0, -rho], noise)[1000:]


def _volatile(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_normal(n) * np.exp(0.5 * _ar(rng, n, 0.98))


def _zipf(rng: np.random.Generator, n: int, categories: int = 200) -> Categorical:
    weight = 1.0 / np.arange(1, categories + 1)
    codes = rng.choice(categories, size=n, p=weight / weight.sum()).astype(np.int32)
    return Categorical(codes, tuple(f"c{index}" for index in range(categories)))


def _several(rng: np.random.Generator, n: int) -> dict[str, Column]:
    flags = Categorical((rng.random(n) < 0.1).astype(np.int32), ("false", "true"))
    gaps = rng.standard_normal(n)
    gaps[rng.random(n) < 0.02] = np.nan
    return {
        **{f"x{index}": Numeric(rng.standard_normal(n)) for index in range(6)},
        "gaps": Numeric(gaps),
        "count": Numeric(rng.poisson(2.0, n).astype(float)),
        "flag": flags,
        "kind": _zipf(rng, n, 8),
    }


NULLS: dict[str, Make] = {
    "normal": lambda rng, n: {"x": Numeric(rng.standard_normal(n))},
    "ar5": lambda rng, n: {"x": Numeric(_ar(rng, n, 0.5))},
    "ar9": lambda rng, n: {"x": Numeric(_ar(rng, n, 0.9))},
    "volatile": lambda rng, n: {"x": Numeric(_volatile(rng, n))},
    "heavy": lambda rng, n: {"x": Numeric(rng.standard_t(2, n))},
    "zipf": lambda rng, n: {"x": _zipf(rng, n)},
    "seasonal": lambda rng, n: {"x": Numeric(np.sin(2 * np.pi * np.arange(n) / 288) + 0.5 * rng.standard_normal(n))},
    "several": _several,
}


def config_of(features: dict[str, Column]) -> ModelConfig:
    if all(isinstance(column, Numeric) for column in features.values()):
        return numeric_config(list(features))
    kinds = {name: "numeric" if isinstance(column, Numeric) else "categorical" for name, column in features.items()}
    return ModelConfig(model="benchmark", features={name: Feature(type=kind) for name, kind in kinds.items()})


def measure(
    null: str,
    streams: int,
    rows: int,
    reference_rows: int,
    budget_events: float,
    seed: int,
    *,
    scale: float = 1.0,
    calibrate_seconds: float = 60.0,
) -> dict[str, object]:
    """Count false alarms of one null; ``scale`` watches at that multiple of the profile's traffic."""
    alarms, thresholds, by_chart, began = [], [], {}, time.perf_counter()
    for stream in range(streams):
        features = NULLS[null](np.random.default_rng((seed, stream)), rows)
        everything = rows_of(features, rows)
        profile = build_profile(
            config_of(features),
            everything.key,
            everything.cut(slice(0, reference_rows)),
            budget_events=budget_events / scale,
            calibrate_seconds=calibrate_seconds,
            seed=stream,
        )
        bank = Bank(profile)
        thresholds.append(bank.threshold(budget_events))
        found = watch(bank, blocks_of(profile, everything.cut(slice(reference_rows, rows))), budget_events)
        alarms.append(len(found))
        for alarm in found:
            by_chart[alarm.chart] = by_chart.get(alarm.chart, 0) + 1
    nominal = streams * (rows - reference_rows) / budget_events
    low, high = binom.interval(0.99, int(streams * (rows - reference_rows)), 1.0 / budget_events)
    return {
        "null": null,
        **ratio(sum(alarms), nominal),
        "by_stream": alarms,
        "binomial_99": [int(low), int(high)],
        "inside": bool(low <= sum(alarms) <= high),
        "log10_threshold": round(float(np.mean(thresholds)), 3),
        "by_chart": dict(sorted(by_chart.items(), key=lambda item: -item[1])[:5]),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--null", action="append", choices=sorted(NULLS), help="default: normal")
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--reference-rows", type=int, default=20_000)
    parser.add_argument("--budget-events", type=float, default=64_000)
    parser.add_argument("--scale", type=float, default=1.0, help="traffic relative to the profile's: 0.1 to 10")
    parser.add_argument("--calibrate-seconds", type=float, default=60.0, help="0: the ceiling")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for null in options.null or ["normal"]:
        row = measure(
            null,
            options.streams,
            options.rows,
            options.reference_rows,
            options.budget_events,
            options.seed,
            scale=options.scale,
            calibrate_seconds=options.calibrate_seconds,
        )
        if options.json:
            print(json.dumps(row))
        else:
            print(
                f"{null:9} alarms {row['alarms']:4} nominal {row['nominal']:7} ratio {row['ratio']} "
                f"[{row['low']}, {row['high']}] inside {row['inside']} log10 h {row['log10_threshold']} "
                f"{row['seconds']} s {row['by_chart']} {row['by_stream']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
