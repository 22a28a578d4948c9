"""Seeded telemetry of models with scores: what is known about it, so that estimates can be checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.config.model import Detection, Feature, ModelConfig, Output
from regate.detectors.build import build_profile
from regate.detectors.columns import Categorical, Labels, ModelKey, Numeric, Slice
from regate.detectors.profile import Profile

KEY = ModelKey("default", "scored", "1", "production")
BINARY = ModelConfig(
    model="scored",
    features={"x": Feature(type="numeric"), "city": Feature(type="categorical")},
    output=Output(type="binary", classes=("0", "1"), positive="1"),
    # How data come (twice, late) is what tests vary: it must change no other figure.
    detection=Detection(families={"data_quality": 0}),
)
REGRESSION = ModelConfig(
    model="scored",
    features={"x": Feature(type="numeric"), "y": Feature(type="numeric")},
    output=Output(type="regression"),
)


@dataclass(frozen=True)
class Rows:
    """Events with their labels, and the probability that each prediction is wrong."""

    events: Slice
    label: Numeric
    p_wrong: np.ndarray


def _slice(n: int, seed: int, **more: object) -> Slice:
    ids = np.random.default_rng((seed, 1)).integers(1, 2**63, n).astype(np.uint64)
    times = 1_750_000_000_000_000 + np.arange(n) * 1_000_000
    return Slice(KEY, n, ids, times, times, **more)  # type: ignore[arg-type]


def binary(n: int, seed: int, *, shift: float = 0.0, spread: float = 1.0, twist: float = 1.0) -> Rows:
    """Return rows whose P(1 | x) is expit(2x), bent by ``twist``; the score is its square root."""
    rng = np.random.default_rng(seed)
    x = rng.normal(shift, spread, n)
    p = 1 / (1 + np.exp(-2 * x))
    truth = 1 / (1 + np.exp(-2 * x * twist))
    label = rng.random(n) < truth
    made = p >= 0.5
    events = _slice(
        n,
        seed,
        features={"x": Numeric(x), "city": Categorical(rng.integers(0, 3, n).astype(np.int32), ("a", "b", "c"))},
        prediction=Numeric(made.astype(np.float64)),
        scores={"": np.sqrt(p)},
    )
    return Rows(events, Numeric(label.astype(np.float64)), np.where(made, 1 - truth, truth))


def regression(n: int, seed: int, *, shift: float = 0.0, noise: float = 1.0, uneven: float = 1.0) -> Rows:
    """Return rows whose error has the standard deviation ``noise * exp(uneven * x / 2)``."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(shift, 1, n), rng.normal(size=n)
    label = 10 * x + y
    sd = noise * np.exp(uneven * x / 2)
    guess = label + sd * rng.normal(size=n)
    events = _slice(n, seed, features={"x": Numeric(x), "y": Numeric(y)}, prediction=Numeric(guess))
    return Rows(events, Numeric(label), sd * np.sqrt(2 / np.pi))


def labels_of(rows: Rows, after_seconds: int = 5) -> Labels:
    """Return the labels as events of their own, so long after their predictions."""
    events = rows.events
    later = events.event_time_us + after_seconds * 1_000_000
    return Labels(events.key, events.n, events.event_id, later, later + 50_000, rows.label)


def joined(*parts: Rows) -> Rows:
    """Return rows one behind the other, ten a second."""
    n = sum(part.events.n for part in parts)
    columns = {}
    for name, first in parts[0].events.features.items():
        if isinstance(first, Numeric):
            columns[name] = Numeric(np.concatenate([part.events.features[name].values for part in parts]))  # type: ignore[union-attr]
        else:
            codes = np.concatenate([part.events.features[name].codes for part in parts])  # type: ignore[union-attr]
            columns[name] = Categorical(codes, first.categories)
    scores = {name: np.concatenate([part.events.scores[name] for part in parts]) for name in parts[0].events.scores}
    made = np.concatenate([part.events.prediction.values for part in parts])  # type: ignore[union-attr]
    times = 1_750_100_000_000_000 + np.arange(n) * 100_000
    events = Slice(
        KEY,
        n,
        np.concatenate([part.events.event_id for part in parts]),
        times,
        times + 50_000,
        features=dict(columns),
        prediction=Numeric(made),
        scores=scores,
    )
    label = np.concatenate([part.label.values for part in parts])
    return Rows(events, Numeric(label), np.concatenate([part.p_wrong for part in parts]))


def profile_of(config: ModelConfig, rows: Rows, **more: object) -> Profile:
    return build_profile(config, KEY, rows.events, rows.label, calibrate_seconds=0, **more)  # type: ignore[arg-type]
