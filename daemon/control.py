"""Control: configuration, profiles and policies as records on one compacted topic.

Writing side: `documents` turns files into records, `apply` puts those on the bus that differ from
what stands there. Reading side: `View` folds the records, in order, into what is in effect; every
core keeps one and feeds it the control records of its step, so that a change takes effect at a
journalled offset and a replay sees it at the same place.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from regate.config.canonical import canonical_json, digest_bytes
from regate.config.errors import ConfigError, PoisonError
from regate.config.loading import load_documents, parse
from regate.config.model import ModelConfig
from regate.config.policy import Policy
from regate.daemon.bus.port import OutRecord, Reader, Record, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.wire.cloudevents import decode_event, encode_event
from regate.daemon.wire.internal import Acceptance, Control
from regate.detectors.arrays import Arrays, pack, unpack
from regate.detectors.attack.pattern import Pattern, as_text, from_text
from regate.detectors.columns import ModelKey
from regate.detectors.profile import Profile

CHUNK = 600_000  # bytes of a profile a record; base64 and envelope stay under a broker's default of 1 MB
# Cores keep control records in snapshots, one a chunk of at most 900 kB: a larger record would stop its shard for ever.
MAX_RECORD = 850_000
# What a document that somebody made can raise while it is read; each refuses the record, none may end a shard.
UNREADABLE = (PoisonError, ConfigError, ValidationError, ValueError, KeyError, TypeError, IndexError, RecursionError)


@dataclass(frozen=True, slots=True)
class Refused:
    """A control record that could not take effect, and why; the old setting stays in force."""

    offset: int
    name: str
    message: str


@dataclass(slots=True)
class View:
    """What is in effect. ``apply`` returns what changed by name, and keeps what it had to refuse."""

    models: dict[str, ModelConfig] = field(default_factory=dict)  # tenant/model
    policies: dict[str, Policy] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)  # str(ModelKey)
    patterns: dict[str, Pattern] = field(default_factory=dict)  # <model key>#<pattern id>
    prompts: dict[str, tuple[dict[str, Any], Arrays]] = field(default_factory=dict)  # tenant/model#set/number
    digests: dict[str, str] = field(default_factory=dict)  # "<kind>/<name>" -> digest
    refused: list[Refused] = field(default_factory=list)
    _parts: dict[str, dict[int, str]] = field(default_factory=dict)  # profile digest -> part -> base64

    def apply(self, records: Iterable[Record]) -> set[str]:
        """Take records in order; return the ``<kind>/<name>`` that changed."""
        changed: set[str] = set()
        for record in records:
            key = (record.key or b"").decode(errors="replace")
            try:
                changed |= self._take(key, record)
            except UNREADABLE as error:
                self.refused.append(Refused(record.offset, key, str(error)))
        return changed

    @property
    def pending(self) -> set[str]:
        """Return the digests of profiles of which some chunks are still to come."""
        return set(self._parts)

    def _take(self, key: str, record: Record) -> set[str]:
        kind, _, name = key.partition("/")
        if record.value is None:
            if self.digests.pop(key, None) is None:
                return set()
            for store in (self.models, self.policies, self.profiles, self.patterns, self.prompts):
                store.pop(name, None)  # names of the kinds differ in form
            return {key}
        refuse_large(record)
        control = decode_event(record.value, "control", Control)
        if kind in {"profile", "profile-chunk"}:
            return self._take_profile(control)
        if kind == "acceptance":
            return set()  # an event, not a setting: decide takes it once
        if self.digests.get(key) == control.digest:
            return set()
        if kind == "pattern":
            self.patterns[name] = from_text(control.document)
            self.digests[key] = control.digest
            return {key}
        if kind == "prompts":
            self.prompts[name] = unpack(base64.b64decode(control.document, validate=True))
            self.digests[key] = control.digest
            return {key}
        data = json.loads(control.document)
        if kind == "model":
            self.models[name] = ModelConfig.model_validate(data)
        elif kind == "policy":
            self.policies[name] = Policy.model_validate(data)
        else:
            raise PoisonError(f"unknown kind of control {kind!r}", reason="unknown_schema")
        self.digests[key] = control.digest
        return {key}

    def _take_profile(self, control: Control) -> set[str]:
        owner = control.name.partition("#")[0]
        key = f"profile/{owner}"
        if self.digests.get(key) == control.digest:
            return set()
        parts = self._parts.setdefault(control.digest, {})
        parts[control.part] = control.document
        if len(parts) < control.parts:
            return set()
        try:
            data = base64.b64decode("".join(parts[i] for i in range(control.parts)), validate=True)
        except (binascii.Error, KeyError) as error:
            raise PoisonError(f"profile {owner}: damaged chunks: {error}", reason="invalid") from error
        if digest_bytes(data) != control.digest:
            raise PoisonError(f"profile {owner}: bytes do not match {control.digest}", reason="invalid")
        self.profiles[owner] = Profile.from_bytes(data)
        self.digests[key] = control.digest
        del self._parts[control.digest]
        return {key}


def refuse_large(record: Record) -> None:
    """Refuse a control record that would not fit in a snapshot chunk.

    :raises PoisonError: when it is larger than `MAX_RECORD`.
    """
    size = len(record.value or b"") + len(record.key or b"")
    if size > MAX_RECORD:
        raise PoisonError(f"a control record of {size} bytes is more than {MAX_RECORD}", reason="too_large")


def read_documents(paths: Sequence[Path]) -> list[ModelConfig | Policy]:
    """Return the models and policies of YAML files (directories are read whole, sorted by name).

    :raises ConfigError: with file, line and key of every problem.
    """
    found: list[ModelConfig | Policy] = []
    for path in paths:
        files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not files:
            raise ConfigError(f"{path} holds no *.yaml file", hint="regate init --from FILE writes one")
        for file in files:
            for data, node in load_documents(file):
                kind = data.get("kind") if isinstance(data, dict) else None
                if kind == "Model":
                    found.append(parse(ModelConfig, data, node, str(file)))
                elif kind == "Policy":
                    found.append(parse(Policy, data, node, str(file)))
                else:
                    raise ConfigError(
                        f"{file}: kind is {kind!r}", hint="a document says `kind: Model` or `kind: Policy`"
                    )
    return found


def _record(control: Control, time_ms: int) -> OutRecord:
    key = f"{control.kind}/{control.name}"
    value, headers = encode_event("control", control.digest, key, time_ms, control)
    return OutRecord("control", value, key=key.encode(), headers=headers, partition=0)


def document_record(document: ModelConfig | Policy, time_ms: int) -> OutRecord:
    """Return the control record of one document; its digest is of the canonical JSON."""
    data = canonical_json(document.model_dump(mode="json"))
    name = f"{document.tenant}/{document.model}" if isinstance(document, ModelConfig) else document.name
    kind = "model" if isinstance(document, ModelConfig) else "policy"
    return _record(Control(kind=kind, name=name, digest=digest_bytes(data), document=data.decode()), time_ms)


def profile_records(profile: Profile, time_ms: int) -> list[OutRecord]:
    """Return the control records of one profile, cut into chunks."""
    data = profile.to_bytes()
    whole = digest_bytes(data)
    pieces = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    # base64 of a multiple of three bytes has no padding, so the pieces join to valid base64.
    return [
        _record(
            Control(
                kind="profile-chunk",
                name=f"{profile.key}#{number}",
                digest=whole,
                document=base64.b64encode(piece).decode(),
                part=number,
                parts=len(pieces),
            ),
            time_ms,
        )
        for number, piece in enumerate(pieces)
    ]


def pattern_name(key: ModelKey, pattern: str) -> str:
    """Return the name under which a model's pattern stands on the control topic."""
    return f"{key}#{pattern}"


