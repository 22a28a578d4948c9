"""From slices and labels of the bus to the plain rows of a scenario. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from regate.config.model import ModelConfig
from regate.detectors.columns import Column, HashArray, IntArray, Labels, Numeric, Slice
from regate.scenarios.rows import Rows
from regate.scenarios.targets.base import class_text

Plain = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """Rows of one slice with what orders and identifies them."""

    rows: Rows
    event_id: HashArray
    arrival_us: IntArray
    partition: int


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The last rows of all partitions, oldest first."""

    rows: Rows
    event_id: HashArray
    oldest_ms: int


def plain(column: Column) -> Plain:
    """Return a column as float64 (NaN is missing) or as an object array of str (None is missing)."""
    if isinstance(column, Numeric):
        return np.asarray(column.values, dtype=np.float64)
    names = np.array([*column.categories, None], dtype=object)  # code -1 is the last entry
    return np.asarray(names[column.codes])


def outcome(column: Column, config: ModelConfig) -> Plain:
    """Return predictions or labels: numbers for a regression, else class names."""
    values = plain(column)
    if config.output.type == "regression":
        return values if values.dtype == np.float64 else _numbers(values)
    if values.dtype != np.float64:
        return values
    return np.array([None if np.isnan(value) else class_text(value) for value in values], dtype=object)


def _numbers(values: Plain) -> npt.NDArray[np.float64]:
    out = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        try:
            out[i] = np.nan if value is None else float(value)
        except ValueError:
            out[i] = np.nan
    return out


def rows_of_slice(piece: Slice, config: ModelConfig, source: Literal["window", "reference"] = "window") -> Rows:
    """Return a slice as rows; a request that the service answered with an error is counted, not kept."""
    cohorts: dict[str, Any] = {}
    for name, column in piece.cohorts.items():
        cohorts[name] = plain(column)
    rows = Rows(
        {name: plain(column) for name, column in piece.features.items()},
        None if piece.prediction is None else outcome(piece.prediction, config),
        {name: np.asarray(values, np.float64) for name, values in piece.scores.items()},
        None,
        cohorts,
        source,
    )
    if piece.error is None or not piece.error.any():
        return rows
    kept = rows.pick(np.flatnonzero(~piece.error))
    return Rows(kept.features, kept.prediction, kept.scores, kept.label, kept.cohorts, source, int(np.sum(piece.error)))


def served_of(piece: Slice, config: ModelConfig, partition: int) -> Served:
    """Return the rows of one slice of one partition."""
    good = np.ones(piece.n, bool) if piece.error is None else ~piece.error
    return Served(rows_of_slice(piece, config), piece.event_id[good], piece.arrival_us[good], partition)


def joined(served: Sequence[Served], config: ModelConfig, events: int) -> Window | None:
    """Return the last ``events`` rows by arrival, then partition; an event that came twice counts once."""
    parts = [part for part in served if part.rows.n]
    if not parts:
        return None
    arrival = np.concatenate([part.arrival_us for part in parts])
    partition = np.concatenate([np.full(part.rows.n, part.partition) for part in parts])
    ids = np.concatenate([part.event_id for part in parts])
    whole = concatenated([part.rows for part in parts], config)
    order = np.lexsort((ids, partition, arrival))
    _, first = np.unique(ids[order], return_index=True)
    kept = order[np.sort(first)][-events:]
    return Window(whole.pick(kept), ids[kept], int(arrival[kept[0]] // 1000))


def concatenated(parts: Sequence[Rows], config: ModelConfig) -> Rows:
    """Return rows below each other; a column that a part lacks is missing there."""

    def stack(columns: Sequence[Plain | None], *, numeric: bool) -> Plain:
        dtype: Any = np.float64 if numeric else object
        missing: Any = np.nan if numeric else None
        return np.concatenate(
            [
                np.full(rows.n, missing, dtype=dtype) if column is None else column
                for rows, column in zip(parts, columns, strict=True)
            ]
        )

    features = {
        name: stack([rows.features.get(name) for rows in parts], numeric=feature.type == "numeric")
        for name, feature in config.features.items()
        if any(name in rows.features for rows in parts)
    }
    score_names = sorted({name for rows in parts for name in rows.scores})
    cohort_names = sorted({name for rows in parts for name in rows.cohorts})
    regression = config.output.type == "regression"
    answered = any(rows.prediction is not None for rows in parts)
    return Rows(
        features,
        stack([rows.prediction for rows in parts], numeric=regression) if answered else None,
        {name: stack([rows.scores.get(name) for rows in parts], numeric=True) for name in score_names},
        None,
        {name: stack([rows.cohorts.get(name) for rows in parts], numeric=False) for name in cohort_names},
        parts[0].source,
        sum(rows.refused for rows in parts),
    )


def first_labels(event_id: HashArray, labels: Sequence[Labels], config: ModelConfig) -> Plain:
    """Return the label of every event, missing where none came; the first one to arrive wins."""
    regression = config.output.type == "regression"
    found: Plain = np.full(len(event_id), np.nan) if regression else np.full(len(event_id), None, dtype=object)
    if not len(event_id) or not labels:
        return found
    ids = np.concatenate([part.event_id for part in labels])
    arrival = np.concatenate([part.arrival_us for part in labels])
    values = np.concatenate([outcome(part.label, config) for part in labels])
    order = np.argsort(arrival, kind="stable")
    known, first = np.unique(ids[order], return_index=True)
    at = np.minimum(np.searchsorted(known, event_id), len(known) - 1)
    hit = known[at] == event_id
    found[hit] = values[order][first[at[hit]]]
    return found
