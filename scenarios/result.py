"""From judgements to checks, and from checks to the result of a run and its digest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from regate.config.canonical import digest
from regate.scenarios.contracts import Check, Outcome
from regate.scenarios.intervals import Interval
from regate.scenarios.record import Bound, Record
from regate.scenarios.stream import Exchange, inputs_digest, responses_digest
from regate.scenarios.subject import Judgement

# What a run is as a whole when its checks differ. A failed bound is proof; an error only hides what would be.
WORST: tuple[Outcome, ...] = ("fail", "error", "inconclusive", "warn", "pass")
NOTHING = Interval(math.nan, math.nan, math.nan)


@dataclass(slots=True)
class ScenarioRun:
    """What came of one scenario."""

    record: Record
    judgements: list[Judgement] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    failure: str = ""  # reason of an error that ended it
    measured: dict[str, Any] = field(default_factory=dict)


def without_answer(bounds: dict[str, Bound], outcome: Outcome, message: str) -> list[Judgement]:
    """Return the same outcome for every check of a scenario, so that none is silently absent."""
    return [Judgement(name, name, outcome, NOTHING, bound, 0, message) for name, bound in bounds.items()]


def check_of(record: Record, judgement: Judgement) -> Check:
    """Return a judgement with the identity of its scenario."""
    return Check(
        id=f"{record.id}/{judgement.name}",
        scenario=record.id,
        scenario_version=record.version,
        scenario_digest=record.digest,
        family=record.family,
        critical=judgement.bound.critical,
        outcome=judgement.outcome,
        observed=decimal(judgement.interval.value),
        comparator=judgement.bound.comparator,
        threshold=decimal(judgement.bound.bound),
        ci_low=decimal(judgement.interval.low),
        ci_high=decimal(judgement.interval.high),
        n=judgement.n,
        unit=judgement.bound.unit,
        message=judgement.message[:500],
        failure_mode=record.failure_mode,
        measured=judgement.measured,
    )


def decimal(value: float) -> str:
    """Return 6 significant digits; nothing for a quantity that is not known or has no limit.

    >>> decimal(0.1 + 0.2), decimal(float("inf"))
    ('0.3', '')
    """
    return f"{value + 0.0:.6g}" if math.isfinite(value) else ""


def overall(checks: Sequence[Check]) -> Outcome:
    """Return the worst outcome: error when nothing ran, inconclusive when nothing decided."""
    if not checks:
        return "error"
    present = {check.outcome for check in checks}
    return next((outcome for outcome in WORST if outcome in present), "inconclusive")


def counts(checks: Sequence[Check]) -> dict[str, int]:
    """Return how many checks came out how, by the field names of the result."""
    seen = Counter(check.outcome for check in checks)
    names: dict[str, Outcome] = {
        "passed": "pass",
        "failed": "fail",
        "errored": "error",
        "inconclusive": "inconclusive",
        "warned": "warn",
        "skipped": "skipped",
    }
    return {name: seen[outcome] for name, outcome in names.items()}


def run_digest(identity: dict[str, Any], runs: Sequence[ScenarioRun]) -> str:
    """Return the digest of scenarios, seed, inputs, responses (6 digits) and deterministic outcomes."""
    entries = []
    for run in runs:
        outcomes = [
            [j.name, j.outcome, decimal(j.interval.value), j.bound.comparator, decimal(j.bound.bound), j.n]
            for j in run.judgements
            if not j.measured
        ]
        entries.append(
            {
                "id": run.record.id,
                "digest": run.record.digest,
                "inputs": inputs_digest([exchange.step for exchange in run.exchanges]),
                "responses": [responses_digest(exchange.responses) for exchange in run.exchanges],
                "outcomes": outcomes,
                "failure": run.failure,
            }
        )
    return digest({"identity": identity, "scenarios": entries})
