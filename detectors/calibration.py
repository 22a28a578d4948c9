"""Calibration by labels: whether the reference's probabilities still hold, whatever the inputs do.

Residuals are taken from the calibrated probability of the score (the steps of `regate.detectors.estimate`), so that a
model whose scores never were probabilities is judged by what they meant in the reference. Beside each residual its
variance is added up: a shift of scores alone moves neither chart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from regate.config.canonical import digest_bytes
from regate.detectors.candidate import INFORMING_EVENTS, LEAST_INFORMATION, Candidate, Reference
from regate.detectors.columns import Categorical, IntArray, Numeric
from regate.detectors.dependence import MIN_RATE_MARGIN, ROWS_PER_TAU, SURE, inflation, mean_moved
from regate.detectors.estimate import ScoredError
from regate.detectors.isotonic import Steps, isotonic
from regate.detectors.layout import ChartSpec
from regate.detectors.numerics import LN_2, UNIT
from regate.detectors.sections import PRESENT, Arrays
from regate.detectors.tilts import residual_points
from regate.detectors.views import View, sums

RESIDUAL, EXCESS, VARIANCE = 1, 2, 3
# Severity of probabilities that do not hold: a loss shows in the charts of errors, which say harm.
SEVERITY = 0.4


@dataclass(frozen=True, slots=True)
class ResidualSpec:
    """Of outcomes with a score: their number, and in units of 2^-16 three sums.

    What happened less its probability, errors less the estimated ones, and the variance that either has.
    """

    type: ClassVar[str] = "residual"
    name: str
    first: int
    steps: Steps
    binary: bool

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return 4

    def add(self, view: View, group: IntArray, groups: int, into: IntArray) -> None:
        """Add the residuals of the outcomes."""
        found = self.residuals(view)
        if found is None:
            return
        known, residual, excess, variance = found
        group = group[known]
        into[:, PRESENT] = np.bincount(group, minlength=groups)
        for column, values in ((RESIDUAL, residual), (EXCESS, excess), (VARIANCE, variance)):
            into[:, column] = sums(group, values[known].astype(np.float64), groups)

    def residuals(self, view: View) -> tuple[IntArray, IntArray, IntArray, IntArray] | None:
        """Return (rows with a score, residual, excess, variance), all but the first in units of 2^-16 a row."""
        score, residual, wrong = view.column("score"), view.column("residual"), view.column("wrong")
        if not isinstance(score, Numeric) or not isinstance(residual, Numeric) or not isinstance(wrong, Categorical):
            return None
        p = self.steps.at(score.values)
        happened = np.where(residual.values + score.values > 0.5, UNIT, 0)
        failed = wrong.codes == 1
        # Of two classes the predicted one is the positive one where it happened and was right, or neither.
        positive = (happened > 0) != failed if self.binary else np.ones(view.n, dtype=np.bool_)
        estimate = np.where(positive, UNIT - p, p)
        excess = np.where(failed, UNIT, 0) - estimate
        return np.flatnonzero(~np.isnan(score.values)), happened - p, excess, p * (UNIT - p) // UNIT

    def pack(self) -> tuple[dict[str, Any], Arrays]:
        """Return the name, and the steps."""
        meta = {"name": self.name, "binary": self.binary}
        return meta, {"edges": self.steps.edges, "values": self.steps.values}

    @classmethod
    def unpack(cls, meta: Mapping[str, Any], arrays: Arrays) -> ResidualSpec:
        """Return the section that `pack` described."""
        return cls(meta["name"], meta["first"], Steps(arrays["edges"], arrays["values"]), meta["binary"])


def residual_section(estimate: ScoredError) -> ResidualSpec:
    """Return the section of outcomes that judges an estimate by score."""
    return ResidualSpec("residual", 0, estimate.steps, bool(estimate.positive))


def charts(reference: Reference, spec: ResidualSpec, weight: float) -> list[Candidate]:
    """Return the charts of calibration: of the probability itself, and with two classes of errors beyond it."""
    about = [("confidence", EXCESS, "a wrong prediction, given its score,")]
    if spec.binary:
        about.append(("residual", RESIDUAL, "the positive class, given its score,"))
    return [_chart(reference, spec, weight / len(about), *one) for one in about]


def _chart(
    reference: Reference, spec: ResidualSpec, weight: float, statistic: str, column: int, what: str
) -> Candidate:
    view = reference.outcomes_view
    assert view is not None
    assert reference.outcomes is not None
    found = spec.residuals(view)
    assert found is not None
    rows = found[0][reference.outcomes.known[found[0]]]
    variance = found[VARIANCE][rows] / UNIT
    sd = max(float(np.sqrt(variance.mean())) if rows.size else 0.0, 1e-9)
    series = [part / sd for part in _crossed(reference, spec, column, rows)]
    shown = inflation(series, 1.0)
    moved = mean_moved(series, shown.tau)
    margin = max(MIN_RATE_MARGIN, SURE * float(np.sqrt(shown.tau / max(float(variance.sum()), 1e-9))), moved / sd)
    a, b = residual_points(shown.tau, margin)
    keep = -b * LN_2 * INFORMING_EVENTS * UNIT * sd * sd >= LEAST_INFORMATION
    reason = ""
    if rows.size < ROWS_PER_TAU * shown.tau:
        reason = f"{rows.size} reference outcomes, but tau {shown.tau:.4g} needs {ROWS_PER_TAU * shown.tau:.0f}"
    elif not keep.any():
        reason = f"scores leave a variance of {sd * sd:.3g} an outcome: no change to find in a block"
    made = ChartSpec(
        name=f"performance/calibration/{statistic}",
        family="performance",
        subject="calibration",
        statistic=statistic,
        unit="logits",
        kind="change",
        form="tilt",
        weight=weight,
        tau=shown.tau,
        margin=margin,
        rows=int(rows.size),
        watchable=not reason,
        reason=reason,
        s_column=spec.first + column,
        n_column=spec.first + VARIANCE,
        title=what,
        severity=SEVERITY,
        sd=sd,
    )
    strata = len(reference.strata)
    points = [np.repeat(one[keep][None, :], strata, axis=0) for one in (a, b)]
    depends = digest_bytes(spec.steps.edges.tobytes() + spec.steps.values.tobytes())
    return Candidate(made, points[0], points[1], np.zeros(strata), depends, shown.reach)


def _crossed(reference: Reference, spec: ResidualSpec, column: int, rows: IntArray) -> list[np.ndarray]:
    """Return the residuals of each half by the steps of the other, in time order."""
    view = reference.outcomes_view
    assert view is not None
    score, residual = view.column("score"), view.column("residual")
    assert isinstance(score, Numeric)
    assert isinstance(residual, Numeric)
    happened = residual.values + score.values > 0.5
    middle = reference.halves[1].start
    parts = []
    for own, other in ((rows[rows < middle], rows[rows >= middle]), (rows[rows >= middle], rows[rows < middle])):
        if not own.size or not other.size:
            continue
        crossed = ResidualSpec(spec.name, 0, isotonic(score.values[other], happened[other]), spec.binary)
        found = crossed.residuals(view)
        assert found is not None
        parts.append(found[column][own] / UNIT)
    return parts
