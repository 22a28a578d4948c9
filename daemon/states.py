"""Reading and asking gates from outside: effective states by scope, and commands to them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from regate.config.errors import ConfigError
from regate.daemon.bus.placement import partition_of
from regate.daemon.bus.port import Bus, OutRecord, Reader, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.gate.events import GateState
from regate.daemon.gate.verdict import GREEN
from regate.daemon.wire.cloudevents import decode_event, encode_event
from regate.daemon.wire.internal import Command

Exit = Literal[0, 1, 2, 3]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller must do: 0 approve, 1 hold or worse, 3 inconclusive; and why, in a sentence."""

    code: Exit
    text: str
    settled: bool = True  # False: a run is under way that may change it


def scope_name(text: str) -> str:
    """Return ``tenant/model/deployment`` of a full or shortened name.

    >>> scope_name("loan")
    'default/loan/production'
    """
    parts = text.split("/")
    if not all(parts) or len(parts) > 3:
        raise ConfigError(f"{text!r} names no scope", hint="write model, tenant/model or tenant/model/deployment")
    if len(parts) == 1:
        return f"default/{parts[0]}/production"
    return "/".join((*parts, "production")[:3])


def _partitions(bus: Bus, topic: str) -> int:
    admin = bus.admin()
    try:
        count = admin.partitions(topic)
    finally:
        admin.close()
    if not count:
        raise ConfigError(f"there is no topic {topic}", hint="regate topics create")
    return count


def read_states(bus: Bus, topics: Topics, scope: str | None = None) -> dict[str, GateState]:
    """Return the effective state of every scope, or of the one named."""
    name = topics.name("gate-state")
    count = _partitions(bus, name)
    wanted = range(count) if scope is None else (partition_of(scope.rpartition("/")[0], count),)
    reader = bus.reader()
    try:
        found: dict[str, GateState] = {}
        for number in wanted:
            found.update(_read(reader, TopicPartition(name, number)))
    finally:
        reader.close()
    return found if scope is None else {key: state for key, state in found.items() if key == scope}


def _read(reader: Reader, partition: TopicPartition) -> dict[str, GateState]:
    found: dict[str, GateState] = {}
    for record in reader.read(partition, reader.beginning(partition), reader.end(partition)):
        key = (record.key or b"").decode()
        if record.value is None:
            found.pop(key, None)
        else:
            found[key] = decode_event(record.value, "gate-state", GateState)
    return found


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000) if text else 0


def judge(state: GateState | None, now_ms: int) -> Answer:
    """Return what a state means now. The reader checks the lease itself: a dead daemon must not leave it open."""
    if state is None:
        return Answer(3, "no gate has spoken about this scope yet", settled=False)
    if state.mode == "shadow":
        return Answer(3, "shadow mode: not to be acted on (regate apply -f MODEL.yaml)")
    why = ", ".join(reason.code for reason in state.reasons) or state.transition
    under_way = bool(state.pending.running or state.pending.queued)
    if state.override is not None and _ms(state.override.expires_at) > now_ms and state.effective_verdict == "approve":
        return Answer(0, f"approved by override of {state.override.actor} until {state.override.expires_at}")
    if state.effective_verdict == "approve":
        if _ms(state.valid_until) > now_ms:
            return Answer(0, f"approved until {state.valid_until}")
        blocked = f" ({', '.join(state.blocked_by)})" if state.blocked_by else ""
        return Answer(1, f"the lease ran out at {state.valid_until or 'an expired override'}{blocked}")
    text = f"{state.effective_verdict}: {why}"
    if state.blocked_by:
        text += f"; waits for {', '.join(state.blocked_by)}"
    settled = not under_way and state.outcome not in {*GREEN, ""}
    undecided = state.verdict == "hold" and state.outcome in {"", "inconclusive"} and state.transition != "expire"
    return Answer(3 if undecided and state.override is None else 1, text, settled)


def send_command(bus: Bus, topics: Topics, command: Command) -> None:
    """Put a command where its gate reads it, and wait until the bus has it."""
    if not re.fullmatch(r"[^/]+/[^/]+/[^/]+", command.scope):
        raise ConfigError(f"{command.scope!r} names no scope", hint="names hold no slash")
    topic = topics.name("commands")
    partition = partition_of(f"{command.tenant}/{command.model}", _partitions(bus, topic))
    value, headers = encode_event("command", command.id, command.scope, command.issued_ms, command)
    writer = bus.writer()
    try:
        writer.send(OutRecord(topic, value, command.scope.encode(), headers, partition))
        writer.flush()
    finally:
        writer.close(5.0)
