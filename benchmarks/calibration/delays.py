"""Delay to a change over the oracle CUSUM's, one chart, at equal realised run length between false alarms.

    python -m benchmarks.calibration.delays            # every kind of change, 200 runs, 20,000 reference rows
    python -m benchmarks.calibration.delays --arl 10000 --runs 400

The oracle sees every event, knows the change and its own threshold for the wanted run length (by simulation of its
null). regate's charts look at blocks of 64; their bar is the level at which *their* null, watched by the very same
profiles, has that run length. Rates are realised errors: that chart looks for a rise only. A change begins anywhere
within a block.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.calibration.loop import BLOCK, KEY, numeric_rows
from scipy.stats import norm

from regate.config.model import Detection, Feature, ModelConfig
from regate.detectors.build import build_profile
from regate.detectors.charts import Bank
from regate.detectors.columns import FloatArray, Numeric
from regate.detectors.marks import Outcomes
from regate.detectors.profile import Profile

WARM_BLOCKS = 20
Draw = Callable[[np.random.Generator, tuple[int, int]], FloatArray]


@dataclass(frozen=True)
class Change:
    """A kind of change: values before and after, the log likelihood ratio of one value, and the chart's form."""

    name: str
    before: Draw
    after: Draw
    log_ratio: Callable[[FloatArray], FloatArray]
    statistic: str


def _shift(size: float) -> Change:
    return Change(
        f"mean {size:+g}",
        lambda rng, shape: rng.standard_normal(shape),
        lambda rng, shape: rng.standard_normal(shape) + size,
        lambda x: size * x - size * size / 2.0,
        "mean",
    )


def _scale(ratio: float) -> Change:
    return Change(
        f"scale x{ratio:g}",
        lambda rng, shape: rng.standard_normal(shape),
        lambda rng, shape: ratio * rng.standard_normal(shape),
        lambda x: norm.logpdf(x, scale=ratio) - norm.logpdf(x),
        "scale",
    )


def _rate(p: float, q: float) -> Change:
    return Change(
        f"rate {p:g} to {q:g}",
        lambda rng, shape: (rng.random(shape) < p).astype(np.float64),
        lambda rng, shape: (rng.random(shape) < q).astype(np.float64),
        lambda x: np.where(x > 0, np.log(q / p), np.log((1 - q) / (1 - p))),
        "rate",
    )


CHANGES = (
    _shift(0.3),
    _shift(0.5),
    _shift(1.0),
    _scale(1.2),
    _scale(1.5),
    _scale(0.7),
    _rate(0.1, 0.2),
    _rate(0.1, 0.13),
    _rate(0.02, 0.05),
)


def cusum_bar(change: Change, arl: float, rng: np.random.Generator) -> float:
    """Return the oracle's bar: the level of its CUSUM with that run length, by bisection on common streams."""
    lanes, steps = 400, int(min(3 * arl, 60_000))
    log_ratio = change.log_ratio(change.before(rng, (steps, lanes)))

    def run_length(bar: float) -> float:
        value, alarms = np.zeros(lanes), 0
        for step in range(steps):
            value = np.maximum(value + log_ratio[step], 0.0)
            over = value >= bar
            alarms += int(over.sum())
            value[over] = 0.0
        return steps * lanes / max(alarms, 1)

    low, high = 1.0, float(np.log(arl)) + 3.0
    for _ in range(9):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if run_length(middle) < arl else (low, middle)
    return high


def oracle_delays(change: Change, bar: float, runs: int, longest: int, rng: np.random.Generator) -> FloatArray:
    """Return the delays in events of the oracle, from its stationary state."""
    before = change.log_ratio(change.before(rng, (WARM_BLOCKS * BLOCK, runs)))
    value = np.zeros(runs)
    for row in before:
        value = np.minimum(np.maximum(value + row, 0.0), bar - 1e-9)
    after = change.log_ratio(change.after(rng, (longest, runs)))
    delay = np.full(runs, np.inf)
    for step in range(longest):
        value = np.maximum(value + after[step], 0.0)
        delay = np.where((value >= bar) & np.isinf(delay), step + 1, delay)
    return delay


def profile_of(change: Change, rows: int, arl: float, seed: int) -> Profile:
    """Return a profile of ``rows`` unchanged values, budgeted for ``arl``; rates are those of realised errors."""
    values = change.before(np.random.default_rng((seed, 7)), (rows, 1))[:, 0]
    # One chart is what is measured: other families, and predictions that never change, stay out.
    off = {"multivariate_drift": 0, "data_quality": 0, "output_drift": 0}
    config = ModelConfig(
        model="benchmark",
        features={"x": Feature(type="numeric")},
        detection=Detection.model_validate({"families": off}),
    )
    rows = numeric_rows({"x": values})
    labels = None
    if change.statistic == "rate":  # the model always says 0: a label of 1 is an error
        rows, labels = replace(rows, prediction=Numeric(np.zeros(values.size))), Numeric(values.astype(np.float64))
    return build_profile(config, KEY, rows, labels, budget_events=arl, seed=seed)


