"""Feature drift within segments: a change that only one group of the population sees.

For the largest groups of the declared cohorts, the mean of each numeric feature and the rates of each categorical one,
compared with the same group in the reference.
"""

from __future__ import annotations

import numpy as np

from regate.config.model import Family
from regate.detectors.candidate import Candidate, Plan, Reference
from regate.detectors.categories import categorical_section, category_charts
from regate.detectors.columns import Categorical, Numeric
from regate.detectors.ranktable import build_table
from regate.detectors.scores import Score, mean_chart, scored
from regate.detectors.sections import CategoricalSpec, NumericSpec, Section
from regate.detectors.views import Test

FAMILY: Family = "feature_drift"
MAX_SEGMENTS, MAX_FEATURES, MAX_CATEGORIES = 8, 16, 16
LEAST_ROWS = 500
# All segments of a feature together, beside 1.5 of the feature itself.
SHARE = 0.25


def segments_of(plan: Plan) -> list[tuple[str, str]]:
    """Return (cohort, group) of the segments, the largest first."""
    asked = plan.config.detection.segments
    sizes: dict[tuple[str, str], int] = {}
    for name in plan.config.cohorts if asked is None else asked:
        column = plan.view.column(f"cohort/{name}")
        if isinstance(column, Categorical):
            for code, count in enumerate(
                np.bincount(column.codes[column.codes >= 0], minlength=len(column.categories))
            ):
                sizes[name, column.categories[code]] = int(count)
    large = [segment for segment, count in sizes.items() if LEAST_ROWS <= count < plan.rows.n]
    return sorted(large, key=lambda segment: (-sizes[segment], segment))[:MAX_SEGMENTS]


def sections(plan: Plan, features: list[Section]) -> list[Section]:
    """Return the sections of the first features within each segment."""
    found: list[Section] = []
    for cohort, group in segments_of(plan):
        where = (Test(f"cohort/{cohort}", "is", group),)
        rows = plan.view.where(where)
        assert rows is not None
        for spec in features[:MAX_FEATURES]:
            column, name = plan.view.column(f"feature/{spec.name}"), f"{spec.name}|{cohort}={group}"
            if isinstance(spec, NumericSpec) and isinstance(column, Numeric):
                tables = tuple(build_table(column.values[rows & (plan.stratum == which)]) for which in plan.strata)
                found.append(NumericSpec(name, 0, tables, spec.path, where))
            elif isinstance(spec, CategoricalSpec) and isinstance(column, Categorical):
                own = Categorical(np.where(rows, column.codes, -1).astype(np.int32), column.categories)
                made = categorical_section(name, own, spec.path, MAX_CATEGORIES)
                found.append(CategoricalSpec(name, 0, made.kept, made.rare, spec.path, where))
    return found


def charts(reference: Reference) -> list[Candidate]:
    """Return the charts of all segments."""
    own = [
        one
        for one in reference.layout.sections
        if isinstance(one, NumericSpec | CategoricalSpec) and one.where and one.path.startswith("feature/")
    ]
    count = max(len({one.where for one in own}), 1)
    found: list[Candidate] = []
    for spec in own:
        feature = spec.path.partition("/")[2]
        (test,) = spec.where
        place = f" in {test.source.partition('/')[2]}={test.value}"
        weight = reference.weight(feature) * SHARE / count
        if isinstance(spec, NumericSpec):
            about = Score(FAMILY, feature, weight, statistic=f"mean{place}", title=f"{feature}{place}")
            found.append(mean_chart(reference, spec, about, scored(reference, spec)))
        else:
            found += category_charts(reference, spec, FAMILY, feature, weight, suffix=place)
    return found
