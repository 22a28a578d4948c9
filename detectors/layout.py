"""Which columns the mergeable statistics have, and what a chart is.

Column 0 counts events. A numeric feature has five columns, a categorical one three and one for each
category that it keeps; realised outcomes have the last two. All are integers that add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from regate.detectors.finding import Family, Kind
from regate.detectors.ranktable import RankTable

Form = Literal["mean", "scale", "indicator"]
Strata = Literal["none", "hour", "weekday", "hour_of_week"]
STRATA_COUNT: dict[str, int] = {"none": 1, "hour": 24, "weekday": 7, "hour_of_week": 168}

EVENTS = 0
# Offsets inside a feature's own columns.
PRESENT, MISSING = 0, 1
SUM_Z, SUM_Z2, OUTSIDE, NUMERIC_WIDTH = 2, 3, 4, 5
OTHER, UNSEEN, KEPT = 2, 3, 4
# A category with fewer reference rows shares a cell: its own rate is known too badly to watch.
RARE_BELOW = 25
MAX_KEPT = 256
# Beyond this many rare categories the profile does not list them, and `unseen` cannot be watched.
MAX_LISTED = 65_536


@dataclass(frozen=True, slots=True)
class NumericSpec:
    """A numeric feature: its rank table in each stratum."""

    name: str
    first: int
    tables: tuple[RankTable, ...]

    @property
    def width(self) -> int:
        """Return the number of columns: present, missing, sum z, sum z^2, outside the reference's range."""
        return NUMERIC_WIDTH


@dataclass(frozen=True, slots=True)
class CategoricalSpec:
    """A categorical or boolean feature: categories with a column of their own, and rare ones that share one.

    ``other`` counts rare and unseen categories together, ``unseen`` those that the reference does not have.
    """

    name: str
    first: int
    kept: tuple[str, ...]
    rare: tuple[str, ...]

    @property
    def width(self) -> int:
        """Return the number of columns: present, missing, other, unseen, one for each kept category."""
        return KEPT + len(self.kept)


FeatureSpec = NumericSpec | CategoricalSpec


@dataclass(frozen=True, slots=True)
class Layout:
    """All columns. ``outcomes`` is the first of the two outcome columns (outcomes, errors)."""

    features: tuple[FeatureSpec, ...]
    strata: Strata
    time_zone: str

    @property
    def outcomes(self) -> int:
        """Return the column that counts outcomes; the next one counts errors."""
        return self.features[-1].first + self.features[-1].width if self.features else 1

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return self.outcomes + 2

    @property
    def strata_count(self) -> int:
        """Return how many strata there are."""
        return STRATA_COUNT[self.strata]


@dataclass(frozen=True, slots=True)
class ChartSpec:
    """One statistic watched over time.

    ``tau`` and ``margin`` are the largest over the strata. ``rows`` is the number of reference rows behind it.
    ``digest`` is the content address of all that the chart's state depends on; state is kept under it.
    ``minimal_effect`` is the smallest effect, in the chart's unit, that is expected to be found within
    ``power.HORIZON`` events at the profile's traffic; ``delays`` are expected events for a few effects.
    """

    name: str  # "<family>/<subject>/<statistic>"
    family: Family
    subject: str
    statistic: str
    unit: str  # sigma, ratio or probability
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
    minimal_effect: float = 0.0
    delays: tuple[tuple[float, float], ...] = ()
