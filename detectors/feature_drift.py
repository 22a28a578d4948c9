"""Feature drift: mean and scale of numeric inputs, rates of categories, missing and unseen values."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from regate.config.model import Family
from regate.detectors.candidate import Candidate, Own, Plan, Reference
from regate.detectors.categories import categorical_section, category_charts, column_of
from regate.detectors.columns import BoolArray
from regate.detectors.layout import EVENTS
from regate.detectors.ranktable import build_table
from regate.detectors.rates import Rate, rate_chart
from regate.detectors.scores import Score, mean_chart, scale_chart, scored, values_of
from regate.detectors.sections import MISSING, CategoricalSpec, NumericSpec, Section

FAMILY: Family = "feature_drift"
# Shares of a feature's weight. A shift of the mean is what happens most; a missing value is rarer news.
MEAN_SHARE, SCALE_SHARE, MISSING_SHARE = 1.0, 0.5, 0.25


def sections(plan: Plan) -> Own:
    """Return one section a watched numeric, categorical or boolean feature."""
    return Own(feature_sections(plan))


def feature_sections(plan: Plan) -> list[Section]:
    """Return the sections of the features, in the order of the configuration."""
    found: list[Section] = []
    for name, feature in plan.config.features.items():
        if not feature.watch or feature.type in {"text", "vector"}:
            continue
        column = plan.rows.features.get(name)
        if feature.type != "numeric":
            found.append(categorical_section(name, column))
            continue
        values = getattr(column, "values", np.full(plan.rows.n, np.nan))
        found.append(NumericSpec(name, 0, tuple(build_table(values[plan.stratum == which]) for which in plan.strata)))
    return found


def features(reference: Reference) -> Iterable[NumericSpec | CategoricalSpec]:
    """Return the sections of this family."""
    for section in reference.layout.sections:
        if isinstance(section, NumericSpec | CategoricalSpec) and section.path == f"feature/{section.name}":
            yield section


def charts(reference: Reference) -> list[Candidate]:
    """Return the charts of every feature of the layout."""
    found: list[Candidate] = []
    for spec in features(reference):
        weight = reference.weight(spec.name)
        if isinstance(spec, CategoricalSpec):
            found += category_charts(reference, spec, FAMILY, spec.name, weight)
            missing = column_of(reference, spec).codes < 0
        else:
            seen = scored(reference, spec)
            found.append(mean_chart(reference, spec, Score(FAMILY, spec.name, weight * MEAN_SHARE), seen))
            found.append(scale_chart(reference, spec, Score(FAMILY, spec.name, weight * SCALE_SHARE), seen))
            missing = np.isnan(values_of(reference, spec)[0])
        found.append(_missing(reference, spec, missing, weight * MISSING_SHARE))
    return found


def _missing(reference: Reference, spec: NumericSpec | CategoricalSpec, missing: BoolArray, weight: float) -> Candidate:
    rate = Rate(
        family=FAMILY,
        subject=spec.name,
        statistic="missing",
        kind="change",
        weight=weight,
        s_column=spec.first + MISSING,
        n_column=EVENTS,
    )
    return rate_chart(rate, missing, np.ones(missing.size, dtype=np.bool_), reference)
