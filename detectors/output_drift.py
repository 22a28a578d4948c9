"""Output drift: predicted classes, scores, how sure the model is, and the score within each predicted class.

Charts of one model version only: two versions answer differently without anything having changed.
"""

from __future__ import annotations

import numpy as np

from regate.config.model import Family
from regate.detectors.candidate import Candidate, Own, Plan, Reference
from regate.detectors.categories import categorical_section, category_charts
from regate.detectors.columns import Categorical, FloatArray, Numeric
from regate.detectors.layout import RARE_BELOW
from regate.detectors.probabilities import class_matrix
from regate.detectors.ranktable import build_table
from regate.detectors.scores import Score, mean_chart, scale_chart, scored
from regate.detectors.sections import CategoricalSpec, NumericSpec, Section
from regate.detectors.views import Test

FAMILY: Family = "output_drift"
PREFIX = "output"
# Shares of the family's weight, 1 in all.
CLASS_SHARE, SCORE_SHARE, SURE_SHARE, WITHIN_SHARE = 0.4, 0.35, 0.15, 0.1
MEAN_SHARE, SCALE_SHARE = 0.7, 0.3
# A model of more classes is watched by its largest ones; scores within predicted classes only where classes are few.
MAX_CLASSES, FEW_CLASSES = 64, 4


def sections(plan: Plan) -> Own:
    """Return the sections of what the model answered."""
    if plan.config.output.type == "regression":
        return Own(_numeric(plan, "prediction", "prediction"))
    found: list[Section] = []
    classes = plan.view.column("class")
    if isinstance(classes, Categorical) and bool((classes.codes >= 0).any()):
        found.append(categorical_section(f"{PREFIX}/class", classes, "class", MAX_CLASSES))
    named = class_matrix(plan.rows.scores)
    if named is None:
        return Own(found)
    for name in sorted(plan.rows.scores)[:MAX_CLASSES]:
        found += _numeric(plan, f"score/{name}", f"score/{name}")
    # Of two classes entropy and margin say the same.
    for source in ("margin",) if len(named[0]) == 2 else ("margin", "entropy"):
        found += _numeric(plan, source, source)
    if isinstance(classes, Categorical) and len(classes.categories) <= FEW_CLASSES:
        for name in sorted(plan.rows.scores):
            for chosen in classes.categories:
                found += _numeric(plan, f"score/{name}|{chosen}", f"score/{name}", (Test("class", "is", chosen),))
    return Own(found)


def _numeric(plan: Plan, name: str, source: str, where: tuple[Test, ...] = ()) -> list[Section]:
    """Return the section of a numeric source, none when the reference hardly has it."""
    column = plan.view.column(source)
    if not isinstance(column, Numeric):
        return []
    rows = plan.view.where(where)
    values: FloatArray = column.values if rows is None else np.where(rows, column.values, np.nan)
    if int(np.count_nonzero(~np.isnan(values))) < RARE_BELOW:
        return []
    tables = tuple(build_table(values[plan.stratum == which]) for which in plan.strata)
    return [NumericSpec(f"{PREFIX}/{name}", 0, tables, source, where)]


def charts(reference: Reference) -> list[Candidate]:
    """Return the charts of the family's sections."""
    own = [one for one in reference.layout.sections if one.name.startswith(f"{PREFIX}/")]
    share = _shares(own)
    found: list[Candidate] = []
    for spec in own:
        subject = spec.name.removeprefix(f"{PREFIX}/").removesuffix("/")
        weight = share[spec.name]
        if isinstance(spec, CategoricalSpec):
            found += category_charts(reference, spec, FAMILY, subject, weight)
        elif isinstance(spec, NumericSpec):
            seen, title = scored(reference, spec), _title(spec)
            found.append(mean_chart(reference, spec, Score(FAMILY, subject, weight * MEAN_SHARE, title=title), seen))
            if not spec.where:
                wide = Score(FAMILY, subject, weight * SCALE_SHARE, title=f"the spread of {title}")
                found.append(scale_chart(reference, spec, wide, seen))
    return found


def _title(spec: NumericSpec) -> str:
    kind, _, name = spec.path.partition("/")
    said = f"the score of class {name}" if kind == "score" and name else f"the {kind}"
    return f"{said} of events predicted {spec.where[0].value}" if spec.where else said


def _kind(spec: Section) -> float:
    if isinstance(spec, CategoricalSpec):
        return CLASS_SHARE
    assert isinstance(spec, NumericSpec)
    if spec.where:
        return WITHIN_SHARE
    return SURE_SHARE if spec.path in {"margin", "entropy"} else SCORE_SHARE


def _shares(own: list[Section]) -> dict[str, float]:
    """Return each section's weight; what a model does not have goes to the others."""
    kinds = [_kind(spec) for spec in own]
    total = sum(set(kinds))
    return {spec.name: kind / kinds.count(kind) / total for spec, kind in zip(own, kinds, strict=True)}
