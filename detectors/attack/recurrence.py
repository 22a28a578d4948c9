"""Recurrence: an attack that was seen before comes back, under any client; and what is kept of one that is going on.

A pattern is known again by its queries (the same, or near) or by the manner of its tool. A hit by chance is so seldom
that two in a row by one client are sure; under ever new clients it takes some more, counted by pattern.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from regate.detectors.attack import manner
from regate.detectors.attack.fingerprints import Registry
from regate.detectors.attack.memory import Alarm, Piece
from regate.detectors.attack.ongoing import QUIET_US
from regate.detectors.attack.pattern import MOST_INCIDENTS, MOST_PRINTS, Pattern
from regate.detectors.attack.queries import WIDTH, ByteArray, Queries, SketchArray
from regate.detectors.columns import HashArray, IntArray

# Nats; the lanes' budget of 3e-5 a query leaves a twentieth for what comes back.
BAR = 13.4
HIT_SHARE = 0.5  # of the queries of who repeats an attack
NEW = 3  # a client is new for its first queries
CROWD_BAR = 14.0
CROWD_LIFT = 20.0  # an attack under many names makes hits so much more frequent
MOST_HIT = 8
MOST_CLIENTS = 10_000  # whose hits are remembered
# After so many queries of an attacker since his finding, they enter his pattern.
SEALS = (manner.ENOUGH, 60, 120, 240, MOST_PRINTS)
# Of so many queries of all clients the prints are kept for the case that one of them turns out to be an attacker.
RECENT = 8_192


@dataclass(frozen=True, slots=True)
class Entries:
    """Queries that are no retries, in order; those without a client too."""

    row: IntArray
    client: HashArray
    number: IntArray  # distinct queries of the client with it, 0 without one
    sketch: SketchArray
    blocks: ByteArray
    piece: IntArray  # -1 without a client
    entry: IntArray

    @property
    def n(self) -> int:
        """Return how many there are."""
        return len(self.row)


def entries_of(queries: Queries, pieces: list[Piece]) -> Entries:
    """Return the entries of a slice, by row."""
    nameless = np.flatnonzero(queries.client == 0)
    none = np.zeros(len(nameless), dtype=np.int64)
    row = [nameless, *(piece.rows[piece.steps.row] for piece in pieces)]
    number = [none, *(piece.steps.number for piece in pieces)]
    which = [none - 1, *(np.full(len(piece.steps.row), at) for at, piece in enumerate(pieces))]
    entry = [none, *(np.arange(len(piece.steps.row)) for piece in pieces)]
    rows = np.concatenate(row)
    order = np.argsort(rows, kind="stable")
    rows = rows[order]
    return Entries(
        rows,
        queries.client[rows],
        np.concatenate(number)[order],
        queries.sketch[rows],
        queries.blocks[rows],
        np.concatenate(which)[order],
        np.concatenate(entry)[order],
    )


@dataclass(slots=True)
class Recent:
    """The last queries of all clients."""

    client: HashArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    sketch: SketchArray = field(default_factory=lambda: np.zeros((0, WIDTH), dtype=np.int8))
    blocks: ByteArray = field(default_factory=lambda: np.zeros((0, WIDTH), dtype=np.uint8))

    def add(self, entries: Entries) -> None:
        """Take the entries of a slice."""
        for name in ("client", "sketch", "blocks"):
            setattr(self, name, np.concatenate([getattr(self, name), getattr(entries, name)])[-RECENT:])

    def of(self, client: int, entries: Entries, stop: int) -> tuple[SketchArray, ByteArray]:
        """Return what a client asked among the last queries, up to an entry of the slice that is not yet in."""
        here = np.flatnonzero(entries.client[max(stop - RECENT, 0) : stop] == np.uint64(client)) + max(stop - RECENT, 0)
        there = np.flatnonzero(self.client == np.uint64(client))
        there = there[there >= len(self.client) - (RECENT - stop)]
        return (
            np.concatenate([self.sketch[there], entries.sketch[here]]),
            np.concatenate([self.blocks[there], entries.blocks[here]]),
        )


@dataclass(slots=True)
class Capture:
    """An attacker whose queries are being kept."""

    pattern: str
    count: int = 0
    manner: IntArray = field(default_factory=lambda: np.zeros(manner.WIDTH, dtype=np.int64))
    sketch: list[SketchArray] = field(default_factory=list)
    blocks: list[ByteArray] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Again:
    """A pattern has come back, or is still there."""

    row: int
    client: int  # 0: under many
    pattern: str
    by: str  # "queries" or "manner"
    level: float
    bar: float
    news: bool = True
    seen: int = 0  # of news: times that the pattern was seen by then, and under how many clients
    clients: int = 0


@dataclass(slots=True)
class Hits:
    """What hits of one pattern say, by one client or by new ones."""

    pattern: str
    level: float
    number: int  # of the client's queries, or of entries, at the last hit
    prints: tuple[int, ...] = ()  # that were hit last: who stays about one of them repeats no attack
    last_us: int = 0  # time of the last hit

    def goes_on(self, level: float, bar: float, now_us: int) -> bool:
        """Return whether this was told, and not so long ago that it would be news again."""
        return level > bar and now_us - self.last_us <= QUIET_US


@dataclass(slots=True)
class Recurrence:
    """The registry at work in one model's traffic."""

    registry: Registry
    hits: dict[int, Hits] = field(default_factory=dict)  # by client, the latest last
    crowds: dict[str, Hits] = field(default_factory=dict)  # by pattern
    captures: dict[int, Capture] = field(default_factory=dict)  # by client
    recent: Recent = field(default_factory=Recent)
    entries: int = 0
    changed: set[str] = field(default_factory=set)  # patterns to be told to other shards

    def begin(self, alarm: Alarm, incident: str, time_us: int, entries: Entries, stop: int) -> str:
        """Return the pattern of a new incident: the one that came back with it, else a new one.

        :param stop: entry after the one that gave the alarm.
        """
        sketch, blocks = alarm.sketch, alarm.blocks
        if alarm.client:
            before_it = self.recent.of(alarm.client, entries, stop)
            sketch, blocks = np.concatenate([before_it[0], sketch]), np.concatenate([before_it[1], blocks])
        back = self.hits.get(alarm.client) if alarm.client else None
        name = back.pattern if back is not None and back.level > BAR and back.pattern in self.registry.known else ""
        if name:
            before = self.registry.known[name].pattern
            incidents = (*before.incidents, incident)[-MOST_INCIDENTS:]
            self.registry.put(replace(before, incidents=incidents, last_us=time_us), prints=False)
        else:
            name = incident.replace("-", "")[:16]
            sample = self.registry.sample
            lanes = tuple(lane for lane, value in alarm.lanes if value > 0)
            made = Pattern(
                name, sample.space, sample.inputs, alarm.since_us, time_us, incidents=(incident,), lanes=lanes
            )
            self.registry.learn([made.with_prints(sketch[-MOST_PRINTS:], blocks[-MOST_PRINTS:]).under(alarm.client)])
        self.changed.add(name)
        if alarm.client:
            self.captures[alarm.client] = Capture(name)
        return name

    def end(self, client: int) -> None:
        """Keep what was seen of an incident that has ended."""
        capture = self.captures.pop(client, None)
        if capture is not None:
            self._seal(capture)

    def succeed(self, before: Recurrence) -> None:
        """Take over what is known, with what was being kept of attacks that go on."""
        for client in sorted(before.captures):
            before.end(client)
        self.registry.evicted, self.registry.gone = before.registry.evicted, before.registry.gone
        self.registry.learn(one.pattern for one in before.registry.known.values())
        self.changed = before.changed

    def look(self, entries: Entries, pieces: list[Piece], time_us: IntArray, start: int, end: int) -> list[Again]:
        """Take entries from ``start`` to ``end``; return what has come back.

        :param time_us: of all queries of the slice.
        """
        found: list[Again] = []
        while start < end:
            own = self._own(entries, start, end)
            stop = end
            for client, at in own.items():
                count = self.captures[client].count
                need = next((seal - count for seal in SEALS if seal > count), entries.n + 1)
                stop = min(stop, int(at[need - 1]) + 1) if len(at) >= need else stop
            found += self._looked(entries, start, stop, time_us)
            for client, at in own.items():
                found += self._captured(client, at[at < stop], entries, pieces)
            self.entries += stop - start
            start = stop
        return found

    def _own(self, entries: Entries, start: int, end: int) -> dict[int, IntArray]:
        """Return where the entries of attackers are whose queries are being kept."""
        if not self.captures:
            return {}
        wanted = np.array(sorted(self.captures), dtype=np.uint64)
        at = start + np.flatnonzero(np.isin(entries.client[start:end], wanted))
        return {int(client): at[entries.client[at] == client] for client in np.unique(entries.client[at])}

    def _captured(self, client: int, at: IntArray, entries: Entries, pieces: list[Piece]) -> list[Again]:
        capture = self.captures[client]
        if not at.size:
            return []
        known = max(manner.ENOUGH - capture.count, 0)
        for place in at[:known].tolist():
            piece = pieces[int(entries.piece[place])]
            capture.manner += manner.counted(piece.steps, entries.entry[place : place + 1], piece.queries)
        if capture.count < MOST_PRINTS:  # then it is kept only to know his own queries for his
            capture.sketch.append(entries.sketch[at])
            capture.blocks.append(entries.blocks[at])
        capture.count += len(at)
        if capture.count not in SEALS:
            return []
        found = self._alike(capture, int(entries.row[at[-1]]), client) if capture.count == manner.ENOUGH else []
        self._seal(capture)
        return found

    def _seal(self, capture: Capture) -> None:
        known = self.registry.known.get(capture.pattern)
        if known is None:
            return
        before = known.pattern
        now = before
        if capture.sketch:
            now = now.with_prints(np.concatenate(capture.sketch), np.concatenate(capture.blocks))
            capture.sketch, capture.blocks = [], []
        if capture.count >= manner.ENOUGH and not now.manner.any():
            now = replace(now, manner=capture.manner)
        self.registry.put(now, prints=len(now.blocks) != len(before.blocks))
        self.changed.add(now.id)

    def _alike(self, capture: Capture, row: int, client: int) -> list[Again]:
        """Return the pattern whose manner an attacker has, when it is another one than his own."""
        best, name = manner.ALIKE, ""
        for other in sorted(self.registry.known):
            one = self.registry.known[other].pattern
            if other != capture.pattern and one.manner.any():
                likeness = manner.likeness(capture.manner, one.manner)
                if likeness > best:
                    best, name = likeness, other
        if not name:
            return []
        mine = self.registry.known.get(capture.pattern)
        if mine is not None and not mine.pattern.like and len(mine.pattern.incidents) == 1:
            self.registry.put(replace(mine.pattern, like=name), prints=False)
        return [self._counted(Again(row, client, name, "manner", best, manner.ALIKE), client, None)]

    def _looked(self, entries: Entries, start: int, stop: int, time_us: IntArray) -> list[Again]:
        found: list[Again] = []
        for place, name, which in self.registry.hits(entries.sketch[start:stop], entries.blocks[start:stop]):
            at = start + place
            client, row = int(entries.client[at]), int(entries.row[at])
            capture = self.captures.get(client)
            if capture is not None and capture.pattern == name:
                continue  # his own queries of now
            rate = self.registry.known[name].rate
            number = int(entries.number[at])
            if client:
                found += self._by_client(name, which, client, number, rate, row, int(time_us[row]))
            if number <= NEW:
                found += self._by_crowd(name, which, client, rate, self.entries + place, row, int(time_us[row]))
        return found

    def _by_client(
        self, name: str, which: int, client: int, number: int, rate: float, row: int, now_us: int
    ) -> list[Again]:
        gain, miss = float(np.log(HIT_SHARE / rate)), float(np.log((1.0 - HIT_SHARE) / (1.0 - rate)))
        before = self.hits.pop(client, None)
        if before is None or before.pattern != name:
            before = Hits(name, 0.0, number - 1)
        level = max(before.level + miss * (number - before.number - 1), 0.0)
        told = before.goes_on(level, BAR, now_us)
        level = max(level + (0.0 if which in before.prints else gain), 0.0)
        self.hits[client] = Hits(name, level, number, _with(before.prints, which), now_us)
        while len(self.hits) > MOST_CLIENTS:
            del self.hits[next(iter(self.hits))]
        return self._back(client, Again(row, client, name, "queries", level, BAR, not told), now_us)

    def _by_crowd(
        self, name: str, which: int, client: int, rate: float, now: int, row: int, now_us: int
    ) -> list[Again]:
        before = self.crowds.get(name, Hits(name, 0.0, now))
        level = max(before.level - (CROWD_LIFT - 1.0) * rate * (now - before.number), 0.0)
        told = before.goes_on(level, CROWD_BAR, now_us)
        level += 0.0 if which in before.prints else float(np.log(CROWD_LIFT))
        self.crowds[name] = Hits(name, level, now, _with(before.prints, which), now_us)
        return self._back(client, Again(row, 0, name, "queries", level, CROWD_BAR, not told), now_us)

    def _back(self, client: int, again: Again, now_us: int) -> list[Again]:
        if again.level <= again.bar:
            return []
        return [self._counted(again, client, now_us) if again.news else again]

    def _counted(self, again: Again, client: int, now_us: int | None) -> Again:
        now = self._seen(again.pattern, client, now_us)
        return replace(again, seen=now.seen, clients=now.distinct_clients)

    def _seen(self, name: str, client: int, now_us: int | None) -> Pattern:
        pattern = self.registry.known[name].pattern
        last = pattern.last_us if now_us is None else max(pattern.last_us, now_us)
        now = replace(pattern.under(client), seen=pattern.seen + 1, last_us=last)
        self.registry.put(now, prints=False)
        self.changed.add(name)
        return now

    def told(self) -> tuple[list[Pattern], list[str]]:
        """Return the patterns that changed since the last call, and those that gave way, for other shards."""
        names, self.changed = sorted(self.changed), set()
        gone, self.registry.gone = sorted(self.registry.gone), set()
        for name in gone:
            self.crowds.pop(name, None)
        return [self.registry.known[name].pattern for name in names if name in self.registry.known], gone

    def learn(self, patterns: list[Pattern]) -> None:
        """Take patterns that others have told or imported."""
        self.registry.learn(patterns)

    def forget(self, name: str) -> None:
        """Drop a pattern that was taken back."""
        if self.registry.forget(name):
            self.crowds.pop(name, None)
            self.changed.discard(name)


def _with(prints: tuple[int, ...], which: int) -> tuple[int, ...]:
    """Return the prints hit last, the new one at the end."""
    return (*(one for one in prints if one != which), which)[-MOST_HIT:]
