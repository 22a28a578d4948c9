"""Cost of the watch cores alone: observe (cells, duplicates, statistics) and decide, through their bytes.

python -m benchmarks.watch_core [--features 8] [--events 4000000] [--per-second 500000]
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from regate.config.model import Feature, ModelConfig
from regate.detectors.build import build_profile
from regate.detectors.columns import ModelKey, Numeric, Slice
from regate.detectors.decide import Shard
from regate.detectors.frames import Frame, decode_frame, encode_frames
from regate.detectors.observe import NO_TIME, Partition, Watched, observe, watched

KEY = ModelKey("default", "bench", "1", "production")
SLICE = 50_000
POOL = 8  # slices made beforehand; ids and times are moved on for each use


def slice_of(rng: np.random.Generator, features: int, rows: int, per_second: float) -> Slice:
    times = np.sort(rng.integers(0, int(rows / per_second * 1e6), rows))
    columns = {f"f{number}": Numeric(rng.normal(size=rows)) for number in range(features)}
    return Slice(KEY, rows, rng.integers(1, 2**63, rows).astype(np.uint64), times, times, dict(columns))


def moved(rows: Slice, by_us: int, salt: int) -> Slice:
    times = rows.event_time_us + by_us
    ids = rows.event_id ^ np.uint64(salt)
    return Slice(KEY, rows.n, ids, times, times + 1000, rows.features)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--events", type=int, default=4_000_000)
    parser.add_argument("--per-second", type=float, default=500_000)
    asked = parser.parse_args()
    rng = np.random.default_rng(1)
    config = ModelConfig(model="bench", features={f"f{n}": Feature(type="numeric") for n in range(asked.features)})
    profile = build_profile(config, KEY, slice_of(rng, asked.features, 20_000, 1000), calibrate_seconds=0)
    pool = [slice_of(rng, asked.features, SLICE, asked.per_second) for _ in range(POOL)]
    models = {KEY: watched(config, profile)}
    partition, shard = Partition(), Shard()
    shard.configure(KEY, profile, config)
    spent = {"observe": 0.0, "decide": 0.0}
    step_us = int(SLICE / asked.per_second * 1e6)
    count = max(1, asked.events // SLICE)
    for number in range(count):
        rows = moved(pool[number % POOL], 10**15 + number * step_us, number << 40)
        started = time.perf_counter()
        parts = tuple(observe(partition, [rows], models, Watched()))
        records = encode_frames(Frame("telemetry-0", partition.watermark_us, parts=parts))
        between = time.perf_counter()
        for record in records:
            shard.take(decode_frame(record, NO_TIME))
        shard.close()
        spent["observe"] += between - started
        spent["decide"] += time.perf_counter() - between
    events = count * SLICE
    micro = {name: round(seconds / events * 1e6, 4) for name, seconds in spent.items()}
    total = sum(spent.values())
    print(
        json.dumps(
            {
                "events": events,
                "features": asked.features,
                "us_per_event": micro | {"together": round(total / events * 1e6, 4)},
                "million_feature_cells_per_second": round(events * asked.features / total / 1e6, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
