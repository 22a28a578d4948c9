"""Flattened Arrow columns of one model to the columns of a slice: shared by Arrow records and by files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa

from regate.config.model import Feature, ModelConfig
from regate.daemon.wire.binding import Binding
from regate.daemon.wire.columnar import (
    WrongTypeError,
    check_numbers,
    to_booleans,
    to_categorical,
    to_floats,
    to_texts,
    to_times,
)
from regate.daemon.wire.hashing import hash_clients, hash_column
from regate.daemon.wire.reasons import Bad, Reason
from regate.detectors.columns import (
    MISSING_CODE,
    BoolArray,
    Categorical,
    Column,
    FloatArray,
    HashArray,
    IntArray,
    Numeric,
)

T = TypeVar("T")


@dataclass(slots=True)
class Parts:
    """The columns of a batch before it is cut by model version, and the rows that must not pass."""

    n: int
    event_id: HashArray | None = None
    event_time_us: IntArray | None = None
    has_time: BoolArray | None = None  # rows whose time is the event's own
    features: dict[str, Column] = field(default_factory=dict)
    prediction: Column | None = None
    label: Column | None = None
    scores: dict[str, FloatArray] = field(default_factory=dict)
    latency_ms: FloatArray | None = None
    error: BoolArray | None = None
    client: HashArray | None = None
    cohorts: dict[str, Categorical] = field(default_factory=dict)
    texts: dict[str, Categorical] = field(default_factory=dict)
    bad: list[Bad] = field(default_factory=list)

    def good(self) -> BoolArray:
        """Return the rows that no field refuses."""
        keep = np.ones(self.n, np.bool_)
        for bad in self.bad:
            keep &= ~bad.rows
        return keep


class PartsReader:
    """Reads one table of ``n`` rows into parts.

    :param strict: the wire's rule, NaN is refused and only null is missing; files say NaN for missing.
    """

    def __init__(
        self, columns: Mapping[str, pa.Array], n: int, binding: Binding, config: ModelConfig, *, strict: bool
    ) -> None:
        self._columns = columns
        self._binding = binding
        self._config = config
        self._strict = strict
        self._parts = Parts(n)

    def read(self, *, labels: bool = False, salt: int = 0) -> Parts:
        """Return all parts; a label event has no inputs, so ``labels`` leaves them out."""
        parts = self._parts
        self._identity(salt)
        if not labels:
            self._features()
            self._cohorts()
            parts.latency_ms = self._numbers("latency_ms", self._field("latency_ms"), None)
            parts.error = self._convert("error", self._field("error"), to_booleans)
        for name, column in self._binding.scores.items():
            score = self._numbers(f"score_{name}" if name else "score", self._columns[column], None)
            if score is not None:
                parts.scores[name] = score
        parts.prediction = self._outcome("prediction")
        parts.label = self._outcome("label")
        if labels and self._strict:
            self._require("label", self._field("label"))
        return parts

    def _field(self, name: str) -> pa.Array | None:
        return self._columns.get(self._binding.fields.get(name, ""))

    def _convert(self, name: str, array: pa.Array | None, convert: Callable[[pa.Array], T]) -> T | None:
        if array is None:
            return None
        try:
            return convert(array)
        except (WrongTypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            everything = np.ones(self._parts.n, np.bool_)
            self._parts.bad.append(Bad(everything, Reason.WRONG_TYPE, name, f"{name}: {error}"))
            return None

    def _require(self, name: str, array: pa.Array | None) -> None:
        if array is not None and not array.null_count and self._strict:
            return
        missing = (
            np.ones(self._parts.n, np.bool_)
            if array is None
            else np.asarray(array.is_null(nan_is_null=not self._strict).to_numpy(zero_copy_only=False), np.bool_)
        )
        if missing.any():
            self._parts.bad.append(Bad(missing, Reason.MISSING_FIELD, name, f"{name} is missing"))

    def _numbers(self, name: str, array: pa.Array | None, feature: Feature | None) -> FloatArray | None:
        values = self._convert(name, array, to_floats)
        if values is None or array is None:
            return None
        missing = None
        if self._strict and not array.null_count:
            missing = np.zeros(1, np.bool_)  # broadcasts
        elif self._strict:
            missing = np.asarray(array.is_null().to_numpy(zero_copy_only=False), np.bool_)
        self._parts.bad += check_numbers(values, feature, name, missing)
        return values

    def _identity(self, salt: int) -> None:
        parts, ids = self._parts, self._field("event_id")
        if self._strict:
            self._require("event_id", ids)
        parts.event_id = self._convert("event_id", ids, hash_column)
        when = self._field("event_time")
        stamps = self._convert("event_time", when, to_times)
        if stamps is not None and when is not None:
            parts.event_time_us, parts.has_time = stamps
            wrong = ~stamps[1] & np.asarray(when.is_valid().to_numpy(zero_copy_only=False), np.bool_)
            if wrong.any():
                parts.bad.append(Bad(wrong, Reason.BAD_TIME, "event_time", "event_time is no time"))
        if self._config.privacy.get("client") != "drop":
            parts.client = self._convert("client", self._field("client"), partial(hash_clients, seed=salt))

    def _features(self) -> None:
        for name, feature in self._config.features.items():
            array = self._columns.get(self._binding.features.get(name, ""))
            if feature.required:
                self._require(name, array)
            column = self._feature(name, feature, array)
            if column is not None:
                self._parts.features[name] = column
            if array is not None and read_as_text(feature):
                texts = self._convert(name, array, to_texts)
                if texts is not None:
                    self._parts.texts[name] = texts

    def _feature(self, name: str, feature: Feature, array: pa.Array | None) -> Column | None:
        # Vectors have no chart yet; texts that are watched have columns of their own.
        if feature.type in {"text", "vector"} or not kept(feature):
            return None
        if feature.type == "numeric":
            values = np.full(self._parts.n, np.nan) if array is None else self._numbers(name, array, feature)
            return None if values is None else Numeric(values)
        if array is None:
            return Categorical(np.full(self._parts.n, MISSING_CODE, np.int32), ())
        if feature.type == "boolean" and not _boolean(array):
            wrong = np.ones(self._parts.n, np.bool_)
            self._parts.bad.append(Bad(wrong, Reason.WRONG_TYPE, name, f"{name}: expected true or false"))
            return None
        return self._convert(name, array, partial(to_categorical, hashed=feature.privacy == "hash"))

    def _cohorts(self) -> None:
        for name, source in self._binding.cohorts.items():
            privacy = self._config.privacy.get(name, "keep")
            if privacy == "drop":
                continue
            convert = partial(to_categorical, hashed=privacy == "hash")
            column = self._convert(name, self._columns[source], convert)
            if column is not None:
                self._parts.cohorts[name] = column

    def _outcome(self, name: str) -> Column | None:
        array = self._field(name)
        if self._config.output.type == "regression":
            values = self._numbers(name, array, None)
            return None if values is None else Numeric(values)
        return self._convert(name, array, to_categorical)


def kept(feature: Feature) -> bool:
    """Return whether a feature's values may enter a slice: a hash of a number says nothing worth watching."""
    return feature.privacy == "keep" or (feature.privacy == "hash" and feature.type != "numeric")


def read_as_text(feature: Feature) -> bool:
    """Return whether a feature's texts enter a slice; they leave observe as hashes only, whatever their privacy is."""
    return feature.type == "text" and feature.watch and kept(feature)


def _boolean(array: pa.Array) -> bool:
    return bool(pa.types.is_boolean(array.type) or pa.types.is_null(array.type))
