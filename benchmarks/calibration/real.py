"""Real dependence: false alarms on bootstrap continuations of real streams, and what a shift costs to find.

    python -m benchmarks.calibration.real ../shared/data/streams/airlines.parquet ... --budget-events 64000

The first 40 % of a stream is the reference. Continuations are circular block bootstraps of its second half:
nothing changed. Then each watchable column in turn is shifted by max(.5, twice its minimal detectable effect).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from benchmarks.calibration.loop import BLOCK, KEY, blocks_of, numeric_config, numeric_rows, ratio, watch

from regate.detectors.build import build_profile
from regate.detectors.charts import Bank
from regate.detectors.columns import FloatArray, IntArray
from regate.detectors.profile import Profile

Columns = dict[str, FloatArray]


def read(path: Path) -> Columns:
    table = pq.read_table(path)
    known = {"event_id", "event_time", "label", "prediction", "score"}
    return {
        name: table[name].to_numpy().astype(np.float64)
        for name in table.column_names
        if name not in known and str(table.schema.field(name).type) not in {"string", "large_string", "bool"}
    }


def continuation(rng: np.random.Generator, half: IntArray, rows: int, length: int) -> IntArray:
    """Row numbers of a circular block bootstrap of ``half``."""
    starts = rng.integers(half.size, size=-(-rows // length))
    return half[((starts[:, None] + np.arange(length)) % half.size).reshape(-1)[:rows]]


def take(columns: Columns, rows: IntArray) -> Columns:
    return {name: values[rows] for name, values in columns.items()}


def false_alarms(
    columns: Columns, profile: Profile, half: IntArray, runs: int, rows: int, length: int, budget: float, seed: int
) -> dict[str, Any]:
    bank, by_chart, alarms = Bank(profile), {}, 0
    for run in range(runs):
        rng = np.random.default_rng((seed, length, run))
        blocks = blocks_of(profile, numeric_rows(take(columns, continuation(rng, half, rows, length))))
        found = watch(bank, blocks, budget)
        alarms += len(found)
        for alarm in found:
            by_chart[alarm.chart] = by_chart.get(alarm.chart, 0) + 1
    top = dict(sorted(by_chart.items(), key=lambda item: -item[1])[:4])
    return {"segment_rows": length, **ratio(alarms, runs * rows / budget), "by_chart": top}


def shifted(
    columns: Columns, profile: Profile, half: IntArray, runs: int, rows: int, length: int, budget: float, seed: int
) -> list[dict[str, Any]]:
    bank, results = Bank(profile), []
    for chart in profile.charts:
        if chart.statistic != "mean" or not chart.watchable:
            continue
        spread = float(np.std(columns[chart.subject][half]))
        size = max(0.5, 2.0 * chart.minimal_effect)
        delays = []
        for run in range(runs):
            rng = np.random.default_rng((seed, length, run, 1))
            after = take(columns, continuation(rng, half, rows, length))
            after[chart.subject] = after[chart.subject] + size * (spread or 1.0)
            found = watch(bank, blocks_of(profile, numeric_rows(after)), budget, stop=True)
            if found:
                delays.append((found[0].block + 1) * BLOCK)
        results.append(
            {
                "column": chart.subject,
                "tau": round(chart.tau, 2),
                "margin": round(chart.margin, 3),
                "shift_sigma": round(size, 3),
                "found": round(len(delays) / runs, 3),
                "median_delay": float(np.median(delays)) if delays else None,
                "p95_delay": float(np.quantile(delays, 0.95)) if delays else None,
            }
        )
    return results


def measure(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    began = time.perf_counter()
    columns = read(path)
    total = next(iter(columns.values())).size
    reference_rows = min(int(total * 0.4), options.max_reference or total)
    profile = build_profile(
        numeric_config(list(columns)),
        KEY,
        numeric_rows({name: values[:reference_rows] for name, values in columns.items()}),
        budget_events=options.budget_events,
        calibrate_seconds=options.calibrate_seconds,
        seed=options.seed,
    )
    built = time.perf_counter() - began
    half = np.arange(reference_rows // 2, reference_rows)
    rows = options.rows or min(max(reference_rows, 10_000), 60_000)
    lengths = options.segment_rows or [256, max(1024, half.size // 8)]
    false = [
        false_alarms(columns, profile, half, options.runs, rows, length, options.budget_events, options.seed)
        for length in lengths
    ]
    found = shifted(columns, profile, half, options.shift_runs, rows, lengths[-1], options.budget_events, options.seed)
    return {
        "stream": path.stem,
        "reference_rows": reference_rows,
        "rows": rows,
        "build_seconds": round(built, 1),
        "log10_threshold": list(profile.calibration.log10_threshold),
        "widened": list(profile.calibration.widened),
        "false_alarms": false,
        "shifts": found,
        "unwatchable": [
            {"chart": chart.name, "rows": chart.rows, "tau": round(chart.tau, 2), "reason": chart.reason}
            for chart in profile.unwatchable
        ],
        "seconds": round(time.perf_counter() - began, 1),
    }


def table(result: dict[str, Any]) -> str:
    lines = [
        (
            f"{result['stream']}: {result['reference_rows']} reference rows, log10 h {result['log10_threshold']}, "
            f"built in {result['build_seconds']} s, widened {result['widened']}"
        )
    ]
    for row in result["false_alarms"]:
        lines.append(
            f"  segments of {row['segment_rows']:5}: {row['alarms']} alarms, nominal {row['nominal']}, "
            f"ratio {row['ratio']} [{row['low']}, {row['high']}] {row['by_chart']}"
        )
    for row in result["shifts"]:
        lines.append(
            f"  shift of {row['column']:12} by {row['shift_sigma']:6} sigma "
            f"(tau {row['tau']}, margin {row['margin']}): found {row['found']:.0%}, "
            f"delay {row['median_delay']} (p95 {row['p95_delay']})"
        )
    lines += [f"  unwatchable {row['chart']}: {row['reason']}" for row in result["unwatchable"]]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stream", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--shift-runs", type=int, default=40)
    parser.add_argument("--rows", type=int, help="length of a continuation; default the reference's, 10,000 to 60,000")
    parser.add_argument("--max-reference", type=int, help="cap on the reference rows")
    parser.add_argument("--segment-rows", type=int, action="append", help="default: 256, and an eighth of the half")
    parser.add_argument("--budget-events", type=float, default=64_000)
    parser.add_argument("--calibrate-seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for path in options.stream:
        result = measure(path, options)
        print(json.dumps(result) if options.json else table(result), flush=True)


if __name__ == "__main__":
    main()
