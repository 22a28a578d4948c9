"""The label contract: the outcome of an earlier prediction, late, out of order, or never."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from regate.daemon.wire.telemetry import EventTime, Identifier, Number, Scalar, Text, Wire


class Label(Wire):
    """One outcome, bare or as the data of a CloudEvent of type io.regate.label.v1."""

    schema_version: Literal[1, "1"] | None = None
    event_id: Identifier = Field(description="the event id of the prediction (never the id of a CloudEvent)")
    event_time: EventTime | None = Field(default=None, description="when the outcome was known")
    tenant: Text | None = None
    model: Text | None = None
    model_version: Identifier | None = None
    deployment: Text | None = None
    client: Identifier | None = Field(
        default=None, description="who sent the label, hashed with a salt; else the source of the CloudEvent"
    )
    label: Scalar = Field(description="the outcome: a class, or a number for regression")
    prediction: Scalar | None = Field(default=None, description="carried by the label, it needs no join")
    scores: Number | dict[str, Number | None] | None = None
