"""Fairness: selection, errors and calibration of each cohort and intersection, compared with its own reference.

A group whose selection or errors move is found by its chart. Whether groups differ *now* is told by figures: rates of
the current window (since a chart's restart) with intervals, and the disparate-impact ratio to the group selected most
often. Below ``min_n`` a group is inconclusive, never fair.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from regate.config.model import Family
from regate.detectors.candidate import Candidate, Own, Plan, Reference
from regate.detectors.charts import Bank, BankState
from regate.detectors.columns import Categorical, Numeric
from regate.detectors.numerics import normal_quantile
from regate.detectors.ranktable import build_table
from regate.detectors.rates import Rate, flag_chart
from regate.detectors.scores import Score, mean_chart, scored
from regate.detectors.sections import FlagSpec, NumericSpec, Section
from regate.detectors.views import Test

FAMILY: Family = "fairness"
PREFIX = "fairness"
# Shares of the family's weight, 1 in all, split over the groups.
SELECTION_SHARE, ERROR_SHARE, RATE_SHARE, CALIBRATION_SHARE = 0.4, 0.3, 0.2, 0.1
# Groups with fewer reference rows are not watched, and of the others the largest.
LEAST_ROWS, MAX_GROUPS = 200, 32
# More errors for one group are harm to it; they hold, and a loss of about 6 points rolls back.
LEAST_SEVERITY, WORST_RISE = 0.3, 0.2
# The four-fifths rule (US EEOC 1978).
LEAST_RATIO = 0.8
LEVEL = 0.05
MIN_N = 100
_TINY = 1e-9  # of a rate whose interval reaches 0

Group = tuple[tuple[str, str], ...]  # (attribute, value) of a cohort, two of them for an intersection


def groups(plan: Plan) -> list[Group]:
    """Return the watched groups: every declared attribute and every pair of them, the largest first."""
    members: dict[Group, np.ndarray] = {}
    for name in plan.config.cohorts:
        column = plan.view.column(f"cohort/{name}")
        if isinstance(column, Categorical):
            for code, value in enumerate(column.categories):
                members[(name, value),] = column.codes == code
    single = sorted(members)
    for left, right in itertools.combinations(single, 2):
        if left[0][0] != right[0][0]:
            members[left + right] = members[left] & members[right]
    large = [group for group, rows in members.items() if int(rows.sum()) >= LEAST_ROWS]
    return sorted(large, key=lambda group: (len(group), -int(members[group].sum()), group))[:MAX_GROUPS]


def named(group: Group) -> str:
    """Return a group as people read it.

    >>> named((("race", "b"), ("sex", "f")))
    'race=b & sex=f'
    """
    return " & ".join(f"{attribute}={value}" for attribute, value in group)


def sections(plan: Plan) -> Own:
    """Return the statistics of each group; without classes or cohorts there are none."""
    if plan.config.output.type == "regression" or not isinstance(plan.view.column("class"), Categorical):
        return Own()
    positive = plan.config.output.positive
    events: list[Section] = []
    outcomes: list[Section] = []
    for group in groups(plan):
        name, within = named(group), tuple(Test(f"cohort/{a}", "is", value) for a, value in group)
        selected = (Test("class", "is", positive),)
        events.append(FlagSpec(f"{PREFIX}/{name}/selected", 0, selected, (*within, Test("class", "known"))))
        if plan.outcomes is None:
            continue
        outcomes.append(FlagSpec(f"{PREFIX}/{name}/errors", 0, (Test("wrong", "is", "true"),), within))
        if plan.config.output.type == "binary":
            other = next((one for one in plan.outcomes.shape.classes if one != positive), "0")
            for label, kind in ((positive, "true positive"), (other, "false positive")):
                outcomes.append(FlagSpec(f"{PREFIX}/{name}/{kind}", 0, selected, (*within, Test("label", "is", label))))
        residual = plan.outcomes.column("residual")
        rows = np.ones(plan.rows.n, dtype=np.bool_) & plan.outcomes.known
        for attribute, value in group:
            column = plan.outcomes.column(f"cohort/{attribute}")
            assert isinstance(column, Categorical)
            rows &= column.codes == (column.categories.index(value) if value in column.categories else -2)
        if isinstance(residual, Numeric) and bool((~np.isnan(residual.values[rows])).any()):
            tables = tuple(build_table(residual.values[rows & (plan.stratum == which)]) for which in plan.strata)
            outcomes.append(NumericSpec(f"{PREFIX}/{name}/calibration", 0, tables, "residual", within))
    return Own(events, outcomes)


def charts(reference: Reference) -> list[Candidate]:
    """Return the charts of all groups."""
    own = [one for one in (*reference.layout.sections, *reference.layout.outcome_sections) if _is_own(one)]
    count = sum(one.name.endswith("/selected") for one in own)
    return [_chart(reference, spec, count) for spec in own]


def _is_own(section: Section) -> bool:
    return section.name.startswith(f"{PREFIX}/")


def _chart(reference: Reference, spec: Section, count: int) -> Candidate:
    _, name, statistic = (
        spec.name.split("/", 2) if spec.name.count("/") == 2 else (PREFIX, *spec.name[9:].rsplit("/", 1))
    )
    if isinstance(spec, NumericSpec):
        about = Score(
            FAMILY,
            name,
            CALIBRATION_SHARE / count,
            statistic=statistic,
            title=f"what happened to {name} less its score",
        )
        return mean_chart(reference, spec, about, scored(reference, spec))
    assert isinstance(spec, FlagSpec)
    harm = statistic == "errors"
    share = {"selected": SELECTION_SHARE, "errors": ERROR_SHARE}.get(statistic, RATE_SHARE / 2)
    titles = {"selected": "the selection rate", "errors": "the error rate"}
    rate = Rate(
        family=FAMILY,
        subject=name,
        statistic=statistic,
        kind="harm" if harm else "change",
        weight=share / count,
        up_only=harm,
        title=f"{titles.get(statistic, f'the {statistic} rate')} of {name}",
        severity=LEAST_SEVERITY if harm else 0.5,
        worst=WORST_RISE if harm else 0.0,
    )
    return flag_chart(reference, spec, rate)


@dataclass(frozen=True, slots=True)
class Figure:
    """One group in the current window: its selection rate and its ratio to the group selected most often."""

    group: str
    n: int
    rate: float
    low: float
    high: float
    ratio: float | None  # None while nothing can be said
    ratio_low: float | None
    ratio_high: float | None
    verdict: str  # pass | fail | inconclusive


def figures(bank: Bank, state: BankState) -> list[Figure]:
    """Return the selection rates since each chart's restart, with intervals that hold for all groups together."""
    own = [
        (index, chart)
        for index, chart in enumerate(bank.charts)
        if chart.family == FAMILY and chart.statistic == "selected"
    ]
    if not own:
        return []
    hits = [int(state.sum_s[index] - state.start_s[index]) for index, _ in own]
    trials = [int(state.sum_n[index] - state.start_n[index]) for index, _ in own]
    bounds = [wilson(s, n, LEVEL / (2 * len(own))) for s, n in zip(hits, trials, strict=True)]
    rates = [s / max(n, 1) for s, n in zip(hits, trials, strict=True)]
    best = _best(rates, trials)
    return [
        _figure(
            chart.subject, trials[row], rates[row], bounds[row], None if best is None else (rates[best], bounds[best])
        )
        for row, (_, chart) in enumerate(own)
    ]


