"""A slice: a batch of decoded telemetry events of one model version, as columns.

Decoders make slices, detectors read them; nothing in between is per event. Refusal has happened
before: a number in a slice is finite and inside its *declared* range, NaN means missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
    client: HashArray | None = None
    cohorts: dict[str, Categorical] = field(default_factory=dict)


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
