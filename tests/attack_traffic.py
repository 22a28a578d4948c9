"""Generated traffic as slices, for tests of the attack lanes."""

from __future__ import annotations

import hashlib

import numpy as np
from benchmarks.attacks.traffic import Traffic

from regate.config.model import Feature, ModelConfig
from regate.detectors.columns import ModelKey, Numeric, Slice

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
