"""One file of telemetry as columns: what backtest, profile build, produce and the demo read."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import ValidationError

from regate.config.errors import ConfigError
from regate.config.model import ModelConfig
from regate.daemon.files.reading import read_arrow
from regate.daemon.wire.binding import Binding, bind
from regate.daemon.wire.columnar import flatten
from regate.daemon.wire.columns import Parts, PartsReader
from regate.daemon.wire.hashing import hash_column
from regate.daemon.wire.infer import infer_config
from regate.daemon.wire.reasons import Reason
from regate.detectors.candidate import repeated
from regate.detectors.columns import (
    BoolArray,
    Column,
    FloatArray,
    IntArray,
    ModelKey,
    Numeric,
    Slice,
)


def read_table(path: Path | str, config: ModelConfig | None = None) -> Table:
    """Return a file's table; without a configuration one is inferred from names and types.

    :raises ConfigError: when the file is unreadable or empty, or lacks columns that the configuration names.
    """
    path = Path(path)
    columns = read_columns(path)
    if config is None:
        config = infer_config(columns, model_name(path))
    binding = bind(columns, config)
    absent = binding.absent(name for name, feature in config.features.items() if feature.watch)
    if absent:
        raise ConfigError(
            f"{path} has no column for: {', '.join(absent[:10])}{' ...' if len(absent) > 10 else ''}",
            hint=f"its columns are {', '.join(list(columns)[:20])}; mend features or mapping.inputs",
        )
    return Table(columns, config, binding, str(path))


def read_columns(path: Path) -> dict[str, pa.Array]:
    """Return a file's columns, structs opened into dotted names, CloudEvents into their data."""
    return _unwrapped(flatten(read_arrow(path)))


def model_name(path: Path) -> str:
    """Return the model name that a file's stem gives.

    >>> model_name(Path("data/car loan.v2.parquet"))
    'car-loan.v2'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.") or "model"


def _unwrapped(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Return the columns of a file of structured CloudEvents as those of its data, with id and time as defaults."""
    if "specversion" not in columns or not any(name.startswith("data.") for name in columns):
        return columns
    inner = {name.removeprefix("data."): array for name, array in columns.items() if name.startswith("data.")}
    for name, attribute in (("event_id", "id"), ("event_time", "time")):
        if attribute in columns:
            inner.setdefault(name, columns[attribute])
    return inner


