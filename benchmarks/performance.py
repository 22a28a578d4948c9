"""What the performance family finds on streams whose changes are known.

python -m benchmarks.performance sea [--streams 10]       real changes of River's SEA, inputs as ever
python -m benchmarks.performance elec2 FILE               the estimate on a real stream, labels 500 rows late
python -m benchmarks.performance withdrawn [--streams 2000]  how often labels wrongly say that nothing was lost
python -m benchmarks.performance null [--streams 8]       alarms of the family alone where nothing changes
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from regate.config.model import Family
from regate.daemon.backtest import Backtest, Options
from regate.daemon.files.table import read_table
from regate.detectors.judgement import LABELLED, SURE
from regate.detectors.selection import TOLERATED

# A row is True where the first two attributes sum up to more than this.
THRESHOLDS = (8.0, 9.0, 7.0, 9.5)


def sea(variants: Sequence[int], each: int, seed: int) -> pa.Table:
    """Return SEA concepts one behind the other, answered by the rule of the first, with a tenth of labels turned."""
    from river.datasets.synth import SEA

    rows, labels = [], []
    for number, variant in enumerate(variants):
        for row, label in itertools.islice(SEA(variant=variant, seed=seed * 100 + number, noise=0.1), each):
            rows.append([row[0], row[1], row[2]])
            labels.append(int(label))
    x = np.array(rows)
    made = (x[:, 0] + x[:, 1] > THRESHOLDS[variants[0]]).astype(np.int64)
    return pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "prediction": made, "label": labels})


def findings(path: Path, options: Options) -> tuple[list[dict[str, Any]], Backtest]:
    run = Backtest(read_table(path), options)
    run.build()
    return list(run.findings()), run


def measure_sea(streams: int, each: int = 5_000, reference: int = 4_000) -> None:
    for variants in ((0, 3, 0, 2), (0, 1, 2, 3)):
        delays: list[list[float]] = [[], [], []]
        before = drift = 0
        for seed in range(streams):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "sea.parquet"
                pq.write_table(sea(variants, each, seed), path)
                found, _ = findings(path, Options(reference, calibrate_seconds=20.0))
            first = [one for one in found if one["type"] == "finding"]
            drift += sum(one["family"] == "feature_drift" for one in first)
            before += sum(one["row"] < each for one in first)
            for number, old in enumerate(itertools.pairwise(variants)):
                if old[1] == variants[0]:
                    continue  # back to what the model knows: an improvement
                start = each * (number + 1)
                rows = [one["row"] for one in first if start <= one["row"] < start + each and one["kind"] == "harm"]
                delays[number].append(min(rows) - start if rows else np.inf)
        known = [part for part in delays if part]
        print(
            json.dumps(
                {
                    "concepts": variants,
                    "streams": streams,
                    "feature_drift": drift,
                    "before_the_first_change": before,
                    "found": [int(np.isfinite(part).sum()) for part in known],
                    "median_delay": [float(np.median(part)) for part in known],
                }
            )
        )


def measure_elec2(source: Path) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    table = pq.read_table(source)
    names = [name for name in table.column_names if name != "label"]
    x = np.stack([np.asarray(table[name], dtype=float) for name in names], axis=1)
    y = np.asarray(table["label"]).astype(int)
    learned, reference = int(len(y) * 0.15), int(len(y) * 0.2)
    model = HistGradientBoostingClassifier(max_iter=80, random_state=0, early_stopping=False)
    p = model.fit(x[:learned], y[:learned]).predict_proba(x[learned:])[:, 1]
    columns = {name: table[name].slice(learned) for name in names}
    made = (p >= 0.5).astype(int)
    served = pa.table({**columns, "prediction": made, "score": p, "label": y[learned:]})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "elec2.parquet"
        pq.write_table(served, path)
        found, run = findings(path, Options(reference, label_delay=500))
    right = made == y[learned:]
    print(json.dumps({"accuracy": [round(float(right[i : i + 4000].mean()), 3) for i in range(0, len(right), 4000)]}))
    for one in found:
        if one["kind"] == "harm" or one["subject"] == "estimated_error":
            names = ("type", "revision", "row", "kind", "subject", "severity", "message")
            print(json.dumps({name: one[name] for name in names}))
    print(json.dumps({"estimate": run.estimate}))


def measure_withdrawn(streams: int) -> None:
    """A loss of exactly what is tolerated, followed for 50,000 outcomes."""
    rng = np.random.default_rng(1)
    for usual in (0.05, 0.1, 0.3):
        wrong = rng.random((streams, 50_000)) < usual + TOLERATED
        n = np.arange(1, 50_001)
        rate = np.cumsum(wrong, axis=1) / n
        upper = rate + SURE * np.sqrt(np.maximum(rate * (1 - rate), usual * (1 - usual)) / n)
        looked = np.isin(n, LABELLED << np.arange(16))
        withdrawn = (upper[:, looked] <= usual + TOLERATED).any(axis=1).mean()
        print(json.dumps({"error_rate": usual, "loss": TOLERATED, "wrongly_withdrawn": float(withdrawn)}))


def _null(kind: str, seed: int, n: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=n), rng.normal(size=n)
    if kind == "dependent":
        for row in range(1, n):
            x[row] = 0.7 * x[row - 1] + np.sqrt(1 - 0.49) * x[row]
    if kind == "regression":
        return {"x": x, "z": z, "prediction": 10 * x + z + np.exp(x / 2) * rng.normal(size=n), "label": 10 * x + z}
    p = 1 / (1 + np.exp(-2 * x))
    label = (rng.random(n) < p).astype(float)
    if kind == "half labelled":
        label[rng.random(n) < 0.5] = np.nan
    score = {"prediction": (p >= 0.5).astype(int), "score": np.sqrt(p)}
    return {"x": x, **score, "label": pa.array(label, from_pandas=True)}


def measure_null(streams: int, rows: int = 150_000, reference: int = 20_000, budget: float = 64_000.0) -> None:
    for kind in ("scores", "half labelled", "regression", "dependent"):
        alarms = notes = 0
        for seed in range(streams):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "null.parquet"
                pq.write_table(pa.table(_null(kind, 100 + seed, rows)), path)
                table = read_table(path)
            others = {name: 0.0 for name in get_args(Family) if name != "performance"}
            detection = table.config.detection.model_copy(update={"families": others})
            table.config = table.config.model_copy(update={"detection": detection})
            options = Options(
                reference,
                budget_events=budget,
                on_finding="restart",
                calibrate_seconds=20.0,
                label_delay=500 if kind == "half labelled" else 0,
            )
            run = Backtest(table, options)
            run.build()
            found = list(run.findings())
            alarms += sum(one["type"] == "finding" for one in found)
            notes += sum(one["type"] != "finding" for one in found)
        nominal = streams * (rows - reference) / budget
        print(json.dumps({"null": kind, "alarms": alarms, "nominal": nominal, "suspensions": notes}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sea", "elec2", "withdrawn", "null"))
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--streams", type=int)
    asked = parser.parse_args()
    if asked.what == "sea":
        measure_sea(asked.streams or 10)
    elif asked.what == "elec2":
        measure_elec2(asked.file)
    elif asked.what == "null":
        measure_null(asked.streams or 8)
    else:
        measure_withdrawn(asked.streams or 2000)


if __name__ == "__main__":
    main()
