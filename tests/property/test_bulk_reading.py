"""Bulk reading gives what the client's own reader gives, on whatever a broker may hold."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords, MemoryRecordsBuilder
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.util import calc_crc32c

from regate.daemon.bus.kafka_bulk import WholeBatches
from regate.daemon.bus.kafka_consumer import records_of
from regate.daemon.bus.port import Record
from regate.daemon.bus.port import TopicPartition as Place
from regate.daemon.bus.record_batch import Batches, UnusualError

PLACE = TopicPartition("t", 3)
T0 = 1_700_000_000_000
Row = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def batch(
    rows: list[Row], base: int = 0, *, producer: int = -1, transactional: bool = False, codec: int = 0, spread: int = 1
) -> bytes:
    """Return one batch of format 2; offsets rise by ``spread``, as compaction leaves them."""
    builder = DefaultRecordBatchBuilder(
        2, codec, transactional, producer, 0 if producer >= 0 else -1, 0 if producer >= 0 else -1, 1 << 24
    )
    for number, (time_ms, key, value, headers) in enumerate(rows):
        assert builder.append(number * spread, T0 + time_ms, key, value, headers) is not None
    return rebased(bytearray(builder.build()), base)


def rebased(data: bytearray, base: int, flags: int = 0) -> bytes:
    struct.pack_into(">q", data, 0, base)
    if flags:
        (attributes,) = struct.unpack_from(">h", data, 21)
        struct.pack_into(">h", data, 21, attributes | flags)
    struct.pack_into(">I", data, 17, calc_crc32c(memoryview(data)[21:]))
    return bytes(data)


def marker(base: int, producer: int, *, commit: bool) -> bytes:
    row: Row = (0, struct.pack(">hh", 0, int(commit)), b"\0" * 6, [])
    data = bytearray(batch([row], base, producer=producer, transactional=True))
    return rebased(data, base, DefaultRecordBatch.CONTROL_MASK)


class Aborted:
    def __init__(self, producer_id: int, first_offset: int) -> None:
        self.producer_id, self.first_offset = producer_id, first_offset


def drained(kind: type, data: bytes, start: int, aborted: list[Aborted], sizes: list[int]) -> tuple[list[Record], int]:
    """Take everything in portions; return the records and the offset where reading goes on."""
    part = kind(
        start, PLACE, MemoryRecords(data), isolation_level=IsolationLevel.READ_COMMITTED, aborted_transactions=aborted
    )
    found: list[Record] = []
    turn = 0
    while part:
        taken = part.take(sizes[turn % len(sizes)])
        turn += 1
        if taken:
            found += list(records_of(Place(*PLACE), taken))
            if found:
                assert part.next_fetch_offset > found[-1].offset
    return found, part.next_fetch_offset


def same(data: bytes, start: int = 0, aborted: list[Aborted] | None = None, sizes: list[int] | None = None) -> None:
    portions = sizes or [1_000_000]
    bulk = drained(WholeBatches, data, start, aborted or [], portions)
    assert bulk == drained(Fetcher.PartitionRecords, data, start, aborted or [], portions)


ROWS = st.lists(
    st.tuples(
        st.integers(-5000, 10_000_000_000),
        st.none() | st.binary(max_size=80),
        st.none() | st.binary(max_size=300),
        st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=70)), max_size=3),
    ),
    min_size=1,
    max_size=90,
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(ROWS, st.integers(1, 3), st.integers(0, 1), st.booleans()), min_size=1, max_size=5),
    st.integers(0, 200),
    st.lists(st.integers(1, 50), min_size=1, max_size=4),
    st.integers(0, 80),
)
def test_any_batches_read_as_by_the_client(batches, start, sizes, cut):
    data, base = b"", 0
    for rows, spread, codec, fixed in batches:
        one = batch(rows, base, codec=codec, spread=spread)
        if fixed:
            one = rebased(bytearray(one), base, DefaultRecordBatch.TIMESTAMP_TYPE_MASK)
        base += len(rows) * spread + 2  # offsets between batches are left out, as markers leave them
        data += one
    end = len(data) - min(cut, 60)  # the broker cuts the last batch off
    if len(MemoryRecords(data[:end])._buffer) and MemoryRecords(data[:end]).has_next():
        same(data[:end], min(start, base - 3), sizes=sizes)


def rows(count: int, value: bytes = b"v" * 100) -> list[Row]:
    return [(n, None, value + b"%d" % n, []) for n in range(count)]


def test_aborted_transactions_and_markers_are_passed_over():
    data = (
        batch(rows(20), 0, producer=7, transactional=True)
        + batch(rows(20), 20, producer=8, transactional=True)
        + marker(40, 7, commit=False)
        + marker(41, 8, commit=True)
        + batch(rows(20), 42, producer=7, transactional=True)
        + marker(62, 7, commit=True)
    )
    aborted = [Aborted(7, 0)]
    same(data, aborted=aborted)
    found, after = drained(WholeBatches, data, 0, [Aborted(7, 0)], [1_000_000])
    assert [record.offset for record in found] == [*range(20, 40), *range(42, 62)]
    assert after == 63


def test_nothing_but_markers_still_moves_the_position():
    found, after = drained(WholeBatches, marker(5, 7, commit=True) + marker(6, 8, commit=True), 5, [], [10])
    assert (found, after) == ([], 7)


def test_old_formats_are_left_to_the_client():
    builder = MemoryRecordsBuilder(1, 0, 1 << 20)
    for n in range(5):
        builder.append(T0 + n, b"k", b"old%d" % n)
    builder.close()
    old = bytes(builder.buffer())
    same(old)
    found, after = drained(WholeBatches, old + batch(rows(30), 5), 0, [], [7])
    assert [record.offset for record in found] == list(range(35))
    assert after == 35


def test_a_damaged_batch_is_said_and_what_stood_before_it_comes_first():
    good, bad = batch(rows(15), 0), bytearray(batch(rows(15), 15))
    bad[-3] ^= 1
    part = WholeBatches(0, PLACE, MemoryRecords(good + bytes(bad)))
    assert len(part.take(100)[0]) == 15
    with pytest.raises(CorruptRecordError, match="offset 15 fails its checksum"):
        part.take(100)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x7f",
        b"\xff" * 40,
        b"\x14" + b"\x00" * 5,
        b"\x0c\x00\x00\x00\x01\x01\x00" * 2,
        b"\x01",
        b"\x06\x80\x80\x00",
    ],
    ids=["empty", "too long", "endless number", "past the end", "one record more", "negative", "wide attributes"],
)
def test_broken_records_are_refused_not_misread(body):
    def read():
        batches = Batches(body)
        batches.add(0, len(body), 1, 0, T0, fixed=False)
        return batches.records("t", 0)

    with pytest.raises(UnusualError):
        read()


def test_a_record_is_made_for_who_asks():
    data = batch([(1, b"k", b"v", [("h", b"x")]), (2, None, None, [])], 40)
    piece = WholeBatches(40, PLACE, MemoryRecords(data)).take(10)[0]
    first = Record("t", 3, 40, T0 + 1, b"k", b"v", (("h", b"x"),))
    assert list(piece) == [first, Record("t", 3, 41, T0 + 2, None, None, ())]
    assert piece[0] == first
    assert piece[1:][0].offset == 41
