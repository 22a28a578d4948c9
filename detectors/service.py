"""Service: latency (level, spread, tail), errors and timeouts against the reference; objectives by burn rate.

A rise of errors or timeouts is harm: whoever asked got no answer. A change of latency is a change.
"""

from __future__ import annotations

import numpy as np

from regate.config.model import Family, Service
from regate.detectors.burn import Objective
from regate.detectors.candidate import Candidate, Own, Plan, Reference, made_of
from regate.detectors.columns import Categorical, Numeric
from regate.detectors.layout import RARE_BELOW, Layout
from regate.detectors.ranktable import build_table
from regate.detectors.rates import Rate, flag_chart
from regate.detectors.scores import Score, mean_chart, scale_chart, scored
from regate.detectors.sections import HITS, PRESENT, FlagSpec, NumericSpec, Section
from regate.detectors.views import Test

FAMILY: Family = "service"
PREFIX = "service"
LATENCY, ERRORS, TIMEOUTS = f"{PREFIX}/latency", f"{PREFIX}/errors", f"{PREFIX}/timeouts"
LATENCY_OBJECTIVE = f"{PREFIX}/latency objective"
# Shares of the family's weight, 1 in all.
MEAN_SHARE, SCALE_SHARE, TAIL_SHARE, ERROR_SHARE, TIMEOUT_SHARE = 0.3, 0.1, 0.2, 0.3, 0.1
TAILS = (0.5, 0.9, 0.99, 0.999)
# A rise of failures by this much has severity 1; without it, it holds and does not roll back.
WORST_RISE, LEAST_SEVERITY = 0.2, 0.3


def sections(plan: Plan) -> Own:
    """Return the sections of what telemetry says of the service."""
    found: list[Section] = []
    service = plan.config.detection.service
    latency = plan.view.column("latency_ms")
    if isinstance(latency, Numeric) and int(np.count_nonzero(~np.isnan(latency.values))) >= RARE_BELOW:
        tables = tuple(build_table(latency.values[plan.stratum == which]) for which in plan.strata)
        found.append(NumericSpec(LATENCY, 0, tables, "latency_ms"))
        known = (Test("latency_ms", "known"),)
        for tail in TAILS:
            limit = float(np.quantile(latency.values[~np.isnan(latency.values)], tail))
            found.append(FlagSpec(f"{LATENCY} > q{tail:g}", 0, (Test("latency_ms", "above", repr(limit)),), known))
        for name, limit_ms in ((TIMEOUTS, service.timeout_ms), (LATENCY_OBJECTIVE, service.latency_objective_ms)):
            if limit_ms is not None:
                found.append(FlagSpec(name, 0, (Test("latency_ms", "above", repr(float(limit_ms))),), known))
    if isinstance(plan.view.column("error"), Categorical):
        found.append(FlagSpec(ERRORS, 0, (Test("error", "is", "true"),)))
    return Own(found)


def charts(reference: Reference) -> list[Candidate]:
    """Return the charts of latency, errors and timeouts; objectives are watched by burn rate instead."""
    found: list[Candidate] = []
    for spec in reference.layout.sections:
        if isinstance(spec, NumericSpec) and spec.name == LATENCY:
            seen, about = scored(reference, spec), Score(FAMILY, "latency", MEAN_SHARE, title="latency")
            wide = Score(FAMILY, "latency", SCALE_SHARE, title="the spread of latency")
            found.append(made_of(mean_chart(reference, spec, about, seen), LATENCY))
            found.append(made_of(scale_chart(reference, spec, wide, seen), LATENCY))
        elif isinstance(spec, FlagSpec) and spec.name.startswith(f"{LATENCY} > "):
            found.append(made_of(flag_chart(reference, spec, _tail(spec)), LATENCY))
        elif isinstance(spec, FlagSpec) and spec.name in {ERRORS, TIMEOUTS}:
            found.append(flag_chart(reference, spec, _failures(spec)))
    return found


def objectives(service: Service, layout: Layout) -> tuple[Objective, ...]:
    """Return what is promised, as far as telemetry says anything about it."""
    allowed = {ERRORS: service.error_objective_ratio, LATENCY_OBJECTIVE: service.latency_objective_ratio}
    names = {ERRORS: "error objective", LATENCY_OBJECTIVE: "latency objective"}
    return tuple(
        Objective(names[spec.name], spec.first + HITS, spec.first + PRESENT, ratio, spec.hit[0].value)
        for spec in layout.sections
        if isinstance(spec, FlagSpec) and (ratio := allowed.get(spec.name)) is not None
    )


def unheard(service: Service, layout: Layout) -> tuple[str, ...]:
    """Return what is configured and cannot be watched, with the reason."""
    has = {section.name for section in layout.sections}
    asked = (
        ("error_objective_ratio", service.error_objective_ratio, ERRORS, "error"),
        ("latency_objective_ms", service.latency_objective_ms, LATENCY_OBJECTIVE, "latency_ms"),
        ("timeout_ms", service.timeout_ms, TIMEOUTS, "latency_ms"),
    )
    return tuple(
        f"detection.service.{name} is not watched: the reference has no {column}, or the family is turned off"
        for name, value, section, column in asked
        if value is not None and section not in has
    )


def _tail(spec: FlagSpec) -> Rate:
    tail = spec.name.removeprefix(f"{LATENCY} > ")
    return Rate(
        family=FAMILY,
        subject="latency",
        statistic=f"above {tail}",
        kind="change",
        weight=TAIL_SHARE / len(TAILS),
        up_only=True,
        title=f"the share of latencies above the reference's {tail}",
    )


def _failures(spec: FlagSpec) -> Rate:
    subject = spec.name.removeprefix(f"{PREFIX}/")
    return Rate(
        family=FAMILY,
        subject=subject,
        statistic="rate",
        kind="harm",
        weight=ERROR_SHARE if spec.name == ERRORS else TIMEOUT_SHARE,
        up_only=True,
        title=f"the rate of {subject}",
        severity=LEAST_SEVERITY,
        worst=WORST_RISE,
    )
