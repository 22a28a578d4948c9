"""A pattern: what an attack leaves behind, so that it is known when it comes back. No raw value, no client id."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from regate.config.errors import PoisonError
from regate.detectors.arrays import Arrays, pack, unpack
from regate.detectors.attack import hyperloglog
from regate.detectors.attack.manner import WIDTH as MANNER
from regate.detectors.attack.queries import WIDTH, ByteArray, SketchArray
from regate.detectors.columns import IntArray

# Queries of an attack that are kept: the first of them.
MOST_PRINTS = 512
MOST_INCIDENTS = 16
FORMAT = 2


def _no_sketch() -> SketchArray:
    return np.zeros((0, WIDTH), dtype=np.int8)


def _no_blocks() -> ByteArray:
    return np.zeros((0, WIDTH), dtype=np.uint8)


def _no_manner() -> IntArray:
    return np.zeros(MANNER, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern. ``space`` and ``inputs`` say with which references its sketches and its hashes can be compared."""

    id: str
    space: str
    inputs: str
    first_us: int
    last_us: int
    seen: int = 1  # times: the first, and each recurrence
    incidents: tuple[str, ...] = ()
    lanes: tuple[str, ...] = ()  # that said most when it was found
    like: str = ""  # the pattern whose manner it has
    scenario: str = ""  # id of the scenario that was made of it
    sketch: SketchArray = field(default_factory=_no_sketch)
    blocks: ByteArray = field(default_factory=_no_blocks)
    manner: IntArray = field(default_factory=_no_manner)
    clients: ByteArray = field(default_factory=hyperloglog.empty)

    @property
    def distinct_clients(self) -> int:
        """Return how many clients it was seen under, nearly."""
        return round(hyperloglog.distinct(self.clients))

    def under(self, client: int) -> Pattern:
        """Return the pattern with one more client."""
        if not client:
            return self
        place, rank = hyperloglog.registers(np.array([client], dtype=np.uint64))
        ranks = self.clients.copy()
        ranks[place] = np.maximum(ranks[place], rank)
        return replace(self, clients=ranks)

    def with_prints(self, sketch: SketchArray, blocks: ByteArray) -> Pattern:
        """Return the pattern with more queries, each once, up to `MOST_PRINTS`."""
        both, place = np.concatenate([self.blocks, blocks]), np.concatenate([self.sketch, sketch])
        _, first = np.unique(both, axis=0, return_index=True)
        kept = np.sort(first)[:MOST_PRINTS]
        return replace(self, sketch=place[kept], blocks=both[kept])


def merged(mine: Pattern, other: Pattern) -> Pattern:
    """Return what two states of one pattern say together; the same whichever comes first."""
    early, late = sorted((mine, other), key=lambda one: (one.seen, one.last_us, len(one.sketch), one.incidents))
    more = late if len(late.sketch) >= len(early.sketch) else early
    incidents = tuple(dict.fromkeys((*early.incidents, *late.incidents)))[-MOST_INCIDENTS:]
    return replace(
        late,
        first_us=min(mine.first_us, other.first_us),
        last_us=max(mine.last_us, other.last_us),
        incidents=incidents,
        lanes=late.lanes or early.lanes,
        like=late.like or early.like,
        scenario=late.scenario or early.scenario,
        sketch=more.sketch,
        blocks=more.blocks,
        manner=late.manner if late.manner.any() else early.manner,
        clients=np.maximum(mine.clients, other.clients),
    )


def same(one: Pattern, other: Pattern) -> bool:
    """Return whether two states say the same."""
    return packed(one) == packed(other)


def packed(pattern: Pattern) -> bytes:
    """Return a pattern as bytes."""
    said: dict[str, Any] = {
        "format": FORMAT,
        "id": pattern.id,
        "space": pattern.space,
        "inputs": pattern.inputs,
        "first_us": pattern.first_us,
        "last_us": pattern.last_us,
        "seen": pattern.seen,
        "incidents": list(pattern.incidents),
        "lanes": list(pattern.lanes),
        "like": pattern.like,
        "scenario": pattern.scenario,
    }
    arrays: Arrays = {
        "sketch": pattern.sketch,
        "blocks": pattern.blocks,
        "manner": pattern.manner,
        "clients": pattern.clients,
    }
    return pack(said, arrays)


def unpacked(data: bytes) -> Pattern:
    """Return the pattern that `packed` gave.

    :raises PoisonError: when the bytes are no pattern, or one of another format.
    """
    said, arrays = unpack(data)
    shapes = {
        "sketch": (None, WIDTH),
        "blocks": (None, WIDTH),
        "manner": (MANNER,),
        "clients": (hyperloglog.REGISTERS,),
    }
    if said.get("format") != FORMAT or not isinstance(said.get("id"), str) or not said["id"]:
        raise PoisonError(
            f"no pattern of format {FORMAT}, but of {said.get('format')}: export it again where it was found, by this "
            "release, or forget it",
            reason="unknown_schema",
        )
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is None or array.ndim != len(shape) or array.shape[-1] != shape[-1]:
            raise PoisonError(f"pattern {said['id']}: {name} has not the shape {shape}", reason="invalid")
    if not len(arrays["sketch"]) == len(arrays["blocks"]) <= MOST_PRINTS:
        raise PoisonError(f"pattern {said['id']}: {len(arrays['sketch'])} queries", reason="invalid")
    try:
        return Pattern(
            id=said["id"],
            space=str(said["space"]),
            inputs=str(said["inputs"]),
            first_us=int(said["first_us"]),
            last_us=int(said["last_us"]),
            seen=int(said["seen"]),
            incidents=tuple(str(one) for one in said["incidents"])[-MOST_INCIDENTS:],
            lanes=tuple(str(one) for one in said["lanes"]),
            like=str(said["like"]),
            scenario=str(said["scenario"]),
            sketch=arrays["sketch"].astype(np.int8),
            blocks=arrays["blocks"].astype(np.uint8),
            manner=arrays["manner"].astype(np.int64),
            clients=arrays["clients"].astype(np.uint8),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PoisonError(f"pattern {said['id']}: {error}", reason="invalid") from error


def as_text(pattern: Pattern) -> str:
    """Return a pattern as a text of ASCII characters."""
    return base64.b64encode(packed(pattern)).decode()


def from_text(text: str) -> Pattern:
    """Return the pattern of `as_text`.

    :raises PoisonError: when it is none.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise PoisonError(f"no pattern: {error}", reason="invalid") from error
    return unpacked(data)
