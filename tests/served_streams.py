"""Seeded telemetry with all that a served model says: scores, classes, latency, errors, cohorts, clients; in rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from regate.config.model import Detection, Feature, ModelConfig, Output
from regate.detectors.build import build_profile
from regate.detectors.cells import BLOCK_EVENTS, Block
from regate.detectors.clocks import RowClock, row_cells
from regate.detectors.columns import Categorical, ModelKey, Numeric, Slice
from regate.detectors.finding import Finding
from regate.detectors.outcomes import reference_outcomes
from regate.detectors.profile import Profile
from regate.detectors.watch import Watch

KEY = ModelKey("default", "loan", "1", "production")
BUDGET = 1e6
RACES, SEXES = ("a", "b", "c"), ("f", "m")
Change = Callable[[dict[str, np.ndarray], np.random.Generator], None]


def config(**detection: object) -> ModelConfig:
    names = ("age", "debt", "income", "tenure")
    return ModelConfig(
        model="loan",
        features={name: Feature(type="numeric") for name in names},
        output=Output(type="binary", classes=("0", "1"), positive="1"),
        cohorts=("race", "sex"),
        detection=Detection.model_validate(detection),
    )


def columns(rows: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {name: rng.standard_normal(rows) for name in ("age", "debt", "income", "tenure")}
    found["score"] = 1.0 / (1.0 + np.exp(-(0.8 * found["income"] - 0.6 * found["debt"] + rng.normal(0, 0.5, rows))))
    found["label"] = (rng.random(rows) < found["score"]).astype(float)
    found["latency_ms"] = rng.lognormal(3.0, 0.4, rows)
    found["error"] = rng.random(rows) < 0.01
    found["race"] = rng.choice(3, rows, p=[0.6, 0.3, 0.1])
    found["sex"] = rng.integers(0, 2, rows)
    found["client"] = rng.integers(1, 400, rows)
    return found


def served(rows: int, seed: int, change: Change | None = None, at: int = 0) -> tuple[Slice, Numeric]:
    """Return events and labels; ``change`` edits the columns of the rows from ``at`` on."""
    whole = columns(rows, seed)
    if change is not None:
        late = {name: values[at:] for name, values in whole.items()}
        change(late, np.random.default_rng((seed, 1)))
        whole = {name: np.concatenate([values[:at], late[name]]) for name, values in whole.items()}
    predicted = (whole["score"] >= 0.5).astype(np.int32)
    index = np.arange(rows, dtype=np.int64)
    return Slice(
        key=KEY,
        n=rows,
        event_id=(index + 1 + seed * 10**9).astype(np.uint64),
        event_time_us=index * 1_000_000,
        arrival_us=index * 1_000_000,
        features={name: Numeric(whole[name]) for name in ("age", "debt", "income", "tenure")},
        prediction=Categorical(predicted, ("0", "1")),
        scores={"1": whole["score"]},
        latency_ms=whole["latency_ms"],
        error=whole["error"].astype(bool),
        client=whole["client"].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15),
        cohorts={
            "race": Categorical(whole["race"].astype(np.int32), RACES),
            "sex": Categorical(whole["sex"].astype(np.int32), SEXES),
        },
    ), Numeric(whole["label"])


@lru_cache(maxsize=4)
def reference(rows: int = 20_000, **detection: object) -> Profile:
    events, labels = served(rows, seed=1)
    return build_profile(config(**detection), KEY, events, labels, budget_events=BUDGET, calibrate_seconds=5)


def blocks(profile: Profile, events: Slice, labels: Numeric) -> list[Block]:
    """Return the statistics of blocks of rows, outcomes beside their events."""
    group = np.arange(events.n) // BLOCK_EVENTS
    stats = profile.accumulate(events, group, int(group[-1]) + 1)
    outcomes, _ = reference_outcomes(events, labels, config().output, profile.layout.shape.cohorts)
    assert outcomes is not None
    stats = stats + profile.accumulate_outcomes(outcomes, np.zeros(events.n, dtype=np.int16), group, len(stats))
    cells = row_cells(np.arange(len(stats)) * BLOCK_EVENTS).tolist()
    return [Block(0, cell, cell, row, 0) for cell, row in zip(cells, stats, strict=True)]


def found(
    profile: Profile, change: Change | None, *, seed: int = 5, rows: int = 19_200, at: int = 6_400
) -> list[Finding]:
    """Return the findings of a stream that changes at row ``at``."""
    events, labels = served(rows, seed, change, at)
    watch = Watch(profile, RowClock(BUDGET, rows))
    return [one for one in watch.take(blocks(profile, events, labels)) if one.type == "finding"]
