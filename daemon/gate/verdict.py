"""What a finding or a run result asks of the verdict, by the rules of the policy and the fixed floor."""

from __future__ import annotations

from dataclasses import dataclass

from regate.config.policy import Policy, Verdict, worst
from regate.daemon.gate.events import Reason, SuiteSummary
from regate.detectors.finding import Finding
from regate.scenarios.contracts import Check, Outcome, RunResult

# From harmless to decisive. A failed check outweighs an inconclusive one: it is proof, not a lack of it.
_WEIGHT: dict[Outcome, int] = {"skipped": 0, "pass": 1, "warn": 2, "inconclusive": 3, "error": 4, "fail": 5}
EVALUATED = {"pass", "warn", "fail"}
GREEN = {"pass", "warn"}
# What foreign text may take of an event and of a snapshot chunk, which must fit in one record.
TEXT, NUMBER = 500, 64
# An event is read by people: what lies beyond stands in the run result, which the event names.
MAX_REASONS = 20


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one input asks for."""

    verdict: Verdict
    reasons: tuple[Reason, ...] = ()
    rule_ids: tuple[str, ...] = ()
    revalidate: bool = False
    outcome: Outcome = "pass"


def judge_finding(finding: Finding, policy: Policy, *, confirmed: bool) -> Judgement:
    """Return what a finding asks for; approve when no rule matches or the matching ones only re-validate."""
    matched = [
        rule
        for rule in policy.rules
        if rule.finding is not None
        and finding.kind in rule.finding.kinds
        and finding.severity >= rule.finding.min_severity
        and rule.finding.confirmed in (None, confirmed)
    ]
    reason = Reason(
        code=f"finding_{finding.kind}",
        check_id=finding.detector[:NUMBER],
        observed=finding.evidence[:NUMBER],
        threshold=finding.threshold[:NUMBER],
        comparator="<=",
        n=finding.events,
        message=finding.message[:TEXT],
    )
    return Judgement(
        verdict=worst(*(rule.verdict for rule in matched)),
        reasons=(reason,),
        rule_ids=tuple(rule.id for rule in matched),
        revalidate=any(rule.revalidate for rule in matched),
    )


def _of_check(check: Check) -> Reason:
    return Reason(
        code=f"check_{check.outcome}",
        check_id=check.id[:TEXT],
        outcome=check.outcome,
        observed=check.observed[:NUMBER],
        threshold=check.threshold[:NUMBER],
        comparator=check.comparator,
        ci_low=check.ci_low[:NUMBER],
        ci_high=check.ci_high[:NUMBER],
        n=check.n,
        message=check.message[:TEXT],
    )


def _missing(result: RunResult, policy: Policy) -> list[Reason]:
    found = [check.id for check in result.checks if check.outcome in EVALUATED]
    reasons = []
    if not found:
        reasons.append(Reason(code="no_checks", outcome=result.outcome, message="the run evaluated no check"))
    for prefix in policy.required_checks:
        if not any(name.startswith(prefix) for name in found):
            reasons.append(Reason(code="check_absent", check_id=prefix, message="a required check was not evaluated"))
    return reasons


def judge_run(result: RunResult, policy: Policy) -> Judgement:
    """Return what a run asks for.

    The outcome is the worst of what the run declares and what its checks say, so that neither a
    lenient summary nor an empty list of checks can approve. Anything but pass and warn is at least hold.
    """
    missing = _missing(result, policy)
    outcome: Outcome = max((result.outcome, *(check.outcome for check in result.checks)), key=_WEIGHT.__getitem__)
    if missing and outcome in {"pass", "warn", "skipped"}:
        outcome = "inconclusive"
    verdicts: list[Verdict] = ["approve" if outcome in GREEN else "hold"]
    rules: list[str] = []
    for check in result.checks:
        for rule in policy.rules:
            match = rule.check
            if (
                match is not None
                and check.outcome in match.outcomes
                and match.critical in (None, check.critical)
                and check.id.startswith(match.prefix)
            ):
                verdicts.append(rule.verdict)
                if rule.id not in rules:
                    rules.append(rule.id)
    bad = sorted(
        (check for check in result.checks if check.outcome not in {"pass", "skipped"}),
        key=lambda check: (-_WEIGHT[check.outcome], not check.critical, check.id),
    )
    reasons = [*missing, *(_of_check(check) for check in bad)]
    if not reasons:
        reasons = [Reason(code=f"run_{outcome}", outcome=outcome, n=len(result.checks))]
    return Judgement(worst(*verdicts), tuple(reasons[:MAX_REASONS]), tuple(rules), outcome=outcome)


def summarise(result: RunResult) -> SuiteSummary:
    """Return the run as it stands on decisions."""
    return SuiteSummary(
        id=result.suite[:TEXT],
        version=result.suite_version[:NUMBER],
        digest=result.suite_digest[:TEXT],
        seed=result.seed,
        cases=len(result.checks),
        passed=result.passed,
        failed=result.failed,
        errored=result.errored,
        inconclusive=result.inconclusive,
        seconds=result.seconds[:NUMBER],
        run_id=result.run_id[:TEXT],
        run_digest=result.digest[:TEXT],
    )
