"""The configuration of one model: what its telemetry means and what is promised about it."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo, available_timezones

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\s/@\x00-\x1f][^/@\x00-\x1f]*$")]
Privacy = Literal["keep", "hash", "drop"]
Family = Literal[
    "data_quality",
    "feature_drift",
    "multivariate_drift",
    "output_drift",
    "performance",
    "service",
    "fairness",
    "behaviour",
    "silence",
    "attack",
]


class Strict(BaseModel):
    """Base of all settings: frozen, unknown keys and non-finite numbers (which no snapshot holds) refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Feature(Strict):
    """One input column."""

    type: Literal["numeric", "categorical", "boolean", "text", "vector"]
    minimum: float | None = None  # the *declared* range; a value outside is refused
    maximum: float | None = None
    categories: tuple[str, ...] = ()  # declared; empty means any (unseen ones are counted, not refused)
    required: bool = False  # a missing value is refused instead of counted
    privacy: Privacy = "keep"
    weight: float = Field(default=1.0, gt=0)
    watch: bool = True  # texts are watched as prompts (docs/families/prompts.md), of which hashes alone are kept

    @model_validator(mode="after")
    def _range(self) -> Feature:
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        return self


class FieldMapping(Strict):
    """Where each field stands in a payload: dotted paths, for example ``data.request.inputs``."""

    event_id: str = "event_id"
    event_time: str = "event_time"
    tenant: str = "tenant"
    model: str = "model"
    model_version: str = "model_version"
    deployment: str = "deployment"
    client: str = "client"
    inputs: str = "inputs"  # an object of features; "" means the event's own top level
    prediction: str = "prediction"
    scores: str = "scores"  # a number or an object class -> number
    latency_ms: str = "latency_ms"
    error: str = "error"
    cohorts: str = "cohorts"  # an object attribute -> value
    label: str = "label"


class Output(Strict):
    """What the model answers."""

    type: Literal["binary", "multiclass", "regression"] = "binary"
    classes: tuple[str, ...] = ()
    positive: str = "1"  # the class that the single score speaks of, and fairness counts as selected


class Target(Strict):
    """The artefact in service, for re-validation."""

    kind: Literal["onnx"] = "onnx"
    uri: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class Baseline(Strict):
    """What roll_back names: a version with its own passed run."""

    name: Name
    version: Name
    target: Target


class ReferenceRows(Strict):
    """Rows of normal traffic, with labels where they are known: the suite draws from them before there is traffic."""

    uri: str
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")


class RiverDetector(Strict):
    """One of River's detectors that listens to one chart."""

    detector: Literal["ADWIN", "KSWIN", "PageHinkley", "DDM", "EDDM", "FHDDM", "HDDMA", "HDDMW", "HalfSpaceTrees"]
    chart: str = ""  # as `regate profile show` names it; HalfSpaceTrees listens to all numeric features
    parameters: dict[str, float | bool] = {}
    trusted: bool = False  # its alarms are findings although its false alarms exceed its share of the budget


class Service(Strict):
    """What is promised to whoever asks the model; without a number nothing is promised."""

    timeout_ms: float | None = Field(default=None, gt=0)  # a slower answer counts as none
    error_objective_ratio: float | None = Field(default=None, gt=0, lt=1)  # errors that may happen, of all events
    latency_objective_ms: float | None = Field(default=None, gt=0)
    latency_objective_ratio: float = Field(default=0.01, gt=0, lt=1)  # answers that may be slower than that


class Detection(Strict):
    """The one number that the operator sets, and the few that follow."""

    false_alarms: float = Field(default=1.0, gt=0)  # false re-validations per budget period and model
    period_days: float = Field(default=30.0, gt=0)
    # Weight of a family's charts in the budget, 1 where nothing is said; 0 turns the family's charts off.
    families: dict[Family, Annotated[float, Field(ge=0)]] = {}
    # Different queries of any kind that one client may ask within a day (UTC); None: any number.
    distinct_queries_per_day: int | None = Field(default=None, ge=1)
    max_charts: int = Field(default=4000, ge=1)  # beyond it charts are dropped by weight, and listed
    strata: Literal["none", "hour", "weekday", "hour_of_week"] = "none"
    allowed_lateness_seconds: float = Field(default=10.0, gt=0)
    max_event_age_seconds: float = Field(default=3600.0, gt=0)
    events_per_second: float | None = None  # None: from the first hour watched
    open_predictions: int = Field(default=1_000_000, ge=1)
    label_delay_seconds: float | None = Field(default=None, ge=0)  # None: from when the reference's labels came
    calibrate_seconds: float = Field(default=60.0, gt=0)
    segments: tuple[Name, ...] | None = None  # cohorts within which features are watched; None: all declared ones
    service: Service = Service()
    river: tuple[RiverDetector, ...] = Field(default=(), max_length=64)
    silence_after_seconds: float | None = None  # None: from the profile's gaps


class Validation(Strict):
    """Which suite renews the lease."""

    suite: str = "default"
    seed: int = 20_260_101
    window_events: int = Field(default=2000, ge=100)
    budget_seconds: float = Field(default=120.0, gt=0)
    bounds: dict[str, float] = {}  # "<scenario id>/<check>" -> this model's bound instead of the catalog's


class ModelConfig(Strict):
    """One model, all its deployments and versions."""

    apiVersion: Literal["regate/v1"] = "regate/v1"  # noqa: N815  (the spelling that operators know)
    kind: Literal["Model"] = "Model"
    tenant: Name = "default"
    model: Name
    version: Name = "1"  # default for events that do not say
    deployment: Name = "production"
    time_zone: str = "UTC"
    features: dict[str, Feature]
    output: Output = Output()
    cohorts: tuple[str, ...] = ()
    mapping: FieldMapping = FieldMapping()
    privacy: dict[str, Privacy] = {"client": "hash"}
    target: Target | None = None
    baseline: Baseline | None = None
    reference: ReferenceRows | None = None
    detection: Detection = Detection()
    validation: Validation = Validation()
    policy: str = "default"

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"unknown time zone {value!r}; use an IANA name such as Europe/Berlin")
        return value

    @property
    def zone(self) -> ZoneInfo:
        """Return the zone that strata are counted in."""
        return ZoneInfo(self.time_zone)