class Table:
    """Rows of one model in file order. Values that the daemon would refuse are counted and count as missing."""

    def __init__(self, columns: dict[str, pa.Array], config: ModelConfig, binding: Binding, source: str = "") -> None:
        self.columns = columns
        self.config = config
        self.binding = binding
        self.source = source
        self.rows = len(next(iter(columns.values())))
        self.key = ModelKey(config.tenant, config.model, config.version, config.deployment)

    def rename(self, model: str) -> None:
        """Call the model something else than the file does.

        :raises ConfigError: when it is no name.
        """
        try:
            self.config = ModelConfig.model_validate(self.config.model_dump() | {"model": model})
        except ValidationError as error:
            raise ConfigError(f"{model!r} is no model name", hint="leave out slash, at-sign and spaces") from error
        self.key = replace(self.key, model=model)

    @cached_property
    def _parts(self) -> Parts:
        parts = PartsReader(self.columns, self.rows, self.binding, self.config, strict=False).read()
        for bad in parts.bad:
            if bad.reason is Reason.WRONG_TYPE:
                raise ConfigError(
                    f"{self.source}: {bad.message}", hint="mend the type in the model's configuration, or the file"
                )
        return parts

    @cached_property
    def refused(self) -> dict[tuple[str, str], int]:
        """Return how many values the daemon would refuse, by (field, reason)."""
        counts: dict[tuple[str, str], int] = {}
        for bad in self._parts.bad:
            place = (bad.field, str(bad.reason))
            counts[place] = counts.get(place, 0) + int(np.count_nonzero(bad.rows))
        return counts

    @cached_property
    def flags(self) -> dict[str, BoolArray]:
        """Return which rows the daemon would refuse or leave out, by data quality's names."""
        named = {Reason.OUT_OF_RANGE: "out_of_range", Reason.NON_FINITE: "non_finite"}
        found = {name: np.zeros(self.rows, dtype=np.bool_) for name in ("out_of_range", "non_finite", "schema")}
        for bad in self._parts.bad:
            found[named.get(bad.reason, "schema")] |= bad.rows
        if self._parts.event_id is not None:
            found["duplicate"] = repeated(self._parts.event_id)
        return found

    @cached_property
    def whole(self) -> Slice:
        """Return all rows as one slice."""
        parts = self._parts
        times = self.event_time_us()
        if times is None:  # row number as seconds: the caller counts in rows
            times = np.arange(self.rows, dtype=np.int64) * 1_000_000
        ids = parts.event_id
        if ids is None:
            ids = hash_column(pa.array(np.arange(self.rows)))
        return Slice(
            key=self.key,
            n=self.rows,
            event_id=ids,
            event_time_us=times,
            arrival_us=times,
            features={name: self._usable(name, column) for name, column in parts.features.items()},
            prediction=self.prediction(),
            scores=self.scores(),
            latency_ms=None if parts.latency_ms is None else self._numbers("latency_ms", parts.latency_ms),
            error=parts.error,
            client=parts.client,
            cohorts=parts.cohorts,
            texts=parts.texts,
        )

    def slice(self, start: int, stop: int) -> Slice:
        """Return rows ``start`` to ``stop`` (exclusive) as views of the whole."""
        return self.whole.cut(slice(max(start, 0), max(start, 0, min(stop, self.rows))))

    @cached_property
    def _client_names(self) -> dict[int, str]:
        column, hashes = self.columns.get(self.binding.fields.get("client", "")), self._parts.client
        if column is None or hashes is None:
            return {}
        distinct, first = np.unique(hashes, return_index=True)
        names = column.take(pa.array(first)).to_pylist()
        return {int(one): str(name) for one, name in zip(distinct, names, strict=True) if one}

    def client_name(self, client: int) -> str:
        """Return the client as the file calls it, by the hash of its id."""
        return self._client_names.get(client, f"{client:016x}")

    @property
    def has_label(self) -> bool:
        """Return whether the file carries outcomes."""
        return bool(self.binding.fields.get("label"))

    def labels(self) -> Column | None:
        """Return the outcome of each row (missing where it has none), or None without a label column."""
        return None if self._parts.label is None else self._usable("label", self._parts.label)

    def prediction(self) -> Column | None:
        """Return the prediction of each row, or None without a prediction column."""
        return None if self._parts.prediction is None else self._usable("prediction", self._parts.prediction)

    def scores(self) -> dict[str, FloatArray]:
        """Return scores by class; ``""`` names a single score."""
        named = {name: f"score_{name}" if name else "score" for name in self._parts.scores}
        return {name: self._numbers(named[name], values) for name, values in self._parts.scores.items()}

    def event_time_us(self) -> IntArray | None:
        """Return event times in microseconds since the epoch, or None without a usable time column.

        A row without a time takes the one of the row before it (the first rows: the first known one).
        """
        times, known = self._parts.event_time_us, self._parts.has_time
        if times is None or known is None or not known.any():
            return None
        if known.all():
            return times
        last = np.maximum.accumulate(np.where(known, np.arange(self.rows), -1))
        return np.asarray(times[np.where(last < 0, int(np.argmax(known)), last)], np.int64)

    def _usable(self, name: str, column: Column) -> Column:
        return Numeric(self._numbers(name, column.values)) if isinstance(column, Numeric) else column

    def _numbers(self, name: str, values: FloatArray) -> FloatArray:
        """Return the numbers of a field, those that the daemon would refuse as missing."""
        bad = [bad.rows for bad in self._parts.bad if bad.field == name]
        return np.where(np.logical_or.reduce(bad), np.nan, values) if bad else values


def training_rows(path: Path, config: ModelConfig) -> Slice:
    """Return the rows that a model was trained on, with the features of its configuration.

    :raises ConfigError: when the file has none of them.
    """
    rows = read_table(path, config).whole
    if not any(name in rows.features for name in config.features):
        raise ConfigError(
            f"{path} has no feature of {config.model}",
            hint="--training-data takes a file with the model's input columns",
        )
    return rows
