"""Which columns the mergeable statistics have, and what a chart is.

Column 0 counts events; then come the sections of telemetry, two columns of realised outcomes (outcomes, errors), and
the sections of outcomes. All are integers that add up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from regate.config.model import Family
from regate.detectors.finding import Kind
from regate.detectors.marks import OutcomeShape
from regate.detectors.sections import Section

Form = Literal["mean", "scale", "indicator", "tilt"]
Strata = Literal["none", "hour", "weekday", "hour_of_week"]
STRATA_COUNT: dict[str, int] = {"none": 1, "hour": 24, "weekday": 7, "hour_of_week": 168}

EVENTS = 0
# A category with fewer reference rows shares a cell: its own rate is known too badly to watch.
RARE_BELOW = 25
MAX_KEPT = 256
# Beyond this many rare categories the profile does not list them, and `unseen` cannot be watched.
MAX_LISTED = 65_536


@dataclass(frozen=True, slots=True)
class Layout:
    """All columns. ``shape`` says what the values and marks of outcomes mean."""

    sections: tuple[Section, ...]
    strata: Strata
    time_zone: str
    outcome_sections: tuple[Section, ...] = ()
    shape: OutcomeShape = field(default_factory=OutcomeShape)

    @property
    def outcomes(self) -> int:
        """Return the column that counts outcomes; the next one counts errors."""
        return end(self.sections, 1)

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return end(self.outcome_sections, self.outcomes + 2)

    @property
    def strata_count(self) -> int:
        """Return how many strata there are."""
        return STRATA_COUNT[self.strata]


def end(sections: tuple[Section, ...], first: int) -> int:
    """Return the column after the last section, ``first`` when there is none."""
    return sections[-1].first + sections[-1].width if sections else first


@dataclass(frozen=True, slots=True)
class ChartSpec:
    """One statistic watched over time.

    ``tau`` and ``margin`` are the largest over the strata. ``rows`` is the number of reference rows behind it.
    ``digest`` is the content address of all that the chart's state depends on; state is kept under it.
    ``minimal_effect`` is the smallest effect, in the chart's unit, that is expected to be found within
    ``power.HORIZON`` events at the profile's traffic; ``delays`` are expected events for a few effects.

    A *mean* chart sums values in units of 2^-16 around ``centre``; ``sd`` is that of one value (1 for normal scores).
    A *tilt* chart sums residuals over their variances, both in units of 2^-16: its effect is in logits, and ``sd`` is
    that of one residual.
    """

    name: str  # "<family>/<subject>/<statistic>"
    family: Family
    subject: str
    statistic: str
    unit: str  # sigma, ratio, probability, logits or relative
    kind: Kind
    form: Form
    weight: float
    tau: float
    margin: float
    rows: int
    watchable: bool
    reason: str = ""
    digest: str = ""
    s_column: int = 0
    n_column: int = 0
    title: str = ""  # what moved, for a person: "the rate of wrong predictions"; default from subject and statistic
    severity: float = 0.5  # of a finding that this chart leads, where nothing has been lost yet
    worst: float = 0.0  # effect at which severity is `most`; 0: severity does not follow the effect
    most: float = 1.0
    sd: float = 1.0
    of: tuple[str, ...] = ()  # parts that the statistic is made of: what moves one of them moves it
    minimal_effect: float = 0.0
    delays: tuple[tuple[float, float], ...] = ()
