"""Answers, correlations, latency, errors and burn rates: equal integers and equal words however the stream comes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.telemetry_streams import Pipeline, alone, pick

from regate.config.model import Detection, Feature, ModelConfig, Output, Service
from regate.detectors import decide_state
from regate.detectors.build import build_profile
from regate.detectors.columns import Categorical, ModelKey, Numeric, Slice
from regate.detectors.profile import Profile

KEY = ModelKey("default", "served", "1", "production")
PER_SECOND, PART = 3.0, 3_000
START_US = 1_750_000_000_000_000
FEW = settings(max_examples=10, deadline=None)
CONFIG = ModelConfig(
    model="served",
    features={name: Feature(type="numeric") for name in ("x", "y")} | {"flag": Feature(type="boolean")},
    output=Output(type="multiclass"),
    detection=Detection(
        # How data come (twice, late, old) is what these tests vary: it must change no other figure.
        families={"data_quality": 0},
        service=Service(error_objective_ratio=0.01, latency_objective_ms=100.0, timeout_ms=200.0),
    ),
)


def served(n: int, seed: int, start_us: int, parts: tuple[str, ...] = ("calm",)) -> Slice:
    """Return ``n`` rows of each part, one behind the other."""
    rng = np.random.default_rng(seed)
    rows = n * len(parts)
    part = np.repeat(parts, n)
    x, y = rng.standard_normal((2, rows))
    r = np.where(part == "joined", 0.8, 0.0)
    y = r * x + np.sqrt(1.0 - r * r) * y
    logits = rng.normal(0, np.where(part == "unsure", 0.5, 1.5), (3, rows))
    p = np.exp(logits) / np.exp(logits).sum(axis=0)
    latency = rng.lognormal(3.0, 0.4, rows) * np.where(part == "slow", 8.0, 1.0)
    times = start_us + (np.arange(rows) / PER_SECOND * 1e6).astype(np.int64)
    return Slice(
        key=KEY,
        n=rows,
        event_id=rng.integers(1, 2**63, rows).astype(np.uint64),
        event_time_us=times,
        arrival_us=times + 50_000,
        features={
            "x": Numeric(np.where(rng.random(rows) < 0.01, np.nan, x)),
            "y": Numeric(y),
            "flag": Categorical((rng.random(rows) < 0.3).astype(np.int32), ("false", "true")),
        },
        prediction=Categorical(p.argmax(axis=0).astype(np.int32), ("a", "b", "c")),
        scores=dict(zip("abc", p, strict=True)),
        latency_ms=latency,
        error=rng.random(rows) < np.where(part == "failing", 0.8, 0.002),
    )


@lru_cache(maxsize=1)
def profile() -> Profile:
    rows = served(9_000, 1, START_US - 10**9 * 7200)
    return build_profile(CONFIG, KEY, rows, calibrate_seconds=0, events_per_second=PER_SECOND)


PARTS = ("calm", "joined", "calm", "unsure", "calm", "slow", "failing", "calm", "calm")
EVENTS = served(PART, 2, START_US, PARTS)


@pytest.fixture(scope="module")
def undisturbed() -> Pipeline:
    return alone(EVENTS, None, profile(), CONFIG)


def same(run: Pipeline, undisturbed: Pipeline) -> None:
    assert run.integers(KEY) == undisturbed.integers(KEY)
    assert run.said() == undisturbed.said()


def test_the_stream_has_something_of_everything(undisturbed: Pipeline) -> None:
    told = {(one.family, one.kind, one.detector, one.type) for one in undisturbed.findings}
    assert {
        ("multivariate_drift", "change", "multivariate_drift", "finding"),
        ("output_drift", "change", "output_drift", "finding"),
        ("service", "change", "service", "finding"),
        ("service", "harm", "service", "finding"),
        ("service", "harm", "burn", "finding"),
        ("service", "harm", "burn", "revision"),
    } <= told
    assert {one.subject for one in undisturbed.findings if one.detector == "burn"} == {
        "error objective",
        "latency objective",
    }


@FEW
@given(st.integers(0, 2**32), st.integers(1, 16), st.integers(0, 9))
def test_any_partitions_slices_and_interleaving(undisturbed: Pipeline, seed: int, partitions: int, pieces: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"telemetry-{number}" for number in range(partitions)]
    run = Pipeline(names, (profile(),), CONFIG)
    owner = rng.integers(0, partitions, EVENTS.n)
    queues = {}
    for number, name in enumerate(names):
        rows = np.flatnonzero(owner == number)
        cuts = np.sort(rng.integers(0, 101, pieces)) * len(rows) // 100
        queues[name] = [pick(EVENTS, piece) for piece in np.split(rows, cuts) if len(piece)]
    waiting: list[bytes] = []
    while any(queues.values()):
        name = str(rng.choice([name for name, queue in queues.items() if queue]))
        waiting.extend(run.observe(name, queues[name].pop(0)))
        if rng.random() < 0.5:  # decide may lag, and take many frames in one step
            run.decide(waiting)
            waiting = []
    run.decide(waiting)
    run.end()
    same(run, undisturbed)


@FEW
@given(st.integers(0, 2**32))
def test_repeated_and_reordered_events_and_a_snapshot_anywhere_change_nothing(undisturbed: Pipeline, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = np.argsort(EVENTS.event_time_us + rng.integers(0, 9_000_000, EVENTS.n), kind="stable")
    run = Pipeline(("telemetry-0",), (profile(),), CONFIG)
    when = set(rng.integers(0, 60, 4).tolist())
    for number, rows in enumerate(np.array_split(order, 60)):
        run.feed("telemetry-0", pick(EVENTS, np.concatenate([rows, rng.choice(rows, 10)])))
        if number in when:
            chunks = decide_state.dump(run.shard)
            run.shard, refused = decide_state.load(chunks, {str(KEY): profile()}, {KEY: CONFIG})
            assert refused == []
            assert decide_state.dump(run.shard) == chunks
    run.end()
    same(run, undisturbed)
