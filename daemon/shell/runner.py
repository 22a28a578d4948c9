"""The one runtime of all roles: poll, step, one transaction; and what happens when that fails.

One transaction per role, process and step carries (1) a journal entry per shard touched, (2) the
outputs, (3) now and then snapshots, (4) the input offsets under the group's generation. An unknown
outcome means: drop all state, new producer, recover. Fenced does not mean finished: as long as the
group still gives us the shard, we recover; only the group itself may send us away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

import structlog

from regate.config.errors import FencedError, RetryableError
from regate.config.settings import Settings
from regate.daemon.build import build_digest
from regate.daemon.bus.placement import murmur2
from regate.daemon.bus.port import Bus, GroupMetadata, OutRecord, Producer, Record, TopicPartition
from regate.daemon.bus.records import bytes_of, joined
from regate.daemon.bus.topics import Topics
from regate.daemon.shell import journal, snapshots
from regate.daemon.shell.clock import Clock, SystemClock
from regate.daemon.shell.core import Artefact, Batch, Gap, Output, RoleCore, StepInput, Tick
from regate.daemon.shell.counters import Counters
from regate.daemon.shell.recovery import ControlTail, Shard, recover
from regate.daemon.shell.shards import (
    ALONE,
    complete,
    group_by_shard,
    journal_partition,
    shard_of,
    snapshot_partition,
)

TICK_SECONDS = 1.0  # leases and silence are decided on ticks; a second is finer than any of their settings
POLL_RECORDS = 20_000  # one poll's upper bound, and so what a step may take beyond its bytes
# While a backlog is read, a step is as large as takes so long: commands and findings wait for it.
BUSY_SECONDS = 0.7
FIRST_BYTES_A_SECOND = 16e6  # until a step was measured
MEASURED_BYTES = 1_000_000  # smaller steps tell what a transaction costs, not how fast events are
RECOVERY_PATIENCE_SECONDS = 60.0  # journal and offsets disagree longer than any transaction can be in flight
BACK_OFF_SECONDS = 0.5
PROGRESS_SECONDS = 60.0  # between two log lines that say how the loop does


class ArtefactSink(Protocol):
    """Where a core's artefacts go: content-addressed, so writing twice is writing once."""

    def put(self, name: str, data: bytes) -> str:
        """Store bytes under a name; return their digest."""