def scope_of_pattern(name: str) -> str:
    """Return the scope (``tenant/model/deployment``) of a pattern's name: all versions of a model share patterns."""
    return name.partition("#")[0].rpartition("@")[0]


def pattern_record(key: ModelKey, pattern: Pattern, time_ms: int) -> OutRecord:
    """Return the control record that tells all shards of a pattern."""
    document = as_text(pattern)
    name = pattern_name(key, pattern.id)
    return _record(
        Control(kind="pattern", name=name, digest=digest_bytes(document.encode()), document=document), time_ms
    )


def pattern_gone(key: ModelKey, pattern: str) -> OutRecord:
    """Return the control record that takes a pattern back."""
    return OutRecord("control", None, key=f"pattern/{pattern_name(key, pattern)}".encode(), partition=0)


def prompts_record(name: str, said: dict[str, Any], arrays: Arrays, time_ms: int) -> OutRecord:
    """Return the control record of some known prompts, as their hashes.

    :param name: ``tenant/model#set/number``.
    """
    data = pack(said, arrays)
    document = base64.b64encode(data).decode()
    return _record(Control(kind="prompts", name=name, digest=digest_bytes(data), document=document), time_ms)


def prompts_gone(name: str) -> OutRecord:
    """Return the control record that takes known prompts back."""
    return OutRecord("control", None, key=f"prompts/{name}".encode(), partition=0)


def acceptance_record(acceptance: Acceptance, time_ms: int) -> OutRecord:
    """Return the control record that closes an incident as accepted."""
    data = canonical_json(acceptance.model_dump(mode="json"))
    return _record(
        Control(kind="acceptance", name=acceptance.incident, digest=digest_bytes(data), document=data.decode()), time_ms
    )


def current(reader: Reader, topics: Topics) -> View:
    """Return what the control topic says now."""
    view = View()
    partition = TopicPartition(topics.name("control"), 0)
    view.apply(reader.read(partition, reader.beginning(partition), reader.end(partition)))
    return view


def key_of(config: ModelConfig) -> ModelKey:
    """Return the key of a model's default version and deployment."""
    return ModelKey(config.tenant, config.model, config.version, config.deployment)


def dump_settings(document: ModelConfig | Policy) -> str:
    """Return a document as YAML, for people."""
    return yaml.safe_dump(document.model_dump(mode="json", exclude_defaults=True), sort_keys=False)
