"""What a gate remembers: one `Scope` for each tenant/model/deployment, one `Shard` around them.

A scope is immutable and replaced as a whole, so the state before a decision is simply the old one
(the capsule keeps it). Times are milliseconds of bus time, entered by ticks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict

from regate.config.canonical import digest
from regate.config.model import ModelConfig
from regate.config.policy import Policy, Verdict, rank
from regate.daemon.gate.events import Action, Mode, OverrideRef, Reason, SuiteSummary, Trigger
from regate.daemon.wire.internal import Heartbeat
from regate.scenarios.contracts import RunRequest, TargetSpec

Role = Literal["candidate", "serving", "baseline"]

# A worker may answer long after its request was closed; fewer would call a known request unknown.
CLOSED_KEPT = 32
# Producers may send a command again within their retry window; fewer would take one twice.
COMMANDS_KEPT = 128
# Beyond it the least severe is forgotten (and counted): a scope must fit in one snapshot chunk.
INCIDENTS_KEPT = 256


class Stored(BaseModel):
    """Base of everything in a snapshot: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Subject(Stored):
    """One version of the model and its artefact."""

    version: str
    target: TargetSpec

    @property
    def digest(self) -> str:
        """Return the digest of the artefact."""
        return self.target.digest


class Passed(Stored):
    """The last passed run on one digest."""

    version: str
    run_id: str
    run_digest: str
    ordinal: int  # of its request: later incidents are not covered by it
    at_ms: int


class Incident(Stored):
    """An open incident that this scope heard of."""

    id: str
    kind: str
    severity: float
    verdict: Verdict  # what the rules asked for
    version: str
    ordinal: int  # only a run with a higher ordinal has seen it


class Queued(Stored):
    """One waiting re-validation; further triggers join it."""

    role: Role
    trigger: Trigger
    priority: float
    urgent: bool = False  # asked by a person or a deployment: does not wait for the cool-down
    joined: int = 1
    since_ms: int = 0


class Running(Stored):
    """The one request in flight."""

    request: RunRequest
    ordinal: int


class Held(Stored):
    """A live approval."""

    valid_until_ms: int
    renew_at_ms: int


class Override(Stored):
    """What a person set aside. It covers verdicts up to the one its signers saw."""

    ref: OverrideRef
    covers: Verdict
    expires_ms: int


class Requalify(Stored):
    """The permission to lift a latched verdict by passed runs on one digest."""

    digest: str
    command_id: str
    signers: tuple[str, ...] = ()


Stage = Literal["requested", "applied", "seen", "helped", "failed", "lifted"]


class Remedy(Stored):
    """The roll-back under way, see `regate.daemon.gate.remedy`."""

    decision_id: str
    version: str  # rolled back to
    before: str  # rolled back from
    incidents: tuple[str, ...] = ()  # open when it was asked for
    stage: Stage = "requested"
    requested_ms: int
    applied_ms: int = 0
    paged: bool = False  # of this stage's deadline

    @property
    def open(self) -> bool:
        """Return whether its end is still to come."""
        return self.stage in {"requested", "applied", "seen"}


class Scope(Stored):
    """Everything about one gate."""

    tenant: str
    model: str
    deployment: str
    configured: bool = False
    damaged: bool = False  # its snapshot was lost: the sequence goes on from the clock
    serving: Subject | None = None
    candidate: Subject | None = None
    baseline: Subject | None = None
    baseline_name: str = ""
    verdict: Verdict = "hold"
    cause: Literal["absence", "evidence", "expiry"] = "absence"
    since_ms: int = 0
    seq: int = 0
    decision_id: str = ""
    transition: Literal["raise", "clear", "renew", "override", "expire"] = "raise"
    trigger: Trigger | None = None
    reasons: tuple[Reason, ...] = ()
    action: Action = Action()
    rule_ids: tuple[str, ...] = ()
    ordinal: int = 0  # counts requests
    raise_ordinal: int = 0  # only runs asked for after the last raise count towards clearing
    passes: int = 0
    retries: int = 0  # runs asked again after outcome error, in a row
    lease: Held | None = None
    passed: dict[str, Passed] = {}  # by digest, of the versions named above
    incidents: dict[str, Incident] = {}
    queued: dict[Role, Queued] = {}
    running: Running | None = None
    last_run_ms: int = 0
    suite: SuiteSummary | None = None
    outcome: str = ""
    closed: tuple[tuple[str, str], ...] = ()  # (request id, why it is no longer waited for)
    commands: tuple[str, ...] = ()
    override: Override | None = None
    requalify: Requalify | None = None
    roll_backs: tuple[int, ...] = ()  # when, within the budget's window
    deferred: Literal["", "cool_down", "no_fresh_baseline"] = ""
    blocked_by: tuple[str, ...] = ()
    roll_back_decision: str = ""  # the last decision that asked for a roll-back
    remedy: Remedy | None = None
    ack: str = ""
    published: str = ""  # digest of the last published GateState
    traffic: int = 0  # events seen, by the last finding

    @property
    def name(self) -> str:
        """Return ``tenant/model/deployment``."""
        return f"{self.tenant}/{self.model}/{self.deployment}"

    @property
    def placement(self) -> str:
        """Return ``tenant/model``."""
        return f"{self.tenant}/{self.model}"

    @property
    def subject(self) -> Subject | None:
        """Return the version under decision: the candidate while there is one."""
        return self.candidate or self.serving

    @property
    def latched(self) -> bool:
        """Whether only a re-qualification or an override leads out."""
        return rank(self.verdict) >= rank("roll_back")


@dataclass(frozen=True, slots=True)
class Document:
    """A control document in effect, with its digest."""

    digest: str


@dataclass(frozen=True, slots=True)
class PolicyDocument(Document):
    """A policy in effect."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class ModelDocument(Document):
    """A model's configuration in effect."""

    config: ModelConfig


@dataclass(slots=True)
class Shard:
    """State of one gate shard. Changed in place by `regate.daemon.gate.step`."""

    number: int
    now_ms: int = 0
    backward_ticks: int = 0
    sources: dict[str, Heartbeat] = field(default_factory=dict)
    clocks: dict[str, int] = field(default_factory=dict)  # job and scope -> last due time taken
    policies: dict[str, PolicyDocument] = field(default_factory=dict)
    models: dict[str, ModelDocument] = field(default_factory=dict)  # by tenant/model
    scopes: dict[str, Scope] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)  # reason -> count
    refused_chunks: tuple[str, ...] = ()  # of the last recovery

    def policy_of(self, scope: Scope) -> PolicyDocument | None:
        """Return the policy that the scope's model names; None when nobody put it on the bus."""
        document = self.models.get(scope.placement)
        name = document.config.policy if document else "default"
        return self.policies.get(name) or (DEFAULT_POLICY if name == "default" else None)

    def mode_of(self, scope: Scope) -> Mode:
        """Return shadow for a model that nobody configured, else what the policy says."""
        document = self.policy_of(scope)
        if not scope.configured:
            return "shadow"
        return document.policy.mode if document else "enforce"


def _default_policy() -> PolicyDocument:
    policy = Policy()
    return PolicyDocument(digest(policy.model_dump(mode="json")), policy)


# In effect until a policy named `default` stands on the bus.
DEFAULT_POLICY = _default_policy()
