"""The journal: what each step took, in which order, with which tick and control. Enough to step again."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from regate.config.errors import FatalError, RetryableError
from regate.daemon.bus.port import OutRecord, Reader, TopicPartition


class Range(msgspec.Struct, frozen=True, array_like=True):
    """Offsets ``first`` to ``next`` (exclusive) of one input partition, by logical topic name."""

    topic: str
    partition: int
    first: int
    next: int


class End(msgspec.Struct, frozen=True, array_like=True):
    """The end offset of one input partition as seen at a tick."""

    topic: str
    partition: int
    offset: int


class Missed(msgspec.Struct, frozen=True, array_like=True):
    """A gap that a step was given, see `regate.daemon.shell.core.Gap`."""

    kind: str
    topic: str
    partition: int
    wanted: int
    first: int


class Entry(msgspec.Struct, frozen=True):
    """One step of one shard. ``step`` counts from 1 without gaps."""

    shard: str
    step: int
    inputs: tuple[Range, ...]
    control: tuple[int, int]  # offsets of the control topic, exclusive end; equal when nothing new
    build: str
    tick_ms: int | None = None
    ends: tuple[End, ...] = ()
    gaps: tuple[Missed, ...] = ()
    v: int = 1


def encode(entry: Entry, partition: TopicPartition) -> OutRecord:
    """Return the journal record of an entry."""
    return OutRecord(
        topic=partition.topic,
        partition=partition.partition,
        key=entry.shard.encode(),
        value=msgspec.json.encode(entry),
    )


def read(reader: Reader, partition: TopicPartition, shard: str, start: int, after_step: int) -> list[Entry]:
    """Return the committed entries of a shard after a step, from an offset on.

    :raises RetryableError: when the entries do not follow each other (a reader saw half a history).
    :raises FatalError: when an entry cannot be read.
    """
    first = max(start, reader.beginning(partition))
    entries: list[Entry] = []
    for record in reader.read(partition, first, reader.end(partition)):
        if record.key != shard.encode():
            continue
        try:
            entry = msgspec.json.decode(record.value or b"", type=Entry)
        except msgspec.DecodeError as error:
            raise FatalError(
                f"journal {partition.topic}[{partition.partition}]@{record.offset} is unreadable: {error}",
                hint="the journal was written by another program or damaged; see docs/operations.md, Recovery",
            ) from error
        if entry.step > after_step:
            entries.append(entry)
    expected = after_step + 1
    for entry in entries:
        if entry.step != expected:
            raise RetryableError(f"journal of shard {shard}: step {entry.step} where {expected} was expected")
        expected += 1
    return entries


def positions(entries: Sequence[Entry], start: dict[tuple[str, int], int]) -> dict[tuple[str, int], int]:
    """Return the input positions after these entries, from the positions before them."""
    now = dict(start)
    for entry in entries:
        for taken in entry.inputs:
            now[taken.topic, taken.partition] = taken.next
    return now
