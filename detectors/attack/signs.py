"""Signs and their incidents: what a lane beside client memory saw, told once, ended when unseen for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regate.config.canonical import content_id
from regate.detectors.attack.sign import Sign
from regate.detectors.columns import ModelKey
from regate.detectors.finding import Finding
from regate.detectors.incidents import six

# An hour without another sign ends an incident of queries. Labels come seldom, budgets are a day's: a day ends theirs.
QUIET_US = 3_600_000_000
LONG_QUIET_US = 24 * QUIET_US
BY_DAY = frozenset({"labels", "flips", "volume"})
# Open incidents at once; what finds no room is counted.
MOST_OPEN = 1_000
SEVERITY = 0.5
_LOG10_E = float(np.log10(np.e))

Name = Callable[[int], str]


@dataclass(slots=True)
class Signs:
    """Open incidents and when each was seen last."""

    open: dict[str, Finding] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    opened: int = 0
    untold: int = 0

    def take(
        self, signs: Iterable[Sign], now_us: int, key: ModelKey, profile_digest: str, name: Name, events: int = 0
    ) -> list[Finding]:
        """Take signs up to a time; return new findings and what has ended.

        An incident ends at a fixed time after its last sign, so that nothing depends on when this is asked.
        """
        found: list[Finding] = []
        for sign in sorted(signs, key=lambda one: (one.time_us, one.place)):
            found += self._ended(sign.time_us)
            if sign.place in self.open:
                self.last[sign.place] = max(self.last[sign.place], sign.time_us)
            elif len(self.open) >= MOST_OPEN:
                self.untold += 1
            else:
                found.append(self._opened(sign, key, profile_digest, name, events))
        return [*found, *self._ended(now_us)]

    def _opened(self, sign: Sign, key: ModelKey, profile_digest: str, name: Name, events: int) -> Finding:
        subject = sign.subject or name(sign.client)
        self.opened += 1
        identity = content_id("attack", str(key), sign.place, sign.time_us)
        finding = Finding(
            id=identity,
            incident=identity,
            tenant=key.tenant,
            model=key.model,
            model_version=key.version,
            deployment=key.deployment,
            family="attack",
            kind="attack",
            detector=f"attack/{sign.lane}",
            subject=subject,
            severity=SEVERITY,
            evidence=six(sign.level * _LOG10_E),
            threshold=six(sign.bar * _LOG10_E),
            effect=six(float(sign.count)),
            unit=sign.unit,
            onset_us=sign.since_us,
            detected_us=sign.time_us,
            cell=sign.time_us // 1_000_000,
            events=events,
            profile_digest=profile_digest,
            message=sign.said.replace("{subject}", subject),
        )
        self.open[sign.place], self.last[sign.place] = finding, sign.time_us
        return finding

    def _ended(self, now_us: int) -> list[Finding]:
        due = []
        for place, first in self.open.items():
            quiet = LONG_QUIET_US if place.partition("/")[0] in BY_DAY else QUIET_US
            if self.last[place] + quiet < now_us:
                due.append((self.last[place] + quiet, place, first))
        found = []
        for at_us, place, first in sorted(due, key=lambda one: one[:2]):
            del self.open[place], self.last[place]
            said = {
                "type": "revision",
                "revision": "recovered",
                "id": content_id("attack", first.id, "recovered", at_us),
                "detected_us": at_us,
                "cell": at_us // 1_000_000,
                "message": f"{first.subject}: not seen any more",
            }
            found.append(first.model_copy(update=said))
        return found

    def state(self) -> dict[str, Any]:
        """Return everything as plain values."""
        listed = [
            [place, self.last[place], finding.model_dump(mode="json")] for place, finding in sorted(self.open.items())
        ]
        return {"open": listed, "opened": self.opened, "untold": self.untold}

    def restore(self, said: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.open = {place: Finding.model_validate(finding) for place, _, finding in said["open"]}
        self.last = {place: last for place, last, _ in said["open"]}
        self.opened, self.untold = said["opened"], said["untold"]
