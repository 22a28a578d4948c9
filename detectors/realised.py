"""Realised errors by late labels: how often predictions are wrong, how wrong, and of which class. A rise is harm.

Errors are told apart by the *predicted* class: by the true one they would move with which predictions get labels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from regate.config.model import Family
from regate.detectors.candidate import Candidate, Plan, Reference
from regate.detectors.columns import Numeric
from regate.detectors.labelled import AGE
from regate.detectors.numerics import UNIT
from regate.detectors.ranktable import build_table
from regate.detectors.rates import Rate, rate_chart
from regate.detectors.scores import Score, mean_chart, scored
from regate.detectors.sections import HITS, PRESENT, FlagSpec, NumericSpec, Section
from regate.detectors.totals import TotalSpec
from regate.detectors.views import Test

FAMILY: Family = "performance"
SUBJECT = "error"
CHART = f"{FAMILY}/{SUBJECT}/rate"
RATE_WEIGHT, LOSS_WEIGHT, CLASSES_WEIGHT = 1.0, 0.25, 0.25
# More classes than this leave too few outcomes for each.
MOST_CLASSES = 8
# A loss of this much accuracy has severity 1; of one class alone twice as much, from half the severity on.
WORST_LOSS = 0.2
CLASS_SEVERITY = 0.25
# A rise of log-loss with unchanged decisions holds, and does not roll back. Twenty points more of errors move the ranks
# of the loss by about .35 sigma; an error of a regression is all the loss that there is.
LOSS_SEVERITY, LOSS_WORST, LOSS_MOST = 0.25, 0.7, 0.49
BY_CLASS = "error|"
_WRONG = (Test("wrong", "is", "true"),)


def sections(plan: Plan) -> list[Section]:
    """Return the statistics of the loss and of errors by class."""
    outcomes = plan.outcomes
    if outcomes is None:
        return []
    age = plan.delivery.age
    mean = -1.0 if age is None or not np.isfinite(age).any() else float(np.nanmean(age)) / UNIT
    # Ages in whole minutes, so in units of 2^-16 of 2^16 minutes.
    found: list[Section] = [TotalSpec(AGE, 0, AGE, float(UNIT), mean=mean)]
    loss = outcomes.column("loss")
    if isinstance(loss, Numeric):
        values = np.where(outcomes.known, loss.values, np.nan)
        if np.isfinite(values).any():
            tables = tuple(build_table(values[plan.stratum == which]) for which in plan.strata)
            found.append(NumericSpec("loss", 0, tables, "loss"))
    for name in _classes(plan):
        found.append(FlagSpec(BY_CLASS + name, 0, _WRONG, (Test("class", "is", name),)))
    return found


def _classes(plan: Plan) -> tuple[str, ...]:
    shape = plan.outcomes.shape if plan.outcomes is not None else None
    few = shape is not None and shape.type != "regression" and 2 <= len(shape.classes) <= MOST_CLASSES
    return shape.classes if shape is not None and few else ()


def charts(reference: Reference) -> Iterator[Candidate]:
    """Yield the charts; none when the reference has no outcomes."""
    outcomes = reference.outcomes
    if outcomes is None:
        return
    first = reference.layout.outcomes
    rate = Rate(
        family=FAMILY,
        subject=SUBJECT,
        statistic="rate",
        kind="harm",
        weight=RATE_WEIGHT,
        s_column=first + 1,
        n_column=first,
        up_only=True,
        title="the rate of wrong predictions",
        worst=WORST_LOSS,
    )
    yield rate_chart(rate, np.asarray(outcomes.wrong == 1), outcomes.known, reference)
    sections = reference.layout.outcome_sections
    by_class = [one for one in sections if isinstance(one, FlagSpec) and one.name.startswith(BY_CLASS)]
    for spec in by_class:
        yield _of_class(reference, spec, CLASSES_WEIGHT / len(by_class))
    for section in sections:
        if isinstance(section, NumericSpec) and section.path == "loss":
            yield _loss(reference, section)


def _of_class(reference: Reference, spec: FlagSpec, weight: float) -> Candidate:
    outcomes, view = reference.outcomes, reference.outcomes_view
    assert outcomes is not None
    assert view is not None
    predicted = view.where(spec.trial)
    assert predicted is not None
    name = spec.name.removeprefix(BY_CLASS)
    rate = Rate(
        family=FAMILY,
        subject=SUBJECT,
        statistic=f"class={name}",
        kind="harm",
        weight=weight,
        s_column=spec.first + HITS,
        n_column=spec.first + PRESENT,
        up_only=True,
        title=f"the rate of wrong predictions among those of class {name}",
        severity=CLASS_SEVERITY,
        worst=2 * WORST_LOSS,
    )
    return rate_chart(rate, np.asarray(outcomes.wrong == 1), outcomes.known & predicted, reference)


def _loss(reference: Reference, spec: NumericSpec) -> Candidate:
    assert reference.outcomes is not None
    regression = reference.outcomes.shape.type == "regression"
    about = Score(
        FAMILY,
        "absolute_error" if regression else "log_loss",
        LOSS_WEIGHT,
        "harm",
        up_only=True,
        title="the absolute error of predictions" if regression else "the log-loss of predictions",
        severity=LOSS_SEVERITY,
        worst=LOSS_WORST,
        most=1.0 if regression else LOSS_MOST,
    )
    return mean_chart(reference, spec, about, scored(reference, spec))
