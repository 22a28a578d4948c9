"""What families get of the reference, and what they hand to the builder: a chart with its bets, before calibration."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from regate.config.canonical import digest, digest_bytes
from regate.config.model import ModelConfig
from regate.detectors import rhythm
from regate.detectors.columns import BoolArray, FloatArray, HashArray, Slice
from regate.detectors.grids import Coefficients
from regate.detectors.labelled import Delivery, facts, usual_delay
from regate.detectors.layout import ChartSpec, Layout
from regate.detectors.marks import Outcomes
from regate.detectors.numerics import LN_2
from regate.detectors.profile import Points
from regate.detectors.sections import Section
from regate.detectors.views import EventView, OutcomeView, StratumArray, View, event_view, outcome_view

# What a wrong bet must lose in so many events, in nats: one that gains this much finds its change in some 30,000
# events; anything slower is no use to an operator.
LEAST_INFORMATION, INFORMING_EVENTS = 0.02, 64
# Part of every chart's digest: a change of what a chart's state means restarts it.
STATE_SCHEMA = 1


def repeated(event_id: HashArray) -> BoolArray:
    """Return which rows have an id that an earlier row has."""
    found = np.ones(event_id.size, dtype=np.bool_)
    found[np.unique(event_id, return_index=True)[1]] = False
    return found


@dataclass(frozen=True)
class Plan:
    """The reference rows before there is a layout: what a family makes its sections from."""

    config: ModelConfig
    rows: Slice
    stratum: StratumArray
    strata: range
    outcomes: Outcomes | None  # aligned with the rows; ``wrong`` is -1 where no label is known
    delivery: Delivery = field(default_factory=Delivery)

    @property
    def delay(self) -> int | None:
        """Return the minutes within which labels usually come, None where nobody says."""
        return usual_delay(self.delivery, self.config.detection.label_delay_seconds)

    @cached_property
    def view(self) -> EventView:
        """Return the rows as sections see them."""
        return _with_facts(self.rows, self.stratum, self.outcomes, self.delivery, self.delay)


@dataclass(frozen=True)
class Own:
    """Sections of one family: of telemetry, and of outcomes. `first` is set when they are placed."""

    events: list[Section] = field(default_factory=list)
    outcomes: list[Section] = field(default_factory=list)


@dataclass(frozen=True)
class Reference:
    """The reference rows as families see them. ``outcomes`` are aligned with the rows."""

    config: ModelConfig
    layout: Layout
    rows: Slice
    stratum: StratumArray
    outcomes: Outcomes | None
    delivery: Delivery = field(default_factory=Delivery)

    @cached_property
    def events_view(self) -> EventView:
        """Return the telemetry as sections see it."""
        delay = usual_delay(self.delivery, self.config.detection.label_delay_seconds)
        return _with_facts(self.rows, self.stratum, self.outcomes, self.delivery, delay)

    @cached_property
    def outcomes_view(self) -> OutcomeView | None:
        """Return the outcomes, aligned with the rows, as sections see them; None without any."""
        return None if self.outcomes is None else outcome_view(self.outcomes, self.stratum)

    def view_of(self, section: Section) -> View:
        """Return the rows that a section reads: telemetry or outcomes."""
        if section.first < self.layout.outcomes:
            return self.events_view
        assert self.outcomes_view is not None
        return self.outcomes_view

    def trials_of(self, section: Section) -> BoolArray:
        """Return the rows that count for a section: all, or those whose label is known."""
        if section.first < self.layout.outcomes or self.outcomes is None:
            return np.ones(self.rows.n, dtype=np.bool_)
        return self.outcomes.known

    def weight(self, feature: str) -> float:
        """Return the configured weight of a feature."""
        known = self.config.features.get(feature)
        return 1.0 if known is None else known.weight

    @property
    def halves(self) -> tuple[slice, slice]:
        """Return the first and the second half of the rows."""
        middle = self.rows.n // 2
        return slice(0, middle), slice(middle, self.rows.n)

    @property
    def strata(self) -> range:
        """Return the strata."""
        return range(self.layout.strata_count)


def _with_facts(
    rows: Slice, stratum: StratumArray, outcomes: Outcomes | None, delivery: Delivery, delay: int | None
) -> EventView:
    flags = {"duplicate": repeated(rows.event_id)}
    more = {} if outcomes is None else facts(outcomes, delivery, delay)
    return event_view(rows, stratum, flags, more={**more, **rhythm.sources(rows.event_time_us)})


@dataclass(frozen=True)
class Candidate:
    """A chart and its bets: ``a``, ``b`` are ``float64[strata, grid]``, ``centre`` is ``float64[strata]``."""

    spec: ChartSpec
    a: FloatArray
    b: FloatArray
    centre: FloatArray
    depends: str = ""  # digest of what the statistic itself is made with: table, categories
    reach: int = 1  # rows over which the statistic depends on itself

    @property
    def digest(self) -> str:
        """Return the content address of all that the chart's state depends on."""
        arrays = b"".join(np.ascontiguousarray(array, dtype="<f8").tobytes() for array in (self.a, self.b, self.centre))
        return digest([STATE_SCHEMA, self.spec.name, self.spec.weight, self.depends, digest_bytes(arrays)])


def made_of(candidate: Candidate, *parts: str) -> Candidate:
    """Return a chart that says what its statistic is made of: an incident about one of the parts takes it in."""
    return replace(candidate, spec=replace(candidate.spec, of=parts))


def strong(bet: Coefficients, expected: float) -> Coefficients | None:
    """Return the bets that tell reference and change apart, where one trial has ``expected`` s on average.

    A weaker bet would neither win nor lose: its R only counts elapsed time, which lifts the mean for everybody.
    """
    a, b = bet
    keep = -(b + a * expected) * LN_2 * INFORMING_EVENTS >= LEAST_INFORMATION
    return (a[keep], b[keep]) if keep.any() else None


def stacked(bets: list[Coefficients | None]) -> tuple[FloatArray, FloatArray]:
    """Stack the bets of each stratum (None: no bet there) to ``[strata, grid]``, all on the same grid."""
    size = max((bet[0].size for bet in bets if bet is not None), default=0)
    a, b = np.zeros((len(bets), size)), np.zeros((len(bets), size))
    for index, bet in enumerate(bets):
        if bet is not None:
            a[index, : bet[0].size], b[index, : bet[1].size] = bet
    return a, b


def points_of(chosen: list[Candidate]) -> Points:
    """Return the bets of all charts, flat; a chart that is not watched has one point that never moves."""
    strata = chosen[0].centre.size
    nothing = np.zeros((strata, 1))
    a = [candidate.a if candidate.spec.watchable else nothing for candidate in chosen]
    b = [candidate.b if candidate.spec.watchable else nothing for candidate in chosen]
    sizes = [part.shape[1] for part in a]
    return Points(
        chart=np.repeat(np.arange(len(chosen), dtype=np.int64), sizes),
        a=np.concatenate(a, axis=1),
        b=np.concatenate(b, axis=1),
        centre=np.stack([candidate.centre for candidate in chosen], axis=1),
    )