def _best(rates: Sequence[float], trials: Sequence[int]) -> int | None:
    enough = [row for row, n in enumerate(trials) if n >= MIN_N]
    return max(enough, key=lambda row: rates[row], default=None)


def _figure(
    group: str, n: int, rate: float, bound: tuple[float, float], best: tuple[float, tuple[float, float]] | None
) -> Figure:
    low, high = bound
    if n < MIN_N or best is None or best[0] <= 0:
        return Figure(group, n, rate, low, high, None, None, None, "inconclusive")
    ratio_low, ratio_high = low / best[1][1], high / max(best[1][0], _TINY)
    verdict = "fail" if ratio_high < LEAST_RATIO else "pass" if ratio_low >= LEAST_RATIO else "inconclusive"
    if rate == best[0]:
        verdict = "pass"
    return Figure(group, n, rate, low, high, rate / best[0], ratio_low, ratio_high, verdict)


def wilson(hits: int, trials: int, level: float) -> tuple[float, float]:
    """Return the two-sided interval of a rate (Wilson 1927) at error ``level``; (0, 1) without trials.

    >>> tuple(round(float(x), 3) for x in wilson(50, 100, 0.05))
    (0.404, 0.596)
    """
    if trials == 0:
        return 0.0, 1.0
    z = float(normal_quantile(np.array([1.0 - level / 2.0]))[0])
    p, scale = hits / trials, 1.0 + z * z / trials
    centre = (p + z * z / (2.0 * trials)) / scale
    half = z * float(np.sqrt(p * (1.0 - p) / trials + z * z / (4.0 * trials * trials))) / scale
    return max(0.0, centre - half), min(1.0, centre + half)
