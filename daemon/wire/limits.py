"""Checks on raw bytes before any parser sees them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from regate.config.settings import Limits
from regate.daemon.bus.port import Record
from regate.daemon.wire.reasons import Reason

# Strings of a JSON text; an unterminated one runs to the end, so that hostile quotes stay linear.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\Z)', re.DOTALL)
_STEP = np.zeros(256, np.int64)
_STEP[[ord("["), ord("{")]] = 1
_STEP[[ord("]"), ord("}")]] = -1


def depth_of(value: bytes) -> int:
    """Return how deep brackets nest in a JSON text, those inside strings left out.

    >>> depth_of(b'{"a": [[1]], "b": "[[["}')
    3
    """
    outside = _STRINGS.sub(b"", value)
    if not outside:
        return 0
    return int(np.cumsum(_STEP[np.frombuffer(outside, np.uint8)]).max())


# As many records as stay in the processor's cache while they are looked at several times.
CHUNK = 1024
Why = tuple[Reason, str]


def screen(record: Record, limits: Limits) -> Why | None:
    """Return why a record may not even be looked into, or None."""
    if not record.value:
        return Reason.EMPTY, "the record has no value"
    if len(record.value) > limits.record_bytes:
        return (
            Reason.TOO_LARGE,
            f"{len(record.value)} bytes are more than limits.record_bytes {limits.record_bytes}",
        )
    return None


@dataclass(slots=True)
class Screened:
    """What one pass over the bytes of many texts found."""

    refused: dict[int, Why] = field(default_factory=dict)  # by position
    marked: bool = False  # some text may be a structured CloudEvent


def screen_texts(values: Sequence[bytes], limits: Limits) -> Screened:
    """Return which texts may not be parsed: one pass over all bytes, a second look at suspects only."""
    found = Screened()
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        joined = b"".join(part)
        found.marked = found.marked or b'"specversion"' in joined
        # "[" and "{" differ in one bit; as many of both as levels are allowed cannot nest deeper than that.
        opening = np.flatnonzero((np.frombuffer(joined, np.uint8) | 0x20) == ord("{"))
        ends = np.cumsum(np.fromiter(map(len, part), np.int64, len(part)))
        counts = np.diff(np.searchsorted(opening, ends), prepend=0)
        for place in np.flatnonzero(counts > limits.depth).tolist():
            if depth_of(part[place]) > limits.depth:
                found.refused[start + place] = Reason.TOO_DEEP, f"nested deeper than limits.depth {limits.depth}"
    return found
