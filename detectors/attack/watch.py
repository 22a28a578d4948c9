"""Attack findings of one model: queries wait for their watermark, client memory takes them, incidents open and end.

An incident goes on with every query of its client (or in its region) at which evidence is above the bar, and ends an
hour after the last of them. Ends come in their place among the queries, however these are cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from regate.config.canonical import content_id
from regate.detectors.attack.fingerprints import Registry
from regate.detectors.attack.memory import Alarm, Memory
from regate.detectors.attack.ongoing import QUIET_US, Incidents, Ongoing
from regate.detectors.attack.queries import Queries, joined, ordered
from regate.detectors.attack.recurrence import Again, Entries, Recurrence, entries_of
from regate.detectors.attack.views import REGION
from regate.detectors.columns import IntArray, ModelKey
from regate.detectors.finding import Finding
from regate.detectors.incidents import six
from regate.detectors.label_join import Taken

# Who was found is remembered for so many others; what he asks in a region is his, and no second finding.
MOST_ACCUSED = 10_000
_ACCUSED_QUERIES = 2  # of the last eight
_HALF = 0xFFFFFFFF
_CLIENT = "client "
# Regions that are odd all at once are a change of the population.
MOST_REGIONS = 3
SEVERITY = 0.5
_LOG10_E = float(np.log10(np.e))

Name = Callable[[int], str]


def hex_name(client: int) -> str:
    """Return how a client is called where only its salted hash is known."""
    return f"{client:016x}"


@dataclass(frozen=True, slots=True)
class Turn:
    """Queries that are being decided: their entries, and when evidence was above a bar, by whom that is about."""

    queries: Queries
    entries: Entries
    time_us: IntArray  # of entries
    above: dict[str, IntArray]
    name: Name
    before: int  # queries before these


@dataclass(slots=True)
class AttackWatch:
    """State: waiting queries, memory, open incidents by whom they are about."""

    key: ModelKey
    profile_digest: str
    memory: Memory
    waiting: list[Queries] = field(default_factory=list)
    incidents: Incidents = field(default_factory=Incidents)
    accused: dict[int, None] = field(default_factory=dict)  # lower halves of ids, the latest last
    recurrence: Recurrence = field(init=False)

    def __post_init__(self) -> None:
        """Begin with an empty registry."""
        self.recurrence = Recurrence(Registry(self.memory.reference.sample))

    def succeed(self, before: AttackWatch) -> None:
        """Go on after a watch with another reference: who was accused, what is open and what is known stays.

        Client memory, and what was counted of patterns that may be coming back, begin anew.
        """
        self.incidents.carry(before.incidents)
        self.accused = before.accused
        self.recurrence.succeed(before.recurrence)
        self.memory.queries, self.memory.nameless = before.memory.queries, before.memory.nameless
        self.memory.beside.succeed(before.memory.beside)

    def given_up(self, closed_us: int, why: str) -> list[Finding]:
        """End all incidents, because nobody watches for attacks any more; return the revisions."""
        signs = self.memory.beside.signs
        return [*self.incidents.end_all(closed_us, why), *signs.end_all(closed_us, why)]

    def take(self, queries: Queries) -> None:
        """Keep queries until their time has closed."""
        if queries.n:
            self.waiting.append(queries)

    def close(self, before_us: int, name: Name = hex_name) -> list[Finding]:
        """Give memory all queries before a time, in order; return what they say and what has ended."""
        found: list[Finding] = []
        taken: IntArray = np.zeros(0, dtype=np.int64)
        if self.waiting:
            everything = joined(self.waiting)
            ripe = everything.time_us < before_us
            self.waiting = [] if bool(ripe.all()) else [everything.some(~ripe)]
            queries = ordered(everything.some(ripe))
            found, taken = self._taken(queries, name), queries.time_us
        if self.memory.beside.timed:
            found += self._over(before_us)
        return _in_order([*found, *self._beside(before_us, name, taken)])

    def answered(self, taken: Taken, time_us: int) -> None:
        """Take what the labels of one closed cell decided."""
        self.memory.beside.answered(taken.outcomes, taken.source, taken.contradicted_by, time_us)

    def _beside(self, now_us: int, name: Name, taken: IntArray) -> list[Finding]:
        """Return what the views beside client memory say after queries of some times were taken."""
        before = self.memory.queries - len(taken)

        def events(time_us: int) -> int:
            return before + int(np.searchsorted(taken, time_us, side="right"))

        return self.memory.beside.findings(now_us, self.key, self.profile_digest, name, events)

    def decide(self, queries: Queries, name: Name = hex_name) -> list[Finding]:
        """Give memory queries in their order; return what they say and what has ended."""
        if not queries.n:
            return []
        return _in_order([*self._taken(queries, name), *self._beside(int(queries.time_us[-1]), name, queries.time_us)])

    def _taken(self, queries: Queries, name: Name) -> list[Finding]:
        """Return what memory and the registry say, and what has ended, in order of queries."""
        if not queries.n:
            return []
        before = self.memory.queries
        alarms = self.memory.take(queries)
        entries = entries_of(queries, self.memory.pieces)
        above = {_whom(*whom): times for whom, times in self.memory.above().items()}
        turn = Turn(queries, entries, queries.time_us[entries.row], above, name, before)
        for whom in above.keys() & self.incidents.open.keys():
            self.incidents.open[whom].seen(above[whom])
        found: list[Finding] = []
        start = 0
        for alarm in alarms:
            stop = int(np.searchsorted(entries.row, alarm.row, side="right"))
            found += self._looked(turn, start, stop)
            found += self._over(int(queries.time_us[alarm.row]))
            found += self._alarmed(turn, alarm, stop)
            start = max(start, stop)
        found += self._looked(turn, start, entries.n)
        found += self._over(int(queries.time_us[-1]))
        self.recurrence.recent.add(entries)
        return found

    def _looked(self, turn: Turn, start: int, stop: int) -> list[Finding]:
        """Look in some entries for what comes back, in pieces between which incidents end."""
        found: list[Finding] = []
        while start < stop:
            now_us = int(turn.time_us[start])
            found += self._over(now_us)
            due_us = now_us + QUIET_US  # of what begins in this piece
            if self.incidents.due_us is not None:
                due_us = min(due_us, self.incidents.due_us)
            end = start + int(np.searchsorted(turn.time_us[start:stop], due_us, side="right"))
            for one in self.recurrence.look(turn.entries, self.memory.pieces, turn.queries.time_us, start, end):
                found += self._again(turn, one)
            start = end
        return found

    def _over(self, now_us: int) -> list[Finding]:
        """Return what has ended before a time."""
        found = []
        for whom, finding in self.incidents.over(now_us):
            if whom.startswith(_CLIENT):
                self.recurrence.end(int(whom.removeprefix(_CLIENT), 16))
            found.append(finding)
        return found

    def _alarmed(self, turn: Turn, alarm: Alarm, stop: int) -> list[Finding]:
        """Return the finding that an alarm is, when it is news."""
        asker = int(turn.queries.client[alarm.row])
        whom, open_ones = _whom(alarm.client, alarm.owner), self.incidents.open
        if whom in open_ones or (asker and _whom(asker) in open_ones):
            return []
        if not alarm.client and sum(one in self.accused for one in alarm.askers.tolist()) >= _ACCUSED_QUERIES:
            return []
        regions = sum(one.view == REGION.name for one in open_ones.values())
        if self.incidents.full or (not alarm.client and regions >= MOST_REGIONS):
            self.incidents.untold += 1
            return []
        return [self._opened(turn, alarm, whom, stop)]

    def _opened(self, turn: Turn, alarm: Alarm, whom: str, stop: int) -> Finding:
        self.incidents.opened += 1
        if alarm.client:
            self.accused.pop(alarm.client & _HALF, None)
            self.accused[alarm.client & _HALF] = None
            while len(self.accused) > MOST_ACCUSED:
                del self.accused[next(iter(self.accused))]
        detected = int(turn.queries.time_us[alarm.row])
        identity = content_id("attack", str(self.key), whom, detected, self.incidents.opened)
        pattern = self.recurrence.begin(alarm, identity, detected, turn.entries, stop)
        subject = turn.name(alarm.client) if alarm.client else f"pattern:{pattern}"
        finding = self._finding("attack", identity, subject, detected).model_copy(
            update={
                "evidence": six(alarm.level * _LOG10_E),
                "threshold": six(alarm.bar * _LOG10_E),
                "effect": six(float(alarm.queries)),
                "unit": "queries",
                "onset_us": alarm.since_us,
                "events": turn.before + alarm.row + 1,
                "message": _told(alarm, subject),
            }
        )
        self.incidents.open[whom] = Ongoing(finding, detected, view=alarm.view)
        self.incidents.open[whom].seen(turn.above[whom])
        return finding

    def _again(self, turn: Turn, one: Again) -> list[Finding]:
        """Return the finding that a pattern has come back, when that is news."""
        whom, now_us = f"again {one.pattern} {one.client:016x}", int(turn.queries.time_us[one.row])
        known = self.incidents.open.get(whom)
        if known is not None:
            known.last_us = max(known.last_us, now_us)
            return []
        if not one.news:
            return []
        if self.incidents.full:
            self.incidents.untold += 1
            return []
        self.incidents.opened += 1
        subject = turn.name(one.client) if one.client else f"pattern:{one.pattern}"
        who = f"client {subject}" if one.client else "clients that are new"
        what = "asks as pattern" if one.by == "queries" else "works in the manner of pattern"
        identity = content_id("recurrence", str(self.key), whom, now_us, self.incidents.opened)
        finding = self._finding("recurrence", identity, subject, now_us).model_copy(
            update={
                "evidence": six(one.level * (_LOG10_E if one.by == "queries" else 1.0)),
                "threshold": six(one.bar * (_LOG10_E if one.by == "queries" else 1.0)),
                "effect": six(float(one.clients)),
                "unit": "clients",
                "events": turn.before + one.row + 1,
                "message": f"{who} {what} {one.pattern} did, seen {one.seen} times under {one.clients} clients",
            }
        )
        self.incidents.open[whom] = Ongoing(finding, now_us)
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
            profile_digest=self.profile_digest,
            message="",
        )


def _in_order(found: list[Finding]) -> list[Finding]:
    return sorted(found, key=lambda one: one.detected_us)


def _whom(client: int, owner: int = 0) -> str:
    return f"{_CLIENT}{client:016x}" if client else f"region {owner:016x}"


def _told(alarm: Alarm, subject: str) -> str:
    lanes = ", ".join(f"{lane} {value:.1f}" for lane, value in alarm.lanes if value > 0)
    if alarm.client:
        return f"client {subject} asks what no client of the reference does, for {alarm.queries} queries: {lanes}"
    return f"{alarm.queries} queries about one point, of no one client, are what the reference never had: {lanes}"
