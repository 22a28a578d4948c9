"""Generated traffic as slices, for tests of the attack lanes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from benchmarks.attacks.traffic import START_US, FloatArray, Population, Traffic

from regate.config.model import Feature, ModelConfig
from regate.detectors.arrays import pack, unpack
from regate.detectors.attack import state as attack_state
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.watch import AttackWatch
from regate.detectors.columns import ModelKey, Numeric, Slice
from regate.detectors.finding import Finding

KEY = ModelKey("t", "m", "1", "d")


def client_hash(name: str) -> int:
    """Return a number that stands for a client, as evenly spread as salted hashes are."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") | 1


def rows_of(traffic: Traffic, first_id: int = 1) -> Slice:
    n = len(traffic.x)
    clients = np.array([client_hash(str(name)) for name in traffic.client], dtype=np.uint64)
    return Slice(
        KEY,
        n,
        np.arange(first_id, first_id + n, dtype=np.uint64),
        traffic.time_us,
        traffic.time_us + 50_000,
        {f"f{index:03}": Numeric(np.ascontiguousarray(traffic.x[:, index])) for index in range(traffic.x.shape[1])},
        prediction=Numeric((traffic.score >= 0.5).astype(np.float64)),
        scores={"": traffic.score},
        client=clients,
    )


def config_of(rows: Slice) -> ModelConfig:
    return ModelConfig(
        tenant="t", model="m", deployment="d", features={name: Feature(type="numeric") for name in rows.features}
    )


def lively(rows: Slice, seed: int, per_second: float = 10.0) -> Slice:
    """Return rows at times as people have them, busier and quieter, and with latencies."""
    rng = np.random.default_rng((seed, 77))
    busy = 1.0 + 0.5 * np.sin(np.arange(rows.n) / 3_000)
    times = START_US + np.cumsum(rng.exponential(1e6 / per_second, rows.n) * busy).astype(np.int64)
    latency = np.exp(rng.normal(np.log(12.0), 0.3, rows.n))
    return replace(rows, event_time_us=times, arrival_us=times + 50_000, latency_ms=latency)


@dataclass(frozen=True)
class Asked:
    """What one client asks, and when (seconds after the start)."""

    client: str
    x: FloatArray
    seconds: FloatArray
    latency_ms: FloatArray | None = None
    score: FloatArray | None = None


def with_more(rows: Slice, population: Population, parts: list[Asked]) -> Slice:
    """Return rows with what more clients ask among them, in order of time."""
    x = np.concatenate([part.x for part in parts])
    times = START_US + (np.concatenate([part.seconds for part in parts]) * 1e6).astype(np.int64)
    order = np.argsort(np.r_[rows.event_time_us, times], kind="stable")
    client = np.concatenate([np.full(len(part.x), client_hash(part.client), dtype=np.uint64) for part in parts])
    score = np.concatenate([population.score(part.x) if part.score is None else part.score for part in parts])
    usual = np.random.default_rng(11).normal(np.log(12.0), 0.3, len(x))
    given = [np.full(len(part.x), np.nan) if part.latency_ms is None else part.latency_ms for part in parts]
    latency = np.where(np.isnan(np.concatenate(given)), np.exp(usual), np.concatenate(given))
    assert rows.client is not None
    assert rows.latency_ms is not None
    both = np.r_[rows.event_time_us, times][order]
    features = {}
    for number, (name, column) in enumerate(rows.features.items()):
        assert isinstance(column, Numeric)
        features[name] = Numeric(np.r_[column.values, x[:, number]][order])
    scores = np.r_[rows.scores[""], score][order]
    return replace(
        rows,
        n=len(order),
        event_id=np.arange(1, len(order) + 1, dtype=np.uint64),
        event_time_us=both,
        arrival_us=both + 50_000,
        features=features,
        prediction=Numeric((scores >= 0.5).astype(np.float64)),
        scores={"": scores},
        client=np.r_[rows.client, client][order],
        latency_ms=np.r_[rows.latency_ms, latency][order],
    )


def restarted(watch: AttackWatch) -> AttackWatch:
    """Return a watch that came back from the bytes of its snapshot."""
    kept = {name: unpack(pack(meta, arrays)) for name, meta, arrays in attack_state.chunks(watch)}
    assert max(len(pack(meta, arrays)) for meta, arrays in kept.values()) < 900_000
    again = AttackWatch(watch.key, watch.profile_digest, Memory(watch.memory.reference))
    attack_state.restore(again, kept)
    return again


def signed(reference: AttackReference, rows: Slice, size: int = 1_000, restart: int = -1) -> list[Finding]:
    """Return what the views beside client memory find in rows that are cut into slices."""
    watch, found = AttackWatch(KEY, "profile", Memory(reference)), []
    for number, start in enumerate(range(0, rows.n, size)):
        found += watch.decide(reference.queries(rows.cut(slice(start, start + size))))
        if number == restart:
            watch = restarted(watch)
    return [one for one in found if one.detector not in {"attack", "attack/recurrence"}]
