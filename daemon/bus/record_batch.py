"""The records of Kafka batches (message format 2) as columns, all fields of thousands of records at once.

Only the lengths are walked record by record; every other field is read with numpy, over as many batches as there are:
many producers send batches of a few records. That is ten times as fast as the client's own reader, which makes two
objects and calls seven functions for each record.

Source: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from regate.daemon.bus.port import Headers
from regate.daemon.bus.records import IntArray, Records

_Bytes = npt.NDArray[np.uint8]
# Bits of a varint beyond its first seven that are read here: lengths, and time steps of half a year, need no more.
MAX_SHIFT = 28
LONG = "a number is longer than five bytes"


class UnusualError(ValueError):
    """A batch that this reader leaves to the client's, which also says what is wrong with it."""


class Batches:
    """Batches of one buffer that are read together: `add` each, then take the `records`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._begins: list[int] = []  # of each record, after its length
        self._ends: list[int] = []
        self._counts: list[int] = []  # of each batch
        self._offsets: list[int] = []
        self._times_ms: list[int] = []
        self._fixed: list[bool] = []

    def __len__(self) -> int:
        return len(self._begins)

    def add(self, start: int, stop: int, count: int, offset: int, time_ms: int, *, fixed: bool) -> None:
        """Take one batch: ``count`` records between ``start`` and ``stop``.

        :param offset: of the first record.
        :param time_ms: of the first record, or of every record when ``fixed`` (the broker's append time).
        :raises UnusualError: when the records do not fill the range; nothing here is usable then.
        """
        try:
            end = _walk(self._data, start, count, self._begins, self._ends)
        except IndexError as error:
            raise UnusualError("a record ends behind the data") from error
        if end != stop:
            raise UnusualError("the records do not fill the batch")
        self._counts.append(count)
        self._offsets.append(offset)
        self._times_ms.append(time_ms)
        self._fixed.append(fixed)

    def records(self, topic: str, partition: int) -> Records:
        """Return the records of all batches.

        :raises UnusualError: when anything is not as producers write it.
        """
        try:
            return self._columns(topic, partition)
        except IndexError as error:
            raise UnusualError("a field ends behind the data") from error

    def _columns(self, topic: str, partition: int) -> Records:
        data = self._data
        raw: _Bytes = np.frombuffer(data, np.uint8)
        at: IntArray = np.array(self._begins, np.int64)
        ends: IntArray = np.array(self._ends, np.int64)
        if (raw[at] & 0x80).any():
            raise UnusualError("attributes are longer than a byte")
        steps, at = _varints(raw, at + 1)
        deltas, at = _varints(raw, at)
        keys, at = _nullable(data, raw, at)
        values, at = _nullable(data, raw, at)
        headers: list[Headers] | None = None
        if bool((at + 1 != ends).any()) or bool(raw[at].any()):
            headers = _all_headers(data, at.tolist(), self._ends)
        if any(self._fixed):
            steps[np.repeat(self._fixed, self._counts)] = 0
        nothing: list[bytes | None] = [None] * len(ends)
        return Records(
            topic,
            partition,
            np.repeat(np.array(self._offsets, np.int64), self._counts) + deltas,
            np.repeat(np.array(self._times_ms, np.int64), self._counts) + steps,
            values or nothing,
            keys,
            headers,
        )


def _walk(data: bytes, at: int, count: int, begins: list[int], ends: list[int]) -> int:
    """Note where each record begins (after its length) and ends; return where the last one ends."""
    begin, end = begins.append, ends.append  # twice a record: looking them up is a tenth of the loop
    for _ in range(count):
        length = data[at]
        at += 1
        if length & 0x80:
            length &= 0x7F
            shift = 7
            while True:
                byte = data[at]
                at += 1
                length |= (byte & 0x7F) << shift
                if byte < 0x80:
                    break
                shift += 7
                if shift > MAX_SHIFT:
                    raise UnusualError(LONG)
        if length & 1:
            raise UnusualError("a record has a negative length")
        begin(at)
        at += length >> 1
        end(at)
    return at


def _varints(raw: _Bytes, at: IntArray) -> tuple[IntArray, IntArray]:
    """Return the zigzag varint that stands at each place, and the places after them."""
    found = raw[at].astype(np.int64)
    at = at + 1
    rows = np.flatnonzero(found & 0x80)
    if rows.size:
        found &= 0x7F
        for shift in range(7, MAX_SHIFT + 1, 7):
            byte = raw[at[rows]].astype(np.int64)
            found[rows] |= (byte & 0x7F) << shift
            at[rows] += 1
            rows = rows[byte >= 0x80]
            if not rows.size:
                break
        else:
            raise UnusualError(LONG)
    return (found >> 1) ^ -(found & 1), at


def _nullable(data: bytes, raw: _Bytes, at: IntArray) -> tuple[list[bytes | None] | None, IntArray]:
    """Return the byte strings that stand at each place and the places after them.

    A negative length stands for None; where all are None, there is no list.
    """
    lengths, at = _varints(raw, at)
    none = lengths < 0
    if none.all():
        return None, at
    stops = at + np.maximum(lengths, 0)
    if int(stops.max()) > len(data):
        raise UnusualError("a key or value ends behind the data")
    found: list[bytes | None] = [data[a:b] for a, b in zip(at.tolist(), stops.tolist(), strict=True)]
    for row in np.flatnonzero(none).tolist():
        found[row] = None
    return found, stops


def _all_headers(data: bytes, begins: list[int], ends: list[int]) -> list[Headers]:
    """Return the headers of each record; one producer's are mostly the same bytes."""
    known: dict[bytes, Headers] = {b"\x00": ()}
    found: list[Headers] = []
    for begin, end in zip(begins, ends, strict=True):
        tail = data[begin:end]
        headers = known.get(tail)
        if headers is None:
            headers = known[tail] = _headers(tail)
        found.append(headers)
    return found


def _headers(tail: bytes) -> Headers:
    count, at = _varint(tail, 0)
    found = []
    for _ in range(count):
        length, at = _varint(tail, at)
        if length < 0 or at + length > len(tail):
            raise UnusualError("a header has no name")
        try:
            name = tail[at : at + length].decode()
        except UnicodeDecodeError as error:
            raise UnusualError("a header's name is not UTF-8") from error
        length, at = _varint(tail, at + length)
        found.append((name, tail[at : at + length] if length >= 0 else None))
        at += max(length, 0)
    if count < 0 or at != len(tail):
        raise UnusualError("the headers do not fill the record")
    return tuple(found)  # type: ignore[arg-type]  # a null value is rare, and the client hands it over as well


def _varint(data: bytes, at: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        byte = data[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (found >> 1) ^ -(found & 1), at
        shift += 7
        if shift > MAX_SHIFT:
            raise UnusualError(LONG)
