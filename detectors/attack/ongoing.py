"""Incidents of attacks that go on: each ends a fixed time after it was seen last, whenever that is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regate.config.canonical import content_id
from regate.detectors.arrays import Arrays
from regate.detectors.columns import IntArray
from regate.detectors.finding import Finding

# What was not seen for an hour is over.
QUIET_US = 3_600_000_000
# Open incidents at once; what finds no room is counted.
MOST_OPEN = 1_000
# A finding is one or two kilobytes, a snapshot record at most 900.
OPEN_A_CHUNK = 250

Chunk = tuple[str, dict[str, Any], Arrays]


@dataclass(slots=True)
class Ongoing:
    """One incident: its first finding, and when it was seen last."""

    finding: Finding
    last_us: int
    quiet_us: int = QUIET_US
    view: str = ""  # of client memory, in which it was seen first

    @property
    def due_us(self) -> int:
        """Return when it ends, unless it is seen again until then."""
        return self.last_us + self.quiet_us

    def seen(self, times_us: IntArray) -> None:
        """Take all times, in order, at which it is seen; those after a quiet time are another incident's."""
        later = times_us[times_us > self.last_us]
        quiet = np.flatnonzero(np.diff(later, prepend=self.last_us) > self.quiet_us)
        until = int(quiet[0]) if quiet.size else len(later)
        if until:
            self.last_us = int(later[until - 1])


@dataclass(slots=True)
class Incidents:
    """Open incidents by place: whom and what they are about."""

    open: dict[str, Ongoing] = field(default_factory=dict)
    opened: int = 0
    untold: int = 0  # what found no room

    @property
    def full(self) -> bool:
        """Return whether no other incident finds room."""
        return len(self.open) >= MOST_OPEN

    @property
    def due_us(self) -> int | None:
        """Return when the next one ends, unless it is seen again until then."""
        return min((one.due_us for one in self.open.values()), default=None)

    def over(self, now_us: int) -> list[tuple[str, Finding]]:
        """End what is due before a time; return places and revisions, in order of their ends."""
        due = sorted((one.due_us, place) for place, one in self.open.items() if one.due_us < now_us)
        return [(place, self.end(place, at_us, "not seen any more")) for at_us, place in due]

    def end(self, place: str, at_us: int, why: str) -> Finding:
        """End one incident; return the revision that says so."""
        first = self.open.pop(place).finding
        said = {
            "type": "revision",
            "revision": "recovered",
            "id": content_id("attack", first.id, "recovered", at_us),
            "detected_us": at_us,
            "cell": at_us // 1_000_000,
            "message": f"{first.subject}: {why}",
        }
        return first.model_copy(update=said)

    def end_all(self, at_us: int, why: str) -> list[Finding]:
        """End everything; return the revisions."""
        return [self.end(place, max(at_us, self.open[place].last_us), why) for place in sorted(self.open)]

    def carry(self, before: Incidents) -> None:
        """Go on with what is open elsewhere."""
        self.open, self.opened, self.untold = before.open, before.opened, before.untold

    def chunks(self, name: str) -> Iterator[Chunk]:
        """Return the state as chunks under a name."""
        yield name, {"opened": self.opened, "untold": self.untold}, {}
        listed = [
            [place, one.last_us, one.quiet_us, one.view, one.finding.model_dump(mode="json")]
            for place, one in sorted(self.open.items())
        ]
        for number, start in enumerate(range(0, len(listed), OPEN_A_CHUNK)):
            yield f"{name}/{number:06}", {"open": listed[start : start + OPEN_A_CHUNK]}, {}

    def restore(self, name: str, own: Mapping[str, tuple[dict[str, Any], Arrays]]) -> None:
        """Take back what `chunks` gave; what is missing is not open any more."""
        if name in own:
            self.opened, self.untold = own[name][0]["opened"], own[name][0]["untold"]
        pieces = [said["open"] for other, (said, _) in sorted(own.items()) if other.startswith(f"{name}/")]
        self.open = {
            place: Ongoing(Finding.model_validate(finding), last_us, quiet_us, view)
            for piece in pieces
            for place, last_us, quiet_us, view, finding in piece
        }
