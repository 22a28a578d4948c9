"""The gate role: records in, typed inputs to the core, events out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from regate.config.canonical import content_id, digest
from regate.config.errors import PoisonError
from regate.daemon.build import build_digest, version
from regate.daemon.bus.placement import partition_of
from regate.daemon.bus.port import OutRecord, Record
from regate.daemon.gate import capsule, snapshot
from regate.daemon.gate.events import Build, GateState, Ignored
from regate.daemon.gate.state import Shard
from regate.daemon.gate.step import Decided, Emitted, advance
from regate.daemon.gate.turn import GapSeen, Given, Kind, Removed, TickSeen
from regate.daemon.shell.core import Artefact, Output, StepInput, told
from regate.daemon.wire.cloudevents import decode_event, encode_event
from regate.daemon.wire.dead_letters import PREFIX, dead_letter
from regate.daemon.wire.internal import Ack, Clock, Command, Control, Heartbeat
from regate.daemon.wire.reasons import Refusal
from regate.detectors.finding import Finding
from regate.scenarios.contracts import RunRequest, RunResult

KINDS: dict[str, tuple[Kind, type[BaseModel]]] = {
    "heartbeats": ("heartbeat", Heartbeat),
    "acks": ("ack", Ack),
    "findings": ("finding", Finding),
    "commands": ("command", Command),
    "runs": ("run-result", RunResult),
    "clock": ("clock", Clock),
}
FORWARDED = {"commands", "acks"}  # foreign producers choose their own partition


# Heartbeats name the same models every few seconds, and the hash is plain Python.
owner = lru_cache(maxsize=65_536)(partition_of)


class GateCore:
    """The gate as a role: see `regate.daemon.shell.core.RoleCore`.

    :param partitions: of regate's own placed topics; decides which models a shard owns.
    :param build: which code decides; this build unless a replay says otherwise.
    """

    name = "gate"
    # In this order within a step: what raises a verdict is known before what could clear it.
    inputs = ("heartbeats", "acks", "findings", "commands", "runs", "clock")

    def __init__(self, partitions: int, build: Build | None = None) -> None:
        self._partitions = partitions
        self._build = build or Build(version=version(), digest=build_digest())

    def initial(self, shard: str) -> Shard:
        """Return the state of a shard that has seen nothing."""
        return Shard(number=int(shard))

    def step(self, state: Shard, given: StepInput) -> list[Output]:
        """Take time, then control, then the records; a fold over single inputs."""
        out: list[Output] = []
        if given.tick is not None:
            now = given.tick.now_ms
            out.extend(self._advance(state, Given("tick", f"tick@{now}", TickSeen(now_ms=now))))
        for gap in given.gaps:
            if gap.kind != "state":  # a scope that lost its own chunk says so itself
                ref = f"{gap.topic}-{gap.partition}@{gap.wanted}"
                out.extend(self._advance(state, Given("gap", ref, GapSeen(text=told(gap)))))
        for record in given.control:
            out.extend(self._take(state, "control", record))
        for batch in given.batches:
            for record in batch.records:
                if state.now_ms == 0:
                    # Before the first tick of its life a shard knows no other time than the record's.
                    seen = TickSeen(now_ms=record.timestamp_ms)
                    out.extend(self._advance(state, Given("tick", f"tick@{record.timestamp_ms}", seen)))
                out.extend(self._take(state, batch.topic, record))
        return out

    def dump(self, state: Shard) -> dict[str, bytes]:
        """Return the state as named chunks."""
        return snapshot.dump(state)

    def load(self, shard: str, chunks: Mapping[str, bytes]) -> Shard:
        """Return the state that `dump` wrote; unusable chunks are named in ``refused_chunks``."""
        return snapshot.load(int(shard), chunks)

    def _take(self, state: Shard, topic: str, record: Record) -> Iterator[Output]:
        ref = f"{topic}-{record.partition}@{record.offset}"
        try:
            given = self._decode(topic, record, ref, state.number)
        except PoisonError as error:
            state.ignored[error.reason] = state.ignored.get(error.reason, 0) + 1
            refusal = Refusal(record, error.reason, error.message)
            yield dead_letter(refusal, "dead-letters", state.number)
            return
        placement = _placement(given)
        if placement and self._owner(placement) != state.number:
            if topic in FORWARDED:
                yield OutRecord(topic, record.value, record.key, record.headers, self._owner(placement))
            elif topic != "control":
                state.ignored["misplaced"] = state.ignored.get("misplaced", 0) + 1
                yield _ignored(Ignored(reason="misplaced", kind=given.kind, ref=ref), state)
            return
        yield from self._advance(state, given)

    def _decode(self, topic: str, record: Record, ref: str, number: int) -> Given:
        if topic == "control":
            if record.value is None:
                return Given("control-removed", ref, Removed(key=(record.key or b"").decode(errors="replace")))
            return Given("control", ref, decode_event(record.value, "control", Control))
        kind, model = KINDS[topic]
        data = decode_event(record.value, kind, model)
        if isinstance(data, Heartbeat):
            # Heartbeats go to every shard; each keeps only the models that it decides on.
            own = tuple(name for name in data.models if self._owner(name) == number)
            versions = {name: at for name, at in data.versions.items() if name.rsplit("/", 1)[0] in own}
            data = data.model_copy(update={"models": own, "versions": versions})
        return Given(kind, ref, data)

    def _owner(self, placement: str) -> int:
        return owner(placement, self._partitions)

    def _advance(self, state: Shard, given: Given) -> Iterator[Output]:
        for item in advance(state, given, self._build):
            yield from self._encode(state, item)

    def _encode(self, state: Shard, item: Emitted) -> Iterator[Output]:
        if isinstance(item, Decided):
            decision = item.decision
            yield Artefact(capsule.name_of(decision.id), capsule.write(state, item))
            scope = _scope_name(decision)
            headers = {
                "gate-verdict": decision.effective_verdict,
                "gate-scope": scope,
                "gate-mode": decision.mode,
            }
            value, heads = encode_event("gate-decision", decision.id, scope, state.now_ms, decision, headers)
            yield OutRecord("gates", value, scope.encode(), heads, state.number)
        elif isinstance(item, GateState):
            scope = _scope_name(item)
            event_id = content_id("gate-state", scope, digest(item.model_dump(mode="json")))
            headers = {"gate-verdict": item.effective_verdict, "gate-scope": scope, "gate-mode": item.mode}
            value, heads = encode_event("gate-state", event_id, scope, state.now_ms, item, headers)
            yield OutRecord("gate-state", value, scope.encode(), heads, state.number)
        elif isinstance(item, RunRequest):
            value, heads = encode_event("run-request", item.id, item.scope, item.requested_ms, item)
            yield OutRecord("validations", value, f"{item.tenant}/{item.model}".encode(), heads, state.number)
        else:
            yield _ignored(item, state)


def _scope_name(event: Any) -> str:
    return f"{event.scope.tenant}/{event.scope.model}/{event.scope.deployment}"


def _placement(given: Given) -> str:
    """Return ``tenant/model`` of inputs that belong to one model; empty for what every shard takes."""
    data = given.data
    if isinstance(data, Finding | Command):
        return f"{data.tenant}/{data.model}"
    if isinstance(data, RunResult | Ack):
        return data.scope.rpartition("/")[0]
    if isinstance(data, Control) and data.kind == "model":
        return data.name
    if isinstance(data, Removed) and data.key.startswith("model/"):
        return data.key.partition("/")[2]
    return ""


def _ignored(item: Ignored, state: Shard) -> OutRecord:
    event_id = content_id("ignored", item.ref, item.reason, item.id)
    headers = {PREFIX + "reason": item.reason}
    value, heads = encode_event("ignored", event_id, item.scope or item.kind, state.now_ms, item, headers)
    return OutRecord("dead-letters", value, None, heads, state.number)
