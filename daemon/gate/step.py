"""One input, one step: which scopes it meets, what they decide, what is sent.

A fold over single inputs: how the stream is cut into steps changes nothing. Each decision can be
computed again from three things, which its capsule holds: the shard's shared part, the scope
before, and the one input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, cast

import msgspec
from pydantic import BaseModel

from regate.config.canonical import digest
from regate.config.model import ModelConfig
from regate.config.policy import Policy
from regate.daemon.gate import commands, machine, queue, remedy, runs, triggers
from regate.daemon.gate.events import Build, GateDecision, GateState, Ignored
from regate.daemon.gate.state import ModelDocument, PolicyDocument, Scope, Shard
from regate.daemon.gate.turn import GapSeen, Given, Removed, TickSeen, Turn
from regate.daemon.gate.view import gate_state
from regate.daemon.wire.internal import Ack, Clock, Command, Control, Heartbeat
from regate.detectors.finding import Finding
from regate.scenarios.contracts import RunRequest, RunResult

# Findings name scopes; one shard holds no more than this many (10^6 made-up deployments must not fill memory).
SCOPES_MAX = 5000
MAX_NAME = 200  # of each part of a scope and of an id, as in the configuration
# A document stands in the snapshot with all its defaults, in one chunk of at most 900 kB.
MAX_DOCUMENT = 850_000


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with the state that it was made from."""

    decision: GateDecision
    before: Scope | None
    given: Given
    model_before: ModelDocument | None = None


