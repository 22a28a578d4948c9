"""Charts of a numeric source by its rank table: the mean and the scale of its normal scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.config.canonical import digest_bytes
from regate.config.model import Family
from regate.detectors import grids
from regate.detectors.candidate import Candidate, Reference, stacked, strong
from regate.detectors.columns import BoolArray, FloatArray, Numeric
from regate.detectors.dependence import (
    ROWS_PER_TAU,
    Inflation,
    inflation,
    mean_margin,
    mean_moved,
    scale_margin,
    scale_moved,
)
from regate.detectors.finding import Kind
from regate.detectors.layout import ChartSpec, Form
from regate.detectors.numerics import UNIT
from regate.detectors.ranktable import build_table
from regate.detectors.sections import PRESENT, SUM_Z, SUM_Z2, NumericSpec

# Scores end at 4 sigma: beyond this margin not even a block far outside of the reference gains much.
LARGEST_MARGIN = 2.5
UNITS: dict[str, str] = {"mean": "sigma", "scale": "ratio"}


@dataclass(frozen=True)
class Score:
    """What a chart of scores is about. ``up_only``: only a rise is looked for."""

    family: Family
    subject: str
    weight: float
    kind: Kind = "change"
    statistic: str = ""  # default: mean or scale
    up_only: bool = False
    title: str = ""
    severity: float = 0.5
    worst: float = 0.0
    most: float = 1.0


@dataclass(frozen=True)
class Scored:
    """The reference's own scores, each half by the other half's table; ``trial`` says which rows count."""

    z: FloatArray
    z2: FloatArray
    present: BoolArray
    counts: list[int]  # rows of each stratum


def values_of(reference: Reference, spec: NumericSpec) -> tuple[FloatArray, BoolArray]:
    """Return the values of a section's source, and which rows are trials of it (missing ones among them)."""
    view = reference.view_of(spec)
    column = view.column(spec.path)
    values = column.values if isinstance(column, Numeric) else np.full(reference.rows.n, np.nan)
    where = view.where(spec.where)
    trial = reference.trials_of(spec)
    return values, trial if where is None else trial & where


def scored(reference: Reference, spec: NumericSpec) -> Scored:
    """Return the cross-fitted scores of a section."""
    values, trial = values_of(reference, spec)
    values = np.where(trial, values, np.nan)
    z, z2 = np.full(values.size, np.nan), np.full(values.size, np.nan)
    first, second = reference.halves
    for own, other in ((first, second), (second, first)):
        for which in reference.strata:
            mine = np.flatnonzero(reference.stratum[own] == which) + own.start
            table = build_table(values[other][reference.stratum[other] == which])
            z[mine], z2[mine] = table.score(values[mine])
    present = ~np.isnan(values)
    counts = [int((present & (reference.stratum == which)).sum()) for which in reference.strata]
    return Scored(z, z2, present, counts)


def mean_chart(reference: Reference, spec: NumericSpec, about: Score, seen: Scored) -> Candidate:
    """Return the chart of the mean of a section's scores."""
    series = [seen.z[half][seen.present[half]] for half in reference.halves]
    shown = inflation(series, 1.0)
    moved = mean_moved(series, shown.tau)
    margins = [mean_margin(count, shown.tau, moved) for count in seen.counts]
    return _chart("mean", spec, about, seen, shown, margins)


def scale_chart(reference: Reference, spec: NumericSpec, about: Score, seen: Scored) -> Candidate:
    """Return the chart of the scale of a section's scores."""
    series = [seen.z2[half][seen.present[half]] for half in reference.halves]
    shown = inflation(series, 2.0)
    moved = scale_moved(series, shown.tau)
    margins = [scale_margin(count, shown.tau, moved) for count in seen.counts]
    return _chart("scale", spec, about, seen, shown, margins)


def _chart(
    form: Form, spec: NumericSpec, about: Score, seen: Scored, shown: Inflation, margins: list[float]
) -> Candidate:
    tau, counts = shown.tau, seen.counts
    expected = 0.0 if form == "mean" else float(UNIT)

    def bet(count: int, margin: float) -> grids.Coefficients:
        if form == "scale":
            return grids.scale_points(tau, margin)
        a, b = grids.mean_points(tau, margin, count)
        return (a[a > 0], b[a > 0]) if about.up_only else (a, b)

    bets = [
        strong(bet(count, margin), expected) if count >= ROWS_PER_TAU * tau else None
        for count, margin in zip(counts, margins, strict=True)
    ]
    a, b = stacked(bets)
    rows = max(counts)
    reason = ""
    if rows < ROWS_PER_TAU * tau:
        reason = f"{rows} reference rows, but tau {tau:.4g} needs {ROWS_PER_TAU * tau:.0f}"
    elif form == "mean" and min(margins) >= LARGEST_MARGIN:
        reason = f"the reference itself moves by {min(margins):.3g} sigma in {rows} rows, tau {tau:.4g}"
    elif a.shape[1] == 0:
        reason = f"margin {max(margins):.3g} and tau {tau:.4g} ({rows} reference rows) leave no change to find"
    watched = [margin for one, margin in zip(bets, margins, strict=True) if one is not None]
    statistic = about.statistic or form
    made = ChartSpec(
        name=f"{about.family}/{about.subject}/{statistic}",
        family=about.family,
        subject=about.subject,
        statistic=statistic,
        unit=UNITS[form],
        kind=about.kind,
        form=form,
        weight=about.weight,
        tau=tau,
        margin=max(watched or margins),
        rows=rows,
        watchable=not reason,
        reason=reason,
        s_column=spec.first + (SUM_Z if form == "mean" else SUM_Z2),
        n_column=spec.first + PRESENT,
        title=about.title,
        severity=about.severity,
        worst=about.worst,
        most=about.most,
    )
    depends = digest_bytes(b"".join(t.edges.tobytes() + t.z.tobytes() + t.z2.tobytes() for t in spec.tables))
    return Candidate(made, a, b, np.zeros(len(bets)), depends, shown.reach)
