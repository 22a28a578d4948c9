"""The false-alarm budget as it was spent: what was promised, what was found, which charts took it.

A finding of a calibrated chart spends one false alarm until it turns out to be true: an incident that labels
*confirmed* or that somebody *accepted* as the new normal was no false alarm. One that is open, has *recovered* or
was *withdrawn* counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from regate.detectors.finding import CLOSING, Finding
from regate.detectors.profile import Profile

TRUE = {"confirmed", "accepted"}


@dataclass(frozen=True, slots=True)
class ChartBudget:
    """One chart: ``nominal`` is its share of the false alarms promised for the time watched."""

    chart: str
    watchable: bool
    share: float
    nominal: float
    led: int = 0  # findings that it led
    true: int = 0  # of which were confirmed or accepted


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget of one model version over the last period (or since it is watched, when that is shorter)."""

    allowed: float  # false alarms a period, as configured
    nominal: float  # of which for the time watched
    found: int
    true: int
    open: int
    charts: tuple[ChartBudget, ...] = field(default=())

    @property
    def spent(self) -> int:
        """Return the findings that did not turn out to be true."""
        return self.found - self.true

    @property
    def remaining_ratio(self) -> float:
        """Return the share of the period's budget that is left, 0 when it is overdrawn."""
        return max(0.0, 1.0 - self.spent / self.allowed)


def spending(profile: Profile, findings: Iterable[Finding], allowed: float, watched_ratio: float) -> Budget:
    """Return the budget of one model version.

    :param findings: its findings and revisions of the last period, oldest first.
    :param allowed: false alarms a period.
    :param watched_ratio: how much of the period was watched, 0 to 1.
    """
    lead: dict[str, str] = {}  # incident -> chart that led it
    true: set[str] = set()
    closed: set[str] = set()
    for finding in findings:
        if not finding.carriers or finding.historical:
            continue  # silence and the like have their own rule, history spends nothing
        if finding.type == "finding":
            lead[finding.incident] = finding.carriers[0].chart
        if finding.revision in TRUE:  # what labels confirmed stays true when it recovers
            true.add(finding.incident)
        if finding.revision in CLOSING:
            closed.add(finding.incident)
    true &= lead.keys()
    weights = {chart.name: chart.weight if chart.watchable else 0.0 for chart in profile.charts}
    total = sum(weights.values())
    watched = min(max(watched_ratio, 0.0), 1.0)
    charts = tuple(
        ChartBudget(
            chart=chart.name,
            watchable=chart.watchable,
            share=weights[chart.name] / total,
            nominal=allowed * watched * weights[chart.name] / total,
            led=sum(name == chart.name for name in lead.values()),
            true=sum(lead[incident] == chart.name for incident in true),
        )
        for chart in profile.charts
    )
    return Budget(allowed, allowed * watched, len(lead), len(true), len(lead.keys() - closed), charts)