Emitted = Decided | GateState | RunRequest | Ignored


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What an input changed outside the scopes, and which scopes it meets."""

    scopes: tuple[str, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    model_before: ModelDocument | None = None


def advance(shard: Shard, given: Given, build: Build) -> list[Emitted]:
    """Take one input: change the shard, return what it gives rise to, in order."""
    met = absorb(shard, given)
    out: list[Emitted] = [*met.ignored]
    changed = set()
    for name in met.scopes:
        before = shard.scopes.get(name)
        turn = meet(shard, name, given, build, met.model_before)
        out.extend(turn.ignored)
        out.extend(Decided(decision, before, given, met.model_before) for decision in turn.decisions)
        # A scope is born by a decision, not by an input that was ignored.
        if turn.scope is not before and (before is not None or turn.decisions):
            shard.scopes[name] = turn.scope
            changed.add(name)
    if given.kind == "heartbeat":
        return out
    requests = queue.dispatch(shard)
    out.extend(requests)
    changed |= {request.scope for request in requests}
    if given.kind in {"control", "control-removed"}:
        changed |= set(shard.scopes)
    out.extend(_publish(shard, changed))
    for item in out:
        if isinstance(item, Ignored):
            shard.ignored[item.reason] = shard.ignored.get(item.reason, 0) + 1
    return out


def _publish(shard: Shard, names: set[str]) -> list[Emitted]:
    states: list[Emitted] = []
    for name in sorted(names):
        scope = shard.scopes[name]
        state = gate_state(shard, scope)
        mark = digest(state.model_dump(mode="json"))
        if mark != scope.published:
            shard.scopes[name] = scope.model_copy(update={"published": mark})
            states.append(state)
    return states


def absorb(shard: Shard, given: Given) -> Absorbed:
    """Change the shared part (time, heartbeats, documents); return which scopes meet the input."""
    data = given.data
    if isinstance(data, TickSeen):
        return _absorb_tick(shard, data)
    if isinstance(data, GapSeen):
        return Absorbed(scopes=tuple(sorted(shard.scopes)))
    if isinstance(data, Heartbeat):
        last = shard.sources.get(data.source)
        # A clock that runs ahead must not vouch for the time after its last word: what has arrived was said by now.
        seen = data if data.now_ms <= shard.now_ms else data.model_copy(update={"now_ms": shard.now_ms})
        if last is None or seen.now_ms >= last.now_ms:
            shard.sources[data.source] = seen
        return Absorbed()
    if isinstance(data, Clock):
        return _absorb_clock(shard, data)
    if isinstance(data, Control):
        return _absorb_control(shard, data, given)
    if isinstance(data, Removed):
        return _absorb_removal(shard, data)
    if isinstance(data, Finding) and data.type == "advice":
        return Absorbed()  # told to people, never acted on
    if isinstance(data, Finding) and max(len(data.id), len(data.incident), len(data.model_version)) > MAX_NAME:
        refused = Ignored(reason="too_large", kind=given.kind, id=data.id[:MAX_NAME], ref=given.ref)
        return Absorbed(ignored=(refused,))
    name = cast("Finding | RunResult | Command | Ack", data).scope
    if name not in shard.scopes and (unknown := _unknown_scope(shard, given, name)):
        return Absorbed(ignored=(unknown,))
    return Absorbed(scopes=(name,))


def _absorb_tick(shard: Shard, tick: TickSeen) -> Absorbed:
    if tick.now_ms < shard.now_ms:
        # A clock that steps back must not stretch a lease: time only rises.
        shard.backward_ticks += 1
    shard.now_ms = max(shard.now_ms, tick.now_ms)
    due = [name for name in sorted(shard.scopes) if machine.due(shard.scopes[name], shard.now_ms)]
    return Absorbed(scopes=tuple(due))


def _absorb_clock(shard: Shard, clock: Clock) -> Absorbed:
    key = f"{clock.job}|{clock.scope}"
    if clock.due_ms <= shard.clocks.get(key, -1):
        return Absorbed()  # another daemon's firing of the same job: expected, not an error
    shard.clocks[key] = clock.due_ms
    if clock.job == "heartbeat":
        return Absorbed()
    if clock.scope:
        return Absorbed(scopes=(clock.scope,) if clock.scope in shard.scopes else ())
    return Absorbed(scopes=tuple(sorted(shard.scopes)))


def _absorb_control(shard: Shard, control: Control, given: Given) -> Absorbed:
    if control.kind not in {"model", "policy"}:
        return Absorbed()
    try:
        document = msgspec.json.decode(control.document)
        if control.kind == "policy":
            policy = _fitting(Policy.model_validate(document))
            shard.policies[policy.name] = PolicyDocument(control.digest, policy)
            return Absorbed()
        config = _fitting(ModelConfig.model_validate(document))
    except (ValueError, RecursionError) as error:
        refused = Ignored(
            reason="control_invalid", kind=given.kind, id=control.name, ref=given.ref, message=str(error)[:500]
        )
        return Absorbed(ignored=(refused,))
    placement = f"{config.tenant}/{config.model}"
    before = shard.models.get(placement)
    shard.models[placement] = ModelDocument(control.digest, config)
    if before is not None and before.digest == control.digest:
        return Absorbed()
    own = f"{placement}/{config.deployment}"
    names = {own, *(name for name, scope in shard.scopes.items() if scope.placement == placement)}
    return Absorbed(scopes=tuple(sorted(names)), model_before=before)


D = TypeVar("D", bound=BaseModel)


def _fitting(document: D) -> D:
    size = len(document.model_dump_json().encode())
    if size > MAX_DOCUMENT:
        raise ValueError(f"the document has {size} bytes with its defaults, more than {MAX_DOCUMENT}")
    return document


def _absorb_removal(shard: Shard, removed: Removed) -> Absorbed:
    kind, _, name = removed.key.partition("/")
    if kind == "policy":
        shard.policies.pop(name, None)
        return Absorbed()
    if kind != "model":
        return Absorbed()
    shard.models.pop(name, None)
    names = tuple(sorted(key for key, scope in shard.scopes.items() if scope.placement == name and scope.configured))
    return Absorbed(scopes=names)


def _unknown_scope(shard: Shard, given: Given, name: str) -> Ignored | None:
    """Return why an input cannot make a new scope; None when it can."""
    known = name.rpartition("/")[0] in shard.models
    if isinstance(given.data, Finding) and given.data.historical:
        reason = "historical"
    elif name.count("/") != 2 or not all(0 < len(part) <= MAX_NAME for part in name.split("/")):
        reason = "invalid_scope"
    elif given.kind == "finding" or (given.kind == "command" and known):
        if len(shard.scopes) < SCOPES_MAX:
            return None
        reason = "too_many_scopes"
    else:
        reason = {"run-result": "unknown_request", "command": "unconfigured"}.get(given.kind, "unknown_scope")
    return Ignored(
        reason=reason,
        kind=given.kind,
        id=str(getattr(given.data, "id", ""))[:MAX_NAME],
        scope=name[: 3 * MAX_NAME],
        ref=given.ref,
    )


def meet(shard: Shard, name: str, given: Given, build: Build, model_before: ModelDocument | None = None) -> Turn:
    """Let one scope take one input. The shard is only read."""
    scope = shard.scopes.get(name)
    turn = Turn(shard, scope or _new(name, given), given, build)
    data: BaseModel = given.data
    if scope is None and isinstance(data, Finding | Command):
        triggers.on_first_sight(turn)
    if isinstance(data, TickSeen):
        _on_tick(turn)
    elif isinstance(data, GapSeen):
        triggers.on_gap(turn, data)
    elif isinstance(data, Finding):
        triggers.on_finding(turn, data)
    elif isinstance(data, RunResult):
        runs.on_result(turn, data)
    elif isinstance(data, Command):
        commands.on_command(turn, data)
    elif isinstance(data, Ack):
        triggers.on_ack(turn, data)
    elif isinstance(data, Clock):
        triggers.on_clock(turn, data)
    elif isinstance(data, Control):
        triggers.on_model(turn, model_before)
    elif isinstance(data, Removed):
        triggers.on_model_removed(turn)
    return turn


def _new(name: str, given: Given) -> Scope:
    data = given.data
    if isinstance(data, Finding | Command):
        return triggers.new_scope(data.tenant, data.model, data.deployment)
    tenant, model, deployment = name.split("/", 2)
    return triggers.new_scope(tenant, model, deployment)


def _on_tick(turn: Turn) -> None:
    """Do what time alone asks for; expiry before renewal, so that no lease is revived after its end."""
    triggers.on_recovered(turn)
    runs.on_deadline(turn)
    machine.end_override(turn)
    machine.expire(turn)
    remedy.advance(turn)
    machine.renew(turn)
    machine.act_deferred(turn)
    machine.try_clear(turn)
