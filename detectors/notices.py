"""Notices: what a source could not bring. While one stands, nobody may say that nothing happened.

Kinds: ``gap`` (a stretch of the log is gone), ``poison`` (nearly all that comes is refused), ``lost_state`` (what was
known of a source or a model could not be read back, and warms up). A gap and a lost state are over once the source
was read for a minute since; poison when the source says so. Decided by ticks, like silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from regate.config.canonical import content_id
from regate.detectors.columns import ModelKey
from regate.detectors.finding import Finding

# So long must a source be read before what was missed counts as past.
SETTLE_MS = 60_000
SEVERITY = 0.7


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing that a source says. ``models`` are placements (tenant/model); empty: every model of the shard."""

    kind: str
    source: str
    text: str
    models: tuple[str, ...] = ()
    over: bool = False


@dataclass(slots=True)
class Notices:
    """The open notices of one decide shard: their findings, by kind, source and model."""

    open: dict[tuple[str, str, str], Finding] = field(default_factory=dict)
    waiting: list[Notice] = field(default_factory=list)  # for the next tick, which knows the time

    def check(self, now_ms: int, keys: Sequence[ModelKey], alive: Mapping[str, int]) -> list[Finding]:
        """Return what has been said since the last tick, about which models, and the revisions of what is past.

        :param alive: newest tick of each source, in milliseconds.
        """
        found = [one for notice in self.waiting for one in self._take(notice, keys, now_ms)]
        self.waiting = []
        return found + self._past(now_ms, alive)

    def _take(self, notice: Notice, keys: Iterable[ModelKey], now_ms: int) -> list[Finding]:
        found = []
        for key in keys:
            if notice.models and key.placement not in notice.models:
                continue
            place = (notice.kind, notice.source, str(key))
            if notice.over:
                first = self.open.pop(place, None)
                found.extend([] if first is None else [_over(first, now_ms)])
            elif place not in self.open:
                self.open[place] = _finding(key, notice, now_ms)
                found.append(self.open[place])
        return found

    def _past(self, now_ms: int, alive: Mapping[str, int]) -> list[Finding]:
        past = [
            place
            for place, first in self.open.items()
            if place[0] != "poison"
            and min(now_ms, alive.get(place[1], now_ms)) >= first.detected_us // 1000 + SETTLE_MS
        ]
        return [_over(self.open.pop(place), now_ms) for place in past]


def _finding(key: ModelKey, notice: Notice, now_ms: int) -> Finding:
    identity = content_id("notice", str(key), notice.kind, notice.source, notice.text, now_ms)
    return Finding.first(
        key,
        identity,
        family="silence",
        kind="silence",
        detector=notice.kind,
        subject=notice.source,
        severity=SEVERITY,
        evidence="1",
        detected_us=now_ms * 1000,
        message=notice.text,
    )


def _over(first: Finding, now_ms: int) -> Finding:
    return first.model_copy(
        update={
            "type": "revision",
            "revision": "recovered",
            "id": content_id("revision", first.id, "recovered"),
            "detected_us": now_ms * 1000,
            "cell": now_ms // 1000,
            "message": f"{first.subject}: over ({first.message})",
        }
    )
