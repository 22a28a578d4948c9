"""Attack findings of one model: queries wait for their watermark, client memory takes them, incidents open and end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from regate.config.canonical import content_id
from regate.detectors.attack.memory import Alarm, Memory
from regate.detectors.attack.queries import Queries, joined, ordered
from regate.detectors.columns import ModelKey
from regate.detectors.finding import Finding
from regate.detectors.incidents import six
from regate.detectors.label_join import Taken

# A client that asked nothing for so long has gone, and its incident with it.
QUIET_US = 3_600_000_000
# Open incidents at once; beyond it the count alone goes on, and the last one says so.
MOST_OPEN = 1_000
SEVERITY = 0.5
_LOG10_E = float(np.log10(np.e))

Name = Callable[[int], str]


def hex_name(client: int) -> str:
    """Return how a client is called where only its salted hash is known."""
    return f"{client:016x}"


@dataclass(slots=True)
class AttackWatch:
    """State: waiting queries, client memory, open incidents by client."""

    key: ModelKey
    profile_digest: str
    memory: Memory
    waiting: list[Queries] = field(default_factory=list)
    open: dict[int, Finding] = field(default_factory=dict)
    opened: int = 0
    untold: int = 0  # findings that found no room among the open ones

    def take(self, queries: Queries) -> None:
        """Keep queries until their time has closed."""
        if queries.n:
            self.waiting.append(queries)

    def close(self, before_us: int, name: Name = hex_name) -> list[Finding]:
        """Give memory all queries before a time, in order; return what they say."""
        if not self.waiting:
            return self._patterns(before_us, name)
        everything = joined(self.waiting)
        ripe = everything.time_us < before_us
        self.waiting = [] if bool(ripe.all()) else [everything.some(~ripe)]
        return [*self._decide(ordered(everything.some(ripe)), name), *self._patterns(before_us, name)]

    def answered(self, taken: Taken, time_us: int) -> None:
        """Take what the labels of one closed cell decided."""
        self.memory.patterns.answered(taken.outcomes, taken.source, taken.contradicted_by, time_us)

    def _patterns(self, now_us: int, name: Name) -> list[Finding]:
        return self.memory.patterns.findings(now_us, self.key, self.profile_digest, name, self.memory.queries)

    def decide(self, queries: Queries, name: Name = hex_name) -> list[Finding]:
        """Give memory queries in their order; return findings and what has ended."""
        if not queries.n:
            return []
        return [*self._decide(queries, name), *self._patterns(int(queries.time_us[-1]), name)]

    def _decide(self, queries: Queries, name: Name) -> list[Finding]:
        if not queries.n:
            return []
        found = [
            finding
            for alarm in self.memory.take(queries)
            if (finding := self._finding(alarm, queries, name)) is not None
        ]
        now_us = int(queries.time_us[-1])
        new = {one.incident for one in found}
        table = self.memory.table
        for client, first in list(self.open.items()):
            slot = table.slots.get(client)
            back = slot is None or int(table.sum[slot]) <= 0
            gone = slot is not None and int(table.last_us[slot]) < now_us - QUIET_US
            if (back or gone) and first.id not in new:
                del self.open[client]
                why = "its queries are normal again" if slot is not None and back else "it asks no more"
                found.append(self._ended(first, now_us, why))
        return found

    def _finding(self, alarm: Alarm, queries: Queries, name: Name) -> Finding | None:
        if alarm.client in self.open:  # told again after its evidence was gone: the same incident goes on
            return None
        if len(self.open) >= MOST_OPEN:
            self.untold += 1
            return None
        subject = name(alarm.client)
        self.opened += 1
        detected = int(queries.time_us[alarm.row])
        identity = content_id("attack", str(self.key), str(alarm.client), detected, self.opened)
        lanes = ", ".join(f"{lane} {value:.1f}" for lane, value in alarm.lanes if value > 0)
        finding = Finding(
            id=identity,
            incident=identity,
            tenant=self.key.tenant,
            model=self.key.model,
            model_version=self.key.version,
            deployment=self.key.deployment,
            family="attack",
            kind="attack",
            detector="attack",
            subject=subject,
            severity=SEVERITY,
            evidence=six(alarm.level * _LOG10_E),
            threshold=six(alarm.bar * _LOG10_E),
            effect=six(float(alarm.queries)),
            unit="queries",
            onset_us=alarm.since_us,
            detected_us=detected,
            cell=detected // 1_000_000,
            events=self.memory.queries,
            profile_digest=self.profile_digest,
            message=f"client {subject} asks what no client of the reference does, for {alarm.queries} queries: {lanes}",
        )
        self.open[alarm.client] = finding
        return finding

    def _ended(self, first: Finding, now_us: int, why: str) -> Finding:
        said = {
            "type": "revision",
            "revision": "recovered",
            "id": content_id("attack", first.id, "recovered", now_us),
            "detected_us": now_us,
            "cell": now_us // 1_000_000,
            "events": self.memory.queries,
            "message": f"client {first.subject}: {why}",
        }
        return first.model_copy(update=said)
