"""Rows: requests that a model served, or reference data, as plain columns with a content digest."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from regate.config.errors import PoisonError
from regate.scenarios.targets.base import FloatArray, ObjectArray, rows_of, take

Column = npt.NDArray[Any]
SCHEMA = "regate.rows.v1"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """``n`` rows. Columns are float64 (NaN is missing) or object arrays of str (None is missing).

    ``prediction`` and ``label``: class names as object arrays, or float64 for regression; a label that has not
    come is None or NaN. ``scores``: class -> float64, "" for a single score. ``refused``: how many requests of
    the same window the service itself answered with an error (they are not among the rows).
    """

    features: dict[str, Column]
    prediction: Column | None = None
    scores: dict[str, FloatArray] = field(default_factory=dict)
    label: Column | None = None
    cohorts: dict[str, ObjectArray] = field(default_factory=dict)
    source: Literal["window", "reference"] = "window"
    refused: int = 0

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return rows_of(self.features)

    def pick(self, index: npt.NDArray[np.int64]) -> Rows:
        """Return the rows at ``index``."""
        return Rows(
            take(self.features, index),
            None if self.prediction is None else self.prediction[index],
            {name: values[index] for name, values in self.scores.items()},
            None if self.label is None else self.label[index],
            {name: values[index] for name, values in self.cohorts.items()},
            self.source,
            self.refused,
        )

    def columns(self) -> dict[str, Column]:
        """Return every column under a name that tells its part: ``feature:income``, ``label`` and so on."""
        found: dict[str, Column] = {f"feature:{name}": values for name, values in self.features.items()}
        found |= {f"score:{name}": values for name, values in self.scores.items()}
        found |= {f"cohort:{name}": values for name, values in self.cohorts.items()}
        found |= {} if self.prediction is None else {"prediction": self.prediction}
        return found | ({} if self.label is None else {"label": self.label})

    def digest(self) -> str:
        """Return the content address: of columns, source and refusals, whatever their order was."""
        total = hashlib.sha256(json.dumps([SCHEMA, self.source, self.refused, self.n]).encode())
        for name, values in sorted(self.columns().items()):
            total.update(json.dumps(name).encode())
            total.update(hashlib.sha256(column_bytes(values)).digest())
        return "sha256:" + total.hexdigest()

    def to_arrow(self) -> bytes:
        """Return an Arrow IPC stream for the artefact store."""
        table = pa.table({name: _to_arrow(values) for name, values in sorted(self.columns().items())})
        meta = {"schema": SCHEMA, "source": self.source, "refused": str(self.refused)}
        table = table.replace_schema_metadata(meta)
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()

    @classmethod
    def from_arrow(cls, data: bytes) -> Rows:
        """Return what `to_arrow` wrote.

        :raises PoisonError: when the bytes are not such a stream.
        """
        try:
            table = pa.ipc.open_stream(data).read_all()
        except pa.ArrowInvalid as error:
            raise PoisonError(f"not an Arrow stream: {error}", reason="not_arrow") from error
        meta = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if meta.get("schema") != SCHEMA:
            raise PoisonError(f"not rows of {SCHEMA}: {meta.get('schema')}", reason="unknown_schema")
        columns = {name: _from_arrow(table.column(name)) for name in table.column_names}
        parts = {
            part: {name.split(":", 1)[1]: values for name, values in columns.items() if name.startswith(part + ":")}
            for part in ("feature", "score", "cohort")
        }
        return cls(
            parts["feature"],
            columns.get("prediction"),
            parts["score"],
            columns.get("label"),
            parts["cohort"],
            "reference" if meta["source"] == "reference" else "window",
            int(meta["refused"]),
        )


def column_bytes(values: Column) -> bytes:
    """Return bytes that are equal when, and only when, the columns are (every NaN is the same NaN).

    :raises PoisonError: on a value that is neither number, text, truth value nor missing.
    """
    if values.dtype == np.float64:
        clean = np.where(np.isnan(values), np.nan, values + 0.0)  # one NaN, and no negative zero
        return b"f" + clean.astype("<f8").tobytes()
    try:
        return b"o" + json.dumps(values.tolist(), ensure_ascii=True).encode()
    except TypeError as error:
        raise PoisonError(f"a column holds what JSON has not: {error}", reason="wrong_type") from error


def features_digest(features: Mapping[str, Column]) -> str:
    """Return the content address of one batch of inputs."""
    total = hashlib.sha256()
    for name, values in sorted(features.items()):
        total.update(json.dumps(name).encode())
        total.update(hashlib.sha256(column_bytes(values)).digest())
    return "sha256:" + total.hexdigest()


def _to_arrow(values: Column) -> Any:
    return pa.array(values, type=pa.float64()) if values.dtype == np.float64 else pa.array(values, type=pa.string())


def _from_arrow(column: Any) -> Column:
    if pa.types.is_float64(column.type):
        return np.asarray(column.to_numpy(), dtype=np.float64)
    out = np.empty(len(column), dtype=object)
    out[:] = column.to_pylist()
    return out
