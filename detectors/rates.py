"""Charts of a rate: how often an indicator (a category, a missing value, an error) is 1."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from regate.config.canonical import digest
from regate.config.model import Family
from regate.detectors import grids
from regate.detectors.candidate import Candidate, Reference, stacked, strong
from regate.detectors.columns import BoolArray
from regate.detectors.dependence import ROWS_PER_TAU, Inflation, inflation, rate_margin
from regate.detectors.finding import Kind
from regate.detectors.layout import ChartSpec
from regate.detectors.sections import HITS, PRESENT, FlagSpec, packed


@dataclass(frozen=True)
class Rate:
    """What a rate chart is about, and which columns hold its hits and trials."""

    family: Family
    subject: str
    statistic: str
    kind: Kind
    weight: float
    s_column: int = 0
    n_column: int = 0
    depends: str = ""
    up_only: bool = False  # only a rise is looked for
    refused: str = ""  # a reason not to watch, known before
    title: str = ""
    severity: float = 0.5
    worst: float = 0.0


def flag_chart(reference: Reference, spec: FlagSpec, rate: Rate) -> Candidate:
    """Return the chart of a section that counts hits among its trials."""
    view, rows = reference.view_of(spec), reference.trials_of(spec)
    trial, hit = view.where(spec.trial), view.where(spec.hit)
    assert hit is not None
    made = replace(
        rate,
        s_column=spec.first + HITS,
        n_column=spec.first + PRESENT,
        depends=digest([packed(spec.hit), packed(spec.trial)]),
    )
    return rate_chart(made, hit, rows if trial is None else rows & trial, reference)


def rate_chart(rate: Rate, hit: BoolArray, trial: BoolArray, reference: Reference) -> Candidate:
    """Return the chart of one rate from its reference indicators; ``hit`` counts only where ``trial``."""
    hit = hit & trial
    counts = [(int((hit & at).sum()), int((trial & at).sum())) for at in _strata(reference)]
    shown = _rate_inflation(hit, trial, counts, reference)
    tau = shown.tau
    bets, margins, centres = [], [], []
    for hits, rows in counts:
        margin = 0.0 if hits == 0 else rate_margin(hits, rows, tau)
        bets.append(_bets(hits, rows, tau, margin, up_only=rate.up_only))
        margins.append(margin)
        centres.append((hits + 0.5) / (rows + 1))
    a, b = stacked(bets)
    rows = max(count for _, count in counts)
    reason = rate.refused
    if not reason and rows < ROWS_PER_TAU * tau:
        reason = f"{rows} reference rows, but tau {tau:.4g} needs {ROWS_PER_TAU * tau:.0f}"
    elif not reason and a.shape[1] == 0:
        reason = f"margin {max(margins):.3g} logits and tau {tau:.4g} ({rows} reference rows) leave no change to find"
    watched = [margin for bet, margin in zip(bets, margins, strict=True) if bet is not None]
    spec = ChartSpec(
        name=f"{rate.family}/{rate.subject}/{rate.statistic}",
        family=rate.family,
        subject=rate.subject,
        statistic=rate.statistic,
        unit="probability",
        kind=rate.kind,
        form="indicator",
        weight=rate.weight,
        tau=tau,
        margin=max(watched or margins),
        rows=rows,
        watchable=not reason,
        reason=reason,
        s_column=rate.s_column,
        n_column=rate.n_column,
        title=rate.title,
        severity=rate.severity,
        worst=rate.worst,
    )
    return Candidate(spec, a, b, np.array(centres), rate.depends, shown.reach)


def _strata(reference: Reference) -> list[BoolArray]:
    return [reference.stratum == which for which in reference.strata]


def _bets(hits: int, rows: int, tau: float, margin: float, *, up_only: bool) -> grids.Coefficients | None:
    if rows < ROWS_PER_TAU * tau:
        return None
    if hits == 0:
        return strong(grids.unseen_points(rows), 0.0)
    p = (hits + 0.5) / (rows + 1)
    return strong(grids.indicator_points(p, tau, margin, down=not up_only), p)


def _rate_inflation(hit: BoolArray, trial: BoolArray, counts: list[tuple[int, int]], reference: Reference) -> Inflation:
    """Return tau_p of the indicator around its stratum's rate; 1 for something that never happened."""
    if not hit.any():
        return Inflation()
    rate = np.array([hits / rows if rows else 0.0 for hits, rows in counts])[reference.stratum]
    variance = float((rate * (1.0 - rate))[trial].mean())
    if variance <= 0:
        return Inflation()
    series = [(hit[half] - rate[half])[trial[half]] for half in reference.halves]
    return inflation(series, variance, excess=1.0 / variance)
