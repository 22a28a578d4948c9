"""Feature drift: mean and scale of numeric inputs, rates of categories; the same within segments of the population."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from regate.config.model import Family
from regate.detectors import segments
from regate.detectors.candidate import Candidate, Own, Plan, Reference
from regate.detectors.categories import categorical_section, category_charts
from regate.detectors.ranktable import build_table
from regate.detectors.scores import Score, mean_chart, scale_chart, scored
from regate.detectors.sections import CategoricalSpec, NumericSpec, Section

FAMILY: Family = "feature_drift"
# Shares of a feature's weight. A shift of the mean is what happens most.
MEAN_SHARE, SCALE_SHARE = 1.0, 0.5


def sections(plan: Plan) -> Own:
    """Return one section a watched numeric, categorical or boolean feature."""
    own = feature_sections(plan)
    return Own(own + segments.sections(plan, own))


def feature_sections(plan: Plan) -> list[Section]:
    """Return the sections of the features, in the order of the configuration; made once, whoever asks."""
    return plan.view.once("sections of features", lambda: _feature_sections(plan))


def _feature_sections(plan: Plan) -> list[Section]:
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
    """Return the charts of every feature of the layout, and of the features within segments."""
    found: list[Candidate] = []
    for spec in features(reference):
        weight = reference.weight(spec.name)
        if isinstance(spec, CategoricalSpec):
            found += category_charts(reference, spec, FAMILY, spec.name, weight)
            continue
        seen = scored(reference, spec)
        found.append(mean_chart(reference, spec, Score(FAMILY, spec.name, weight * MEAN_SHARE), seen))
        found.append(scale_chart(reference, spec, Score(FAMILY, spec.name, weight * SCALE_SHARE), seen))
    return found + segments.charts(reference)
