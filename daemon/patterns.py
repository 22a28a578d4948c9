"""Patterns of attacks on the bus and in files: what stands there, out of it and into it."""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from regate.config.errors import ConfigError, PoisonError
from regate.daemon.bus.port import Bus, OutRecord
from regate.daemon.bus.topics import Topics
from regate.daemon.control import current, pattern_gone, pattern_record, prompts_gone, prompts_record
from regate.detectors.attack.pattern import Pattern, as_text, from_text
from regate.detectors.columns import ModelKey
from regate.detectors.prompts.library import Library
from regate.detectors.prompts.reference import salt_of

SCHEMA = "regate-patterns/1"
PROMPTS_A_RECORD = 500  # some 200 kB


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


def prompts_of(path: Path) -> list[tuple[str, str]]:
    """Return (id, text) of known prompts: a JSON object with ``id`` and ``text`` a line, more in it is not looked at.

    :raises ConfigError: with the line that is none.
    """
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", errors="replace")
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            said = json.loads(line)
            name, prompt = said["id"], said["text"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            told = f"{path}, line {number}: no object with id and text"
            raise ConfigError(told, hint="nothing was imported") from error
        if not isinstance(name, str) or not isinstance(prompt, str) or not name or not prompt:
            raise ConfigError(f"{path}, line {number}: id and text are texts", hint="nothing was imported")
        found.append((name, prompt))
    return found


def prompt_records(tenant: str, model: str, name: str, prompts: Sequence[tuple[str, str]]) -> list[OutRecord]:
    """Return control records of known prompts: their hashes under the model's salt, some hundred a record.

    :param name: of the set; a finding names ``set/id``.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,63}", name):
        raise ConfigError(f"{name!r} is no name of a set", hint="small letters, digits, dots, dashes")
    now = time.time_ns() // 1_000_000
    records = []
    for number, start in enumerate(range(0, len(prompts), PROMPTS_A_RECORD)):
        part = prompts[start : start + PROMPTS_A_RECORD]
        library = Library(len(part) + 1, salt=salt_of(tenant, model))
        for one, text in part:
            library.add(f"{name}/{one}", text)
        records.append(prompts_record(f"{tenant}/{model}#{name}/{number:04}", *library.entries(), now))
    return records


def put_prompts(bus: Bus, topics: Topics, records: Sequence[OutRecord]) -> None:
    """Write known prompts to the bus; a set of before under the same name gives way."""
    named = {(one.key or b"").decode().removeprefix("prompts/") for one in records}
    beginning = {one.rpartition("/")[0] + "/" for one in named}
    old = [one for one in held_prompts(bus, topics) if one.startswith(tuple(beginning))]
    _write(bus, topics, [*(prompts_gone(one) for one in old), *records])


def held_prompts(bus: Bus, topics: Topics) -> dict[str, int]:
    """Return how many known prompts stand on the bus, by ``tenant/model#set/number``."""
    reader = bus.reader()
    try:
        return {name: len(said["ids"]) for name, (said, _) in sorted(current(reader, topics).prompts.items())}
    finally:
        reader.close()


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
