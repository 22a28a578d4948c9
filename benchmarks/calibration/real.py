"""Real dependence: false alarms on bootstrap continuations of real streams, and what a change costs to find.

    python -m benchmarks.calibration.real ../shared/data/streams/airlines.parquet ... --budget-events 64000

The first 40 % of a stream is the reference. Continuations are circular block bootstraps of its second half:
nothing changed. Then every watchable chart in turn meets a change of twice its minimal detectable effect (shifts:
at least half a sigma): a shift, a ratio of scales, a tilt of the rate of a category, of missing or unseen values.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.calibration.changes import changed, size_of
from benchmarks.calibration.continuations import config_of, from_file, resampled
from benchmarks.calibration.loop import BLOCK, KEY, ratio
from benchmarks.calibration.nulls import alarms_of, stream_of

from regate.detectors.build import build_profile
from regate.detectors.columns import Slice
from regate.detectors.profile import Profile


def false_alarms(
    source: Slice, profile: Profile, runs: int, rows: int, length: int, budget: float, seed: int
) -> dict[str, Any]:
    """Count alarms on unchanged continuations."""
    by_chart: dict[str, int] = {}
    streams = [
        stream_of(profile, resampled(np.random.default_rng((seed, length, run)), source, rows, length, source.n // 2))
        for run in range(runs)
    ]
    found = np.concatenate(alarms_of(profile, streams, budget))
    for _, index in found:
        name = profile.charts[index].name
        by_chart[name] = by_chart.get(name, 0) + 1
    top = dict(sorted(by_chart.items(), key=lambda item: -item[1])[:4])
    return {"segment_rows": length, **ratio(len(found), runs * rows / budget), "by_chart": top}


def found_changes(
    source: Slice, profile: Profile, runs: int, rows: int, length: int, budget: float, seed: int
) -> list[dict[str, Any]]:
    """Change what every watchable chart of one column watches in turn; say how often and when something was found."""
    before = [
        resampled(np.random.default_rng((seed, length, run, 1)), source, rows, length, source.n // 2)
        for run in range(runs)
    ]
    results = []
    for index, chart in enumerate(profile.charts):
        if not chart.watchable or chart.subject not in source.features:
            continue  # pairs, and how events come: no change of one column is theirs
        rate = float(profile.points.centre[0, index])
        size = size_of(chart, rate)
        rng = np.random.default_rng((seed, length, index, 2))
        streams = [stream_of(profile, changed(unchanged, chart, size, rate, source, rng)) for unchanged in before]
        first = [int(alarms[0, 0]) for alarms in alarms_of(profile, streams, budget) if len(alarms)]
        delays = [(block + 1) * BLOCK for block in first]
        results.append(
            {
                "chart": chart.name,
                "form": chart.form,
                "tau": round(chart.tau, 2),
                "margin": round(chart.margin, 3),
                "from": {"mean": 0.0, "scale": 1.0}.get(chart.form, round(rate, 5)),
                "to": round(size, 5),
                "found": round(len(delays) / runs, 3),
                "median_delay": float(np.median(delays)) if delays else None,
                "p95_delay": float(np.quantile(delays, 0.95)) if delays else None,
            }
        )
    return results


def measure(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one stream."""
    began = time.perf_counter()
    source = from_file(path)(np.random.default_rng(0), 0)
    if options.max_reference is not None:
        source = source.cut(slice(0, options.max_reference))
    profile = build_profile(
        config_of(source),
        KEY,
        source,
        budget_events=options.budget_events,
        calibrate_seconds=options.calibrate_seconds,
        seed=options.seed,
    )
    built = time.perf_counter() - began
    half = source.n - source.n // 2
    rows = options.rows or min(max(source.n, 10_000), 60_000)
    lengths = options.segment_rows or [256, max(1024, half // 8)]
    budget, seed = options.budget_events, options.seed
    false = [false_alarms(source, profile, options.runs, rows, length, budget, seed) for length in lengths]
    found = found_changes(source, profile, options.shift_runs, min(rows, 20_000), lengths[-1], budget, seed)
    return {
        "stream": path.stem,
        "reference_rows": source.n,
        "rows": rows,
        "build_seconds": round(built, 1),
        "log10_threshold": list(profile.calibration.log10_threshold),
        "widened": list(profile.calibration.widened),
        "false_alarms": false,
        "changes": found,
        "found_share": round(float(np.mean([row["found"] for row in found])), 3),
        "unwatchable": [
            {"chart": chart.name, "rows": chart.rows, "tau": round(chart.tau, 2), "reason": chart.reason}
            for chart in profile.unwatchable
        ],
        "seconds": round(time.perf_counter() - began, 1),
    }


def table(result: dict[str, Any]) -> str:
    """Return a result as text."""
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
    for row in result["changes"]:
        lines.append(
            f"  {row['chart']:44} {row['form']} {row['from']} to {row['to']} "
            f"(tau {row['tau']}, margin {row['margin']}): found {row['found']:.0%}, "
            f"delay {row['median_delay']} (p95 {row['p95_delay']})"
        )
    lines.append(f"  {len(result['changes'])} changes, found {result['found_share']:.1%}")
    lines += [f"  unwatchable {row['chart']}: {row['reason']}" for row in result["unwatchable"]]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
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
