"""Silence: what stopped coming, and who stopped sending. Decided by ticks, exempt from slicing invariance.

Three causes are told apart: one model (its events stopped, other telemetry flows), one source (a
partition that carried the model proves nothing any more, others do), and `blind` (no source proves
anything: it is us, or the bus). A silent model behind a dead source is reported as the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from regate.config.canonical import content_id
from regate.detectors.columns import ModelKey
from regate.detectors.finding import Finding
from regate.detectors.incidents import six

# A pause shorter than this is scheduling and batching, whatever the reference's gaps were.
FLOOR_MS = 30_000
# Without a profile or a configured gap nothing is known of a model's rhythm; an hour is nobody's normal pause.
UNKNOWN_MS = 3_600_000
# Observe ticks every second: a source that gives no sign for this long is not watched by anybody.
SOURCE_MS = 30_000
BLIND, SOURCE, MODEL = "blind", "source", "model"
SEVERITY = {BLIND: 0.9, SOURCE: 0.7, MODEL: 0.5}


@dataclass(slots=True)
class Rhythm:
    """When a model was last heard of, through which sources, and what was said about it."""

    last_ms: int  # newest arrival, by the bus's time
    sources: dict[str, int] = field(default_factory=dict)  # source -> newest arrival
    open: Finding | None = None


@dataclass(slots=True)
class Silence:
    """State of one shard: models' rhythms and the sources' newest ticks."""

    models: dict[ModelKey, Rhythm] = field(default_factory=dict)
    ticks: dict[str, int] = field(default_factory=dict)  # source -> its newest tick
    started_ms: int = 0  # since when ticks come without a long pause of our own
    checked_ms: int = 0

    def heard(self, key: ModelKey, source: str, arrival_ms: int) -> None:
        """Note that a model's events came through a source."""
        rhythm = self.models.setdefault(key, Rhythm(arrival_ms))
        rhythm.last_ms = max(rhythm.last_ms, arrival_ms)
        rhythm.sources[source] = max(arrival_ms, rhythm.sources.get(source, 0))

    def alive(self, source: str, tick_ms: int) -> None:
        """Note that a source was looked at."""
        if tick_ms:
            self.ticks[source] = max(tick_ms, self.ticks.get(source, 0))

    def check(self, now_ms: int, expected_ms: Mapping[ModelKey, int]) -> list[Finding]:
        """Return findings for what became silent since the last tick, revisions for what came back."""
        if not self.checked_ms or now_ms - self.checked_ms > SOURCE_MS:
            self.started_ms = now_ms  # we were away ourselves: what others did meanwhile is still to be read
        self.checked_ms = now_ms
        self._by_now(now_ms)
        settled = now_ms - self.started_ms > SOURCE_MS
        found: list[Finding] = []
        dead = {source for source, tick in self.ticks.items() if settled and now_ms - tick > SOURCE_MS}
        blind = bool(self.ticks) and len(dead) == len(self.ticks)
        for key, rhythm in sorted(self.models.items(), key=lambda item: str(item[0])):
            limit = max(FLOOR_MS, expected_ms.get(key, UNKNOWN_MS))
            gap = now_ms - max(rhythm.last_ms, self.started_ms)
            cause = self._cause(rhythm, gap > limit, dead, blind=blind)
            if rhythm.open is None:
                if cause:
                    rhythm.open = _finding(key, rhythm, cause, now_ms, limit)
                    found.append(rhythm.open)
            elif not cause and (settled or rhythm.last_ms * 1000 > rhythm.open.detected_us):
                found.append(_back(rhythm.open, now_ms))
                rhythm.open = None
        return found

    def _by_now(self, now_ms: int) -> None:
        """Bound times by now, when all that is here has arrived: a clock that runs ahead must not hide a silence."""
        self.started_ms = min(self.started_ms, now_ms)
        self.ticks = {source: min(tick, now_ms) for source, tick in self.ticks.items()}
        for rhythm in self.models.values():
            rhythm.last_ms = min(rhythm.last_ms, now_ms)

    def _cause(self, rhythm: Rhythm, silent: bool, dead: set[str], *, blind: bool) -> str:
        if blind:
            return BLIND
        carriers = dead & set(rhythm.sources)
        if carriers:
            return f"{SOURCE} {min(carriers)}"
        return MODEL if silent else ""


def expected_gap_ms(gap_us: int, configured_seconds: float | None) -> int:
    """Return the longest normal gap: as configured, else the profile's for these hours, else unknown.

    >>> expected_gap_ms(0, 5.0), expected_gap_ms(90_000_000, None), expected_gap_ms(0, None)
    (5000, 90000, 3600000)
    """
    if configured_seconds is not None:
        return round(configured_seconds * 1000)
    return gap_us // 1000 if gap_us else UNKNOWN_MS


def _finding(key: ModelKey, rhythm: Rhythm, cause: str, now_ms: int, limit: int) -> Finding:
    identity = content_id("silence", str(key), cause, rhythm.last_ms)
    gap = (now_ms - rhythm.last_ms) / 1000
    said = {
        BLIND: "no telemetry partition was looked at: regate is blind",
        MODEL: "the model sends nothing while telemetry is watched",
    }.get(cause, f"{cause} is not watched any more")
    return Finding.first(
        key,
        identity,
        family="silence",
        kind="silence",
        detector="silence",
        subject=cause,
        severity=SEVERITY[cause.partition(" ")[0]],
        evidence=six(gap),
        threshold=six(limit / 1000),
        effect=six(gap),
        unit="seconds",
        onset_us=rhythm.last_ms * 1000,
        detected_us=now_ms * 1000,
        message=f"{said}; nothing for {gap:.0f} s, normal is at most {limit / 1000:.0f} s",
    )


def _back(first: Finding, now_ms: int) -> Finding:
    return first.model_copy(
        update={
            "type": "revision",
            "revision": "recovered",
            "id": content_id("revision", first.id, "recovered"),
            "detected_us": now_ms * 1000,
            "cell": now_ms // 1000,
            "message": f"{first.subject}: events are back",
        }
    )
