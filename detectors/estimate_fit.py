"""Learning the label-free estimate from the reference, and how far it can be trusted there.

What is said about an estimate is cross-fitted: each half of the reference is estimated by the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from regate.detectors.candidate import Plan
from regate.detectors.columns import BoolArray, FloatArray, Numeric
from regate.detectors.dependence import MIN_RATE_MARGIN, SURE, inflation, mean_margin, mean_moved
from regate.detectors.estimate import MOST_ERROR, Estimate, Fit, LinearError, ScoredError, realised
from regate.detectors.isotonic import isotonic
from regate.detectors.marks import Outcomes, score_name
from regate.detectors.numerics import UNIT
from regate.detectors.ridge import additive

NAME = "estimated_error"
# Fewer labelled rows than this teach nothing, halved.
LEAST_ROWS = 200
# Features beyond are left out, in the order of the configuration: each costs a look-up an event.
MOST_FEATURES = 64

Make = Callable[[BoolArray], Estimate]


@dataclass(frozen=True)
class Lesson:
    """What an estimate is learned from: rows that are known, and what really happened there."""

    make: Make  # from some rows
    known: BoolArray
    loss: FloatArray | None


def fitted(plan: Plan) -> Estimate | None:
    """Return the estimate that the reference supports, with its fit; None where it has no scores, inputs or labels."""
    outcomes = plan.outcomes
    lesson = None if outcomes is None else _lesson(plan, outcomes)
    if outcomes is None or lesson is None or np.count_nonzero(lesson.known) < LEAST_ROWS:
        return None
    halves = np.arange(plan.rows.n) < plan.rows.n // 2
    if min(np.count_nonzero(lesson.known & halves), np.count_nonzero(lesson.known & ~halves)) < LEAST_ROWS // 4:
        return None
    return replace(lesson.make(lesson.known), fit=_fit(plan, outcomes, lesson, halves))


def _lesson(plan: Plan, outcomes: Outcomes) -> Lesson | None:
    if outcomes.shape.type == "regression":
        return _linear(plan, outcomes)
    score, residual = outcomes.column("score"), outcomes.column("residual")
    name = score_name(plan.rows.scores, outcomes.shape)
    if not isinstance(score, Numeric) or not isinstance(residual, Numeric) or name is None:
        return None
    binary = outcomes.shape.type == "binary"
    source, positive = (f"score/{name}", outcomes.shape.positive) if binary else ("confidence", "")
    happened = residual.values + score.values > 0.5
    known = outcomes.known & ~np.isnan(score.values)

    def make(rows: BoolArray) -> Estimate:
        return ScoredError(NAME, 0, source, positive, isotonic(score.values[rows], happened[rows]))

    return Lesson(make, known, None)


def _linear(plan: Plan, outcomes: Outcomes) -> Lesson | None:
    loss = outcomes.column("loss")
    names = tuple(
        name
        for name, feature in plan.config.features.items()
        if feature.type == "numeric" and feature.watch and isinstance(plan.rows.features.get(name), Numeric)
    )[:MOST_FEATURES]
    known = outcomes.known
    if not names or not isinstance(loss, Numeric):
        return None
    scale = float(loss.values[known].mean())
    if scale <= 0.0:
        return None
    values = [column.values for name in names if isinstance(column := plan.rows.features[name], Numeric)]
    error = np.minimum(loss.values / scale, float(MOST_ERROR))

    def make(rows: BoolArray) -> Estimate:
        model = additive([column[rows] for column in values], error[rows])
        return LinearError(NAME, 0, scale, model.base, names, model.steps)

    return Lesson(make, known, loss.values)


def _fit(plan: Plan, outcomes: Outcomes, lesson: Lesson, first: BoolArray) -> Fit:
    series, excesses, estimates, base = [], [], [], 0.0
    for own in (first, ~first):
        estimate = lesson.make(lesson.known & ~own)
        units, has = estimate.errors(plan.view)
        value = units / UNIT
        other = value[has & ~own]
        series.append((value[has & own] - other.mean()) / max(float(other.std()), 1e-9))
        truth = realised(estimate, outcomes.wrong == 1, lesson.loss)
        at = lesson.known & has & own
        excesses.append(truth[at] - value[at])
        estimates.append(value[at])
        base += float(np.square(truth[at] - truth[lesson.known & ~own].mean()).sum())
    shown = inflation(series, 1.0)
    left = float(np.square(np.concatenate(excesses)).sum())
    fit = Fit(
        explained=1.0 - left / base if base > 0 else 0.0,
        tau=shown.tau,
        moved=mean_moved(series, shown.tau),
        reach=shown.reach,
    )
    value = np.concatenate(estimates)
    if lesson.loss is not None:
        return _excess(fit, excesses, float(np.concatenate(excesses).std()), scored=False)
    return _excess(fit, excesses, float(np.sqrt((value * (1.0 - value)).mean())), scored=True)


def _excess(fit: Fit, excesses: list[FloatArray], sd: float, *, scored: bool) -> Fit:
    """Return the fit with what errors less estimates look like; a scored one's margin is in logits."""
    sd = max(sd, 1e-9)
    series = [part / sd for part in excesses]
    tau = inflation(series, 1.0).tau
    moved, rows = mean_moved(series, tau), sum(part.size for part in series)
    if scored:
        margin = max(MIN_RATE_MARGIN, SURE * float(np.sqrt(tau / rows)) / sd, moved / sd)
    else:
        margin = mean_margin(rows, tau, moved)
    return replace(fit, excess_tau=tau, excess_margin=margin, excess_sd=sd)
