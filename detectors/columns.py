"""A slice: a batch of decoded telemetry events of one model version, as columns.

Decoders make slices, detectors read them; nothing in between is per event. Refusal has happened
before: a number in a slice is finite and inside its *declared* range, NaN means missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
CodeArray = npt.NDArray[np.int32]
HashArray = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]

MISSING_CODE = -1


@dataclass(frozen=True, slots=True)
class ModelKey:
    """Whom telemetry is about. Charts are kept per key; the gate's scope leaves out the version."""

    tenant: str
    model: str
    version: str
    deployment: str

    @property
    def scope(self) -> str:
        """Return ``tenant/model/deployment``, the scope that a gate decides on."""
        return f"{self.tenant}/{self.model}/{self.deployment}"

    @property
    def placement(self) -> str:
        """Return ``tenant/model``: everything of a model meets in the shard that this names."""
        return f"{self.tenant}/{self.model}"

    def __str__(self) -> str:
        return f"{self.tenant}/{self.model}/{self.deployment}@{self.version}"


@dataclass(frozen=True, slots=True)
class Numeric:
    """A numeric column; NaN is missing."""

    values: FloatArray


@dataclass(frozen=True, slots=True)
class Categorical:
    """A dictionary-encoded column: ``codes`` index ``categories``, -1 is missing. Booleans are "false", "true"."""

    codes: CodeArray
    categories: tuple[str, ...]


Column = Numeric | Categorical


def cut_column(column: Column, part: slice | IntArray) -> Column:
    """Return some of a column's rows; of a range as a view."""
    if isinstance(column, Numeric):
        return Numeric(column.values[part])
    return Categorical(column.codes[part], column.categories)


@dataclass(frozen=True, slots=True)
class Slice:
    """Events of one model version from one partition, in arrival order. All arrays have ``n`` rows."""

    key: ModelKey
    n: int
    event_id: HashArray  # 64-bit hash of the event id
    event_time_us: IntArray  # microseconds since the epoch, UTC
    arrival_us: IntArray  # the bus's record timestamp
    features: dict[str, Column] = field(default_factory=dict)
    prediction: Column | None = None
    scores: dict[str, FloatArray] = field(default_factory=dict)  # class -> score; "" for a single score
    latency_ms: FloatArray | None = None
    error: BoolArray | None = None
    client: HashArray | None = None  # 0: without an id
    cohorts: dict[str, Categorical] = field(default_factory=dict)
    # Watched features of type text: each distinct text once, so that none costs more than its bytes on the wire.
    texts: dict[str, Categorical] = field(default_factory=dict)

    def cut(self, part: slice) -> Slice:
        """Return a range of rows as views."""
        rows = range(self.n)[part]
        return self.picked(slice(rows.start, rows.stop))

    def some(self, rows: BoolArray) -> Slice:
        """Return the rows that a mask picks."""
        return self.picked(np.flatnonzero(rows))

    def picked(self, part: slice | IntArray) -> Slice:
        """Return the rows at places, in the order of these; of a range as views."""
        return replace(
            self,
            n=len(self.event_id[part]),
            event_id=self.event_id[part],
            event_time_us=self.event_time_us[part],
            arrival_us=self.arrival_us[part],
            features={name: cut_column(column, part) for name, column in self.features.items()},
            prediction=None if self.prediction is None else cut_column(self.prediction, part),
            scores={name: values[part] for name, values in self.scores.items()},
            latency_ms=None if self.latency_ms is None else self.latency_ms[part],
            error=None if self.error is None else self.error[part],
            client=None if self.client is None else self.client[part],
            cohorts={name: Categorical(c.codes[part], c.categories) for name, c in self.cohorts.items()},
            texts={name: Categorical(c.codes[part], c.categories) for name, c in self.texts.items()},
        )


@dataclass(frozen=True, slots=True)
class Labels:
    """Late outcomes for earlier predictions. A label that carries its prediction needs no join."""

    key: ModelKey
    n: int
    event_id: HashArray  # hash of the id of the prediction's event
    event_time_us: IntArray  # when the outcome was known
    arrival_us: IntArray
    label: Column
    prediction: Column | None = None  # as carried by the label event, missing where it carries none
    score: FloatArray | None = None
    source: HashArray | None = None  # salted hash of who sent the label, 0 unknown
