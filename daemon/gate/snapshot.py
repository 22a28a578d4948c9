"""The state of a gate shard as named chunks of canonical JSON, one a scope; equal states give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import ValidationError

from regate.config.canonical import canonical_json
from regate.config.errors import FatalError
from regate.config.model import ModelConfig
from regate.config.policy import Policy
from regate.daemon.gate.state import ModelDocument, PolicyDocument, Scope, Shard
from regate.daemon.gate.triggers import new_scope
from regate.daemon.wire.internal import Heartbeat

SCHEMA = 1
SHARED = "shared"
NAMES_A_CHUNK = 250  # of at most 600 characters, 4 bytes each: under the 900 kB of a chunk


def dump(shard: Shard) -> dict[str, bytes]:
    """Return the chunks: ``shared``, ``scopes/…``, ``source/…``, ``policy/…``, ``model/…``, ``scope/…``."""
    shared = {
        "number": shard.number,
        "now_ms": shard.now_ms,
        "backward_ticks": shard.backward_ticks,
        "clocks": shard.clocks,
        "ignored": shard.ignored,
    }
    chunks = {SHARED: _chunk(shared)}
    names = sorted(shard.scopes)
    for start in range(0, len(names), NAMES_A_CHUNK):
        chunks[f"scopes/{start:06}"] = _chunk({"names": names[start : start + NAMES_A_CHUNK]})
    for name, beat in sorted(shard.sources.items()):
        chunks[f"source/{name}"] = _chunk(beat.model_dump(mode="json"))
    for name, policy in sorted(shard.policies.items()):
        chunks[f"policy/{name}"] = _chunk({"digest": policy.digest, "document": policy.policy.model_dump(mode="json")})
    for name, model in sorted(shard.models.items()):
        chunks[f"model/{name}"] = _chunk({"digest": model.digest, "document": model.config.model_dump(mode="json")})
    for name, scope in sorted(shard.scopes.items()):
        chunks[f"scope/{name}"] = _chunk(scope.model_dump(mode="json"))
    return chunks


def _chunk(data: dict[str, Any]) -> bytes:
    return canonical_json({"schema": SCHEMA, "data": data})


def load(number: int, chunks: Mapping[str, bytes]) -> Shard:
    """Return the shard that `dump` wrote.

    A chunk that cannot be used is refused by name and the rest is kept; a scope that was lost comes
    back as damaged: it holds, says so at the next tick, and its sequence goes on from the clock.

    :raises FatalError: when a chunk was written by a newer schema.
    """
    shard, refused, listed = Shard(number), [], set()
    for name, chunk in sorted(chunks.items()):
        try:
            data = _data(name, chunk)
            kind, _, rest = name.partition("/")
            if kind == SHARED:
                listed |= set(data.get("scopes", ()))  # where snapshots had them before `scopes/`
                _shared(shard, data)
            elif kind == "scopes":
                listed |= set(data["names"])
            elif kind == "source":
                shard.sources[rest] = Heartbeat.model_validate(data)
            elif kind == "policy":
                shard.policies[rest] = PolicyDocument(data["digest"], Policy.model_validate(data["document"]))
            elif kind == "model":
                shard.models[rest] = ModelDocument(data["digest"], ModelConfig.model_validate(data["document"]))
            else:
                listed.add(rest)
                shard.scopes[rest] = Scope.model_validate(data)
        except (KeyError, TypeError, ValueError, msgspec.DecodeError, ValidationError):
            refused.append(name)
    for name in sorted(listed - set(shard.scopes)):
        tenant, model, deployment = name.split("/", 2)
        shard.scopes[name] = new_scope(tenant, model, deployment).model_copy(update={"damaged": True})
        if f"scope/{name}" not in refused:
            refused.append(f"scope/{name}")
    shard.refused_chunks = tuple(refused)
    return shard


def _data(name: str, chunk: bytes) -> dict[str, Any]:
    envelope = msgspec.json.decode(chunk)
    if envelope["schema"] > SCHEMA:
        raise FatalError(
            f"chunk {name} has schema {envelope['schema']}, this build reads up to {SCHEMA}",
            hint="install the version of regate that wrote it, or a newer one",
        )
    data: dict[str, Any] = envelope["data"]
    return data


def _shared(shard: Shard, data: dict[str, Any]) -> None:
    shard.now_ms = int(data["now_ms"])
    shard.backward_ticks = int(data["backward_ticks"])
    shard.clocks = {name: int(due) for name, due in data["clocks"].items()}
    shard.ignored = {name: int(count) for name, count in data["ignored"].items()}
