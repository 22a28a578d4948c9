"""Seeded telemetry with a known change, and the watch cores over it: any partitions, any slices, any interleaving."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from regate.config.model import Detection, Feature, ModelConfig, Output
from regate.detectors.build import build_profile
from regate.detectors.columns import Categorical, Column, Labels, ModelKey, Numeric, Slice
from regate.detectors.decide import Shard
from regate.detectors.finding import Finding
from regate.detectors.frames import Frame, decode_frame, encode_frames
from regate.detectors.observe import NO_TIME, Partition, Watched, observe, watched
from regate.detectors.profile import Profile

KEY = ModelKey("default", "loan", "1", "production")
START_US = 1_750_000_000_000_000
CONFIG = ModelConfig(
    model="loan",
    features={
        "income": Feature(type="numeric"),
        "age": Feature(type="numeric"),
        "region": Feature(type="categorical"),
    },
    output=Output(type="binary", classes=("0", "1"), positive="1"),
    # How data come (twice, late, old) is what these tests vary: it must change no other figure.
    detection=Detection(families={"data_quality": 0}),
)


def telemetry(
    rows: int, *, seed: int, start_us: int = START_US, per_second: float = 50.0, key: ModelKey = KEY
) -> tuple[Slice, Labels]:
    """Return events and their labels, which carry no prediction and come 5 s later; one in ten predictions is wrong."""
    rng = np.random.default_rng(seed)
    times = start_us + np.sort(rng.integers(0, int(rows / per_second * 1e6), rows))
    wrong = rng.random(rows) < 0.1
    label = rng.integers(0, 2, rows)
    ids = rng.integers(1, 2**63, rows).astype(np.uint64)
    events = Slice(
        key=key,
        n=rows,
        event_id=ids,
        event_time_us=times,
        arrival_us=times + 50_000,
        features={
            "income": Numeric(rng.normal(size=rows)),
            "age": Numeric(rng.normal(size=rows)),
            "region": Categorical(rng.integers(0, 3, rows).astype(np.int32), ("east", "north", "west")),
        },
        prediction=Numeric(np.where(wrong, 1 - label, label).astype(np.float64)),
    )
    later = times + 5_000_000
    labels = Labels(key, rows, ids, later, later + 50_000, Numeric(label.astype(np.float64)))
    return events, labels


def shifted(events: Slice, first: int, *, name: str = "income", by: float = 1.0, last: int | None = None) -> Slice:
    """Return events with one numeric feature moved from row ``first`` on."""
    column = events.features[name]
    assert isinstance(column, Numeric)
    values = column.values.copy()
    values[first:last] += by
    return replace(events, features={**events.features, name: Numeric(values)})


def wronged(events: Slice, first: int, share: float, seed: int = 5) -> Slice:
    """Return events of which a share of predictions is turned over from row ``first`` on."""
    assert isinstance(events.prediction, Numeric)
    values = events.prediction.values.copy()
    turned = np.random.default_rng(seed).random(events.n) < share
    turned[:first] = False
    values[turned] = 1 - values[turned]
    return replace(events, prediction=Numeric(values))


@lru_cache(maxsize=4)
def profile(rows: int = 4000, key: ModelKey = KEY) -> Profile:
    """Return a profile at the ceiling, built once."""
    events, labels = telemetry(rows, seed=1, start_us=START_US - 10**9 * 3600)
    return build_profile(CONFIG, key, events, labels.label, calibrate_seconds=0, events_per_second=50.0)


def _pick_column(column: Column, rows: np.ndarray) -> Column:
    if isinstance(column, Numeric):
        return Numeric(column.values[rows])
    return Categorical(column.codes[rows], column.categories)


def pick(part: Slice | Labels, rows: np.ndarray) -> Slice | Labels:
    """Return some rows, in the order given."""
    shared = {
        "n": len(rows),
        "event_id": part.event_id[rows],
        "event_time_us": part.event_time_us[rows],
        "arrival_us": part.arrival_us[rows],
    }
    prediction = None if part.prediction is None else _pick_column(part.prediction, rows)
    if isinstance(part, Labels):
        return replace(part, **shared, prediction=prediction, label=_pick_column(part.label, rows))
    features = {name: _pick_column(column, rows) for name, column in part.features.items()}
    scores = {name: values[rows] for name, values in part.scores.items()}
    own = {name: values[rows] for name in ("latency_ms", "error") if (values := getattr(part, name)) is not None}
    if part.client is not None:
        own["client"] = part.client[rows]
    texts = {name: _pick_column(column, rows) for name, column in part.texts.items()}
    return replace(part, **shared, prediction=prediction, features=features, scores=scores, texts=texts, **own)


def event_json(events: Slice, row: int) -> bytes:
    """Return one event as a bare JSON record."""
    values: dict[str, float | str] = {}
    for name, column in events.features.items():
        if isinstance(column, Numeric):
            values[name] = float(column.values[row])
        else:
            values[name] = column.categories[column.codes[row]]
    assert isinstance(events.prediction, Numeric)
    return json.dumps(
        {
            "event_id": f"e{row}",
            "event_time": int(events.event_time_us[row]) / 1e6,
            "model": events.key.model,
            "inputs": values,
            "prediction": int(events.prediction.values[row]),
        }
    ).encode()


def label_json(labels: Labels, row: int) -> bytes:
    """Return one label as a bare JSON record."""
    assert isinstance(labels.label, Numeric)
    return json.dumps(
        {
            "event_id": f"e{row}",
            "event_time": int(labels.event_time_us[row]) / 1e6,
            "model": labels.key.model,
            "label": int(labels.label.values[row]),
        }
    ).encode()


@dataclass
class Pipeline:
    """Observe shards by source name, one decide shard behind them; frames go through their bytes."""

    sources: Sequence[str]
    profiles: Sequence[Profile] = ()
    config: ModelConfig = CONFIG
    shard: Shard = field(default_factory=Shard)
    partitions: dict[str, Partition] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.models: dict[ModelKey, Watched] = {}
        for one in self.profiles or (profile(),):
            self.models[one.key] = watched(self.config, one)
            self.shard.configure(one.key, one, self.config)
        self.partitions = {name: Partition() for name in self.sources}

    def observe(self, source: str, *parts: Slice | Labels) -> list[bytes]:
        """Step one observe shard; return its records."""
        partition = self.partitions[source]
        found = tuple(observe(partition, parts, self.models, Watched()))
        return encode_frames(Frame(source, partition.watermark_us, parts=found, sources=tuple(self.sources)))

    def decide(self, records: Sequence[bytes]) -> list[Finding]:
        """Step the decide shard."""
        for record in records:
            self.shard.take(decode_frame(record, NO_TIME))
        found = self.shard.close()
        self.findings.extend(found)
        return found

    def feed(self, source: str, *parts: Slice | Labels) -> list[Finding]:
        return self.decide(self.observe(source, *parts))

    def end(self) -> None:
        """Tell that all partitions are proven empty: everything closes."""
        for name in self.sources:
            self.shard.take(Frame(name, self.partitions[name].watermark_us, idle=True))
        self.findings.extend(self.shard.close())

    def integers(self, key: ModelKey = KEY) -> bytes:
        """Return the statistics of all decided blocks."""
        watch = self.shard.models[key].watch
        assert watch is not None
        kept = watch.history.since(0)
        return kept["marks"].tobytes() + kept["stats"].tobytes()

    def said(self) -> list[bytes]:
        """Return the findings as bytes."""
        return [finding.model_dump_json().encode() for finding in self.findings]


def alone(
    events: Slice, labels: Labels | None = None, of: Profile | None = None, config: ModelConfig = CONFIG
) -> Pipeline:
    """Return the pipeline after one partition took everything in one slice."""
    run = Pipeline(("telemetry-0", "labels-0"), () if of is None else (of,), config)
    run.decide([*run.observe("telemetry-0", events), *(run.observe("labels-0", labels) if labels else ())])
    run.end()
    return run
