"""Feature drift: mean and scale of numeric inputs, rates of categories, missing and unseen values."""

from __future__ import annotations

import numpy as np

from regate.config.canonical import digest, digest_bytes
from regate.detectors import grids
from regate.detectors.accumulate import cells_of
from regate.detectors.candidate import Candidate, Reference, stacked, strong
from regate.detectors.columns import BoolArray, Categorical, FloatArray, IntArray, Numeric
from regate.detectors.dependence import (
    ROWS_PER_TAU,
    Inflation,
    inflation,
    mean_margin,
    mean_moved,
    scale_margin,
    scale_moved,
)
from regate.detectors.layout import (
    EVENTS,
    KEPT,
    MAX_LISTED,
    MISSING,
    OTHER,
    PRESENT,
    SUM_Z,
    SUM_Z2,
    UNSEEN,
    CategoricalSpec,
    ChartSpec,
    Form,
    NumericSpec,
)
from regate.detectors.numerics import UNIT
from regate.detectors.ranktable import build_table
from regate.detectors.rates import Rate, rate_chart

FAMILY = "feature_drift"
# Scores end at 4 sigma: beyond this margin not even a block far outside of the reference gains much.
LARGEST_MARGIN = 2.5
# Shares of a feature's weight. A shift of the mean is what happens most; a missing value is rarer news.
MEAN_SHARE, SCALE_SHARE, CATEGORIES_SHARE, MISSING_SHARE, UNSEEN_SHARE = 1.0, 0.5, 1.0, 0.25, 0.25


def charts(reference: Reference) -> list[Candidate]:
    """Return the charts of every feature of the layout."""
    found: list[Candidate] = []
    for spec in reference.layout.features:
        if isinstance(spec, NumericSpec):
            found += _numeric(reference, spec)
        else:
            found += _categorical(reference, spec)
    return found


def _numeric(reference: Reference, spec: NumericSpec) -> list[Candidate]:
    column = reference.rows.features.get(spec.name)
    values = column.values if isinstance(column, Numeric) else np.full(reference.rows.n, np.nan)
    present = ~np.isnan(values)
    z, z2 = _cross_scored(reference, values)
    halves = reference.halves
    z_series = [z[half][present[half]] for half in halves]
    z2_series = [z2[half][present[half]] for half in halves]
    of_mean, of_scale = inflation(z_series, 1.0), inflation(z2_series, 2.0)
    tau, tau2 = of_mean.tau, of_scale.tau
    moved, moved2 = mean_moved(z_series, tau), scale_moved(z2_series, tau2)
    depends = digest_bytes(b"".join(t.edges.tobytes() + t.z.tobytes() + t.z2.tobytes() for t in spec.tables))
    weight = reference.weights.get(spec.name, 1.0)
    counts = [int((present & (reference.stratum == which)).sum()) for which in reference.strata]

    def chart(
        statistic: Form, share: float, shown: Inflation, margins: list[float], unit: str, first: int
    ) -> Candidate:
        tau = shown.tau
        expected = 0.0 if statistic == "mean" else float(UNIT)

        def bet(count: int, margin: float) -> grids.Coefficients:
            return grids.mean_points(tau, margin, count) if statistic == "mean" else grids.scale_points(tau, margin)

        bets = [
            strong(bet(count, margin), expected) if count >= ROWS_PER_TAU * tau else None
            for count, margin in zip(counts, margins, strict=True)
        ]
        a, b = stacked(bets)
        rows = max(counts)
        reason = ""
        if rows < ROWS_PER_TAU * tau:
            reason = f"{rows} reference rows, but tau {tau:.4g} needs {ROWS_PER_TAU * tau:.0f}"
        elif statistic == "mean" and min(margins) >= LARGEST_MARGIN:
            reason = f"the reference itself moves by {min(margins):.3g} sigma in {rows} rows, tau {tau:.4g}"
        elif a.shape[1] == 0:
            reason = f"margin {max(margins):.3g} and tau {tau:.4g} ({rows} reference rows) leave no change to find"
        watched = [margin for bet, margin in zip(bets, margins, strict=True) if bet is not None]
        made = ChartSpec(
            name=f"{FAMILY}/{spec.name}/{statistic}",
            family="feature_drift",
            subject=spec.name,
            statistic=statistic,
            unit=unit,
            kind="change",
            form=statistic,
            weight=weight * share,
            tau=tau,
            margin=max(watched or margins),
            rows=rows,
            watchable=not reason,
            reason=reason,
            s_column=spec.first + first,
            n_column=spec.first + PRESENT,
        )
        return Candidate(made, a, b, np.zeros(len(bets)), depends, shown.reach)

    means = [mean_margin(count, tau, moved) for count in counts]
    scales = [scale_margin(count, tau2, moved2) for count in counts]
    return [
        chart("mean", MEAN_SHARE, of_mean, means, "sigma", SUM_Z),
        chart("scale", SCALE_SHARE, of_scale, scales, "ratio", SUM_Z2),
        _missing(reference, spec.name, ~present, spec.first),
    ]


