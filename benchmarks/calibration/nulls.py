"""False alarms on streams that never change: realised over nominal, for every kind of null, with 95 % intervals.

    python -m benchmarks.calibration.nulls                  # all generated nulls, 200 runs each
    python -m benchmarks.calibration.nulls --quick          # 60 runs each, for work on the calibration
    python -m benchmarks.calibration.nulls --moved mean     # every mean chart off by half its margin
    python -m benchmarks.calibration.nulls --stream ../shared/data/streams/airlines.parquet

A run is one continuation of ``--periods`` budget periods under its reference's profile; an alarm restarts the
statistic. References are clusters: the interval is the wider of the Poisson one and the one between references.
Streams from files have one reference, their first 40 %; continuations are circular block bootstraps of it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.calibration.continuations import NULLS, Null, bootstraps, config_of, from_file
from benchmarks.calibration.loop import BLOCK, KEY, poisson_interval
from scipy.stats import t as student

from regate.detectors.build import build_profile
from regate.detectors.cells import Closed, Joiner, group_rows
from regate.detectors.charts import Bank
from regate.detectors.columns import IntArray, Slice
from regate.detectors.numerics import UNIT, expit, logit
from regate.detectors.profile import Profile

MOVED = ("mean", "scale", "indicator")


@dataclass(frozen=True)
class Stream:
    """Blocks of one run: ``stats`` is ``int64[blocks, D]``, ``stratum`` one entry a block."""

    stats: IntArray
    stratum: IntArray


def stream_of(profile: Profile, rows: Slice) -> Stream:
    """Cut rows into blocks as `backtest` does: cells of a block's rows in file order, joined within a stratum."""
    stratum = profile.stratum(rows.event_time_us)
    groups = group_rows(np.arange(rows.n) // BLOCK, stratum)
    stats = profile.accumulate(rows, groups.group, len(groups.cell))
    if profile.layout.strata_count == 1:
        return Stream(stats[: rows.n // BLOCK], np.zeros(rows.n // BLOCK, dtype=np.int64))
    closed = Closed(groups.cell, groups.stratum, stats, np.zeros(len(stats), dtype=np.int64))
    blocks = list(Joiner().take(closed, int(groups.cell[-1]) + 1))
    return Stream(np.stack([block.stats for block in blocks]), np.array([block.stratum for block in blocks]))


def moved(profile: Profile, stream: Stream, form: str, rng: np.random.Generator) -> Stream:
    """Move every chart of a form by half its margin, charts in turn up and down."""
    stats = stream.stats.copy()
    charts = [chart for chart in profile.charts if chart.form == form and chart.watchable and chart.margin > 0]
    for turn, chart in enumerate(charts):
        half = (0.5 if turn % 2 == 0 else -0.5) * chart.margin
        s, n = stats[:, chart.s_column], stats[:, chart.n_column]
        if form == "mean":
            stats[:, chart.s_column] = s + np.rint(n * half * UNIT).astype(np.int64)
        elif form == "scale":
            stats[:, chart.s_column] = np.rint(s * math.exp(2.0 * half)).astype(np.int64)
        else:
            index = profile.charts.index(chart)
            rate = profile.points.centre[stream.stratum, index]
            tilted = expit(logit(rate) + half)
            if half > 0:
                stats[:, chart.s_column] = s + rng.binomial(n - s, (tilted - rate) / (1.0 - rate))
            else:
                stats[:, chart.s_column] = rng.binomial(s, tilted / rate)
    return Stream(stats, stream.stratum)


def alarms_of(profile: Profile, streams: list[Stream], budget_events: float) -> list[IntArray]:
    """Return ``int64[alarms, 2]`` (block, chart) of each run; all runs are stepped together."""
    bank, points = Bank(profile), profile.points
    bar = 10.0 ** bank.threshold(budget_events)
    chart = points.chart
    grid = np.bincount(chart, minlength=len(profile.charts))
    weight = (bank.weights / grid)[chart]
    s_column = np.array([spec.s_column for spec in profile.charts])[chart]
    n_column = np.array([spec.n_column for spec in profile.charts])[chart]
    length = min(len(stream.stratum) for stream in streams)
    stats = np.stack([stream.stats[:length] for stream in streams], axis=1)
    stratum = np.stack([stream.stratum[:length] for stream in streams], axis=1)
    r = np.zeros((len(streams), chart.size))
    found: list[list[tuple[int, int]]] = [[] for _ in streams]
    for step in range(length):
        now = stats[step]
        log_e = now[:, s_column] * points.a[stratum[step]] + now[:, n_column] * points.b[stratum[step]]
        r += (now[:, 0] / budget_events)[:, None]
        r *= np.exp2(np.minimum(log_e, 500.0))
        for run in np.flatnonzero(r @ weight >= bar):
            found[run].append((step, int(chart[(r[run] * weight).argmax()])))
            r[run] = 0.0
    return [np.array(alarms, dtype=np.int64).reshape(-1, 2) for alarms in found]


def ratio_of(counts: list[int], nominal: float) -> dict[str, Any]:
    """Return realised over nominal; ``counts`` are alarms by reference, ``nominal`` all together."""
    total = sum(counts)
    low, high = poisson_interval(total)
    if len(counts) > 1:
        half = float(student.ppf(0.975, len(counts) - 1)) * float(np.std(counts, ddof=1)) * math.sqrt(len(counts))
        low, high = max(min(low, total - half), 0.0), max(high, total + half)
    return {
        "alarms": total,
        "nominal": round(nominal, 2),
        "ratio": round(total / nominal, 3),
        "low": round(low / nominal, 3),
        "high": round(high / nominal, 3),
    }


def measure(null: Null, options: argparse.Namespace) -> dict[str, Any]:
    """Count alarms of one null over ``options.references`` x ``options.continuations`` runs."""
    began = time.perf_counter()
    references = options.references if null.references is None else null.references
    runs = options.references * options.continuations // references
    rows = int(options.periods * options.budget_events)
    counts, thresholds, by_chart, seconds, periods = [], [], {}, 0.0, 0.0
    unwatchable = 0
    for number in range(references):
        reference = null.reference(np.random.default_rng((options.seed, number)), options.reference_rows)
        began_build = time.perf_counter()
        profile = build_profile(
            config_of(reference, null.strata),
            KEY,
            reference,
            budget_events=options.budget_events,
            calibrate_seconds=options.calibrate_seconds,
            seed=number,
        )
        seconds = max(seconds, time.perf_counter() - began_build)
        thresholds.append(Bank(profile).threshold(options.budget_events))
        unwatchable += len(profile.unwatchable)
        streams = []
        for run in range(runs):
            rng = np.random.default_rng((options.seed, number, run, 1))
            stream = stream_of(profile, null.continuation(rng, reference, rows))
            streams.append(moved(profile, stream, options.moved, rng) if options.moved else stream)
        alarms = alarms_of(profile, streams, options.budget_events)
        length = min(len(stream.stratum) for stream in streams)
        periods += sum(int(stream.stats[:length, 0].sum()) for stream in streams) / options.budget_events
        counts.append(sum(len(found) for found in alarms))
        for _, index in np.concatenate(alarms):
            name = profile.charts[index].name
            by_chart[name] = by_chart.get(name, 0) + 1
    return {
        "null": null.name,
        "moved": options.moved or "",
        "runs": references * runs,
        "references": references,
        **ratio_of(counts, periods),
        "log10_threshold": round(float(np.mean(thresholds)), 3),
        "unwatchable": round(unwatchable / references, 1),
        "build_seconds": round(seconds, 1),
        "by_chart": dict(sorted(by_chart.items(), key=lambda item: -item[1])[:4]),
        "by_reference": counts,
        "seconds": round(time.perf_counter() - began, 1),
    }


TITLES = ("null", "runs", "alarms", "nominal", "ratio", "95 %", "log10 h", "build", "charts")
HEADER = "{:26} {:>5} {:>6} {:>8} {:>6} {:>15} {:>8} {:>6}  {}".format(*TITLES)


def line(row: dict[str, Any]) -> str:
    """Return a result as a line of the table."""
    charts = ", ".join(f"{name.split('/', 1)[1]} {count}" for name, count in row["by_chart"].items())
    interval = f"{row['low']:.2f} to {row['high']:.2f}"
    return (
        f"{row['null'] + (' ' + row['moved'] if row['moved'] else ''):26} {row['runs']:5} {row['alarms']:6} "
        f"{row['nominal']:8.1f} {row['ratio']:6.2f} {interval:>15} {row['log10_threshold']:8.2f} "
        f"{row['build_seconds']:6.1f}  {charts}"
    )


def parsed() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--null", action="append", choices=sorted(NULLS), help="default: all")
    parser.add_argument("--stream", action="append", type=Path, help="bootstraps of this file, instead of generated")
    parser.add_argument("--quick", action="store_true", help="20 references with 3 runs each")
    parser.add_argument("--references", type=int, default=40)
    parser.add_argument("--continuations", type=int, default=5, help="runs for each reference")
    parser.add_argument("--reference-rows", type=int, default=20_000)
    parser.add_argument("--periods", type=float, default=2.0)
    parser.add_argument("--budget-events", type=float, default=64_000.0)
    parser.add_argument("--moved", choices=MOVED, help="move every chart of this form by half its margin")
    parser.add_argument("--calibrate-seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    if options.quick:
        options.references, options.continuations = 20, 3
    return options


def main() -> None:
    """Measure and print."""
    options = parsed()
    if options.stream:
        nulls = [null for path in options.stream for null in bootstraps(from_file(path), path.stem, references=1)]
    else:
        nulls = [NULLS[name] for name in options.null or NULLS]
    print(HEADER)
    rows = []
    for null in nulls:
        rows.append(measure(null, options))
        print(line(rows[-1]), flush=True)
    if options.json:
        settings = {key: str(value) for key, value in vars(options).items()}
        options.json.write_text(json.dumps({"options": settings, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
