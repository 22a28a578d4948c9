"""How long a model is normally silent, by the hour of its week.

A gap counts for every local hour that it touches: a night's pause for each hour of the night, and for the hours in
which it began and ended. An hour's longest normal gap is the .9999 quantile of its gaps. With too few gaps to support
such a quantile it is no smaller than that of the same hour of all days, and with fewer still than that of all hours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from regate.detectors.accumulate import stratum_of
from regate.detectors.columns import IntArray

QUANTILE = 0.9999
SUPPORTED = 10_000  # 1 / (1 - QUANTILE): with fewer the quantile is the largest gap that happened to come
HOURS, DAY = 168, 24
HOUR_US = 3_600_000_000


def gap_table(event_time_us: IntArray, time_zone: str) -> tuple[int, ...]:
    """Return the longest normal gap of each hour of the week in microseconds; empty when the times tell no gap."""
    times = np.sort(event_time_us)
    if times.size < 2:
        return ()
    gaps = np.diff(times)
    hour, which = _touched(times, gaps, time_zone)
    by_hour = [gaps[which[hour == number]] for number in range(HOURS)]
    whole = _quantile(gaps)
    table = []
    for number, own in enumerate(by_hour):
        longest = _quantile(own) if own.size else 0
        if own.size < SUPPORTED:
            day = np.concatenate(by_hour[number % DAY :: DAY])
            longest = max(longest, _quantile(day) if day.size else 0, whole if day.size < SUPPORTED else 0)
        table.append(longest)
    return tuple(table)


def longest_gap_us(table: Sequence[int], start_us: int, end_us: int, time_zone: str) -> int:
    """Return the longest normal gap over the hours that a silence spans; 0 when nothing is known.

    >>> longest_gap_us(range(168), 0, 1, "UTC")  # 1970-01-01 was a Thursday
    72
    """
    if not table:
        return 0
    stop = min(max(end_us, start_us), start_us + HOURS * HOUR_US)
    marks = np.append(np.arange(start_us, stop, HOUR_US, dtype=np.int64), stop)
    return max(int(table[hour]) for hour in np.unique(stratum_of(marks, "hour_of_week", time_zone)))


def _quantile(gaps: IntArray) -> int:
    return int(np.quantile(gaps, QUANTILE, method="higher"))


def _touched(times: IntArray, gaps: IntArray, time_zone: str) -> tuple[IntArray, IntArray]:
    """Return (hour of the week, number of the gap) for each pair that touch."""
    hour = stratum_of(times, "hour_of_week", time_zone).astype(np.int64)
    number = np.arange(gaps.size)
    pairs = [hour[:-1] * gaps.size + number, hour[1:] * gaps.size + number]
    for at in np.flatnonzero(gaps >= HOUR_US).tolist():  # few: all others touch at most two hours
        stop = min(int(times[at + 1]), int(times[at]) + HOURS * HOUR_US)
        between = stratum_of(np.arange(int(times[at]), stop, HOUR_US, dtype=np.int64), "hour_of_week", time_zone)
        pairs.append(between.astype(np.int64) * gaps.size + at)
    distinct = np.unique(np.concatenate(pairs))
    return distinct // gaps.size, distinct % gaps.size
