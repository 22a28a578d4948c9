"""From a slice of events to mergeable integers, summed by any grouping of its rows."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from regate.detectors.columns import Categorical, Column, FloatArray, IntArray, Numeric, Slice
from regate.detectors.layout import (
    EVENTS,
    KEPT,
    MISSING,
    OTHER,
    OUTSIDE,
    PRESENT,
    SUM_Z,
    SUM_Z2,
    UNSEEN,
    CategoricalSpec,
    Layout,
    NumericSpec,
    Strata,
)

StratumArray = npt.NDArray[np.int16]
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


def accumulate(layout: Layout, rows: Slice, stratum: StratumArray, group: IntArray, groups: int) -> IntArray:
    """Return ``int64[groups, width]``: the statistics of a slice, summed by ``group``.

    A feature that the slice lacks, or has with another type than the profile, counts as missing there.
    """
    out = np.zeros((groups, layout.width), dtype=np.int64)
    out[:, EVENTS] = np.bincount(group, minlength=groups)
    for spec in layout.features:
        into = out[:, spec.first : spec.first + spec.width]
        column = rows.features.get(spec.name)
        if isinstance(spec, NumericSpec):
            _add_numeric(spec, column, stratum, group, groups, into)
        else:
            _add_categorical(spec, column, group, groups, into)
        into[:, PRESENT] = out[:, EVENTS] - into[:, MISSING]
    return out


def accumulate_outcomes(layout: Layout, wrong: IntArray, group: IntArray, groups: int) -> IntArray:
    """Return ``int64[groups, width]`` with outcomes and errors filled; ``wrong`` is 0 or 1."""
    out = np.zeros((groups, layout.width), dtype=np.int64)
    out[:, layout.outcomes] = np.bincount(group, minlength=groups)
    out[:, layout.outcomes + 1] = np.bincount(group[wrong != 0], minlength=groups)
    return out


def _sums(group: IntArray, weights: FloatArray, groups: int) -> IntArray:
    # Integers below 2^53 add up exactly as float64, in any order.
    return np.bincount(group, weights=weights, minlength=groups).astype(np.int64)


def _add_numeric(
    spec: NumericSpec, column: Column | None, stratum: StratumArray, group: IntArray, groups: int, into: IntArray
) -> None:
    if not isinstance(column, Numeric):
        into[:, MISSING] = np.bincount(group, minlength=groups)
        return
    if len(spec.tables) == 1:
        _score_numeric(spec, 0, column.values, group, groups, into)
        return
    for which in np.unique(stratum):
        rows = stratum == which
        _score_numeric(spec, int(which), column.values[rows], group[rows], groups, into)


def _score_numeric(
    spec: NumericSpec, which: int, values: FloatArray, group: IntArray, groups: int, into: IntArray
) -> None:
    table = spec.tables[which]
    cells = table.cells(values)
    z, z2 = table.scores
    last = table.edges.size
    into[:, SUM_Z] += _sums(group, z[cells], groups)
    into[:, SUM_Z2] += _sums(group, z2[cells], groups)
    edge = np.flatnonzero((cells == 0) | (cells >= last))
    if edge.size:
        missing = cells[edge] > last
        into[:, MISSING] += np.bincount(group[edge[missing]], minlength=groups)
        into[:, OUTSIDE] += np.bincount(group[edge[~missing]], minlength=groups)


def _add_categorical(
    spec: CategoricalSpec, column: Column | None, group: IntArray, groups: int, into: IntArray
) -> None:
    if not isinstance(column, Categorical):
        into[:, MISSING] = np.bincount(group, minlength=groups)
        return
    cells = cells_of(spec, column)
    counts = np.bincount(group * spec.width + cells, minlength=groups * spec.width).reshape(groups, spec.width)
    into[:, MISSING:] = counts[:, MISSING:]
    into[:, OTHER] += into[:, UNSEEN]


def cells_of(spec: CategoricalSpec, column: Categorical) -> IntArray:
    """Return the column (inside the feature's own) that each row counts in."""
    place = {category: KEPT + index for index, category in enumerate(spec.kept)}
    rare = frozenset(spec.rare)
    # The last entry is what code -1, missing, picks.
    to_cell = np.array(
        [place.get(category, OTHER if category in rare else UNSEEN) for category in column.categories] + [MISSING],
        dtype=np.int64,
    )
    return np.asarray(to_cell[column.codes])
