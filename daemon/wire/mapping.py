"""Compiled layouts: the mapped paths of one model as nested msgspec types, decoded in one call a record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
from msgspec.structs import astuple

from regate.config.errors import ConfigError
from regate.config.model import FieldMapping, ModelConfig
from regate.detectors.columns import FloatArray

NONE: type = type(None)
Scalar = str | int | float | bool | None
_NUMBER = float | None
_TYPES: dict[str, Any] = {
    "event_id": str | int | None,
    "event_time": str | int | float | None,
    "tenant": str | None,
    "model": str | None,
    "model_version": str | int | None,
    "deployment": str | None,
    "client": str | int | None,
    "scores": float | dict[str, _NUMBER] | None,
    "latency_ms": _NUMBER,
    "error": str | bool | int | None,
    "schema_version": int | str | None,
}
_FEATURE_TYPES: dict[str, Any] = {
    "numeric": _NUMBER,
    "categorical": Scalar,
    "boolean": bool | None,
    "text": str | None,
    "vector": list[float] | None,
}
IDENTITY = ("tenant", "model", "model_version", "deployment")
# Attributes of a structured CloudEvent, those that are only known so that they need no second look included.
ENVELOPE: dict[str, Any] = {
    "specversion": str,
    "id": str,
    "type": str,
    "source": str | None,
    "subject": str | None,
    "time": str | None,
    "dataschema": str | None,
    "datacontenttype": str | None,
}


class Payload(msgspec.Struct, gc=False):
    """Inputs by reference: accepted, never fetched."""

    uri: str
    digest: str


@dataclass(slots=True)
class Node:
    """An object of the layout: fields to read from it, and the objects inside."""

    leaves: dict[str, tuple[Any, list[str]]] = field(default_factory=dict)  # JSON name -> (type, fields served)
    inner: dict[str, Node] = field(default_factory=dict)
    kind: type[msgspec.Struct] = msgspec.Struct
    width: int = 0
    read: list[Callable[[Any], Any]] = field(default_factory=list)  # of each leaf, then of each object inside
    unsent: set[int] = field(default_factory=set)  # leaves that no row had when all were read last

    def leaf(self, path: str, kind: Any, serves: str) -> None:
        """Add a leaf at a dotted path."""
        head, _, rest = path.partition(".")
        if rest:
            if head in self.leaves:
                raise ConfigError(f"mapping: {head} is both a value and an object", hint="mend the mapping")
            self.inner.setdefault(head, Node()).leaf(rest, kind, serves)
            return
        if head in self.inner:
            raise ConfigError(f"mapping: {head} is both a value and an object", hint="mend the mapping")
        known = self.leaves.setdefault(head, (kind, []))
        if known[0] != kind:
            both = ", ".join([*known[1], serves])
            raise ConfigError(f"mapping: {both} stand at {head} with different types", hint="mend the mapping")
        known[1].append(serves)

    def compile(self, name: str) -> type[msgspec.Struct]:
        """Build the type of this object and of those inside."""
        fields: list[tuple[str, Any, Any]] = []
        rename: dict[str, str] = {}
        for position, (key, (kind, _)) in enumerate(self.leaves.items()):
            fields.append((f"v{position}", kind, None))
            rename[f"v{position}"] = key
        for position, (key, node) in enumerate(self.inner.items()):
            fields.append((f"o{position}", node.compile(f"{name}_{position}") | None, None))
            rename[f"o{position}"] = key
        self.width = len(fields)
        self.read = [attrgetter(name) for name, _, _ in fields]
        # gc=False: these hold no cycles, and a step holds hundreds of thousands of them.
        self.kind = msgspec.defstruct(name, fields, rename=rename, gc=False)
        return self.kind

    def gather(self, rows: Sequence[Any], into: Gathered, prefix: str = "", *, whole: bool = True) -> None:
        """Read all rows of this object into columns.

        :param whole: False leaves the fields unread that no row had when all were read.
        """
        numbers = self.leaves and not self.inner and all(kind == _NUMBER for kind, _ in self.leaves.values())
        if numbers and into.add_numbers([serves for _, serves in self.leaves.values()], rows):
            return
        for position, (kind, serves) in enumerate(self.leaves.values()):
            if not whole and position in self.unsent:
                into.add(serves, kind, (None,) * len(rows))
            elif into.add(serves, kind, list(map(self.read[position], rows))):
                self.unsent.discard(position)
            else:
                self.unsent.add(position)
        for (key, node), read in zip(self.inner.items(), self.read[len(self.leaves) :], strict=True):
            column = list(map(read, rows))
            present: Sequence[Any] = column
            missing = 0 if all(column) else column.count(None)
            into.keys += len(rows) - missing
            if missing:
                into.absent[prefix + key] = [value is None for value in column]
                empty = node.kind(*[None] * node.width)
                present = [empty if value is None else value for value in column]
            node.gather(present, into, f"{prefix}{key}.", whole=whole)


@dataclass(slots=True)
class Gathered:
    """Columns by field (``in:<feature>``, ``co:<cohort>``, ``ce:<attribute>``).

    Numbers are arrays, NaN is missing; others are plain values, None is missing. ``keys`` and ``colons`` count what
    the decoded values account for in the bytes.
    """

    numbers: dict[str, FloatArray] = field(default_factory=dict)
    columns: dict[str, Sequence[Any]] = field(default_factory=dict)
    kinds: dict[str, Counter[type]] = field(default_factory=dict)
    absent: dict[str, list[bool]] = field(default_factory=dict)  # objects that some rows lack
    n: int = 0
    keys: int = 0  # object members seen in the decoded values
    colons: int = 0  # colons inside the decoded texts

    def add_numbers(self, serves: Sequence[Sequence[str]], rows: Sequence[Any]) -> bool:
        """Take objects that hold nothing but numbers, all values in one go; return False where one is missing."""
        try:
            table = np.fromiter(chain.from_iterable(map(astuple, rows)), np.float64, len(rows) * len(serves))
        except TypeError:
            return False
        columns = np.ascontiguousarray(table.reshape(len(rows), len(serves)).T)
        self.keys += table.size
        for names, values in zip(serves, columns, strict=True):
            for name in names:
                self.numbers[name] = values
        return True

    def add(self, serves: Sequence[str], kind: Any, column: Sequence[Any]) -> bool:
        """Take one leaf of all rows; return whether any row has it."""
        n = len(column)
        if kind == _NUMBER:
            values = _floats(column)
            sent = n - int(np.count_nonzero(np.isnan(values)))
            for name in serves:
                self.numbers[name] = values
        else:
            kinds = self._kinds(column)
            sent = n - kinds[NONE]
            for name in serves:
                self.columns[name] = column
                self.kinds[name] = kinds
        self.keys += sent
        return sent > 0

    def _kinds(self, column: Sequence[Any]) -> Counter[type]:
        """Return the types of a column, and count the colons inside its texts."""
        n, first = len(column), column[0]
        # Nearly every column is of one kind: nobody sends it, or it is a text in each event.
        if first is None and column.count(None) == n:
            return Counter({NONE: n})
        if type(first) is str:
            try:
                text = "".join(column)
            except TypeError:
                pass
            else:
                self.colons += text.count(":")
                return Counter({str: n})
        kinds: Counter[type] = Counter(map(type, column))
        if kinds[str]:
            self.colons += sum(value.count(":") for value in column if type(value) is str)
        if kinds[dict]:
            found = [value for value in column if type(value) is dict]
            self.keys += sum(map(len, found))
            self.colons += sum(key.count(":") for value in found for key in value)
        if kinds[Payload]:
            found_payloads = [value for value in column if type(value) is Payload]
            self.keys += 2 * len(found_payloads)
            self.colons += sum(value.uri.count(":") + value.digest.count(":") for value in found_payloads)
        return kinds


def _floats(column: Sequence[Any]) -> FloatArray:
    try:
        return np.fromiter(column, np.float64, len(column))
    except TypeError:  # None among them
        return np.array(column, np.float64)


def join(pieces: Sequence[Gathered]) -> Gathered:
    """Return the columns of consecutive chunks of one layout as one."""
    if len(pieces) == 1:
        return pieces[0]
    whole = Gathered()
    sizes = [piece.n for piece in pieces]
    for name in pieces[0].numbers:
        whole.numbers[name] = np.concatenate([piece.numbers[name] for piece in pieces])
    for name in pieces[0].columns:
        whole.columns[name] = list(chain.from_iterable(piece.columns[name] for piece in pieces))
        kinds: Counter[type] = Counter()
        for piece in pieces:
            for kind, count in piece.kinds[name].items():  # one or two: Counter.update costs five times as much
                kinds[kind] += count
        whole.kinds[name] = kinds
    for name in dict.fromkeys(name for piece in pieces for name in piece.absent):
        parts = [piece.absent.get(name) or [False] * n for piece, n in zip(pieces, sizes, strict=True)]
        whole.absent[name] = list(chain.from_iterable(parts))
    whole.n = sum(sizes)
    return whole


class Layout:
    """How the events of one model are laid out, bare or as the data of a CloudEvent."""

    def __init__(self, paths: Iterable[tuple[str, Any, str]], *, envelope: bool) -> None:
        self.envelope = envelope
        self._root = Node()
        for path, kind, serves in paths:
            inside = path if not envelope or path.startswith("data.") else f"data.{path}"
            self._root.leaf(inside, kind, serves)
        if envelope:
            for name, kind in ENVELOPE.items():
                self._root.leaf(name, kind, f"ce:{name}")
        self.decoder = msgspec.json.Decoder(self._root.compile("Event"))

    def gather(self, rows: Sequence[Any], colons: int | None = None) -> Gathered:
        """Return the columns of decoded rows.

        :param colons: how many stand in the bytes of these rows. As long as what was read accounts for all of them,
            the fields that nobody sends need not be read.
        """
        into = Gathered(n=len(rows))
        if colons is not None:
            self._root.gather(rows, into, whole=False)
            if into.keys + into.colons == colons:
                return into
            into = Gathered(n=len(rows))
        self._root.gather(rows, into)
        return into


def telemetry_paths(config: ModelConfig) -> list[tuple[str, Any, str]]:
    """Return (path, type, field) of everything that a telemetry event of this model may carry."""
    mapping = config.mapping
    paths = _shared(mapping, config)
    paths += [(mapping.latency_ms, _TYPES["latency_ms"], "latency_ms"), (mapping.error, _TYPES["error"], "error")]
    inputs = f"{mapping.inputs}." if mapping.inputs else ""
    cohorts = f"{mapping.cohorts}." if mapping.cohorts else ""
    for name, feature in config.features.items():
        paths.append((inputs + name, _FEATURE_TYPES[feature.type], f"in:{name}"))
    taken = {path for path, _, _ in paths}
    for name in config.cohorts:
        if cohorts + name not in taken:
            paths.append((cohorts + name, Scalar, f"co:{name}"))
    if mapping.inputs:
        paths.append(("payload", Payload | None, "payload"))
    return paths


def label_paths(config: ModelConfig) -> list[tuple[str, Any, str]]:
    """Return (path, type, field) of everything that a label event of this model may carry."""
    return [*_shared(config.mapping, config), (config.mapping.label, _outcome(config), "label")]


def identity_paths(mapping: FieldMapping) -> list[tuple[str, Any, str]]:
    """Return the paths that say whose event it is."""
    return [(getattr(mapping, name), _TYPES[name], name) for name in ("tenant", "model")]


def _shared(mapping: FieldMapping, config: ModelConfig) -> list[tuple[str, Any, str]]:
    names = ("event_id", "event_time", *IDENTITY, "client", "scores")
    paths = [(getattr(mapping, name), _TYPES[name], name) for name in names]
    paths.append((mapping.prediction, _outcome(config), "prediction"))
    if mapping == FieldMapping():
        paths.append(("schema_version", _TYPES["schema_version"], "schema_version"))
    return paths


def _outcome(config: ModelConfig) -> Any:
    return _NUMBER if config.output.type == "regression" else Scalar


def read_path(payload: Any, path: str) -> Any:
    """Return the value at a dotted path of plain data, None where there is none."""
    for step in path.split("."):
        if not isinstance(payload, Mapping):
            return None
        payload = payload.get(step)
    return payload
