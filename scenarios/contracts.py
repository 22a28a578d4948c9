"""What is asked of a validation and what it answers: request, check, run result."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Outcome = Literal["pass", "warn", "fail", "inconclusive", "error", "skipped"]


class TargetSpec(BaseModel):
    """Which artefact is validated. ``digest`` is of the artefact's bytes; a run on other bytes is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["onnx"] = "onnx"
    uri: str  # a path or file: URI readable by the validate worker
    digest: str  # sha256:<hex>
    name: str = ""
    version: str = ""


class Window(BaseModel):
    """Where the production window is read from: exact input ranges, so that the run can be repeated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: int = 2000  # last N events of the model
    until_ms: int = 0  # bus time of the request; records after it are not part of the window


class RunRequest(BaseModel):
    """A request of the gate for one run of one suite on one target."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    id: str  # content-made: scope, target digest, suite digest, cause, ordinal
    scope: str  # tenant/model/deployment
    tenant: str
    model: str
    model_version: str
    deployment: str
    role: Literal["candidate", "serving", "baseline"] = "serving"
    target: TargetSpec
    baseline: TargetSpec | None = None
    suite: str = "default"
    suite_digest: str = ""
    seed: int = 0
    window: Window | None = None  # None before the version has traffic
    trigger_kind: str  # drift, harm, schedule, deployment, silence, manual, startup
    trigger_id: str
    requested_ms: int
    deadline_ms: int
    priority: float = 0.0


class Check(BaseModel):
    """One bound of one scenario, decided by its interval. ``fail`` only when the interval is past the bound."""

    model_config = ConfigDict(frozen=True)

    id: str  # "<scenario id>/<check name>"
    scenario: str
    scenario_version: str
    scenario_digest: str
    family: str
    critical: bool = False
    outcome: Outcome
    observed: str = ""  # decimal string, 6 significant digits
    comparator: Literal["", "<=", ">=", "=="] = ""
    threshold: str = ""
    ci_low: str = ""
    ci_high: str = ""
    n: int = 0
    unit: str = ""
    message: str = ""
    failure_mode: str = ""
    measured: bool = False  # time or memory of this machine: beside the run digest, not in it


class RunResult(BaseModel):
    """The result of one run. ``digest`` covers scenario, seed, inputs, responses and deterministic outcomes."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    run_id: str
    scope: str
    model_version: str
    role: Literal["candidate", "serving", "baseline"]
    target_digest: str
    suite: str
    suite_version: str
    suite_digest: str
    seed: int
    attempt: int = 1
    outcome: Outcome  # worst of the checks; "error" when none ran, "inconclusive" when none decided
    checks: tuple[Check, ...] = ()
    passed: int = 0
    failed: int = 0
    errored: int = 0
    inconclusive: int = 0
    warned: int = 0
    skipped: int = 0
    digest: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    environment_digest: str = ""
    window_digest: str = ""
    stream_digest: str = ""  # of the recorded inputs and responses
    measured: dict[str, Any] = Field(default_factory=dict)
    started_ms: int = 0
    finished_ms: int = 0
    seconds: str = "0"