def _cross_scored(reference: Reference, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return z and z^2 of each row by the table of the other half, stratum by stratum."""
    z, z2 = np.full(values.size, np.nan), np.full(values.size, np.nan)
    first, second = reference.halves
    for own, other in ((first, second), (second, first)):
        for which in reference.strata:
            mine = np.flatnonzero(reference.stratum[own] == which) + own.start
            table = build_table(values[other][reference.stratum[other] == which])
            z[mine], z2[mine] = table.score(values[mine])
    return z, z2


def _missing(reference: Reference, name: str, missing: BoolArray, first: int) -> Candidate:
    rate = Rate(
        family="feature_drift",
        subject=name,
        statistic="missing",
        kind="change",
        weight=reference.weights.get(name, 1.0) * MISSING_SHARE,
        s_column=first + MISSING,
        n_column=EVENTS,
    )
    return rate_chart(rate, missing, np.ones(missing.size, dtype=np.bool_), reference)


def _categorical(reference: Reference, spec: CategoricalSpec) -> list[Candidate]:
    column = reference.rows.features.get(spec.name)
    if not isinstance(column, Categorical):
        column = Categorical(np.full(reference.rows.n, -1, dtype=np.int32), ())
    cells = cells_of(spec, column)
    present = cells != MISSING
    weight = reference.weights.get(spec.name, 1.0)
    # Two categories and nothing else: one rate says what both would.
    whole = len(spec.kept) == 2 and not spec.rare
    watched = list(enumerate(spec.kept))[1:] if whole else list(enumerate(spec.kept))
    statistics = [(f"={category}", KEPT + index) for index, category in watched]
    if spec.rare:
        statistics.append(("rare", OTHER))
    depends = digest([list(spec.kept), list(spec.rare)])
    found = [
        rate_chart(
            Rate(
                family="feature_drift",
                subject=spec.name,
                statistic=statistic,
                kind="change",
                weight=weight * CATEGORIES_SHARE / len(statistics),
                s_column=spec.first + cell,
                n_column=spec.first + PRESENT,
                depends=depends,
            ),
            cells == cell,
            present,
            reference,
        )
        for statistic, cell in statistics
    ]
    unseen = Rate(
        family="feature_drift",
        subject=spec.name,
        statistic="unseen",
        kind="change",
        weight=weight * UNSEEN_SHARE,
        s_column=spec.first + UNSEEN,
        n_column=spec.first + PRESENT,
        depends=depends,
        up_only=True,
        refused="" if spec.rare or not _too_many(column) else f"more than {MAX_LISTED} categories in the reference",
    )
    found.append(rate_chart(unseen, _cross_unseen(reference, column), present, reference))
    return [*found, _missing(reference, spec.name, ~present, spec.first)]


def _too_many(column: Categorical) -> bool:
    return len(column.categories) > MAX_LISTED


def _cross_unseen(reference: Reference, column: Categorical) -> BoolArray:
    """Return which rows hold a category that the other half of the reference lacks."""
    first, second = reference.halves
    unseen = np.zeros(reference.rows.n, dtype=np.bool_)
    for own, other in ((first, second), (second, first)):
        codes: IntArray = column.codes[own].astype(np.int64)
        unseen[own] = ~np.isin(codes, column.codes[other]) & (codes >= 0)
    return unseen
