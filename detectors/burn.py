"""Burn rates of service objectives over several windows: how fast the promised errors are used up.

An objective allows a ratio of bad events. A rule fires when the ratio over a long window *and* over a short one is so
many times what is allowed: the long one says that it matters, the short one that it still goes on (Google, The Site
Reliability Workbook, chapter 5). A breach is a fact about what was promised, no inference about change: it stands
outside the false-alarm budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from regate.config.canonical import content_id
from regate.detectors.cells import CELL_US, Block
from regate.detectors.columns import IntArray, ModelKey
from regate.detectors.finding import Finding

BUCKET_CELLS = 300
BUCKETS = 864  # three days
# A rule speaks when this share of its long window was watched: a start is no three days.
COVERED = 4
LEAST = 100  # events in the long window: of fewer, one error is a burn rate


@dataclass(frozen=True, slots=True)
class Rule:
    """Windows in buckets of five minutes; ``severity`` of .5 and more rolls back by the shipped policy."""

    long: int
    short: int
    factor: float
    severity: float


RULES = (Rule(12, 1, 14.4, 0.5), Rule(72, 6, 6.0, 0.4), Rule(864, 72, 1.0, 0.3))


@dataclass(frozen=True, slots=True)
class Objective:
    """What is promised: hits among trials, of which ``allowed`` may be bad."""

    name: str
    s_column: int
    n_column: int
    allowed: float
    limit: str = ""  # what a hit is: counts of another limit say nothing


@dataclass(slots=True)
class Burn:
    """One objective at work: bad events and all events of the last three days, in buckets of event time."""

    objective: Objective
    bad: IntArray = field(default_factory=lambda: np.zeros(BUCKETS, dtype=np.int64))
    all: IntArray = field(default_factory=lambda: np.zeros(BUCKETS, dtype=np.int64))
    # Of all: those in blocks that were old at arrival. What an import of the past says is history, not news.
    old: IntArray = field(default_factory=lambda: np.zeros(BUCKETS, dtype=np.int64))
    bucket: int | None = None  # number of the open bucket
    since: int = 0  # the first one
    open: Finding | None = None

    def take_over(self, before: Burn) -> None:
        """Go on from an earlier state of this objective; what is open stays open whatever the limit was."""
        self.open = before.open
        if before.objective.limit == self.objective.limit:
            self.bad, self.all, self.old = before.bad, before.all, before.old
            self.bucket, self.since = before.bucket, before.since

    def step(self, block: Block, key: ModelKey) -> list[Finding]:
        """Take a block of closed cells; return what its end decides when it ends a bucket."""
        now = block.last // BUCKET_CELLS
        found = []
        if self.bucket is None:
            self.bucket = self.since = now
        while self.bucket < now:
            found += self._decide(key)
            self._next(now)
        place = max(now, self.bucket) % BUCKETS
        trials = block.stats[self.objective.n_column]
        self.bad[place] += block.stats[self.objective.s_column]
        self.all[place] += trials
        self.old[place] += trials if 2 * block.historical >= max(block.events, 1) else 0
        return found

    def _next(self, now: int) -> None:
        assert self.bucket is not None
        if now - self.bucket > BUCKETS:  # nothing of the window is left
            self.bad[:], self.all[:], self.old[:], self.bucket = 0, 0, 0, now
            return
        self.bucket += 1
        for kept in (self.bad, self.all, self.old):
            kept[self.bucket % BUCKETS] = 0

    def rate(self, buckets: int) -> tuple[float, int]:
        """Return the burn rate over the last so many buckets, the open one included, and their events."""
        places = self._places(buckets)
        total = int(self.all[places].sum())
        return (int(self.bad[places].sum()) / total / self.objective.allowed if total else 0.0), total

    def _places(self, buckets: int) -> IntArray:
        assert self.bucket is not None
        return np.arange(self.bucket - buckets + 1, self.bucket + 1) % BUCKETS

    def _decide(self, key: ModelKey) -> list[Finding]:
        fired = next((rule for rule in RULES if self._fires(rule)), None)
        end_us = ((self.bucket or 0) + 1) * BUCKET_CELLS * CELL_US
        if fired is None:
            first, self.open = self.open, None
            return [] if first is None else [_over(first, end_us)]
        now = self._finding(key, fired, end_us)
        if self.open is None:
            self.open = now
            return [now]
        live = self.open.historical and not now.historical  # what an import told of goes on today
        if self.open.severity >= now.severity and not live:
            return []
        said = {"severity": max(self.open.severity, now.severity), "historical": now.historical}
        self.open = self.open.model_copy(update=said)
        return [_worse(self.open, now)]

    def _fires(self, rule: Rule) -> bool:
        (long, events), (short, _) = self.rate(rule.long), self.rate(rule.short)
        watched = (self.bucket or 0) - self.since + 1
        return COVERED * watched >= rule.long and events >= LEAST and long >= rule.factor and short >= rule.factor

    def _finding(self, key: ModelKey, rule: Rule, end_us: int) -> Finding:
        (long, events), (short, _) = self.rate(rule.long), self.rate(rule.short)
        now = self._places(rule.short)
        name = self.objective.name
        hours, minutes = rule.long * BUCKET_CELLS / 3600, rule.short * BUCKET_CELLS / 60
        identity = content_id("burn", str(key), name, rule.factor, end_us)
        return Finding.first(
            key,
            identity,
            family="service",
            kind="harm",
            detector="burn",
            subject=name,
            severity=rule.severity,
            evidence=f"{short:.6g}",
            threshold=f"{rule.factor:.6g}",
            effect=f"{long:.6g}",
            unit="burn rate",
            onset_us=end_us - rule.long * BUCKET_CELLS * CELL_US,
            detected_us=end_us,
            events=events,
            historical=bool(2 * self.old[now].sum() >= self.all[now].sum()),
            message=(
                f"the {name} is used up {long:.3g} times as fast as allowed over {hours:g} h and {short:.3g} times "
                f"over {minutes:g} min (allowed {self.objective.allowed:g} of all events; fires at {rule.factor:g})"
            ),
        )


def _worse(first: Finding, now: Finding) -> Finding:
    """Return the revision that says that a faster rule fires by now, or the same one on what is no history."""
    said = ("evidence", "threshold", "effect", "detected_us", "cell", "events", "message")
    return first.model_copy(
        update={
            "type": "revision",
            "revision": "confirmed",
            "id": content_id("revision", first.id, "confirmed", first.severity, first.historical),
            **{name: getattr(now, name) for name in said},
        }
    )


def _over(first: Finding, end_us: int) -> Finding:
    return first.model_copy(
        update={
            "type": "revision",
            "revision": "recovered",
            "id": content_id("revision", first.id, "recovered"),
            "detected_us": end_us,
            "cell": end_us // CELL_US,
            "message": f"the {first.subject} is no longer used up at that rate",
        }
    )


def burns(objectives: Iterable[Objective]) -> list[Burn]:
    """Return the state of objectives that nothing was seen of yet."""
    return [Burn(objective) for objective in objectives]
