"""The telemetry contract: one served prediction. The slow path's judge, and the source of the JSON Schema."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from regate.daemon.wire.columnar import MAX_MAGNITUDE, TIME_MAX_US, TIME_MIN_US, epoch_us, parse_time

TELEMETRY_TYPE = "io.regate.telemetry.v1"
LABEL_TYPE = "io.regate.label.v1"


def _number(value: float) -> float:
    if abs(value) > MAX_MAGNITUDE:
        raise ValueError("number out of range: infinite or beyond 1e150")
    return value


def _time(value: str | float) -> str | float:
    if isinstance(value, str):
        us = parse_time(value)
    elif abs(value) >= 1e20:
        raise ValueError("not a time")
    else:
        import numpy as np  # noqa: PLC0415  (slow path only)

        us = int(epoch_us(np.array([float(value)]))[0])
    if not TIME_MIN_US <= us <= TIME_MAX_US:
        raise ValueError("outside the years 1 to 9999")
    return value


Number = Annotated[FiniteFloat, Field(strict=True), AfterValidator(_number)]
Text = Annotated[StrictStr, Field(max_length=10_000)]
Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
Identifier = StrictStr | StrictInt
EventTime = Annotated[StrictStr | StrictInt | StrictFloat, AfterValidator(_time)]


class Wire(BaseModel):
    """Base of incoming contracts: unknown fields are additive, and accepted."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Payload(Wire):
    """Inputs kept elsewhere; accepted, never fetched."""

    uri: StrictStr
    digest: StrictStr


class Telemetry(Wire):
    """One served prediction, bare or as the data of a CloudEvent of type io.regate.telemetry.v1."""

    schema_version: Literal[1, "1"] | None = None
    event_id: Identifier = Field(description="unique per event; in a CloudEvent its id stands in")
    event_time: EventTime | None = Field(
        default=None,
        description="when the prediction was served: ISO 8601 (without an offset: UTC) or epoch seconds to nanoseconds;"
        " in a CloudEvent its time stands in, else the record's timestamp",
    )
    tenant: Text | None = None
    model: Text | None = None
    model_version: Identifier | None = None
    deployment: Text | None = None
    client: Identifier | None = None
    inputs: dict[str, Any] | None = Field(
        default=None, description="feature -> number, text, boolean, null or list of numbers"
    )
    payload: Payload | None = Field(default=None, description="inputs by reference, instead of inputs")
    prediction: Scalar | None = None
    scores: Number | dict[str, Number | None] | None = Field(default=None, description="one score, or class -> score")
    latency_ms: Number | None = None
    error: StrictBool | StrictInt | StrictStr | None = None
    cohorts: dict[str, Scalar | None] | None = None
