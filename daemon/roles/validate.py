"""The validate role: requests and observations in, run results out. A pure state of what has to run.

The worker beside the loop runs what `pending` names after a commit and writes observations, which come back
here as inputs: so a recovery or a replay reaches the same results without running anything again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from pydantic import ValidationError

from regate.config.canonical import canonical_json
from regate.config.errors import FatalError, PoisonError
from regate.config.model import ModelConfig
from regate.daemon.bus.port import OutRecord, Record
from regate.daemon.shell.core import Output, StepInput, told
from regate.daemon.validate.observation import KIND, Observation
from regate.daemon.wire.cloudevents import decode_event, encode_event
from regate.daemon.wire.dead_letters import dead_letter
from regate.daemon.wire.internal import Control
from regate.daemon.wire.reasons import Refusal
from regate.scenarios.contracts import RunRequest, RunResult
from regate.scenarios.runner import failed_result

SCHEMA = 1
MAX_ATTEMPTS = 3  # a run that kills its worker three times will kill it again
REMEMBER_MS = 24 * 3600 * 1000  # a request that comes again later than this would be run again
REMEMBERED = 10_000  # finished ids; bounds the snapshot chunk to 600 kB
MAX_MESSAGE = 500
MAX_DOCUMENT = 850_000  # bytes of a configuration with its defaults: one snapshot chunk, at most 900 kB
LAST_MS = 253_402_300_799_000  # RFC 3339 has four digits for the year, whatever a request names as its deadline


@dataclass(slots=True)
class Entry:
    """One request that has no result yet. ``attempt`` 0: queued behind another of its scope."""

    request: RunRequest
    attempt: int = 0
    worker: str = ""  # who started this attempt


class Pending(NamedTuple):
    """What a worker has to run."""

    request: RunRequest
    attempt: int
    worker: str  # who started it already; empty: nobody
    config: ModelConfig | None


@dataclass(slots=True)
class ValidateState:
    """One shard."""

    shard: int
    now_ms: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)  # request id -> entry
    finished: dict[str, int] = field(default_factory=dict)  # request id -> when it may be forgotten
    models: dict[str, ModelConfig] = field(default_factory=dict)  # tenant/model
    ignored: dict[str, int] = field(default_factory=dict)  # reason -> count
    refused_chunks: tuple[str, ...] = ()  # of the last recovery


def pending(state: ValidateState) -> list[Pending]:
    """Return the attempts that are due now, most urgent first."""
    running = [entry for entry in state.entries.values() if entry.attempt > 0]
    return [
        Pending(
            entry.request,
            entry.attempt,
            entry.worker,
            state.models.get(f"{entry.request.tenant}/{entry.request.model}"),
        )
        for entry in sorted(running, key=lambda entry: _urgency(entry.request))
    ]


def _urgency(request: RunRequest) -> tuple[float, int, str]:
    return (-request.priority, request.requested_ms, request.id)


class ValidateCore:
    """The role: see `regate.daemon.shell.core.RoleCore`."""

    name = "validate"
    # A result is taken before the requests of the same step, so that a slot it frees is used at once.
    inputs = ("observations", "validations")

    def initial(self, shard: str) -> ValidateState:
        """Return the state of a shard that has seen nothing."""
        return ValidateState(int(shard))

    def step(self, state: ValidateState, given: StepInput) -> list[Output]:
        """Take time, control and records in order; every request gets exactly one result."""
        out: list[Output] = []
        if given.tick is not None:
            out.extend(_tick(state, given.tick.now_ms))
        for gap in given.gaps:
            # A request without a result ends at its deadline: the gate counts that as an error, never as a pass.
            _ignore(state, "gap")
            missed = Record(gap.topic, gap.partition, gap.wanted, state.now_ms, None, None)
            out.append(dead_letter(Refusal(missed, "gap", told(gap)), "dead-letters", state.shard))
        for record in given.control:
            out.extend(_guarded(state, "control", record))
        for batch in given.batches:
            for record in batch.records:
                out.extend(_guarded(state, batch.topic, record))
        return out

    def dump(self, state: ValidateState) -> dict[str, bytes]:
        """Return the state as named chunks: ``shared``, ``model/…``, ``request/…``."""
        shared = {"now_ms": state.now_ms, "finished": state.finished, "ignored": state.ignored}
        chunks = {"shared": _chunk(shared)}
        for name, config in sorted(state.models.items()):
            chunks[f"model/{name}"] = _chunk(config.model_dump(mode="json"))
        for name, entry in sorted(state.entries.items()):
            data = {"request": entry.request.model_dump(mode="json"), "attempt": entry.attempt, "worker": entry.worker}
            # Ids come from outside; a chunk's name must stay short and plain.
            chunks[f"request/{hashlib.sha256(name.encode()).hexdigest()[:32]}"] = _chunk(data)
        return chunks

    def load(self, shard: str, chunks: Mapping[str, bytes]) -> ValidateState:
        """Return the state that `dump` wrote; unusable chunks are named in ``refused_chunks``.

        A request whose chunk is lost gets no result from here; the gate counts its deadline as an error.

        :raises FatalError: when a chunk was written by a newer schema.
        """
        state, refused = ValidateState(int(shard)), []
        for name, chunk in sorted(chunks.items()):
            try:
                _load(state, name, _data(name, chunk))
            except (KeyError, TypeError, ValueError, msgspec.DecodeError, ValidationError):
                refused.append(name)
        state.refused_chunks = tuple(refused)
        return state


def _chunk(data: dict[str, Any]) -> bytes:
    return canonical_json({"schema": SCHEMA, "data": data})


def _data(name: str, chunk: bytes) -> Any:
    content = msgspec.json.decode(chunk)
    if content["schema"] > SCHEMA:
        raise FatalError(
            f"chunk {name} has schema {content['schema']}, this build knows {SCHEMA}", hint="upgrade regate"
        )
    return content["data"]


def _load(state: ValidateState, name: str, data: Any) -> None:
    kind, _, rest = name.partition("/")
    if kind == "shared":
        state.now_ms, state.finished, state.ignored = int(data["now_ms"]), dict(data["finished"]), dict(data["ignored"])
    elif kind == "model":
        state.models[rest] = ModelConfig.model_validate(data)
    else:
        request = RunRequest.model_validate(data["request"])
        state.entries[request.id] = Entry(request, int(data["attempt"]), str(data["worker"]))


def _guarded(state: ValidateState, topic: str, record: Record) -> Iterator[Output]:
    """Take one record; what cannot be decoded goes to the dead letters with its reason."""
    try:
        taken = list(_take(state, topic, record))
    except PoisonError as error:
        _ignore(state, error.reason)
        yield dead_letter(Refusal(record, error.reason, error.message), "dead-letters", state.shard)
        return
    yield from taken


def _take(state: ValidateState, topic: str, record: Record) -> Iterator[Output]:
    if topic == "control":
        _control(state, record)
        return
    if topic == "validations":
        yield from _request(state, decode_event(record.value, "run-request", RunRequest), record.timestamp_ms)
    else:
        yield from _observed(state, decode_event(record.value, KIND, Observation))
    _promote(state)


def _control(state: ValidateState, record: Record) -> None:
    kind, _, name = (record.key or b"").decode(errors="replace").partition("/")
    if kind != "model":
        return
    if record.value is None:
        state.models.pop(name, None)
        return
    control = decode_event(record.value, "control", Control)
    try:
        config = ModelConfig.model_validate(json.loads(control.document))
    except (ValueError, RecursionError) as error:
        raise PoisonError(f"control {kind}/{name}: {error}", reason="invalid") from error
    size = len(config.model_dump_json().encode())
    if size > MAX_DOCUMENT:
        raise PoisonError(f"control {kind}/{name}: {size} bytes with its defaults", reason="too_large")
    state.models[name] = config


def _request(state: ValidateState, request: RunRequest, arrived_ms: int) -> Iterator[Output]:
    if request.id in state.entries or request.id in state.finished:
        _ignore(state, "duplicate")
        return
    state.entries[request.id] = Entry(request)
    # Before the first tick of its life a shard knows no other time than the record's.
    if (state.now_ms or arrived_ms) > request.deadline_ms:
        yield _expired(state, state.entries[request.id])


def _observed(state: ValidateState, seen: Observation) -> Iterator[Output]:
    entry = state.entries.get(seen.request_id)
    if entry is None:
        _ignore(state, "late_observation")
    elif seen.kind == "started":
        if seen.attempt == entry.attempt and not entry.worker:
            entry.worker = seen.worker
    elif seen.kind == "result":
        if seen.result is None or seen.result.request_id != seen.request_id:
            raise PoisonError(f"an observation of {seen.request_id} carries no result of it", reason="invalid")
        if seen.result.target_digest != entry.request.target.digest:
            raise PoisonError(f"the result of {seen.request_id} is of another target", reason="other_digest")
        yield _finish(state, entry, seen.result)
    elif seen.attempt != entry.attempt:
        _ignore(state, "late_observation")
    elif entry.attempt >= MAX_ATTEMPTS:
        message = f"{MAX_ATTEMPTS} attempts failed, the last: {seen.reason}: {seen.message}"
        yield _finish(state, entry, _failed(entry, "attempts", message, seen.at_ms))
    else:
        entry.attempt, entry.worker = entry.attempt + 1, ""


def _tick(state: ValidateState, now_ms: int) -> Iterator[Output]:
    state.now_ms = max(state.now_ms, now_ms)
    for entry in sorted(state.entries.values(), key=lambda entry: _urgency(entry.request)):
        if state.now_ms > entry.request.deadline_ms:
            yield _expired(state, entry)
    state.finished = {name: until for name, until in state.finished.items() if until > state.now_ms}
    _promote(state)


def _promote(state: ValidateState) -> None:
    """Start the most urgent request of every scope in which nothing runs."""
    busy = {entry.request.scope for entry in state.entries.values() if entry.attempt > 0}
    for entry in sorted(state.entries.values(), key=lambda entry: _urgency(entry.request)):
        if entry.attempt == 0 and entry.request.scope not in busy:
            entry.attempt = 1
            busy.add(entry.request.scope)


def _expired(state: ValidateState, entry: Entry) -> OutRecord:
    message = f"the deadline {entry.request.deadline_ms} passed in attempt {entry.attempt}"
    return _finish(state, entry, _failed(entry, "expired", message, entry.request.deadline_ms))


def _failed(entry: Entry, reason: str, message: str, at_ms: int) -> RunResult:
    return failed_result(entry.request, attempt=max(1, entry.attempt), reason=reason, message=message, now_ms=at_ms)


def _finish(state: ValidateState, entry: Entry, result: RunResult) -> OutRecord:
    request = entry.request
    del state.entries[request.id]
    state.finished[request.id] = request.deadline_ms + REMEMBER_MS
    while len(state.finished) > REMEMBERED:
        del state.finished[min(state.finished, key=lambda name: (state.finished[name], name))]
    time_ms = min(max(result.finished_ms, 0), LAST_MS)
    value, headers = encode_event("run-result", result.run_id, request.scope, time_ms, result)
    return OutRecord("runs", value, f"{request.tenant}/{request.model}".encode(), headers, state.shard)


def _ignore(state: ValidateState, reason: str) -> None:
    state.ignored[reason] = state.ignored.get(reason, 0) + 1
