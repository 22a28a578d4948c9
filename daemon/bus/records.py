"""Records of one partition as columns: what a poll returns when events come by the hundred thousand.

A `Record` for each event costs more than all that the decoder needs of it: an object to make, and one more for the
garbage collector to look at again and again while a step is collected. So one is made only for who asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from typing import overload

import numpy as np
import numpy.typing as npt

from regate.daemon.bus.port import Headers, Record

IntArray = npt.NDArray[np.int64]


class Records(Sequence[Record]):
    """``n`` records of one partition in offset order.

    :param offsets: int64[n].
    :param times_ms: int64[n], the bus's own time.
    :param keys: None when no record has one.
    :param headers: None when no record has any.
    """

    __slots__ = ("headers", "keys", "offsets", "partition", "times_ms", "topic", "values")

    def __init__(
        self,
        topic: str,
        partition: int,
        offsets: IntArray,
        times_ms: IntArray,
        values: list[bytes | None],
        keys: list[bytes | None] | None = None,
        headers: list[Headers] | None = None,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self.offsets = offsets
        self.times_ms = times_ms
        self.values = values
        self.keys = keys
        self.headers = headers

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Record | Records:
        if isinstance(index, slice):
            return Records(
                self.topic,
                self.partition,
                self.offsets[index],
                self.times_ms[index],
                self.values[index],
                None if self.keys is None else self.keys[index],
                None if self.headers is None else self.headers[index],
            )
        return Record(
            self.topic,
            self.partition,
            int(self.offsets[index]),
            int(self.times_ms[index]),
            None if self.keys is None else self.keys[index],
            self.values[index],
            () if self.headers is None else self.headers[index],
        )

    def __iter__(self) -> Iterator[Record]:
        keys = repeat(None) if self.keys is None else self.keys
        headers = repeat(()) if self.headers is None else self.headers
        rows = zip(self.offsets.tolist(), self.times_ms.tolist(), keys, self.values, headers, strict=False)
        return (Record(self.topic, self.partition, *row) for row in rows)


def columns(records: Sequence[Record]) -> Records:
    """Return records of one partition as columns."""
    topic, partition = (records[0].topic, records[0].partition) if records else ("", 0)
    return Records(
        topic,
        partition,
        np.array([record.offset for record in records], np.int64),
        np.array([record.timestamp_ms for record in records], np.int64),
        [record.value for record in records],
        [record.key for record in records] if any(record.key is not None for record in records) else None,
        [record.headers for record in records] if any(record.headers for record in records) else None,
    )


def values_of(records: Sequence[Record]) -> list[bytes | None]:
    """Return the values."""
    return records.values if isinstance(records, Records) else [record.value for record in records]


def times_of(records: Sequence[Record]) -> IntArray:
    """Return the bus's times, ``int64[n]`` in milliseconds."""
    if isinstance(records, Records):
        return records.times_ms
    return np.array([record.timestamp_ms for record in records], np.int64)


def any_headers(records: Sequence[Record]) -> bool:
    """Return whether any record has headers."""
    if isinstance(records, Records):
        return records.headers is not None
    return any(record.headers for record in records)


def bytes_of(records: Sequence[Record]) -> int:
    """Return the bytes of all values."""
    return sum(map(len, filter(None, values_of(records))))


def joined(pieces: Sequence[Sequence[Record]]) -> Sequence[Record]:
    """Return consecutive pieces of one partition as one."""
    if len(pieces) == 1:
        return pieces[0]
    parts = [piece for piece in pieces if isinstance(piece, Records)]
    if not parts or len(parts) < len(pieces):
        return list(chain.from_iterable(pieces))
    keys: list[bytes | None] | None = None
    if any(piece.keys is not None for piece in parts):
        keys = list(chain.from_iterable(repeat(None, len(p)) if p.keys is None else p.keys for p in parts))
    headers: list[Headers] | None = None
    if any(piece.headers is not None for piece in parts):
        headers = list(chain.from_iterable(repeat((), len(p)) if p.headers is None else p.headers for p in parts))
    return Records(
        parts[0].topic,
        parts[0].partition,
        np.concatenate([piece.offsets for piece in parts]),
        np.concatenate([piece.times_ms for piece in parts]),
        list(chain.from_iterable(piece.values for piece in parts)),
        keys,
        headers,
    )