class Chart:
    """The one chart of a profile that a change speaks to, stepped over many streams."""

    def __init__(self, profile: Profile, change: Change, arl: float) -> None:
        bank = Bank(profile)
        index = next(i for i, spec in enumerate(profile.charts) if spec.statistic == change.statistic)
        spec, at = profile.charts[index], profile.points.chart == index
        self.a, self.b = profile.points.a[0, at], profile.points.b[0, at]
        self.columns = spec.s_column, spec.n_column
        self.profile, self.change, self.delta = profile, change, BLOCK / arl
        self.nominal = bank.threshold(arl)

    def evidence(self, values: FloatArray) -> FloatArray:
        """Return E of ``[blocks, 64]`` values, ``[blocks, points]``."""
        flat = values.reshape(-1)
        group, groups = np.arange(flat.size) // BLOCK, flat.size // BLOCK
        if self.change.statistic == "rate":
            outcomes = Outcomes(flat.astype(np.int64))
            stats = self.profile.accumulate_outcomes(outcomes, np.zeros(flat.size, dtype=np.int16), group, groups)
        else:
            stats = self.profile.accumulate(numeric_rows({"x": flat}), group, groups)
        log_e = stats[:, [self.columns[0]]] * self.a + stats[:, [self.columns[1]]] * self.b
        return np.asarray(np.exp2(np.minimum(log_e, 500.0)))

    def log_r(self, evidence: FloatArray) -> FloatArray:
        """Return log R after each block, ``evidence`` being ``[blocks, lanes, points]``; no alarm restarts it."""
        r = np.zeros(evidence.shape[1:])
        out = np.empty(evidence.shape[:2])
        for step, e in enumerate(evidence):
            r = np.minimum((r + self.delta) * e, 1e200)
            out[step] = np.log(r.mean(axis=1))
        return out


def bar_for(charts: list[Chart], arl: float, rng: np.random.Generator) -> float:
    """Return the bar (log R) at which these charts together have the run length on unchanged streams."""
    lanes, steps = 24, int(min(40 * arl / BLOCK, 12_000))
    evidence = []
    for chart in charts:
        values = chart.change.before(rng, (steps * lanes, BLOCK))
        evidence.append(chart.evidence(values).reshape(steps, lanes, -1))

    def run_length(bar: float) -> float:
        alarms = 0
        for chart, e in zip(charts, evidence, strict=True):
            r = np.zeros(e.shape[1:])
            for step in range(steps):
                r = (r + chart.delta) * e[step]
                over = np.log(r.mean(axis=1)) >= bar
                alarms += int(over.sum())
                r[over] = 0.0
        return len(charts) * lanes * steps * BLOCK / max(alarms, 1)

    low, high = float(np.log(BLOCK / arl)) - 3.0, 1.0
    for _ in range(10):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if run_length(middle) < arl else (low, middle)
    return high


def measure(change: Change, options: argparse.Namespace) -> dict[str, Any]:
    """Return delays of the oracle, of the chart, and their ratio."""
    began = time.perf_counter()
    rng = np.random.default_rng((options.seed, CHANGES.index(change)))
    bar = cusum_bar(change, options.arl, rng)
    oracle = oracle_delays(change, bar, options.runs * 4, options.longest, rng)
    charts = [
        Chart(profile_of(change, options.reference_rows, options.arl, seed), change, options.arl)
        for seed in range(options.references)
    ]
    own = bar_for(charts, options.arl, rng)
    delays: list[float] = []
    for chart in charts:
        runs = options.runs // len(charts)
        blocks = WARM_BLOCKS + options.longest // BLOCK + 1
        into = rng.integers(BLOCK, size=runs)  # events of the first block that are still unchanged
        values = np.concatenate(
            [
                change.before(rng, (WARM_BLOCKS, runs, BLOCK)),  # type: ignore[arg-type]
                change.after(rng, (blocks - WARM_BLOCKS, runs, BLOCK)),  # type: ignore[arg-type]
            ]
        )
        unchanged = np.arange(BLOCK)[None, :] < into[:, None]
        values[WARM_BLOCKS] = np.where(unchanged, change.before(rng, (runs, BLOCK)), values[WARM_BLOCKS])
        evidence = chart.evidence(values.reshape(-1, BLOCK)).reshape(blocks, runs, -1)
        over = chart.log_r(evidence) >= own
        over[:WARM_BLOCKS] = False
        first = np.where(over.any(axis=0), over.argmax(axis=0) - WARM_BLOCKS + 1.0, np.inf)
        delays.extend(first * BLOCK - into)
    found, known = np.array(delays), oracle
    return {
        "change": change.name,
        "oracle": round(float(np.mean(known)), 1),
        "mean": round(float(np.mean(np.minimum(found, options.longest))), 1),
        "median": float(np.median(found)),
        "p95": float(np.quantile(found, 0.95)),
        "ratio": round(float(np.mean(np.minimum(found, options.longest)) / np.mean(known)), 2),
        "found": round(float(np.mean(found <= options.within)), 3),
        "log10_bar": round(own / float(np.log(10.0)), 2),
        "log10_nominal": round(float(np.mean([chart.nominal for chart in charts])), 2),
        "seconds": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arl", type=float, default=10_000.0)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--references", type=int, default=8)
    parser.add_argument("--reference-rows", type=int, default=20_000)
    parser.add_argument("--longest", type=int, default=6_400, help="events watched after the change")
    parser.add_argument("--within", type=int, default=3_000, help="found means found within so many events")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for change in CHANGES:
        rows.append(measure(change, options))
        row = rows[-1]
        print(
            f"{row['change']:18} oracle {row['oracle']:7} regate mean {row['mean']:7} median {row['median']:7} "
            f"p95 {row['p95']:7} ratio {row['ratio']:5} within {options.within}: {row['found']:.1%} "
            f"log10 bar {row['log10_bar']} (calibrated, all charts {row['log10_nominal']}) {row['seconds']} s",
            flush=True,
        )
    print(f"median ratio {np.median([row['ratio'] for row in rows]):.2f}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
