"""Charts of a categorical source: the rate of each kept category, of rare ones together, and of unseen ones."""

from __future__ import annotations

import numpy as np

from regate.config.canonical import digest
from regate.config.model import Family
from regate.detectors.candidate import Candidate, Reference
from regate.detectors.columns import MISSING_CODE, BoolArray, Categorical, Column, IntArray
from regate.detectors.finding import Kind
from regate.detectors.layout import MAX_KEPT, MAX_LISTED, RARE_BELOW
from regate.detectors.rates import Rate, rate_chart
from regate.detectors.sections import KEPT, MISSING, OTHER, PRESENT, UNSEEN, CategoricalSpec, packed


def categorical_section(name: str, column: Column | None, source: str = "", most: int = MAX_KEPT) -> CategoricalSpec:
    """Return the section of a categorical source, its categories by frequency in the reference."""
    if not isinstance(column, Categorical):
        return CategoricalSpec(name, 0, (), (), source)
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.categories))
    # By count, then by name: the order must not depend on which category came first.
    order = sorted(range(counts.size), key=lambda code: (-counts[code], column.categories[code]))
    kept = [code for code in order[:most] if counts[code] >= RARE_BELOW]
    rare = [code for code in order[len(kept) :] if counts[code] > 0]
    listed = rare if len(rare) <= MAX_LISTED else []
    return CategoricalSpec(
        name,
        0,
        tuple(column.categories[code] for code in kept),
        tuple(column.categories[code] for code in listed),
        source,
    )


def column_of(reference: Reference, spec: CategoricalSpec) -> Categorical:
    """Return the source of a section of telemetry; missing everywhere when the rows lack it."""
    column = reference.events_view.column(spec.path)
    if isinstance(column, Categorical):
        return column
    return Categorical(np.full(reference.rows.n, MISSING_CODE, dtype=np.int32), ())


def category_charts(
    reference: Reference, spec: CategoricalSpec, family: Family, subject: str, weight: float, *, suffix: str = ""
) -> list[Candidate]:
    """Return the charts of the rates of a categorical section of telemetry; ``suffix`` ends their statistics' names."""
    column = column_of(reference, spec)
    cells = spec.cells(column)
    present = (cells != MISSING) & trials(reference, spec)
    # Two categories and nothing else: one rate says what both would.
    whole = len(spec.kept) == 2 and not spec.rare
    watched = list(enumerate(spec.kept))[1:] if whole else list(enumerate(spec.kept))
    statistics = [(f"={category}", KEPT + index) for index, category in watched]
    if spec.rare:
        statistics.append(("rare", OTHER))
    return [
        rate_chart(
            Rate(
                family=family,
                subject=subject,
                statistic=statistic + suffix,
                kind="change",
                weight=weight / len(statistics),
                s_column=spec.first + cell,
                n_column=spec.first + PRESENT,
                depends=_depends(spec),
            ),
            np.asarray(cells == cell),
            present,
            reference,
        )
        for statistic, cell in statistics
    ]


def unseen_chart(
    reference: Reference, spec: CategoricalSpec, family: Family, subject: str, weight: float, kind: Kind
) -> Candidate:
    """Return the chart of categories that the reference lacks; only a rise."""
    column = column_of(reference, spec)
    many = len(column.categories) > MAX_LISTED and not spec.rare
    rate = Rate(
        family=family,
        subject=subject,
        statistic="unseen",
        kind=kind,
        weight=weight,
        s_column=spec.first + UNSEEN,
        n_column=spec.first + PRESENT,
        depends=_depends(spec),
        up_only=True,
        refused=f"more than {MAX_LISTED} categories in the reference" if many else "",
    )
    return rate_chart(rate, _cross_unseen(reference, column), column.codes >= 0, reference)


def _depends(spec: CategoricalSpec) -> str:
    return digest(
        [list(spec.kept), list(spec.rare), packed(spec.where)] if spec.where else [list(spec.kept), list(spec.rare)]
    )


def trials(reference: Reference, spec: CategoricalSpec) -> BoolArray:
    """Return the rows that count for a section of telemetry."""
    rows = reference.events_view.where(spec.where)
    return np.ones(reference.rows.n, dtype=np.bool_) if rows is None else rows


def _cross_unseen(reference: Reference, column: Categorical) -> BoolArray:
    """Return which rows hold a category that the other half of the reference lacks."""
    first, second = reference.halves
    unseen = np.zeros(reference.rows.n, dtype=np.bool_)
    for own, other in ((first, second), (second, first)):
        codes: IntArray = column.codes[own].astype(np.int64)
        unseen[own] = ~np.isin(codes, column.codes[other]) & (codes >= 0)
    return unseen
