"""Reading with the client in bulk: large reads from the socket, and whole batches of records at once.

It replaces small inner parts of the pinned client: `install` looks at the version, and any other version reads by
its own code, which gives the same records; a contract test compares both.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, KafkaConnectionError, KafkaError
from kafka.net.transport import KafkaTCPTransport
from kafka.protocol.consumer import IsolationLevel

from regate.daemon.bus.port import Record
from regate.daemon.bus.record_batch import UnusualError, read_records
from regate.daemon.bus.records import Records

# The version whose inner parts this was written against.
KNOWN_VERSION = "3.0.12"
# Below this many records the client's own loop is as fast: numpy costs the same for one record as for fifty.
FEW = 12
# Small batches are handed over together, so that a topic of single records does not become one object each.
TOGETHER = 1000
# The client reads 4 kB a call, and each call gives the interpreter's lock away: while a step is computed, it gets the
# lock back every 5 ms, so less than 1 MB/s would arrive for the next step.
READ_BYTES = 1 << 18


def install(client: Any) -> bool:
    """Let a `KafkaConsumer` read in bulk, and give `Records`; return whether it does."""
    if version("kafka-python") != KNOWN_VERSION:
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
        while True:
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


class WholeBatches(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no types
    """What one fetch brought for one partition, as `Records`."""

    def __init__(self, fetch_offset: int, tp: Any, records: Any, **rest: Any) -> None:
        super().__init__(fetch_offset, tp, records, **rest)
        self.record_iterator = self._together(self._batches(records))  # `bool` and `drain` look at it
        self._left: Records | None = None
        self._after = fetch_offset  # where reading goes on after ``_left``

    def take(self, n: int | None = None) -> list[Records]:
        """Return the next records in one piece, at most ``n``; no piece means that everything was returned."""
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

    def _together(self, batches: Iterator[tuple[Records | list[Record], int]]) -> Iterator[tuple[Records, int]]:
        """Yield pieces with the offset after each; single records are collected first."""
        few: list[Record] = []
        after = self.fetch_offset
        try:
            for found, behind in batches:
                if few and (isinstance(found, Records) or len(few) >= TOGETHER):
                    yield _columns(few), after
                    few = []
                if isinstance(found, Records):
                    yield found, behind
                else:
                    few += found
                after = behind
        except KafkaError:  # what was good before comes first
            if few:
                yield _columns(few), after
            raise
        # Also when nothing is left: what was passed over (markers, aborted records) moves the position.
        yield _columns(few), after

    def _batches(self, records: Any) -> Iterator[tuple[Records | list[Record], int]]:
        """Yield the visible records of each batch, from the wanted offset on, and the offset after the batch."""
        after = self.fetch_offset
        while (batch := records.next_batch()) is not None:
            if self.check_crcs and not batch.validate_crc():
                name = f"{self.topic_partition.topic}-{self.topic_partition.partition}"
                raise CorruptRecordError(f"a batch of {name} at offset {batch.base_offset} fails its checksum")
            self.bytes_read += len(batch._buffer)  # noqa: SLF001
            found: Records | list[Record] = []
            if batch.magic < 2:
                found = self._by_client(batch)
                after = found[-1].offset + 1 if found else after
            else:
                self.leader_epoch = batch.leader_epoch
                after = batch.next_offset
                if self._visible(batch):
                    found = self._read(batch)
            # A batch is fetched whole, whichever of its records was asked for.
            if found and found[0].offset < self.fetch_offset:
                first = next((row for row, one in enumerate(found) if one.offset >= self.fetch_offset), len(found))
                found = found[first:]
            yield found, after

    def _visible(self, batch: Any) -> bool:
        """Return whether a batch holds records for readers: not a marker, nor part of an aborted transaction."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return False
        return not batch.is_control_batch

    def _read(self, batch: Any) -> Records | list[Record]:
        count = batch.records_count
        if count < FEW:
            return self._by_client(batch)
        fixed = batch.timestamp_type == batch.LOG_APPEND_TIME
        times_ms = (batch.max_timestamp if fixed else batch.first_timestamp, fixed)
        batch._maybe_uncompress()  # noqa: SLF001
        data, start = bytes(batch._buffer), batch._pos  # noqa: SLF001
        topic, number = self.topic_partition
        try:
            return read_records(data, start, count, topic, number, batch.base_offset, times_ms)
        except UnusualError:
            return self._by_client(batch)

    def _by_client(self, batch: Any) -> list[Record]:
        topic, number = self.topic_partition
        found = []
        for record in batch:
            if not record.validate_crc():
                raise CorruptRecordError(f"a record of {topic}-{number} at offset {record.offset} fails its checksum")
            headers = tuple(record.headers)
            found.append(Record(topic, number, record.offset, record.timestamp, record.key, record.value, headers))
        return found


def _columns(records: list[Record]) -> Records:
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
