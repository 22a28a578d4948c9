"""Reading with the client in bulk: large reads from the socket, and whole batches of records at once.

It replaces small inner parts of the pinned client: `install` looks at the version, and any other version reads by
its own code, which gives the same records; a contract test compares both.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import structlog
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, KafkaConnectionError, KafkaError
from kafka.net.transport import KafkaTCPTransport
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import calc_crc32c

from regate.daemon.bus.port import Record
from regate.daemon.bus.record_batch import Batches, UnusualError
from regate.daemon.bus.records import Records, columns, joined

log = structlog.get_logger(__name__)

# The version whose inner parts this was written against.
KNOWN_VERSION = "3.0.12"
# As many records are read together as keep the numpy calls cheap and their columns in the processor's cache.
TOGETHER = 4096
# A batch: its offset and length, then what the length counts, the format and the rest of the header.
HEADER = DefaultRecordBatch.HEADER_STRUCT
LENGTH_END = 12
MAGIC_AT = 16
MAGIC = 2
EMPTY = columns([])
# The client reads 4 kB a call, and each call gives the interpreter's lock away: while a step is computed, it gets the
# lock back every 5 ms, so less than 1 MB/s would arrive for the next step.
READ_BYTES = 1 << 18
# Reads of one turn of the client's loop: heartbeats wait for it.
READS = 4


def install(client: Any) -> bool:
    """Let a `KafkaConsumer` read in bulk, and give `Records`; return whether it does."""
    found = version("kafka-python")
    if found != KNOWN_VERSION:
        log.warning("bulk_reading_off", kafka_python=found, known=KNOWN_VERSION)
        return False
    fetcher, manager = client._fetcher, client._manager  # noqa: SLF001  (the version is checked)
    fetcher.PartitionRecords = WholeBatches
    append = fetcher._append  # noqa: SLF001

    def counted(drained: Any, part: Any, most: int, update_offsets: Any) -> int:
        """Append, and count records where the client counts objects."""
        before = part.records_read if part else 0
        append(drained, part, most, update_offsets)
        return part.records_read - before if part else 0

    fetcher._append = counted  # noqa: SLF001
    build = manager._build_transport  # noqa: SLF001

    async def built(node: Any, timeout_at: Any = None) -> Any:
        return _widened(await build(node, timeout_at=timeout_at))

    manager._build_transport = built  # noqa: SLF001
    return True


def _widened(transport: Any) -> Any:
    if type(transport) is KafkaTCPTransport:  # TLS reads by records of its own
        transport.__class__ = LargeReads
    return transport


class LargeReads(KafkaTCPTransport):  # type: ignore[misc]  # kafka-python has no types
    """A plain connection that takes what the socket holds in as few calls as it can."""

    def _sock_recv(self) -> tuple[bytes, Exception | None]:
        got: list[bytes] = []
        for _ in range(READS):
            try:
                data = self._sock.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                return b"".join(got), KafkaConnectionError(error)
            if not data:
                return b"".join(got), KafkaConnectionError("socket disconnected")
            got.append(data)
            if len(data) < READ_BYTES:  # the socket is empty: asking would be one call more
                break
        return got[0] if len(got) == 1 else b"".join(got), None


class _Batch(NamedTuple):
    """The header of one batch, and where it stands in the fetched data."""

    begin: int
    end: int
    magic: int
    attributes: int = 0
    offset: int = 0
    last_delta: int = 0
    first_ms: int = 0
    max_ms: int = 0
    producer: int = -1
    records: int = 0


class WholeBatches(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no types
    """What one fetch brought for one partition, as pieces of `Records`."""

    def __init__(self, fetch_offset: int, tp: Any, records: Any, **rest: Any) -> None:
        super().__init__(fetch_offset, tp, records, **rest)
        self._data = bytes(records._buffer)  # noqa: SLF001  (no copy: it is bytes)
        self.record_iterator = self._pieces()  # `bool` and `drain` look at it
        self._left: Records | None = None
        self._after = fetch_offset  # where reading goes on after ``_left``

    def take(self, n: int | None = None) -> list[Records]:
        """Return the next piece, of at most ``n`` records, or none; at the end the client is told."""
        if self._left is None:
            found = next(self.record_iterator, None)
            if found is None:
                self.drain()
                return []
            self._left, self._after = found
        taken, rest = self._left, None
        if n is not None and n < len(taken):
            taken, rest = taken[:n], taken[n:]
        self._left = rest
        self.next_fetch_offset = self._after if rest is None else int(rest.offsets[0])
        self.records_read += len(taken)
        return [taken] if len(taken) else []

    def _pieces(self) -> Iterator[tuple[Records, int]]:
        """Yield the visible records from the wanted offset on, and the offset after each piece."""
        waiting: list[_Batch] = []
        records = 0
        after = self.fetch_offset
        try:
            for batch in self._batches():
                together = batch.magic == MAGIC and not batch.attributes & DefaultRecordBatch.CODEC_MASK
                if waiting and (records >= TOGETHER or not together):
                    yield self._wanted(self._read(waiting)), after
                    waiting, records = [], 0
                if together:
                    if self._visible(batch):
                        waiting.append(batch)
                        records += batch.records
                    after = batch.offset + batch.last_delta + 1
                    continue
                found = self._by_client(batch) if batch.magic < MAGIC or self._visible(batch) else EMPTY
                if batch.magic >= MAGIC:
                    after = batch.offset + batch.last_delta + 1
                elif len(found):
                    after = int(found.offsets[-1]) + 1
                yield self._wanted(found), after
        except KafkaError:  # what was good before it comes first
            if waiting:
                yield self._wanted(self._read(waiting)), after
            raise
        # Also when nothing waits: what was passed over (markers, aborted records) moves the position.
        yield self._wanted(self._read(waiting)), after

    def _wanted(self, found: Records) -> Records:
        """Leave out what stands before the wanted offset: a batch is fetched whole."""
        first = int(np.searchsorted(found.offsets, self.fetch_offset))
        return found[first:] if first else found

    def _batches(self) -> Iterator[_Batch]:
        data, view, begin = self._data, memoryview(self._data), 0
        name = f"{self.topic_partition.topic}-{self.topic_partition.partition}"
        # The broker cuts the last batch off where its answer is full.
        while len(data) - begin > MAGIC_AT:
            end = begin + LENGTH_END + int.from_bytes(data[begin + 8 : begin + LENGTH_END], "big", signed=True)
            magic = data[begin + MAGIC_AT]
            if end > len(data):
                return
            if magic < MAGIC and end > begin + MAGIC_AT:
                self.bytes_read += end - begin
                yield _Batch(begin, end, magic)
                begin = end
                continue
            if end < begin + HEADER.size:
                raise CorruptRecordError(f"a batch of {name} is shorter than its header")
            offset, _, self.leader_epoch, _, crc, attributes, last, first_ms, max_ms, producer, _, _, count = (
                HEADER.unpack_from(data, begin)
            )
            if self.check_crcs and calc_crc32c(view[begin + DefaultRecordBatch.ATTRIBUTES_OFFSET : end]) != crc:
                raise CorruptRecordError(f"a batch of {name} at offset {offset} fails its checksum")
            self.bytes_read += end - begin
            yield _Batch(begin, end, magic, attributes, offset, last, first_ms, max_ms, producer, count)
            begin = end

    def _visible(self, batch: _Batch) -> bool:
        """Return whether a batch holds records for readers: not a marker, nor part of an aborted transaction."""
        control = bool(batch.attributes & DefaultRecordBatch.CONTROL_MASK)
        transactional = bool(batch.attributes & DefaultRecordBatch.TRANSACTIONAL_MASK)
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.producer >= 0:
            self._consume_aborted_transactions_up_to(batch.offset + batch.last_delta)
            if control and self._contains_abort_marker(self._client_batch(batch)):
                self.aborted_producer_ids.discard(batch.producer)
            elif transactional and batch.producer in self.aborted_producer_ids:
                return False
        return not control

    def _read(self, waiting: list[_Batch]) -> Records:
        batches = Batches(self._data)
        try:
            for one in waiting:
                fixed = bool(one.attributes & DefaultRecordBatch.TIMESTAMP_TYPE_MASK)
                time_ms = one.max_ms if fixed else one.first_ms
                batches.add(one.begin + HEADER.size, one.end, one.records, one.offset, time_ms, fixed=fixed)
            return batches.records(*self.topic_partition) if len(batches) else EMPTY
        except UnusualError:
            pieces = [self._by_client(one) for one in waiting]
            whole = joined(pieces)
            return whole if isinstance(whole, Records) else EMPTY

    def _client_batch(self, batch: _Batch) -> Any:
        return MemoryRecords(self._data[batch.begin : batch.end]).next_batch()

    def _by_client(self, batch: _Batch) -> Records:
        """Return the records of one batch that is compressed, of an old format or unusual."""
        topic, number = self.topic_partition
        found = []
        for record in self._client_batch(batch):
            if not record.validate_crc():
                raise CorruptRecordError(f"a record of {topic}-{number} at offset {record.offset} fails its checksum")
            headers = tuple(record.headers)
            found.append(Record(topic, number, record.offset, record.timestamp, record.key, record.value, headers))
        return columns(found)
