"""Patterns of attacks on the bus and in files: what stands there, out of it and into it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regate.config.errors import ConfigError, PoisonError
from regate.daemon.bus.port import Bus
from regate.daemon.bus.topics import Topics
from regate.daemon.control import current, pattern_gone, pattern_record
from regate.detectors.attack.pattern import Pattern, as_text, from_text
from regate.detectors.columns import ModelKey

SCHEMA = "regate-patterns/1"


@dataclass(frozen=True, slots=True)
class Held:
    """A pattern, and whose it is."""

    key: ModelKey
    pattern: Pattern


def key_of_text(text: str) -> ModelKey:
    """Return the key that ``tenant/model/deployment@version`` names.

    :raises ConfigError: when it is none.
    """
    scope, _, version = text.rpartition("@")
    parts = scope.split("/")
    if len(parts) != 3 or not version or not all(parts):
        raise ConfigError(f"{text!r} names no model version", hint="say tenant/model/deployment@version")
    return ModelKey(parts[0], parts[1], version, parts[2])


def held(bus: Bus, topics: Topics) -> list[Held]:
    """Return the patterns on the bus, the latest seen first."""
    reader = bus.reader()
    try:
        known = current(reader, topics).patterns
    finally:
        reader.close()
    found = [Held(key_of_text(name.partition("#")[0]), pattern) for name, pattern in known.items()]
    return sorted(found, key=lambda one: (-one.pattern.last_us, one.pattern.id))


def put(bus: Bus, topics: Topics, patterns: Sequence[Held]) -> None:
    """Write patterns to the bus, where every shard of their models takes them."""
    now = time.time_ns() // 1_000_000
    _write(bus, topics, [pattern_record(one.key, one.pattern, now) for one in patterns])


def take_back(bus: Bus, topics: Topics, one: Held) -> None:
    """Take a pattern back: nothing is compared with it any more."""
    _write(bus, topics, [pattern_gone(one.key, one.pattern.id)])


def _write(bus: Bus, topics: Topics, records: Sequence[Any]) -> None:
    writer = bus.writer()
    try:
        for record in records:
            writer.send(replace(record, topic=topics.name(record.topic)))
        writer.flush()
    finally:
        writer.close(5.0)


def exported(patterns: Sequence[Held]) -> str:
    """Return patterns as a text: a line that says what it is, then one a pattern. No raw value and no client id."""
    lines = [json.dumps({"schema": SCHEMA, "patterns": len(patterns)})]
    lines += [json.dumps({**described(one), "pattern": as_text(one.pattern)}, sort_keys=True) for one in patterns]
    return "\n".join(lines) + "\n"


def imported(path: Path, onto: ModelKey | None = None) -> list[Held]:
    """Return the patterns of an exported file.

    :param onto: the model that they shall be known for; by default the one that each names.
    :raises ConfigError: with file and line, when something in it is no pattern; then nothing is taken.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        head = json.loads(lines[0]) if lines else None
    except json.JSONDecodeError:
        head = None
    if not isinstance(head, dict) or head.get("schema") != SCHEMA:
        raise ConfigError(
            f"{path}: its first line does not say {SCHEMA}", hint="regate patterns export writes such a file"
        )
    found = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            key = onto if onto is not None else key_of_text(str(said["model"]))
            found.append(Held(key, from_text(said["pattern"])))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError, PoisonError) as error:
            raise ConfigError(f"{path}, line {number}: {error}", hint="nothing was imported") from error
    if len(found) != head.get("patterns"):
        raise ConfigError(
            f"{path}: {len(found)} patterns, its first line says {head.get('patterns')}", hint="it was cut off"
        )
    return found


def described(one: Held) -> dict[str, Any]:
    """Return what people want to know of a pattern."""
    pattern = one.pattern
    return {
        "id": pattern.id,
        "model": str(one.key),
        "first_seen": _time(pattern.first_us),
        "last_seen": _time(pattern.last_us),
        "seen": pattern.seen,
        "clients": pattern.distinct_clients,
        "queries": len(pattern.blocks),
        "lanes": list(pattern.lanes),
        "incidents": list(pattern.incidents),
        "like": pattern.like,
        "scenario": pattern.scenario,
        "manner": bool(pattern.manner.any()),
    }


def _time(time_us: int) -> str:
    try:
        return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return str(time_us)
