"""A table as telemetry and label events: what `produce` and the demo send."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from regate.config.model import FieldMapping
from regate.daemon.files import Table
from regate.daemon.wire.columnar import class_text
from regate.detectors.columns import IntArray

_ENCODER = msgspec.json.Encoder()


def plan_times(table: Table, start_us: int, *, speed: float | None, rate: float | None) -> IntArray | None:
    """Return the new event time of each row, the first one at ``start_us``; None when rows have no spacing.

    :param speed: divides the spacing of the file's own event times.
    :param rate: events a second, instead of the file's spacing.
    """
    if rate is not None:
        return np.asarray(start_us + np.rint(np.arange(table.rows) * (1e6 / rate)).astype(np.int64), np.int64)
    times = table.event_time_us()
    if times is None or speed is None:
        return None
    return np.asarray(start_us + np.rint((times - times.min()) / speed).astype(np.int64), np.int64)


class EventEncoder:
    """Encodes rows of one table. Rows without an event id of their own get ``<run>-<row>``."""

    def __init__(self, table: Table, run: str = "") -> None:
        self._table = table
        self._run = run
        names = table.binding.features
        self._features = {name: table.columns[column] for name, column in names.items() if _plain(table, column)}
        self._identity = {
            "tenant": table.key.tenant,
            "model": table.key.model,
            "model_version": table.key.version,
            "deployment": table.key.deployment,
        }

    def ids(self, start: int, stop: int) -> list[str]:
        """Return the event ids of rows."""
        column = self._column("event_id", start, stop)
        if column is None:
            return [f"{self._run}-{row}" if self._run else str(row) for row in range(start, stop)]
        return [class_text(value) or f"{self._run}-{start + row}" for row, value in enumerate(column)]

    def clients(self, start: int, stop: int) -> list[str]:
        """Return the client of each row, empty where it has none."""
        column = self._column("client", start, stop)
        return [""] * (stop - start) if column is None else [class_text(value) or "" for value in column]

    def json(self, start: int, stop: int, times_us: Sequence[int] | IntArray) -> list[bytes]:
        """Return one bare JSON event a row."""
        columns: dict[str, Sequence[Any]] = {"event_id": self.ids(start, stop), "event_time": _iso(times_us)}
        for name in ("client", "prediction", "latency_ms", "error"):
            column = self._column(name, start, stop)
            if column is not None:
                columns[name] = column
        binding = self._table.binding
        inputs = _rows({name: _values(array, start, stop) for name, array in self._features.items()}, stop - start)
        scores = {name: _values(self._table.columns[at], start, stop) for name, at in binding.scores.items()}
        cohorts = {name: _values(self._table.columns[at], start, stop) for name, at in binding.cohorts.items()}
        events = _rows(columns, stop - start)
        for event, given in zip(events, inputs, strict=True):
            event.update(self._identity)
            event["inputs"] = given
        if scores:
            column = scores[""] if "" in scores else _rows(scores, stop - start)
            for event, score in zip(events, column, strict=True):
                event["scores"] = score
        if cohorts:
            for event, cohort in zip(events, _rows(cohorts, stop - start), strict=True):
                event["cohorts"] = cohort
        return self._encoded(events)

    def _encoded(self, events: list[dict[str, Any]]) -> list[bytes]:
        """Return events as JSON, each field where the model's mapping says."""
        mapping = self._table.config.mapping
        if mapping == FieldMapping():
            return [_ENCODER.encode(event) for event in events]
        paths = mapping.model_dump()
        return [_ENCODER.encode(_mapped(event, paths)) for event in events]

    def arrow(self, start: int, stop: int, times_us: Sequence[int] | IntArray) -> bytes:
        """Return all rows as one Arrow IPC stream."""
        n = stop - start
        columns: dict[str, pa.Array] = {
            "event_id": pa.array(self.ids(start, stop)),
            "event_time": pa.array(np.asarray(times_us, np.int64), pa.timestamp("us", tz="UTC")),
        }
        zero = pa.array(np.zeros(n, np.int8))
        for name, text in self._identity.items():
            columns[name] = pa.DictionaryArray.from_arrays(zero, pa.array([text]))
        for name in ("client", "prediction", "latency_ms", "error"):
            array = self._array(name)
            if array is not None:
                columns[name] = _missing_as_null(array.slice(start, n))
        if self._features:
            arrays = [_missing_as_null(array.slice(start, n)) for array in self._features.values()]
            columns["inputs"] = pa.StructArray.from_arrays(arrays, list(self._features))
        for class_name, at in self._table.binding.scores.items():
            place = f"score_{class_name}" if class_name else "score"
            columns[place] = _missing_as_null(self._table.columns[at].slice(start, n))
        for cohort, at in self._table.binding.cohorts.items():
            columns[f"cohort_{cohort}"] = _missing_as_null(self._table.columns[at].slice(start, n))
        table = pa.table(columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue().to_pybytes())

    def labels(self, start: int, stop: int, times_us: Sequence[int] | IntArray) -> list[bytes]:
        """Return one bare JSON label event for each row that has a label; ``times_us`` is when it became known."""
        column = self._column("label", start, stop)
        if column is None:
            return []
        events = zip(self.ids(start, stop), _iso(times_us), column, strict=True)
        return self._encoded(
            [
                {"event_id": event_id, "event_time": when, **self._identity, "label": label}
                for event_id, when, label in events
                if label is not None
            ]
        )

    def _array(self, name: str) -> pa.Array | None:
        return self._table.columns.get(self._table.binding.fields.get(name, ""))

    def _column(self, name: str, start: int, stop: int) -> list[Any] | None:
        array = self._array(name)
        return None if array is None else _values(array, start, stop)


def _mapped(event: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """Return an event in the layout of a mapping; features go to the top level where the mapping says so."""
    found: dict[str, Any] = {}
    for name, value in event.items():
        *steps, last = paths[name].split(".") if paths[name] else [""]
        place = found
        for step in steps:
            place = place.setdefault(step, {})
        if last:
            place[last] = value
        else:
            place.update(value)
    return found


def _plain(table: Table, column: str) -> bool:
    kind = table.columns[column].type
    return not (pa.types.is_temporal(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _missing_as_null(array: pa.Array) -> pa.Array:
    """Return the column with NaN as null: files say NaN for missing, the wire refuses it."""
    if not pa.types.is_floating(array.type):
        return array
    values = array.to_numpy(zero_copy_only=False)
    return pa.array(values, array.type, from_pandas=True) if np.isnan(values).any() else array


def _values(array: pa.Array, start: int, stop: int) -> list[Any]:
    values = array.slice(start, stop - start).to_pylist()
    if pa.types.is_floating(array.type):
        return [None if value is None or not math.isfinite(value) else value for value in values]
    return [float(value) for value in values] if pa.types.is_decimal(array.type) else values


def _rows(columns: Mapping[str, Sequence[Any]], n: int) -> list[dict[str, Any]]:
    if not columns:
        return [{} for _ in range(n)]
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _iso(times_us: Sequence[int] | IntArray) -> list[str]:
    stamps = np.asarray(times_us, np.int64).astype("datetime64[us]")
    return [f"{text}Z" for text in np.datetime_as_string(stamps).tolist()]
