"""Attack findings of one model: queries wait for their watermark, client memory takes them, incidents open and end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from regate.config.canonical import content_id
from regate.detectors.attack.fingerprints import Registry
from regate.detectors.attack.memory import Alarm, Memory
from regate.detectors.attack.queries import Queries, joined, ordered
from regate.detectors.attack.recurrence import Again, Entries, Recurrence, entries_of
from regate.detectors.attack.views import REGION
from regate.detectors.columns import ModelKey
from regate.detectors.finding import Finding
from regate.detectors.incidents import six
from regate.detectors.label_join import Taken

# A client that asked nothing for so long has gone, and its incident with it.
QUIET_US = 3_600_000_000
# Open incidents at once; beyond it the count alone goes on.
MOST_OPEN = 1_000
# Who was found is remembered for so many others; what he asks in a region is his, and no second finding.
MOST_ACCUSED = 10_000
_ACCUSED_QUERIES = 2  # of the last eight
_HALF = 0xFFFFFFFF
_CLIENT, _AGAIN = "client ", "again"
# Regions that are odd all at once are a change of the population.
MOST_REGIONS = 3
SEVERITY = 0.5
_LOG10_E = float(np.log10(np.e))

Name = Callable[[int], str]


def hex_name(client: int) -> str:
    """Return how a client is called where only its salted hash is known."""
    return f"{client:016x}"


@dataclass(frozen=True, slots=True)
class Open:
    """An incident that goes on, and the memory in which it was seen."""

    finding: Finding
    view: str
    owner: int
    last_us: int  # when its evidence crossed the bar last


@dataclass(slots=True)
class AttackWatch:
    """State: waiting queries, memory, open incidents by whom they are about."""

    key: ModelKey
    profile_digest: str
    memory: Memory
    waiting: list[Queries] = field(default_factory=list)
    open: dict[str, Open] = field(default_factory=dict)
    accused: dict[int, None] = field(default_factory=dict)  # lower halves of ids, the latest last
    opened: int = 0
    untold: int = 0  # findings that found no room among the open ones
    recurrence: Recurrence = field(init=False)

    def __post_init__(self) -> None:
        """Begin with an empty registry."""
        self.recurrence = Recurrence(Registry(self.memory.reference.sample))

    def take(self, queries: Queries) -> None:
        """Keep queries until their time has closed."""
        if queries.n:
            self.waiting.append(queries)

    def close(self, before_us: int, name: Name = hex_name) -> list[Finding]:
        """Give memory all queries before a time, in order; return what they say."""
        if not self.waiting:
            return self._beside(before_us, name)
        everything = joined(self.waiting)
        ripe = everything.time_us < before_us
        self.waiting = [] if bool(ripe.all()) else [everything.some(~ripe)]
        return [*self._decide(ordered(everything.some(ripe)), name), *self._beside(before_us, name)]

    def answered(self, taken: Taken, time_us: int) -> None:
        """Take what the labels of one closed cell decided."""
        self.memory.beside.answered(taken.outcomes, taken.source, taken.contradicted_by, time_us)

    def _beside(self, now_us: int, name: Name) -> list[Finding]:
        return self.memory.beside.findings(now_us, self.key, self.profile_digest, name, self.memory.queries)

    def decide(self, queries: Queries, name: Name = hex_name) -> list[Finding]:
        """Give memory queries in their order; return findings and what has ended."""
        if not queries.n:
            return []
        return [*self._decide(queries, name), *self._beside(int(queries.time_us[-1]), name)]

    def _decide(self, queries: Queries, name: Name) -> list[Finding]:
        if not queries.n:
            return []
        found = self._taken(queries, name)
        now_us = int(queries.time_us[-1])
        for whom, one in list(self.open.items()):
            level, last_us = self.memory.level(one.view, one.owner), self.memory.last_us(one.view, one.owner)
            back = (level is None or level <= 0) and one.last_us < now_us - QUIET_US
            gone = last_us is not None and last_us < now_us - QUIET_US
            if back or gone:
                why = "no query for an hour" if gone else "its queries have been normal again"
                found.append(self._ended(whom, now_us, why))
        return found

    def _taken(self, queries: Queries, name: Name) -> list[Finding]:
        """Return what memory and the registry say, in order of queries."""
        alarms = self.memory.take(queries)
        entries = entries_of(queries, self.memory.pieces)
        found: list[Finding] = []
        start = 0
        for alarm in alarms:
            stop = int(np.searchsorted(entries.row, alarm.row, side="right"))
            found += self._looked(entries, start, stop, queries, name)
            found += self._findings(alarm, queries, name, entries)
            start = max(start, stop)
        found += self._looked(entries, start, entries.n, queries, name)
        self.recurrence.recent.add(entries)
        return found

    def _looked(self, entries: Entries, start: int, stop: int, queries: Queries, name: Name) -> list[Finding]:
        again = self.recurrence.look(entries, self.memory.pieces, queries.time_us, start, stop)
        return [finding for one in again for finding in self._again(one, int(queries.time_us[one.row]), name)]

    def _findings(self, alarm: Alarm, queries: Queries, name: Name, entries: Entries) -> list[Finding]:
        """Return what an alarm says: nothing new, a new incident, or that one has ended and another begins."""
        asker, now_us = int(queries.client[alarm.row]), int(queries.time_us[alarm.row])
        whom = _whom(alarm.client) if alarm.client else f"region {alarm.owner:016x}"
        ended = []
        known = self.open.get(whom)
        if known is not None:
            same = (known.view, known.owner) == (alarm.view, alarm.owner)
            # An alarm comes again when its evidence was back at 0.
            if same and known.last_us < now_us - QUIET_US:
                ended.append(self._ended(whom, now_us, "its queries had been normal again"))
            else:
                self.open[whom] = replace(known, last_us=now_us) if same else known
                return []
        if asker and _whom(asker) in self.open:
            return ended
        if not alarm.client and sum(one in self.accused for one in alarm.askers.tolist()) >= _ACCUSED_QUERIES:
            return ended
        regions = sum(one.view == REGION.name for one in self.open.values())
        if len(self.open) >= MOST_OPEN or (not alarm.client and regions >= MOST_REGIONS):
            self.untold += 1
            return ended
        return [*ended, self._opened(alarm, whom, now_us, name, entries)]

    def _opened(self, alarm: Alarm, whom: str, detected: int, name: Name, entries: Entries) -> Finding:
        self.opened += 1
        if alarm.client:
            self.accused.pop(alarm.client & _HALF, None)
            self.accused[alarm.client & _HALF] = None
            while len(self.accused) > MOST_ACCUSED:
                del self.accused[next(iter(self.accused))]
        identity = content_id("attack", str(self.key), whom, detected, self.opened)
        stop = int(np.searchsorted(entries.row, alarm.row, side="right"))
        pattern = self.recurrence.begin(alarm, identity, detected, entries, stop)
        subject = name(alarm.client) if alarm.client else f"pattern:{pattern}"
        finding = self._finding("attack", identity, subject, detected).model_copy(
            update={
                "evidence": six(alarm.level * _LOG10_E),
                "threshold": six(alarm.bar * _LOG10_E),
                "effect": six(float(alarm.queries)),
                "unit": "queries",
                "onset_us": alarm.since_us,
                "message": _told(alarm, subject),
            }
        )
        self.open[whom] = Open(finding, alarm.view, alarm.owner, detected)
        return finding

    def _again(self, one: Again, now_us: int, name: Name) -> list[Finding]:
        """Return the finding that a pattern has come back, when that is news."""
        whom = f"again {one.pattern} {one.client:016x}"
        known = self.open.get(whom)
        if known is not None:
            self.open[whom] = replace(known, last_us=now_us)
            return []
        if len(self.open) >= MOST_OPEN:
            self.untold += 1
            return []
        self.opened += 1
        pattern = self.recurrence.registry.known[one.pattern].pattern
        subject = name(one.client) if one.client else f"pattern:{one.pattern}"
        who = f"client {subject}" if one.client else "clients that are new"
        what = "asks as pattern" if one.by == "queries" else "works in the manner of pattern"
        identity = content_id("recurrence", str(self.key), whom, now_us, self.opened)
        finding = self._finding("recurrence", identity, subject, now_us).model_copy(
            update={
                "evidence": six(one.level * (_LOG10_E if one.by == "queries" else 1.0)),
                "threshold": six(one.bar * (_LOG10_E if one.by == "queries" else 1.0)),
                "effect": six(float(pattern.distinct_clients)),
                "unit": "clients",
                "message": f"{who} {what} {one.pattern} did, seen {pattern.seen} times under "
                f"{pattern.distinct_clients} clients",
            }
        )
        self.open[whom] = Open(finding, _AGAIN, one.client, now_us)
        return [finding]

    def _finding(self, kind: Literal["attack", "recurrence"], identity: str, subject: str, detected: int) -> Finding:
        return Finding.first(
            self.key,
            identity,
            family="attack",
            kind=kind,
            detector="attack" if kind == "attack" else "attack/recurrence",
            subject=subject,
            severity=SEVERITY,
            detected_us=detected,
            events=self.memory.queries,
            profile_digest=self.profile_digest,
            message="",
        )

    def _ended(self, whom: str, now_us: int, why: str) -> Finding:
        first = self.open.pop(whom).finding
        if whom.startswith(_CLIENT):
            self.recurrence.end(int(whom.removeprefix(_CLIENT), 16))
        said = {
            "type": "revision",
            "revision": "recovered",
            "id": content_id("attack", first.id, "recovered", now_us),
            "detected_us": now_us,
            "cell": now_us // 1_000_000,
            "events": self.memory.queries,
            "message": f"{first.subject}: {why}",
        }
        return first.model_copy(update=said)


def _whom(client: int) -> str:
    return f"{_CLIENT}{client:016x}"


def _told(alarm: Alarm, subject: str) -> str:
    lanes = ", ".join(f"{lane} {value:.1f}" for lane, value in alarm.lanes if value > 0)
    if alarm.client:
        return f"client {subject} asks what no client of the reference does, for {alarm.queries} queries: {lanes}"
    return f"{alarm.queries} queries about one point, of no one client, are what the reference never had: {lanes}"
