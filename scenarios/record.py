"""The scenario record: one YAML file, typed, checked, content-addressed."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field

from regate.config.canonical import digest
from regate.config.model import Strict

SemVer = Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
AtlasId = Annotated[str, Field(pattern=r"^AML\.T\d{4}(\.\d{3})?$")]
# A number for what people write, eight digits of the content's digest for what an incident left behind.
ScenarioId = Annotated[str, Field(pattern=r"^scn-[a-z_]+-(\d{4}|[0-9a-f]{8})$")]
# Queued: made by a command and not yet looked at; no suite may name it.
Status = Literal["active", "queued"]
Level = Literal["unit", "component", "end_to_end"]
LEVELS: tuple[Level, ...] = ("unit", "component", "end_to_end")


class Taxonomy(Strict):
    """Where the scenario stands in the public catalogues of attacks; empty where it has no place in one."""

    atlas: tuple[AtlasId, ...] = ()
    owasp: tuple[str, ...] = ()
    nist: tuple[str, ...] = ()


class Bound(Strict):
    """What a measured quantity must keep. Failed only when its interval is past the bound."""

    comparator: Literal["<=", ">="]
    bound: float
    critical: bool = False
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    min_n: int = Field(default=1, ge=1)  # fewer observations are inconclusive, whatever they say
    unit: str = "ratio"


class SteadyState(Strict):
    """Probes that must be answered alike before and after the scenario."""

    probes: int = Field(default=16, ge=1, le=1000)
    tolerance: float = Field(default=1e-6, ge=0)


class Abort(Strict):
    """When a scenario is given up: its checks are then errors."""

    seconds: float = Field(default=60.0, gt=0)
    memory_mb: int = Field(default=512, ge=192)  # 192 MB is the least that onnxruntime starts in


class Record(Strict):
    """What every scenario says of itself. Families add ``parameters`` and the names of their checks."""

    id: ScenarioId
    version: SemVer
    status: Status = "active"
    title: str = Field(min_length=1)
    objective: str = Field(min_length=1)
    authors: tuple[str, ...] = Field(min_length=1)
    created: date
    parents: tuple[str, ...] = ()  # incident, upstream suite or earlier scenario
    family: str
    taxonomy: Taxonomy = Taxonomy()
    failure_mode: str = Field(min_length=1)
    level: Level
    seed: int = 0  # added to the path of every random stream of this scenario
    method: Literal["generated", "recorded"] = "generated"
    instrumentation: tuple[str, ...] = ()
    steady_state: SteadyState = SteadyState()
    abort: Abort = Abort()
    rollback_triggers: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = Field(min_length=1)
    corrective_actions: tuple[str, ...] = Field(min_length=1)

    @property
    def content(self) -> dict[str, Any]:
        """Return the record as plain data, defaults filled in."""
        plain = self.model_dump(mode="json")
        if self.status == "active":
            del plain["status"]  # records from before there was one keep their address
        return plain

    @property
    def digest(self) -> str:
        """Return the content address."""
        return digest(self.content)

    @property
    def frozen(self) -> str:
        """Return the digest of the rows that stand beside the record; empty when it needs none."""
        return ""

    @property
    def bounds(self) -> dict[str, Bound]:
        """Return the expected bounds by check name."""
        return dict(getattr(self, "expected", {}))


class SuiteEntry(Strict):
    """One scenario of a suite, by exact version."""

    id: ScenarioId
    version: SemVer


class Suite(Strict):
    """A chosen list of scenarios. A suite only grows between releases."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    version: SemVer
    title: str
    scenarios: tuple[SuiteEntry, ...] = Field(min_length=1)
