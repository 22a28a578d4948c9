"""Recovery: from the bus alone, on any machine, to the state that the last committed step left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regate.config.errors import RetryableError
from regate.daemon.bus.port import Reader, Record, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.shell import journal, snapshots
from regate.daemon.shell.core import Batch, Gap, RoleCore, StepInput, Tick
from regate.daemon.shell.shards import journal_partition, snapshot_partition

# A snapshot may have thousands of chunks; names of so many say enough, and each stands in the journal.
MAX_CHUNKS_NAMED = 100
MAX_NAME = 300


@dataclass(slots=True)
class Shard:
    """A running shard: the core's state and the bookkeeping that makes it recoverable."""

    name: str
    partitions: tuple[TopicPartition, ...]
    state: Any
    step: int = 0
    control: int = 0  # next control offset
    positions: dict[tuple[str, int], int] = field(default_factory=dict)
    unsaid: set[tuple[str, int]] = field(default_factory=set)  # positions that no journal entry names yet
    written: dict[str, str] = field(default_factory=dict)  # chunk name -> digest, as the bus holds it
    snapshot_due: float = 0.0  # monotonic
    dirty: bool = False  # stepped since the last snapshot
    gaps: list[Gap] = field(default_factory=list)  # for the next step


@dataclass(frozen=True, slots=True)
class Recovered:
    """A shard brought back, and what its recovery had to do."""

    shard: Shard
    steps: int
    records: int
    refused_chunks: tuple[str, ...]


class ControlTail:
    """The control topic, read whole and kept: every shard takes its records at a journalled offset."""

    def __init__(self, reader: Reader, topics: Topics) -> None:
        self._reader = reader
        self._partition = TopicPartition(topics.name("control"), 0)
        self._records: list[Record] = []
        self.end = 0

    def refresh(self) -> int:
        """Read what is new; return the end offset."""
        end = self._reader.end(self._partition)
        if end > self.end:
            start = max(self.end, self._reader.beginning(self._partition))
            self._records.extend(self._reader.read(self._partition, start, end))
            self.end = end
        return self.end

    def records(self, first: int, stop: int) -> tuple[Record, ...]:
        """Return the records with ``first <= offset < stop``."""
        return tuple(record for record in self._records if first <= record.offset < stop)


def replay_entry(
    entry: journal.Entry, read: Mapping[tuple[str, int], Sequence[Record]], control: ControlTail
) -> StepInput:
    """Return the input that a journalled step had, from the records read again."""
    batches = []
    for taken in entry.inputs:
        if taken.first == taken.next:
            continue  # where the shard began; the core was given nothing
        records = read.get((taken.topic, taken.partition), ())
        inside = tuple(record for record in records if taken.first <= record.offset < taken.next)
        batches.append(Batch(taken.topic, taken.partition, taken.first, taken.next, inside))
    tick = None
    if entry.tick_ms is not None:
        tick = Tick(entry.tick_ms, {(end.topic, end.partition): end.offset for end in entry.ends})
    gaps = tuple(Gap(gap.kind, gap.topic, gap.partition, gap.wanted, gap.first) for gap in entry.gaps)
    return StepInput(tuple(batches), control.records(*entry.control), tick, gaps)


