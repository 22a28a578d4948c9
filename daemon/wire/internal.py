"""Events on regate's own topics that are not findings, runs or decisions."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from regate.scenarios.contracts import TargetSpec


class Heartbeat(BaseModel):
    """What one observe shard has proven at one tick. Sent to every decide and gate partition."""

    model_config = ConfigDict(frozen=True)

    source: str  # shard: telemetry-3, labels-0
    now_ms: int  # the tick
    position: int  # next offset to read
    end: int  # end offset seen at the tick
    lag_ms: int  # tick less the newest record's timestamp; 0 when position has reached the end
    watermark_us: int  # event time up to which this shard's cells are complete
    idle: bool = False  # proven empty for 30 s: left out of the minimum
    models: tuple[str, ...] = ()  # placements (tenant/model) seen in the last hour on this shard
    versions: dict[str, int] = {}  # tenant/model/deployment@version -> its newest arrival, of the last hour


class Clock(BaseModel):
    """One firing of one scheduled job; ``id`` is made of job and due time, so several daemons give one."""

    model_config = ConfigDict(frozen=True)

    job: Literal["revalidate", "renew", "heartbeat"]
    due_ms: int
    scope: str = ""  # empty: every scope of the shard


class Command(BaseModel):
    """What a person or a deployment system asks of a gate."""

    model_config = ConfigDict(frozen=True)

    id: str
    kind: Literal["deploy", "revalidate", "override", "requalify", "accept_change"]
    tenant: str
    model: str
    deployment: str
    model_version: str = ""
    target: TargetSpec | None = None
    baseline: TargetSpec | None = None
    actor: str = ""
    reason: str = ""
    ticket: str = ""
    verdict: Literal["", "approve", "hold", "roll_back", "fail_safe"] = ""  # override
    expires_ms: int = 0  # override: mandatory, capped by policy
    approvals: tuple[str, ...] = ()  # distinct signers; fail_safe needs two
    incident: str = ""  # accept_change
    issued_ms: int = 0

    @property
    def scope(self) -> str:
        """Return the gate's scope."""
        return f"{self.tenant}/{self.model}/{self.deployment}"


class Ack(BaseModel):
    """A deployment system's answer to a decision."""

    model_config = ConfigDict(frozen=True)

    decision_id: str
    scope: str
    seq: int
    state: Literal["received", "applied", "failed"]
    actor: str = ""
    at_ms: int = 0
    message: str = ""


class Acceptance(BaseModel):
    """A person says that a change is the new normal: the document of a control record of that kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    incident: str = Field(min_length=1, max_length=200)
    tenant: str
    model: str
    model_version: str
    deployment: str
    actor: str = Field(min_length=1, max_length=200)
    reason: str = Field(min_length=1, max_length=2000)
    ticket: str = Field(default="", max_length=200)
    profile: str = ""  # digest of the profile that describes the new normal; empty: the charts start over


class Control(BaseModel):
    """One record of the control topic: key is ``<kind>/<name>``, a null value takes it back."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["model", "policy", "profile", "profile-chunk", "acceptance", "pattern", "prompts"]
    name: str
    digest: str
    document: str  # the YAML or JSON text, or base64 of profile bytes (or one chunk of them)
    part: int = 0
    parts: int = 1
