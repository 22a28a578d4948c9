"""Cost of the watch cores alone: observe (cells, duplicates, statistics) and decide, through their bytes.

python -m benchmarks.watch_core [--features 8] [--events 4000000] [--per-second 500000]
python -m benchmarks.watch_core --served    events with score, class, latency and error too: what output drift,
                                            multivariate drift and service add, both ways in one run
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace

import numpy as np

from regate.config.model import Detection, Feature, ModelConfig
from regate.detectors.build import build_profile
from regate.detectors.columns import Categorical, ModelKey, Numeric, Slice
from regate.detectors.decide import Shard
from regate.detectors.frames import Frame, decode_frame, encode_frames
from regate.detectors.observe import NO_TIME, Partition, Watched, observe, watched

KEY = ModelKey("default", "bench", "1", "production")
SLICE = 50_000
POOL = 8  # slices made beforehand; ids and times are moved on for each use


ADDED = ("output_drift", "multivariate_drift", "service")


def slice_of(rng: np.random.Generator, features: int, rows: int, per_second: float, *, served: bool) -> Slice:
    times = np.sort(rng.integers(0, int(rows / per_second * 1e6), rows))
    columns = {f"f{number}": Numeric(rng.normal(size=rows)) for number in range(features)}
    whole = Slice(KEY, rows, rng.integers(1, 2**63, rows).astype(np.uint64), times, times, dict(columns))
    if not served:
        return whole
    score = 1.0 / (1.0 + np.exp(-rng.normal(size=rows)))
    return replace(
        whole,
        prediction=Categorical((score >= 0.5).astype(np.int32), ("0", "1")),
        scores={"1": score},
        latency_ms=rng.lognormal(3.0, 0.4, rows),
        error=rng.random(rows) < 0.01,
    )


def moved(rows: Slice, by_us: int, salt: int) -> Slice:
    times = rows.event_time_us + by_us
    return replace(rows, event_id=rows.event_id ^ np.uint64(salt), event_time_us=times, arrival_us=times + 1000)


class Lane:
    """Both cores with their own profile, and what they have spent."""

    def __init__(self, features: int, reference: Slice, without: tuple[str, ...] = ()) -> None:
        config = ModelConfig(
            model="bench",
            features={f"f{n}": Feature(type="numeric") for n in range(features)},
            detection=Detection.model_validate({"families": dict.fromkeys(without, 0.0)}),
        )
        profile = build_profile(config, KEY, reference, calibrate_seconds=0)
        self.models = {KEY: watched(config, profile)}
        self.partition, self.shard = Partition(), Shard()
        self.shard.configure(KEY, profile, config)
        self.spent = {"observe": 0.0, "decide": 0.0}

    def take(self, rows: Slice) -> None:
        started = time.perf_counter()
        parts = tuple(observe(self.partition, [rows], self.models, Watched()))
        records = encode_frames(Frame("telemetry-0", self.partition.watermark_us, parts=parts))
        between = time.perf_counter()
        for record in records:
            self.shard.take(decode_frame(record, NO_TIME))
        self.shard.close()
        self.spent["observe"] += between - started
        self.spent["decide"] += time.perf_counter() - between

    def told(self, events: int, features: int) -> dict[str, object]:
        micro = {name: round(seconds / events * 1e6, 4) for name, seconds in self.spent.items()}
        total = sum(self.spent.values())
        return {
            "us_per_event": micro | {"together": round(total / events * 1e6, 4)},
            "million_feature_cells_per_second": round(events * features / total / 1e6, 2),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--events", type=int, default=4_000_000)
    parser.add_argument("--per-second", type=float, default=500_000)
    parser.add_argument("--served", action="store_true")
    asked = parser.parse_args()
    rng = np.random.default_rng(1)
    reference = slice_of(rng, asked.features, 20_000, 1000, served=asked.served)
    pool = [slice_of(rng, asked.features, SLICE, asked.per_second, served=asked.served) for _ in range(POOL)]
    lanes = {"all": Lane(asked.features, reference)}
    if asked.served:
        lanes["without"] = Lane(asked.features, reference, ADDED)
    step_us = int(SLICE / asked.per_second * 1e6)
    count = max(1, asked.events // SLICE)
    for number in range(count):
        rows = moved(pool[number % POOL], 10**15 + number * step_us, number << 40)
        for lane in lanes.values():
            lane.take(rows)
    events = count * SLICE
    told: dict[str, object] = {"events": events, "features": asked.features}
    told |= lanes["all"].told(events, asked.features)
    if asked.served:
        told["without"] = {"families": ADDED, **lanes["without"].told(events, asked.features)}
        told["observe_ratio"] = round(lanes["all"].spent["observe"] / lanes["without"].spent["observe"], 3)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
