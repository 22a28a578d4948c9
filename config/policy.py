"""The policy of a gate: which findings and check outcomes move a verdict, and how it moves back.

`Policy()` in code and the shipped ``defaults/policy.yaml`` say the same (a test compares them).
Not configurable, whatever a policy says: an inconclusive, failed, erroneous or absent check never
approves, a run without an evaluated check is a hold, roll_back and fail_safe are latched.
"""

from __future__ import annotations

from importlib import resources
from typing import Literal

from pydantic import Field, model_validator

from regate.config.model import Name, Strict

Verdict = Literal["approve", "hold", "pause_feature", "roll_back", "fail_safe"]
ORDER: tuple[Verdict, ...] = ("approve", "hold", "pause_feature", "roll_back", "fail_safe")
OnExpiry = Literal["hold_new", "keep_and_page", "baseline"]
FindingKind = Literal["change", "harm", "attack", "recurrence", "data_quality", "silence"]
CheckOutcome = Literal["pass", "warn", "fail", "inconclusive", "error", "skipped"]


def rank(verdict: Verdict) -> int:
    """Return the position of a verdict, 0 for approve.

    >>> rank("roll_back") > rank("hold")
    True
    """
    return ORDER.index(verdict)


def worst(*verdicts: Verdict) -> Verdict:
    """Return the most severe verdict; approve when there is none.

    >>> worst("hold", "approve")
    'hold'
    """
    return max(verdicts, key=rank, default="approve")


class FindingMatch(Strict):
    """Which findings a rule speaks of."""

    kinds: tuple[FindingKind, ...] = Field(min_length=1)
    min_severity: float = Field(default=0.0, ge=0, le=1)
    confirmed: bool | None = None  # True: only after a revision `confirmed`; None: either


class CheckMatch(Strict):
    """Which checks of a run a rule speaks of."""

    outcomes: tuple[CheckOutcome, ...] = Field(min_length=1)
    critical: bool | None = None  # None: either
    prefix: str = ""  # of the check id, "<scenario id>/<check name>"


class Rule(Strict):
    """One condition and the verdict that it asks for. The most severe matching rule wins."""

    id: Name
    finding: FindingMatch | None = None
    check: CheckMatch | None = None
    verdict: Verdict
    revalidate: bool = False  # ask for a run (findings only; a run asks for nothing by itself)
    playbook: str = ""
    failure_mode: str = ""

    @model_validator(mode="after")
    def _one_condition(self) -> Rule:
        if (self.finding is None) == (self.check is None):
            raise ValueError("a rule has exactly one of `finding` and `check`")
        if self.check is not None and self.revalidate:
            raise ValueError("`revalidate` belongs to finding rules: a run that asks for runs never ends")
        return self


def _default_rules() -> tuple[Rule, ...]:
    return (
        Rule(
            id="drift-asks",
            finding=FindingMatch(kinds=("change", "data_quality")),
            verdict="approve",
            revalidate=True,
        ),
        Rule(id="harm-holds", finding=FindingMatch(kinds=("harm",)), verdict="hold", revalidate=True),
        Rule(
            id="severe-harm-rolls-back",
            finding=FindingMatch(kinds=("harm",), min_severity=0.5),
            verdict="roll_back",
            revalidate=True,
        ),
        Rule(id="attack-holds", finding=FindingMatch(kinds=("attack", "recurrence")), verdict="hold", revalidate=True),
        Rule(
            id="confirmed-attack-rolls-back",
            finding=FindingMatch(kinds=("attack", "recurrence"), confirmed=True),
            verdict="roll_back",
            revalidate=True,
        ),
        Rule(id="silence-holds", finding=FindingMatch(kinds=("silence",)), verdict="hold", revalidate=True),
        Rule(
            id="critical-failure-rolls-back",
            check=CheckMatch(outcomes=("fail",), critical=True),
            verdict="roll_back",
        ),
        Rule(id="failure-holds", check=CheckMatch(outcomes=("fail",)), verdict="hold"),
    )