class Runner:
    """One role in one process: a group member with a transactional producer."""

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        core: RoleCore,
        settings: Settings,
        artefacts: ArtefactSink,
        *,
        clock: Clock | None = None,
        on_commit: Callable[[Mapping[str, Any]], None] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self.core = core
        self.counters = Counters()
        self._bus, self._topics, self._settings, self._artefacts = bus, topics, settings, artefacts
        self._clock = clock or SystemClock()
        self._on_commit = on_commit
        self._prepare = prepare  # called before a shard that was never held here is recovered
        self._met: set[str] = set()
        self._log = structlog.get_logger().bind(role=core.name, instance=settings.instance)
        self._identity = f"{topics.prefix}.{core.name}.{settings.instance}"
        self._reader = bus.reader()
        self._control = ControlTail(self._reader, topics)
        self._consumer = bus.consumer(f"{topics.prefix}.{core.name}", settings.instance)
        self._consumer.subscribe([topics.name(name) for name in core.inputs])
        self._producer: Producer | None = None
        self._group: GroupMetadata | None = None  # under which the shards are held
        self._shards: dict[str, Shard] = {}
        self._waiting: dict[str, float] = {}  # shard -> monotonic time since when it wants to recover
        self._transaction_seconds = 0.0
        self._bytes_a_second = FIRST_BYTES_A_SECOND
        self._collected = 0  # bytes of the step in hand
        self._not_before = 0.0  # monotonic; back-off after an unknown outcome
        self._next_tick = 0.0
        self._next_progress = self._clock.monotonic() + PROGRESS_SECONDS
        self._last_poll = self._clock.monotonic()

    @property
    def shards(self) -> dict[str, Shard]:
        """Return the shards that run here now."""
        return self._shards

    def position(self, partition: TopicPartition) -> int:
        """Return the next offset of an input partition that runs here, 0 elsewhere: for status and benchmarks."""
        shard = self._shards.get(self._shard_for(partition))
        key = (self._topics.logical(partition.topic), partition.partition)
        return 0 if shard is None else shard.positions.get(key, 0)

    def run(self, stopped: Callable[[], bool]) -> None:
        """Work until told to stop.

        :raises FencedError: when the group says that this identity belongs to another process.
        """
        while not stopped():
            self.cycle(self._window())
        self.close()

    def close(self) -> None:
        """Leave cleanly: the last step is committed, the group is told."""
        for part in (self._producer, self._consumer):
            if part is not None:
                part.close(self._settings.shell.stop_seconds / 3)
        self._producer = None
        self._shards = {}
        self._reader.close()
        self._log.info("stopped", **self.counters.summary())

    def cycle(self, window_seconds: float) -> bool:
        """Collect for at most a window, step every shard that has something, commit. True if it stepped."""
        try:
            self._take_changes()
            taken = self._collect(window_seconds)
        except RetryableError as error:
            self._restart(error)
            return False
        self.counters.busy_since = self._clock.monotonic()
        try:
            self._recover_waiting()
            return self._step(taken)
        except (RetryableError, FencedError) as error:
            self._restart(error)
        finally:
            self.counters.busy_since = None
        return False

    def _window(self) -> float:
        # While a transaction is slow, larger steps keep its share of the time under a fifth.
        return max(self._settings.shell.step_seconds, 4 * self._transaction_seconds)

    def _take_changes(self) -> None:
        # Read before the changes are: should the group move on in between, this generation is over, and the commit
        # that uses it is fenced. Read at the commit, it could be the next one's, under which we hold other shards.
        group = self._consumer.metadata()
        changes = self._consumer.take_changes()
        if not changes:
            return
        self._group = group
        held = group_by_shard(self._topics, self._consumer.assignment())
        whole = {name for name, partitions in held.items() if complete(self.core, name, partitions)}
        # What was assigned anew starts from its committed offset, wherever a shard that ran before stood; and what
        # is held no more was perhaps never reported as revoked.
        moved = changes.revoked | changes.lost | changes.assigned
        gone = {shard_of(self._topics.logical(p.topic), p.partition) for p in moved}
        gone |= (set(self._shards) | set(self._waiting)) - whole
        dropped = gone & set(self._shards)
        for name in gone:
            self._shards.pop(name, None)
            self._waiting.pop(name, None)
        now = self._clock.monotonic()
        # While a rebalance is under way (revoked, not yet assigned) the assignment is that of before.
        if changes.assigned:
            self._waiting |= dict.fromkeys(whole - set(self._shards) - set(self._waiting), now)
        idle = [p for name, own in held.items() if name not in self._shards for p in own]
        if idle:
            self._consumer.pause(idle)
        self._log.info("assignment", shards=sorted(held), dropped=sorted(dropped))

    def _collect(self, window_seconds: float) -> dict[TopicPartition, Sequence[Record]]:
        start = self._clock.monotonic()
        taken: dict[TopicPartition, list[Sequence[Record]]] = {}
        self._collected = 0
        most = min(self._settings.shell.step_bytes, BUSY_SECONDS * self._bytes_a_second)
        while True:
            left = max(0.0, window_seconds - (self._clock.monotonic() - start))
            polled = self._consumer.poll(left, POLL_RECORDS)
            now = self._clock.monotonic()
            self.counters.longest_gap = max(self.counters.longest_gap, now - self._last_poll)
            self._last_poll = now
            for partition, records in polled.items():
                taken.setdefault(partition, []).append(records)
                self._collected += bytes_of(records)
            if self._has_changes():
                # What belongs to a shard that just left was never stepped: its next owner reads it again.
                taken = {p: r for p, r in taken.items() if self._shard_for(p) in self._shards}
            if now - start >= window_seconds or self._collected >= most or left == 0.0:
                return {partition: joined(pieces) for partition, pieces in taken.items()}

    def _has_changes(self) -> bool:
        before = set(self._shards)
        self._take_changes()
        return set(self._shards) != before

    def _shard_for(self, partition: TopicPartition) -> str:
        return shard_of(self._topics.logical(partition.topic), partition.partition)

    def _recover_waiting(self) -> None:
        if not self._waiting or self._clock.monotonic() < self._not_before:
            return
        if self._producer is None:
            # Initialising fences an earlier life of this identity and ends its open transaction,
            # so that committed offsets and journal are final before they are read.
            self._producer = self._bus.producer(self._identity)
        if self._prepare is not None and set(self._waiting) - self._met:
            self._prepare()
        self._met |= set(self._waiting)
        held = group_by_shard(self._topics, self._consumer.assignment())
        for name, since in sorted(self._waiting.items()):
            partitions = held.get(name, [])
            if not complete(self.core, name, partitions):
                continue
            try:
                done = recover(
                    self.core,
                    name,
                    partitions,
                    self._consumer.committed(partitions),
                    self._reader,
                    self._topics,
                    self._control,
                )
            except RetryableError as error:
                waited = self._clock.monotonic() - since
                if waited > RECOVERY_PATIENCE_SECONDS:
                    raise
                self._log.warning("recovery_waits", shard=name, reason=error.message, seconds=round(waited, 1))
                continue
            shard = done.shard
            for partition in partitions:
                offset = shard.positions[self._topics.logical(partition.topic), partition.partition]
                self._consumer.seek(partition, offset)
            self._consumer.resume(partitions)
            # A crash loop must not re-read for ever: work done in recovery counts towards the next snapshot.
            shard.snapshot_due = self._clock.monotonic() + (0 if done.steps else self._stagger(name))
            self._shards[name] = shard
            del self._waiting[name]
            self.counters.recoveries += 1
            self._log.info(
                "recovered",
                shard=name,
                step=shard.step,
                steps_again=done.steps,
                records=done.records,
                refused_chunks=done.refused_chunks,
            )

    def _stagger(self, name: str) -> float:
        # Shards that start together must not snapshot together: one step would carry all of them.
        share = (murmur2(name.encode()) % 1000) / 1000
        return self._settings.shell.snapshot_seconds * (0.5 + share / 2)

    def _step(self, taken: dict[TopicPartition, Sequence[Record]]) -> bool:
        if not self._shards or self._producer is None:
            return False
        started = self._clock.monotonic()
        tick = self._tick(started)
        entries: list[journal.Entry] = []
        outputs: list[Output] = []
        for _, shard in sorted(self._shards.items()):
            given = self._input(shard, taken, tick)
            if given is None:
                continue
            entry = self._entry(shard, given)
            outputs.extend(self.core.step(shard.state, given))
            shard.step, shard.control, shard.dirty = entry.step, entry.control[1], True
            shard.positions = journal.positions([entry], shard.positions)
            entries.append(entry)
            self.counters.records += sum(len(batch.records) for batch in given.batches)
        if not entries:
            return False
        self._commit(entries, outputs)
        self._account(started)
        if self._on_commit is not None:
            self._on_commit({name: shard.state for name, shard in self._shards.items()})
        return True

    def _tick(self, now: float) -> Tick | None:
        if now < self._next_tick:
            return None
        self._next_tick = now + TICK_SECONDS
        self._control.refresh()
        partitions = [
            p for shard in self._shards.values() for p in shard.partitions if self._topics.logical(p.topic) in ALONE
        ]
        ends = self._reader.ends(partitions) if partitions else {}
        named = {(self._topics.logical(p.topic), p.partition): end for p, end in ends.items()}
        return Tick(self._clock.now_ms(), named)

    def _input(
        self, shard: Shard, taken: dict[TopicPartition, Sequence[Record]], tick: Tick | None
    ) -> StepInput | None:
        batches = []
        gaps, shard.gaps = shard.gaps, []
        for partition in shard.partitions:
            key = (self._topics.logical(partition.topic), partition.partition)
            first, after = shard.positions[key], self._consumer.position(partition)
            records = taken.get(partition, ())
            if records and (gap := self._jumped(partition, first, records[0].offset)):
                gaps.append(replace(gap, topic=key[0]))
                first = gap.first
            if after > first:  # also when only transaction markers were passed: the position is committed
                batches.append(Batch(*key, first, after, records))
        control = self._control.records(shard.control, self._control.end)
        if not batches and tick is None and not control and not gaps:
            return None
        for gap in gaps:
            self._log.error("gap", shard=shard.name, **asdict(gap))
        order = {name: index for index, name in enumerate(self.core.inputs)}
        batches.sort(key=lambda batch: (order[batch.topic], batch.partition))
        own = tick
        if tick is not None:
            mine = {(self._topics.logical(p.topic), p.partition) for p in shard.partitions}
            own = replace(tick, ends={key: end for key, end in tick.ends.items() if key in mine})
        return StepInput(tuple(batches), control, own, tuple(gaps))

    def _jumped(self, partition: TopicPartition, wanted: int, found: int) -> Gap | None:
        """Return the gap in front of the first record polled, if it is one.

        Where a position is no longer in the log the client goes on at the beginning and says nothing. A jump by one
        is a transaction's marker; a larger one may be aborted records, so the log itself is asked.
        """
        if found < wanted:
            return Gap("recreated", partition.topic, partition.partition, wanted, found)
        if found <= wanted + 1 or self._reader.beginning(partition) <= wanted:
            return None
        return Gap("truncated", partition.topic, partition.partition, wanted, found)

    def _entry(self, shard: Shard, given: StepInput) -> journal.Entry:
        tick = given.tick
        taken = [journal.Range(b.topic, b.partition, b.first, b.next) for b in given.batches]
        # Where a shard begins is journalled too: offsets are committed with ticks that bring no record.
        said = {(b.topic, b.partition) for b in given.batches}
        begun = [journal.Range(*key, shard.positions[key], shard.positions[key]) for key in sorted(shard.unsaid - said)]
        shard.unsaid = set()
        return journal.Entry(
            shard=shard.name,
            step=shard.step + 1,
            inputs=(*taken, *begun),
            control=(shard.control, max(shard.control, self._control.end)),
            build=build_digest(),
            tick_ms=None if tick is None else tick.now_ms,
            gaps=tuple(journal.Missed(gap.kind, gap.topic, gap.partition, gap.wanted, gap.first) for gap in given.gaps),
            ends=() if tick is None else tuple(journal.End(*key, end) for key, end in sorted(tick.ends.items())),
        )

    def _commit(self, entries: list[journal.Entry], outputs: list[Output]) -> None:
        producer = self._producer
        if producer is None:
            raise RetryableError("no producer")
        for output in outputs:
            if isinstance(output, Artefact):
                self._artefacts.put(output.name, output.data)
        began = self._clock.monotonic()
        producer.begin()
        for entry in entries:
            producer.send(journal.encode(entry, journal_partition(self._topics, self.core.name, entry.shard)))
        for output in outputs:
            if isinstance(output, OutRecord):
                producer.send(replace(output, topic=self._topics.name(output.topic)))
                self.counters.outputs += 1
        written = self._send_snapshots(producer)
        offsets = {
            TopicPartition(self._topics.name(topic), number): offset
            for entry in entries
            for (topic, number), offset in self._shards[entry.shard].positions.items()
        }
        producer.commit(offsets, self._group)
        self._transaction_seconds = self._clock.monotonic() - began
        for name, chunks in written.items():
            shard = self._shards[name]
            shard.written, shard.dirty = chunks, False
            shard.snapshot_due = self._clock.monotonic() + self._settings.shell.snapshot_seconds
            self.counters.snapshots += 1

    def _send_snapshots(self, producer: Producer) -> dict[str, dict[str, str]]:
        written = {}
        now = self._clock.monotonic()
        for name, shard in sorted(self._shards.items()):
            if not shard.dirty or now < shard.snapshot_due:
                continue
            chunks = self.core.dump(shard.state)
            manifest = snapshots.Manifest(
                shard=name,
                step=shard.step,
                journal=self._reader.end(journal_partition(self._topics, self.core.name, name)),
                control=shard.control,
                positions=tuple((*key, offset) for key, offset in sorted(shard.positions.items())),
                chunks=snapshots.digests(chunks),
                build=build_digest(),
            )
            partition = snapshot_partition(self._topics, self.core.name, name)
            for record in snapshots.write(partition, manifest, chunks, shard.written):
                producer.send(record)
            written[name] = manifest.chunks
        return written

    def _account(self, started: float) -> None:
        now = self._clock.monotonic()
        self.counters.stepped(now - started)
        if self._collected >= MEASURED_BYTES:
            measured = self._collected / max(now - started, 0.001)
            self._bytes_a_second = (self._bytes_a_second + measured) / 2
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_SECONDS
            self._log.info("progress", shards=len(self._shards), **self.counters.summary())

    def _restart(self, error: Exception) -> None:
        """Forget everything and come back from the bus: the outcome of a transaction is unknown."""
        self._log.warning("recovering", reason=str(error), kind=type(error).__name__)
        self.counters.restarts += 1
        if self._producer is not None:
            self._producer.close(BACK_OFF_SECONDS)
            self._producer = None
        now = self._clock.monotonic()
        self._group = self._consumer.metadata()  # before the assignment, as in `_take_changes`
        held = group_by_shard(self._topics, self._consumer.assignment())
        self._shards = {}
        self._waiting = {name: now for name, group in held.items() if complete(self.core, name, group)}
        partitions = [p for group in held.values() for p in group]
        if partitions:
            self._consumer.pause(partitions)
        self._not_before = now + BACK_OFF_SECONDS
