"""The chart of the label-free estimate: harm suspected, long before labels come."""

from __future__ import annotations

import numpy as np

from regate.config.canonical import digest
from regate.detectors.candidate import Candidate, Reference, stacked, strong
from regate.detectors.dependence import ROWS_PER_TAU, mean_margin
from regate.detectors.estimate import SUM, Estimate, ScoredError
from regate.detectors.estimate_fit import NAME
from regate.detectors.layout import ChartSpec
from regate.detectors.numerics import UNIT
from regate.detectors.sections import PRESENT
from regate.detectors.tilts import rise_points

# Cross-fitted share of the errors' variance below which an estimate says nothing about single rows.
LEAST_EXPLAINED = 0.01
# A suspicion asks for re-validation. Below .5 it neither blocks an approval nor rolls back.
SEVERITY, MOST_SEVERITY = 0.25, 0.49
# Estimated rise at which a suspicion is as severe as it can be: 20 points of accuracy, or twice the error.
WORST_RATE, WORST_ERROR = 0.2, 1.0
CHART = f"performance/{NAME}/mean"


def estimate_chart(reference: Reference, spec: Estimate, weight: float) -> Candidate:
    """Return the chart of a rise of the estimated error."""
    units, known = spec.errors(reference.events_view)
    value, fit = units / UNIT, spec.fit
    bets, centres, margins, counts = [], [], [], []
    for which in reference.strata:
        own = value[known & (reference.stratum == which)]
        centre = float(own.mean()) if own.size else 0.0
        margin = mean_margin(own.size, fit.tau, fit.moved)
        enough = own.size >= ROWS_PER_TAU * fit.tau
        bets.append(strong(rise_points(own, fit.tau, margin), centre * UNIT) if enough else None)
        centres.append(centre * UNIT)
        margins.append(margin)
        counts.append(int(own.size))
    a, b = stacked(bets)
    rows = max(counts)
    reason = ""
    if fit.explained < LEAST_EXPLAINED:
        reason = f"the estimate explains {fit.explained:.3g} of the variance of errors, {LEAST_EXPLAINED} is needed"
    elif rows < ROWS_PER_TAU * fit.tau:
        reason = f"{rows} reference rows, but tau {fit.tau:.4g} needs {ROWS_PER_TAU * fit.tau:.0f}"
    elif a.shape[1] == 0:
        reason = f"margin {max(margins):.3g} and tau {fit.tau:.4g} ({rows} reference rows) leave no change to find"
    scored = isinstance(spec, ScoredError)
    watched = [margin for bet, margin in zip(bets, margins, strict=True) if bet is not None]
    made = ChartSpec(
        name=CHART,
        family="performance",
        subject=NAME,
        statistic="mean",
        unit="probability" if scored else "relative",
        kind="change",
        form="mean",
        weight=weight,
        tau=fit.tau,
        margin=max(watched or margins),
        rows=rows,
        watchable=not reason,
        reason=reason,
        s_column=spec.first + SUM,
        n_column=spec.first + PRESENT,
        title=f"harm suspected: the estimated {'rate of wrong predictions' if scored else 'error of predictions'}",
        severity=SEVERITY,
        worst=WORST_RATE if scored else WORST_ERROR,
        most=MOST_SEVERITY,
        sd=float(value[known].std()) if known.any() else 1.0,
    )
    meta, arrays = spec.pack()
    depends = digest([meta, {name: array.tolist() for name, array in sorted(arrays.items())}])
    return Candidate(made, a, b, np.array(centres), depends, fit.reach)