class Lease(Strict):
    """How long an approval is valid, and what proof renews it."""

    seconds: float = Field(default=21_600.0, gt=0)
    renew_ratio: float = Field(default=1 / 3, gt=0, lt=1)  # of the lease, when renewal is first attempted
    jitter_ratio: float = Field(default=0.1, ge=0, lt=1)  # of the renewal time: a fleet must not renew at once
    heartbeat_seconds: float = Field(default=5.0, gt=0)  # interval of watch; older than two is a blind watch
    max_lag_seconds: float = Field(default=30.0, ge=0)
    max_open_severity: float = Field(default=0.5, ge=0, le=1)  # an open incident above it blocks approval
    max_approval_age_seconds: float = Field(default=43_200.0, gt=0)  # of the last passed suite on this digest
    on_expiry: OnExpiry = "hold_new"


class Clear(Strict):
    """How a verdict is lowered: one step after so many passes in a row and so long at the level."""

    passes: int = Field(default=2, ge=1)
    dwell_seconds: float = Field(default=300.0, ge=0)
    first_passes: int = Field(default=1, ge=1)  # for a version that was never judged (start, deployment, expiry)


class Queue(Strict):
    """How re-validation is asked for."""

    cool_down_seconds: float = Field(default=30.0, ge=0)  # between two runs of one scope
    deadline_seconds: float = Field(default=600.0, gt=0)  # a run without result by then counts as error
    max_running: int = Field(default=2, ge=1)  # requests in flight of one gate shard
    error_retries: int = Field(default=2, ge=0)  # runs asked again after outcome error; never after inconclusive


class RollBack(Strict):
    """What bounds roll-backs."""

    budget: int = Field(default=3, ge=0)  # in the window; the next one is a fail_safe
    window_seconds: float = Field(default=86_400.0, gt=0)
    cool_down_seconds: float = Field(default=900.0, ge=0)  # between two roll-back actions of one scope
    no_fresh_baseline: Literal["hold", "fail_safe"] = "hold"
    ack_seconds: float = Field(default=300.0, gt=0)  # without an ack: page; after twice as long: fail_safe
    seen_seconds: float = Field(default=600.0, gt=0)  # after it was applied, until telemetry shows it: else fail_safe
    helped_seconds: float = Field(default=3600.0, gt=0)  # after it was applied: harm that goes on is fail_safe
    baseline_lease_seconds: float = Field(default=43_200.0, gt=0)  # how long a baseline's own passed run counts


class Overrides(Strict):
    """What a person may set aside, and for how long."""

    max_seconds: float = Field(default=86_400.0, gt=0)
    fail_safe_signers: int = Field(default=2, ge=2)


class Policy(Strict):
    """How one or many gates decide. Units stand in the names."""

    apiVersion: Literal["regate/v1"] = "regate/v1"  # noqa: N815  (the spelling that operators know)
    kind: Literal["Policy"] = "Policy"
    name: Name = "default"
    version: Name = "1"
    mode: Literal["enforce", "shadow"] = "enforce"
    rules: tuple[Rule, ...] = Field(default_factory=_default_rules)
    required_checks: tuple[str, ...] = ()  # prefixes of check ids that every run must have evaluated
    lease: Lease = Lease()
    clear: Clear = Clear()
    queue: Queue = Queue()
    roll_back: RollBack = RollBack()
    overrides: Overrides = Overrides()

    @model_validator(mode="after")
    def _distinct(self) -> Policy:
        names = [rule.id for rule in self.rules]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"rule ids must be distinct: {', '.join(double)}")
        return self


def lint(policy: Policy) -> list[str]:
    """Return what is legal but most likely not meant, one sentence each."""
    problems = []
    found = [kind for rule in policy.rules if rule.finding for kind in rule.finding.kinds]
    for kind in ("change", "harm", "attack", "silence"):
        if kind not in found:
            problems.append(f"no rule speaks of findings of kind {kind}: they would be recorded and nothing else")
    if not any(rule.check and "fail" in rule.check.outcomes and rule.verdict == "roll_back" for rule in policy.rules):
        problems.append("no failed check rolls back")
    if policy.lease.max_approval_age_seconds < policy.lease.seconds * policy.lease.renew_ratio:
        problems.append("max_approval_age_seconds ends before the first renewal: every lease will expire")
    return problems


def shipped_text() -> str:
    """Return the text of the shipped default policy."""
    return resources.files("regate.config.defaults").joinpath("policy.yaml").read_text(encoding="utf-8")
