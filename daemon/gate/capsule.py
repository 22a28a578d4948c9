"""Capsules: everything that computes one decision again, without bus, clock or other files.

Layout (canonical JSON, one object): ``schema``, ``decision_id``, ``build``, ``shard`` (number, time, heartbeats
after the input), ``policy`` and ``model`` (digest and document in effect, or null), ``model_before``
(what a control input replaced), ``scope_name``, ``scope`` (the state before, or null), ``input`` (kind,
ref, data), ``decision`` (what was published). Stored as artefact ``capsule-<decision id>``.
"""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import BaseModel, ValidationError

from regate.config.canonical import canonical_json
from regate.config.errors import FatalError, PoisonError
from regate.config.model import ModelConfig
from regate.config.policy import Policy
from regate.daemon.gate.events import Build, GateDecision
from regate.daemon.gate.state import ModelDocument, PolicyDocument, Scope, Shard
from regate.daemon.gate.step import Decided, meet
from regate.daemon.gate.turn import GapSeen, Given, Kind, Removed, TickSeen
from regate.daemon.wire.internal import Ack, Clock, Command, Control, Heartbeat
from regate.detectors.finding import Finding
from regate.scenarios.contracts import RunResult

SCHEMA = 1
INPUTS: dict[Kind, type[BaseModel]] = {
    "tick": TickSeen,
    "finding": Finding,
    "run-result": RunResult,
    "command": Command,
    "ack": Ack,
    "heartbeat": Heartbeat,
    "clock": Clock,
    "control": Control,
    "control-removed": Removed,
    "gap": GapSeen,
}


def name_of(decision_id: str) -> str:
    """Return the artefact name of a decision's capsule."""
    return f"capsule-{decision_id}"


def _model(document: ModelDocument | None) -> dict[str, Any] | None:
    if document is None:
        return None
    return {"digest": document.digest, "document": document.config.model_dump(mode="json")}


def _beat(beat: Heartbeat, placement: str) -> dict[str, Any]:
    carried = (placement,) if placement in beat.models else ()
    versions = {name: at for name, at in beat.versions.items() if name.startswith(f"{placement}/")}
    return beat.model_copy(update={"models": carried, "versions": versions}).model_dump(mode="json")


def write(shard: Shard, decided: Decided) -> bytes:
    """Return the capsule of a decision that was just made on this shard."""
    decision = decided.decision
    ref = decision.scope
    placement = f"{ref.tenant}/{ref.model}"
    name = f"{placement}/{ref.deployment}"
    scope = shard.scopes[name]
    policy = shard.policy_of(scope)
    return canonical_json(
        {
            "schema": SCHEMA,
            "decision_id": decision.id,
            "build": decision.build.model_dump(mode="json"),
            "shard": {
                "number": shard.number,
                "now_ms": shard.now_ms,
                "sources": [_beat(beat, placement) for _, beat in sorted(shard.sources.items())],
            },
            "policy": policy and {"digest": policy.digest, "document": policy.policy.model_dump(mode="json")},
            "model": _model(shard.models.get(placement)),
            "model_before": _model(decided.model_before),
            "scope_name": name,
            "scope": decided.before.model_dump(mode="json") if decided.before else None,
            "input": {
                "kind": decided.given.kind,
                "ref": decided.given.ref,
                "data": decided.given.data.model_dump(mode="json"),
            },
            "decision": decision.model_dump(mode="json"),
        }
    )


def _read(data: bytes) -> dict[str, Any]:
    try:
        capsule = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonError(f"not a capsule: {error}", reason="not_json", hint="name a decision of this store") from error
    if not isinstance(capsule, dict) or capsule.get("schema") != SCHEMA:
        raise PoisonError(
            f"a capsule of schema {SCHEMA} was expected",
            reason="unknown_schema",
            hint="install the version of regate that wrote it (regate version)",
        )
    return capsule


def _model_document(data: dict[str, Any] | None) -> ModelDocument | None:
    return ModelDocument(data["digest"], ModelConfig.model_validate(data["document"])) if data else None


def published(data: bytes) -> GateDecision:
    """Return the decision as it was published."""
    return GateDecision.model_validate(_read(data)["decision"])


def replay(data: bytes) -> GateDecision:
    """Compute a capsule's decision again, by the code that runs now.

    :raises PoisonError: when the bytes are not a capsule.
    :raises FatalError: when the computation does not come to that decision at all.
    """
    capsule = _read(data)
    try:
        shard = Shard(number=capsule["shard"]["number"], now_ms=capsule["shard"]["now_ms"])
        for item in capsule["shard"]["sources"]:
            beat = Heartbeat.model_validate(item)
            shard.sources[beat.source] = beat
        if capsule["policy"]:
            policy = Policy.model_validate(capsule["policy"]["document"])
            shard.policies[policy.name] = PolicyDocument(capsule["policy"]["digest"], policy)
        model = _model_document(capsule["model"])
        if model is not None:
            shard.models[f"{model.config.tenant}/{model.config.model}"] = model
        if capsule["scope"]:
            shard.scopes[capsule["scope_name"]] = Scope.model_validate(capsule["scope"])
        item = capsule["input"]
        given = Given(item["kind"], item["ref"], INPUTS[item["kind"]].model_validate(item["data"]))
        build = Build.model_validate(capsule["build"])
        before = _model_document(capsule["model_before"])
    except (KeyError, TypeError, ValidationError) as error:
        raise PoisonError(
            f"a damaged capsule: {error}", reason="invalid", hint="fetch the artefact again; its store checks digests"
        ) from error
    turn = meet(shard, capsule["scope_name"], given, build, before)
    for decision in turn.decisions:
        if decision.id == capsule["decision_id"]:
            return decision
    raise FatalError(
        f"replay of {capsule['decision_id']} makes {len(turn.decisions)} other decisions",
        hint="replay it with the build that the capsule names",
    )
