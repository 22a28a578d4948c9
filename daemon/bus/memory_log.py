"""One partition in memory: offsets, transactions, markers, compaction, retention."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from regate.daemon.bus.port import GroupMetadata, Record, TopicPartition


@dataclass(eq=False)
class Transaction:
    """One transaction: what it touched, and how it ended."""

    owner: str
    started: float
    state: Literal["open", "committed", "aborted"] = "open"
    partitions: dict[TopicPartition, int] = field(default_factory=dict)  # partition -> first offset in it
    offsets: dict[TopicPartition, int] = field(default_factory=dict)
    group: GroupMetadata | None = None


class Entry(NamedTuple):
    """What stands at one offset. A marker has no record."""

    offset: int
    record: Record | None
    transaction: Transaction | None


class PartitionLog:
    """An append-only log with Kafka's rules of visibility."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._open: dict[int, Transaction] = {}  # first offset -> transaction, in order of their beginning
        self.start = 0
        self.end = 0  # the high watermark: the next offset

    @property
    def stable_end(self) -> int:
        """Return the last stable offset: an open transaction hides everything behind its first record."""
        return min(self._open) if self._open else self.end

    def append(self, record: Record, transaction: Transaction | None) -> int:
        """Write one record; return its offset."""
        offset = self.end
        if transaction is not None:
            partition = TopicPartition(record.topic, record.partition)
            if partition not in transaction.partitions:
                transaction.partitions[partition] = offset
                self._open[offset] = transaction
        self._entries.append(Entry(offset, record._replace(offset=offset), transaction))
        self.end += 1
        return offset

    def settle(self, first_offset: int) -> None:
        """Write the marker of a transaction that ended; a marker takes an offset, as in Kafka."""
        del self._open[first_offset]
        self._entries.append(Entry(self.end, None, None))
        self.end += 1

    def _from(self, offset: int) -> int:
        return bisect_left(self._entries, (offset,))

    def committed(self, start: int, stop: int, limit: int) -> tuple[list[Record], int]:
        """Return committed records from ``start`` on, below ``stop`` and the stable end, and the next position."""
        stop = min(stop, self.stable_end)
        found: list[Record] = []
        for index in range(self._from(start), len(self._entries)):
            entry = self._entries[index]
            if entry.offset >= stop:
                break
            if len(found) == limit:
                return found, entry.offset
            if entry.record is not None and (entry.transaction is None or entry.transaction.state == "committed"):
                found.append(entry.record)
        return found, max(start, stop)

    def at_time(self, timestamp_ms: int) -> int:
        """Return the first offset whose record is not older, or the stable end."""
        for entry in self._entries:
            if entry.offset >= self.stable_end:
                break
            if entry.record is not None and entry.record.timestamp_ms >= timestamp_ms:
                return entry.offset
        return self.stable_end

    def trim(self, before: int) -> None:
        """Forget everything below ``before``, as retention does."""
        self.start = max(self.start, min(before, self.stable_end))
        self._entries = self._entries[self._from(self.start) :]

    def compact(self, *, drop_tombstones: bool) -> None:
        """Keep the latest committed record of each key below the stable end; offsets stay what they were."""
        stable = self.stable_end
        latest: dict[bytes | None, int] = {}
        for entry in self._entries:
            record, transaction = entry.record, entry.transaction
            aborted = transaction is not None and transaction.state == "aborted"
            if record is not None and not aborted and entry.offset < stable:
                latest[record.key] = entry.offset
        self._entries = [
            entry
            for entry in self._entries
            if entry.offset >= stable
            or (
                entry.record is not None
                and latest.get(entry.record.key) == entry.offset
                and not (drop_tombstones and entry.record.value is None)
            )
        ]
