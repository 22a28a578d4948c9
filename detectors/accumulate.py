"""From a slice of events to mergeable integers, summed by any grouping of its rows."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

from regate.detectors.columns import IntArray
from regate.detectors.layout import EVENTS, Layout, Strata
from regate.detectors.views import EventView, OutcomeView, StratumArray

# Zone offsets change on multiples of a quarter of an hour, so one look-up a quarter is enough.
_QUARTER_US = 900_000_000
_HOUR_US = 3_600_000_000
# 1970-01-01 was a Thursday; strata count from Monday.
_EPOCH_WEEKDAY = 3


def stratum_of(event_time_us: IntArray, strata: Strata, time_zone: str) -> StratumArray:
    """Return the stratum of each event by its local time in the model's zone; zeros for "none"."""
    if strata == "none":
        return np.zeros(event_time_us.size, dtype=np.int16)
    quarters, inverse = np.unique(event_time_us // _QUARTER_US, return_inverse=True)
    zone = ZoneInfo(time_zone)
    offsets = np.array([_offset_us(int(quarter), zone) for quarter in quarters], dtype=np.int64)
    hours = (event_time_us + offsets[inverse]) // _HOUR_US
    hour, weekday = hours % 24, (hours // 24 + _EPOCH_WEEKDAY) % 7
    chosen = {"hour": hour, "weekday": weekday, "hour_of_week": weekday * 24 + hour}[strata]
    return chosen.astype(np.int16)


def _offset_us(quarter: int, zone: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(quarter * 900, UTC).astimezone(zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds()) * 1_000_000


def accumulate(layout: Layout, rows: EventView, group: IntArray, groups: int) -> IntArray:
    """Return ``int64[groups, width]``: the statistics of telemetry, summed by ``group``.

    A source that the rows lack, or have with another type than the profile, counts as missing there.
    """
    out = np.zeros((groups, layout.width), dtype=np.int64)
    out[:, EVENTS] = np.bincount(group, minlength=groups)
    for section in layout.sections:
        section.add(rows, group, groups, out[:, section.first : section.first + section.width])
    return out


def accumulate_outcomes(layout: Layout, rows: OutcomeView, group: IntArray, groups: int) -> IntArray:
    """Return ``int64[groups, width]`` with outcomes, errors and the sections of outcomes filled."""
    out = np.zeros((groups, layout.width), dtype=np.int64)
    outcomes = rows.outcomes
    assert outcomes is not None
    out[:, layout.outcomes] = np.bincount(group, minlength=groups)
    out[:, layout.outcomes + 1] = np.bincount(group[outcomes.wrong != 0], minlength=groups)
    for section in layout.outcome_sections:
        section.add(rows, group, groups, out[:, section.first : section.first + section.width])
    return out