def recover(
    core: RoleCore,
    name: str,
    partitions: Sequence[TopicPartition],
    committed: Mapping[TopicPartition, int],
    reader: Reader,
    topics: Topics,
    control: ControlTail,
) -> Recovered:
    """Rebuild one shard: snapshot, journal after it, ranges read again and stepped without publishing.

    :raises RetryableError: when the journal's end is not where the group's committed offsets are (a
        transaction is still in flight, or this reader is behind): wait and try again.
    """
    shard = Shard(name=name, partitions=tuple(partitions), state=None)
    snapshot = snapshots.read(reader, snapshot_partition(topics, core.name, name), name)
    start = 0
    refused: tuple[str, ...] = ()
    if snapshot is None:
        shard.state = core.initial(name)
    else:
        manifest = snapshot.manifest
        shard.state = core.load(name, snapshot.chunks)
        shard.step, shard.control, start = manifest.step, manifest.control, manifest.journal
        shard.positions = {(topic, number): offset for topic, number, offset in manifest.positions}
        shard.written = {key: value for key, value in manifest.chunks.items() if key not in snapshot.refused}
        refused = snapshot.refused
    entries = journal.read(reader, journal_partition(topics, core.name, name), name, start, shard.step)
    after = journal.positions(entries, shard.positions)
    for partition in partitions:
        key = (topics.logical(partition.topic), partition.partition)
        if after.get(key) != committed.get(partition) and not _made_anew(partition, after.get(key), committed, reader):
            raise RetryableError(
                f"shard {name}: journal ends at {after.get(key)} of {partition.topic}[{partition.partition}], "
                f"committed is {committed.get(partition)}",
                hint="another transaction may still be in flight; waiting",
            )
    control.refresh()
    # What a core itself could not use of the snapshot is known only until the steps after it change the state.
    refused = tuple(dict.fromkeys((*refused, *getattr(shard.state, "refused_chunks", ()))))
    count = _step_again(core, shard, entries, reader, topics, control)
    _first_positions(shard, reader, topics)
    shard.gaps.extend(Gap("state", chunk[:MAX_NAME], -1) for chunk in refused[:MAX_CHUNKS_NAMED])
    return Recovered(shard, len(entries), count, refused)


def _made_anew(
    partition: TopicPartition, position: int | None, committed: Mapping[TopicPartition, int], reader: Reader
) -> bool:
    """Tell whether the topic was deleted, which takes its committed offsets along, and made again."""
    return position is not None and partition not in committed and reader.end(partition) < position


def _step_again(
    core: RoleCore,
    shard: Shard,
    entries: Sequence[journal.Entry],
    reader: Reader,
    topics: Topics,
    control: ControlTail,
) -> int:
    spans: dict[tuple[str, int], tuple[int, int]] = {}
    for entry in entries:
        for taken in entry.inputs:
            key = (taken.topic, taken.partition)
            low, high = spans.get(key, (taken.first, taken.next))
            spans[key] = (min(low, taken.first), max(high, taken.next))
    read = {key: _read_again(shard, key, span, reader, topics) for key, span in spans.items() if span[1] > span[0]}
    for entry in entries:
        core.step(shard.state, replay_entry(entry, read, control))
        shard.step, shard.control = entry.step, entry.control[1]
    shard.positions = journal.positions(entries, shard.positions)
    shard.dirty = bool(entries)
    return sum(len(records) for records in read.values())


def _read_again(
    shard: Shard, key: tuple[str, int], span: tuple[int, int], reader: Reader, topics: Topics
) -> Sequence[Record]:
    """Return the records of a span, as far as the log still holds them; note what it does not."""
    partition = TopicPartition(topics.name(key[0]), key[1])
    low, high = span
    first, end = reader.beginning(partition), reader.end(partition)
    if end < high:  # made anew: what stands at these offsets now is something else
        shard.gaps.append(Gap("unread", *key, low, high))
        return ()
    if first > low:
        shard.gaps.append(Gap("unread", *key, low, min(first, high)))
        low = min(first, high)
    return reader.read(partition, low, high) if high > low else ()


def _first_positions(shard: Shard, reader: Reader, topics: Topics) -> None:
    """Set positions that are not known yet, or that the log no longer holds, and note the gaps: never silently."""
    for partition in shard.partitions:
        key = (topics.logical(partition.topic), partition.partition)
        first, end = reader.beginning(partition), reader.end(partition)
        wanted = shard.positions.get(key)
        if wanted is None:
            shard.positions[key] = first
            shard.unsaid.add(key)
        elif wanted < first or wanted > end:
            # Retention passed us while we were away, or the topic was made anew.
            shard.gaps.append(Gap("truncated" if wanted < first else "recreated", *key, wanted, first))
            shard.positions[key] = first
            shard.unsaid.add(key)
