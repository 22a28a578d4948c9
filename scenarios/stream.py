"""Recorded streams: the exact inputs and responses of a run, by digest, and their comparison.

The *digest of responses* rounds floats to 6 significant digits (what is promised to be equal on one environment);
the recorded bytes keep every bit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np

from regate.config.canonical import canonical_json, digest_bytes
from regate.config.errors import PoisonError
from regate.scenarios.rows import features_digest
from regate.scenarios.sandbox.frames import (
    FrameError,
    pack_features,
    pack_responses,
    unpack_features,
    unpack_responses,
)
from regate.scenarios.subject import Step
from regate.scenarios.targets.base import Responses, Target

SCHEMA = "regate.stream.v1"


class Store(Protocol):
    """A content-addressed store of artefacts."""

    def put(self, name: str, data: bytes) -> str:
        """Keep bytes under a name; return their digest."""

    def get(self, name: str) -> bytes:
        """Return the bytes of a name."""


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """One batch that was sent, and what came back."""

    scenario: str
    step: Step
    responses: Responses


def responses_digest(responses: Responses) -> str:
    """Return the digest of answers, floats at 6 significant digits.

    The texts of refusals are left out (they may name addresses); that there was one is not.
    """
    total = hashlib.sha256(canonical_json([responses.n, responses.scores.shape[1]]))
    total.update(canonical_json(responses.labels.tolist()))
    total.update(canonical_json([reason is not None for reason in responses.refused]))
    total.update(" ".join("%.6g" % value for value in (responses.scores + 0.0).ravel()).encode())  # noqa: UP031
    return "sha256:" + total.hexdigest()


def inputs_digest(steps: list[Step] | tuple[Step, ...]) -> str:
    """Return the digest of a scenario's inputs, in order."""
    return digest_bytes(canonical_json([[s.name, s.on, s.each, features_digest(s.features)] for s in steps]))


def largest_deviation(first: Responses, second: Responses) -> float:
    """Return the largest absolute difference of scores; infinity when labels, refusals or shape differ."""
    if first.scores.shape != second.scores.shape or not np.array_equal(first.answered, second.answered):
        return float("inf")
    if first.labels.tolist() != second.labels.tolist():
        return float("inf")
    known = ~(np.isnan(first.scores) & np.isnan(second.scores))
    if np.isnan(first.scores[known]).any() or np.isnan(second.scores[known]).any():
        return float("inf")
    return float(np.max(np.abs(first.scores[known] - second.scores[known]), initial=0.0))


def encode_stream(exchanges: list[Exchange]) -> bytes:
    """Return a recorded stream as msgpack; equal exchanges give equal bytes."""
    entries = [
        {
            "scenario": exchange.scenario,
            "step": exchange.step.name,
            "on": exchange.step.on,
            "each": exchange.step.each,
            "features": dict(sorted(pack_features(exchange.step.features).items())),
            "responses": pack_responses(exchange.responses),
        }
        for exchange in exchanges
    ]
    return msgspec.msgpack.encode({"schema": SCHEMA, "exchanges": entries})


def decode_stream(data: bytes) -> list[Exchange]:
    """Return what `encode_stream` wrote.

    :raises PoisonError: when the bytes are not a recorded stream.
    """
    try:
        content: dict[str, Any] = msgspec.msgpack.decode(data)
        if content["schema"] != SCHEMA:
            raise PoisonError(f"not a stream of {SCHEMA}", reason="unknown_schema")
        return [
            Exchange(
                entry["scenario"],
                Step(entry["step"], unpack_features(entry["features"]), entry["each"], entry["on"]),
                unpack_responses(entry["responses"]),
            )
            for entry in content["exchanges"]
        ]
    except (msgspec.DecodeError, KeyError, TypeError, FrameError) as error:
        raise PoisonError(f"not a recorded stream: {error}", reason="invalid") from error


def replay(exchanges: list[Exchange], target: Target) -> list[str]:
    """Send the recorded inputs of the target again; return the steps whose answers differ at 6 digits."""
    different = []
    for exchange in exchanges:
        if exchange.step.on == "target":
            again = target.predict(exchange.step.features, each=exchange.step.each)
            if responses_digest(again) != responses_digest(exchange.responses):
                different.append(exchange.step.name)
    return different
