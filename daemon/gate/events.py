"""What a gate says: decisions, its effective state, and what it had to leave aside."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from regate.config.policy import Verdict

Transition = Literal["raise", "clear", "renew", "override", "expire"]
Mode = Literal["enforce", "shadow"]
TriggerKind = Literal[
    "drift",
    "attack",
    "recurrence",
    "harm",
    "schedule",
    "deployment",
    "manual",
    "startup",
    "staleness",
    "silence",
]
ActionKind = Literal["none", "hold_new", "keep_and_page", "page", "roll_back", "fail_safe", "allow"]


class Frozen(BaseModel):
    """Base of all parts of an event: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ScopeRef(Frozen):
    """What a decision is about."""

    tenant: str
    model: str
    deployment: str
    model_version: str = ""
    model_digest: str = ""


class BaselineRef(Frozen):
    """The version that roll_back names."""

    name: str = ""
    version: str
    digest: str


class Action(Frozen):
    """What a deployment system is asked to do; the key is the same for the same request."""

    kind: ActionKind = "none"
    target_baseline: BaselineRef | None = None
    features: tuple[str, ...] = ()
    idempotency_key: str = ""


class Reason(Frozen):
    """One ground of a decision. Numbers are decimal strings."""

    code: str
    check_id: str = ""
    outcome: str = ""
    observed: str = ""
    threshold: str = ""
    comparator: str = ""
    ci_low: str = ""
    ci_high: str = ""
    n: int = 0
    window: str = ""
    baseline_ref: str = ""
    message: str = ""


class Trigger(Frozen):
    """What set a decision or a run off."""

    kind: TriggerKind
    id: str
    detected_at: str = ""  # RFC 3339


class SuiteSummary(Frozen):
    """The run that a decision rests on."""

    id: str
    version: str
    digest: str
    seed: int
    cases: int
    passed: int
    failed: int
    errored: int
    inconclusive: int
    seconds: str
    run_id: str = ""
    run_digest: str = ""


class PolicyRef(Frozen):
    """The policy in effect."""

    id: str
    version: str
    digest: str
    rule_ids: tuple[str, ...] = ()


class Playbook(Frozen):
    """Where the remediation stands."""

    id: str
    step: int = 0


class OverrideRef(Frozen):
    """An override while it is active; stands on every event until it expires."""

    command_id: str
    verdict: Verdict
    actor: str
    reason: str
    ticket: str
    expires_at: str
    signers: tuple[str, ...] = ()


class Human(Frozen):
    """Whether a person must act before the verdict can be lowered."""

    required: bool = False
    quorum: int = 0
    approvals: tuple[str, ...] = ()
    deadline: str = ""


class SourceProof(Frozen):
    """One telemetry partition, as its last heartbeat proved."""

    source: str
    age_ms: int
    lag_ms: int
    position: int
    end: int


class Proof(Frozen):
    """What was checked before an approval was given or renewed."""

    checked_at: str
    sources: tuple[SourceProof, ...] = ()
    open_incidents: tuple[str, ...] = ()
    run_id: str = ""
    run_age_seconds: str = ""
    watch: Literal["live", "no_traffic"] = "live"


class Inputs(Frozen):
    """Where the deciding input stands on the bus."""

    ranges: tuple[str, ...] = ()
    profile_digest: str = ""
    journal_ref: str = ""


class Build(Frozen):
    """Which code decided."""

    version: str
    digest: str


class Evidence(Frozen):
    """Digests of what the decision rests on; the log comes with its own fields."""

    capsule: str = ""
    run_digest: str = ""
    stream_digest: str = ""


class GateDecision(Frozen):
    """One decision of one scope. ``verdict`` is the analysis, ``effective_verdict`` what to act on."""

    id: str
    scope: ScopeRef
    seq: int
    mode: Mode
    verdict: Verdict
    previous_verdict: Verdict | Literal["none"]
    effective_verdict: Verdict | Literal["none"]  # "none" in shadow mode: never to be acted on
    transition: Transition
    decided_at: str
    valid_until: str = ""  # of the approval; empty when the verdict is not a lease
    action: Action = Action()
    reasons: tuple[Reason, ...] = ()
    trigger: Trigger
    suite: SuiteSummary | None = None
    policy: PolicyRef
    playbook: Playbook | None = None
    override: OverrideRef | None = None
    human: Human = Human()
    inputs: Inputs = Inputs()
    proof: Proof | None = None
    evidence: Evidence = Evidence()
    build: Build


class IncidentRef(Frozen):
    """An open incident, as the gate holds it."""

    id: str
    kind: str
    severity: str
    model_version: str = ""


class VersionState(Frozen):
    """A version and how fresh its own passed run is."""

    version: str
    digest: str
    passed_until: str = ""


class Pending(Frozen):
    """Runs that are asked for."""

    running: str = ""  # request id
    role: str = ""
    deadline: str = ""
    queued: tuple[str, ...] = ()  # trigger kinds that wait


class RemedyState(Frozen):
    """The last roll-back: how far it has come."""

    decision_id: str
    stage: Literal["requested", "applied", "seen", "helped", "failed", "lifted"]
    version: str  # rolled back to
    requested_at: str
    applied_at: str = ""


class GateState(Frozen):
    """The effective state of one scope: read the compacted topic to its end and you know all."""

    scope: ScopeRef
    seq: int
    mode: Mode
    verdict: Verdict
    effective_verdict: Verdict | Literal["none"]
    since: str
    valid_until: str = ""
    decision_id: str
    transition: Transition
    outcome: str = ""  # of the last run on the version under decision
    trigger: Trigger
    reasons: tuple[Reason, ...] = ()
    action: Action = Action()
    override: OverrideRef | None = None
    serving: VersionState | None = None
    candidate: VersionState | None = None
    baseline: VersionState | None = None
    pending: Pending = Pending()
    incidents: tuple[IncidentRef, ...] = ()  # the worst of the open ones
    incidents_open: int = 0
    blocked_by: tuple[str, ...] = ()  # why the last renewal or clear did not happen
    remedy: RemedyState | None = None
    ack: str = ""  # "<decision id> <state>" of the last acknowledgement
    policy: PolicyRef


class Ignored(Frozen):
    """An input that was left aside, and why. Kept with the dead letters, counted in the state."""

    reason: str
    kind: str
    id: str = ""
    scope: str = ""
    ref: str = ""  # logical topic, partition and offset
    message: str = ""
