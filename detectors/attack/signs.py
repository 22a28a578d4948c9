"""Signs and their incidents: what a lane beside client memory saw, told once, ended when unseen for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from regate.config.canonical import content_id
from regate.detectors.attack.ongoing import QUIET_US, Incidents, Ongoing
from regate.detectors.attack.sign import Sign
from regate.detectors.columns import ModelKey
from regate.detectors.finding import Finding
from regate.detectors.incidents import six

# Labels come seldom, and budgets are a day's: their incidents end after a day without another sign.
LONG_QUIET_US = 24 * QUIET_US
BY_DAY = frozenset({"labels", "flips", "volume"})
SEVERITY = 0.5
_LOG10_E = float(np.log10(np.e))

Name = Callable[[int], str]
Events = Callable[[int], int]  # how many events had come by a time


def none_counted(_time_us: int) -> int:
    """Return 0: nobody counts events."""
    return 0


@dataclass(slots=True)
class Signs(Incidents):
    """Incidents that signs open and keep open."""

    def take(
        self,
        signs: Iterable[Sign],
        now_us: int,
        key: ModelKey,
        profile_digest: str,
        name: Name,
        events: Events = none_counted,
    ) -> list[Finding]:
        """Take signs up to a time; return new findings and what has ended.

        An incident ends at a fixed time after its last sign, so that nothing depends on when this is asked.
        """
        found: list[Finding] = []
        for sign in sorted(signs, key=lambda one: (one.time_us, one.place)):
            found += self._ended(sign.time_us)
            if (known := self.open.get(sign.place)) is not None:
                known.last_us = max(known.last_us, sign.time_us)
            elif self.full:
                self.untold += 1
            else:
                found.append(self._opened(sign, key, profile_digest, name, events))
        return [*found, *self._ended(now_us)]

    def _ended(self, now_us: int) -> list[Finding]:
        return [finding for _, finding in self.over(now_us)]

    def _opened(self, sign: Sign, key: ModelKey, profile_digest: str, name: Name, events: Events) -> Finding:
        subject = sign.subject or name(sign.client)
        self.opened += 1
        identity = content_id("attack", str(key), sign.place, sign.time_us)
        finding = Finding.first(
            key,
            identity,
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
            events=events(sign.time_us),
            profile_digest=profile_digest,
            message=sign.said.replace("{subject}", subject),
        )
        quiet_us = LONG_QUIET_US if sign.lane in BY_DAY else QUIET_US
        self.open[sign.place] = Ongoing(finding, sign.time_us, quiet_us)
        return finding
