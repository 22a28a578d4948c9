"""The reference profile: the frozen, content-addressed description of "normal" that charts compare with."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from regate.config.canonical import digest_bytes
from regate.detectors.accumulate import accumulate, accumulate_outcomes, stratum_of
from regate.detectors.attack.reference import AttackReference
from regate.detectors.burn import Objective
from regate.detectors.cells import BLOCK_EVENTS
from regate.detectors.columns import FloatArray, IntArray, ModelKey, Slice
from regate.detectors.layout import ChartSpec, Layout
from regate.detectors.marks import Outcomes
from regate.detectors.prompts.reference import PromptReference
from regate.detectors.river_adapter import RiverSpec
from regate.detectors.views import StratumArray, event_view, outcome_view


@dataclass(frozen=True)
class Points:
    """The grid of alternatives of all charts, flat: ``log2 E = s * a + n * b``.

    ``chart[p]`` is the chart of point p (ascending, every chart has at least one); ``a`` and ``b`` are
    ``float64[strata, P]`` in bits per integer unit; ``centre`` is ``float64[strata, charts]``, what the
    reference expects of s for each of n. Where a chart is not watched in a stratum, a = b = 0 there.
    """

    chart: IntArray
    a: FloatArray
    b: FloatArray
    centre: FloatArray


@dataclass(frozen=True)
class Calibration:
    """What the threshold search did. ``log10_traffic`` (events a period) and ``log10_threshold`` are its result."""

    log10_traffic: tuple[float, ...] = ()
    log10_threshold: tuple[float, ...] = ()
    block_updates: int = 0  # simulated blocks, over all lanes
    capped: bool = False  # `calibrate_seconds` ended it before the wanted precision
    widened: tuple[str, ...] = ()  # charts whose tau had to grow for the budget to hold at the ceiling
    note: str = ""


@dataclass(frozen=True)
class Profile:
    """A reference profile. Equal content gives equal bytes gives an equal ``digest``."""

    key: ModelKey
    layout: Layout
    charts: tuple[ChartSpec, ...]
    points: Points
    calibration: Calibration
    budget_period_us: int  # one nominal false alarm each
    rows: int
    block_rows: int = BLOCK_EVENTS
    events_per_second: float | None = None
    budget_events: float | None = None  # the profile's traffic in events a period, when it is known
    gaps_us: tuple[int, ...] = ()  # longest normal gap by hour of the week; empty when the reference has no times
    error_cutoff: float | None = None  # regression: an outcome is wrong when |error| exceeds this
    dropped: tuple[str, ...] = ()  # charts beyond max_charts
    river: tuple[RiverSpec, ...] = ()
    objectives: tuple[Objective, ...] = ()
    attack: AttackReference | None = None
    prompts: PromptReference | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def strata(self) -> str:
        """Return how event time is stratified: none, hour, weekday or hour_of_week."""
        return self.layout.strata

    @property
    def unwatchable(self) -> tuple[ChartSpec, ...]:
        """Return the charts that the reference cannot support; ``reason`` says why, with both numbers."""
        return tuple(chart for chart in self.charts if not chart.watchable)

    @cached_property
    def encoded(self) -> bytes:
        """Return the profile as bytes."""
        from regate.detectors.profile_codec import encode  # noqa: PLC0415  (the codec knows this class)

        return encode(self)

    @cached_property
    def digest(self) -> str:
        """Return the content address of the profile."""
        return digest_bytes(self.encoded)

    def to_bytes(self) -> bytes:
        """Return the profile as bytes; ``from_bytes`` gives exactly the same numbers back."""
        return self.encoded

    @staticmethod
    def from_bytes(data: bytes) -> Profile:
        """Return the profile that ``data`` holds.

        :raises ConfigError: when the bytes are not a profile, or one of a newer schema.
        """
        from regate.detectors.profile_codec import decode  # noqa: PLC0415

        return decode(data)

    def stratum(self, event_time_us: IntArray) -> StratumArray:
        """Return the stratum of each event time, in the model's time zone; zeros when there are none."""
        return stratum_of(event_time_us, self.layout.strata, self.layout.time_zone)

    def accumulate(self, rows: Slice, group: IntArray, groups: int) -> IntArray:
        """Return ``int64[groups, D]``: the mergeable statistics of a slice, summed by ``group`` (one per row)."""
        return accumulate(self.layout, event_view(rows, self.stratum(rows.event_time_us)), group, groups)

    def accumulate_outcomes(self, outcomes: Outcomes, stratum: StratumArray, group: IntArray, groups: int) -> IntArray:
        """Return ``int64[groups, D]`` of realised outcomes; add it to the block of the label's event time."""
        return accumulate_outcomes(self.layout, outcome_view(outcomes, stratum), group, groups)

    def events_per_period(self, events_per_second: float) -> float:
        """Return the traffic that ``Bank.threshold`` takes, from events a second."""
        return float(np.float64(events_per_second) * self.budget_period_us / 1e6)
