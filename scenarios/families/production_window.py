"""Production window: the last N served requests, frozen by digest, put to the model again.

Agreement with the baseline and with what was served, refusals, shift of the score, and accuracy on the rows whose
label has come. Labels that came are not a random sample; the record says so among its assumptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from regate.config.model import ModelConfig, Strict
from regate.scenarios.intervals import Interval, absolute, mean, wilson, z_of
from regate.scenarios.record import Bound, Record
from regate.scenarios.rows import Rows
from regate.scenarios.subject import (
    Answers,
    Family,
    Judgement,
    Measured,
    Plan,
    Step,
    Subject,
    judged,
    positive_score,
    predictions,
)
from regate.scenarios.targets.base import Responses

Check = Literal["agreement_baseline", "agreement_served", "refusals", "score_shift", "accuracy", "skill"]
NAMES: tuple[Check, ...] = ("agreement_baseline", "agreement_served", "refusals", "score_shift", "accuracy", "skill")


class Parameters(Strict):
    """How values of a regression are compared."""

    tolerance_ratio: float = Field(default=0.1, gt=0)  # of the interquartile range of the target's values


class WindowRecord(Record):
    """A scenario of this family."""

    family: Literal["production_window"]
    parameters: Parameters
    expected: dict[Check, Bound]

    @model_validator(mode="after")
    def _complete(self) -> WindowRecord:
        if set(self.expected) != set(NAMES):
            raise ValueError(f"expected must bound exactly {sorted(NAMES)}")
        return self


def plan(_record: WindowRecord, subject: Subject) -> Plan:
    """Return the window for the target, and again for the baseline where there is one."""
    rows = subject.rows
    if rows is None or rows.n == 0 or rows.source != "window":
        if subject.wants_window:
            return Plan(blocked=("inconclusive", "the window holds no rows of this model"))
        return Plan(blocked=("skipped", "no production window: the version has no traffic yet"))
    rows = rows.pick(np.arange(max(0, rows.n - subject.window_events), rows.n))
    wanted = {name: rows.features[name] for name in subject.config.features if name in rows.features}
    steps = [Step("window", wanted)]
    if subject.has_baseline:
        steps.append(Step("baseline", wanted, on="baseline"))
    return Plan(tuple(steps), {"rows": rows, "config": subject.config, "role": subject.role})


def judge(record: WindowRecord, plan_: Plan, answers: Answers, _measured: Measured) -> Sequence[Judgement]:
    """Return one judgement a check; what cannot be compared is skipped, what has too little data is inconclusive."""
    rows: Rows = plan_.notes["rows"]
    config: ModelConfig = plan_.notes["config"]
    ours, base = answers["window"], answers.get("baseline")
    values = predictions(ours, config)
    refused = int((~ours.answered).sum())
    expected = record.expected
    found = [
        _rate(expected, "refusals", refused, ours.n, f"{refused} of {ours.n} served requests are refused"),
        _compared(record, "agreement_baseline", values, None if base is None else predictions(base, config), config),
    ]
    served = rows.prediction if plan_.notes["role"] == "serving" else None
    found.append(_compared(record, "agreement_served", values, served, config))
    found.append(_shift(record, ours, base, rows, config))
    found += _labelled(record, values, rows, config)
    return found


def _rate(expected: dict[Check, Bound], name: Check, hits: float, n: int, message: str) -> Judgement:
    bound = expected[name]
    return judged(name, bound, wilson(hits, n, z_of(bound.confidence)), n, message)


def _skipped(expected: dict[Check, Bound], name: Check, message: str) -> Judgement:
    nothing = Interval(float("nan"), float("nan"), float("nan"))
    return Judgement(name, name, "skipped", nothing, expected[name], 0, message)


def _compared(
    record: WindowRecord, name: Check, ours: npt.NDArray[Any], theirs: npt.NDArray[Any] | None, config: ModelConfig
) -> Judgement:
    if theirs is None:
        return _skipped(record.expected, name, "there is nothing to agree with")
    known = known_values(ours) & known_values(theirs)
    if config.output.type == "regression":
        near = record.parameters.tolerance_ratio * spread(ours[known])
        equal = np.abs(ours[known] - theirs[known].astype(np.float64)) <= near
    else:
        equal = ours[known] == theirs[known]
    hits, n = int(np.sum(equal)), int(known.sum())
    return _rate(record.expected, name, hits, n, f"{hits} of {n} answers agree")


def known_values(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which predictions or labels are there."""
    if values.dtype == np.float64:
        return np.asarray(np.isfinite(values), dtype=np.bool_)
    return np.array([value is not None for value in values], dtype=np.bool_)


def spread(values: npt.NDArray[np.float64]) -> float:
    """Return the interquartile range."""
    return float(np.subtract(*np.quantile(values, [0.75, 0.25]))) if len(values) else 0.0


def _shift(record: WindowRecord, ours: Responses, base: Responses | None, rows: Rows, config: ModelConfig) -> Judgement:
    """Judge the mean paired difference of scores to the baseline, else to the scores that were served."""
    bound = record.expected["score_shift"]
    score = positive_score(ours, config)
    other, name = (None, "") if base is None else (positive_score(base, config), "baseline")
    if other is None and rows.scores:
        other, name = rows.scores.get(config.output.positive, rows.scores.get("")), "served"
    if other is None or not np.isfinite(score).any():
        return _skipped(record.expected, "score_shift", "there are no scores to compare")
    both = np.isfinite(score) & np.isfinite(other)
    moved = score[both] - other[both]
    if config.output.type == "regression":
        moved = moved / (spread(other[both]) or 1.0)
    interval = absolute(mean(moved, z_of(bound.confidence)))
    return judged("score_shift", bound, interval, int(both.sum()), f"mean score less {name} score")


def _labelled(record: WindowRecord, values: npt.NDArray[Any], rows: Rows, config: ModelConfig) -> list[Judgement]:
    """Judge accuracy, and skill: the loss saved against the best constant answer of these very labels."""
    expected = record.expected
    if rows.label is None:
        nothing = Interval(float("nan"), 0.0, 1.0)
        return [judged(name, expected[name], nothing, 0, "no label has come") for name in ("accuracy", "skill")]
    known = known_values(rows.label)
    truth, ours = rows.label[known], values[known]
    n = len(truth)
    if config.output.type == "regression":
        truth = truth.astype(np.float64)
        unit = spread(truth) or 1.0
        loss = np.where(np.isfinite(ours), np.abs(ours - truth), np.inf) / unit
        loss = np.minimum(loss, 10.0)  # a refusal is a bad answer, not an infinite one
        constant = np.abs(truth - np.median(truth)) / unit if n else truth
        right = int(np.sum(loss <= record.parameters.tolerance_ratio))
    else:
        loss = (ours != truth).astype(np.float64)
        names, counts = np.unique(truth.astype(str), return_counts=True)
        best = names[np.argmax(counts)] if n else ""
        constant = (truth != best).astype(np.float64)
        right = int(n - loss.sum())
    accuracy = _rate(expected, "accuracy", right, n, f"{right} of {n} labelled rows are right")
    bound = expected["skill"]
    saved = mean(constant - loss, z_of(bound.confidence))
    return [accuracy, judged("skill", bound, saved, n, "mean loss saved against the best constant answer")]


FAMILY = Family("production_window", WindowRecord, plan, judge)
