"""Feature drift: mean, scale and shape of numeric inputs, rates of categories; the same within segments."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from regate.config.canonical import digest_bytes
from regate.config.model import Family
from regate.detectors import segments
from regate.detectors.candidate import Candidate, Own, Plan, Reference
from regate.detectors.categories import categorical_section, category_charts
from regate.detectors.ranktable import build_table
from regate.detectors.rates import Rate, rate_chart
from regate.detectors.scores import Score, mean_chart, scale_chart, scored, values_of
from regate.detectors.sections import MIDDLE, PRESENT, CategoricalSpec, NumericSpec, Section

FAMILY: Family = "feature_drift"
# Shares of a feature's weight. A shift of the mean is what happens most.
MEAN_SHARE, SCALE_SHARE, SHAPE_SHARE = 1.0, 0.5, 0.25
# A middle half that few values make up, or nearly all, is a category and no shape.
SHAPELY = 0.2


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
        tables = tuple(build_table(values[plan.stratum == which]) for which in plan.strata)
        found.append(NumericSpec(name, 0, tables, shaped=True))
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
        found += _shape(reference, spec, weight * SHAPE_SHARE)
    return found + segments.charts(reference)


def _shape(reference: Reference, spec: NumericSpec, weight: float) -> list[Candidate]:
    """Return the chart of the share of the reference's middle half: a new shape with equal mean and spread moves it."""
    if not spec.shaped:
        return []
    values, trial = values_of(reference, spec)
    trial = trial & ~np.isnan(values)
    hit = np.zeros(values.size, dtype=np.bool_)
    for which, table in enumerate(spec.tables):
        own = np.flatnonzero(reference.stratum == which)
        cells = table.cells(values[own])
        hit[own] = (cells >= table.middle[0]) & (cells < table.middle[1])
    share = float(hit[trial].mean()) if trial.any() else 0.0
    if not SHAPELY <= share <= 1.0 - SHAPELY:
        return []
    rate = Rate(FAMILY, spec.name, "shape", "change", weight, spec.first + MIDDLE, spec.first + PRESENT, _address(spec))
    return [rate_chart(rate, hit, trial, reference)]


def _address(spec: NumericSpec) -> str:
    return digest_bytes(b"".join(table.edges.tobytes() + table.z.tobytes() for table in spec.tables))
