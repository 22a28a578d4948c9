"""Output drift: predicted classes, scores, how sure the model is, and the score within each predicted class.

Charts of one model version only: two versions answer differently without anything having changed.
"""

from __future__ import annotations

import numpy as np

from regate.config.model import Family
from regate.detectors.candidate import Candidate, Own, Plan, Reference, made_of
from regate.detectors.categories import categorical_section, category_charts, unseen_chart
from regate.detectors.columns import Categorical, FloatArray, Numeric
from regate.detectors.layout import EVENTS, RARE_BELOW
from regate.detectors.probabilities import class_matrix
from regate.detectors.ranktable import build_table
from regate.detectors.rates import Rate, rate_chart
from regate.detectors.scores import Score, mean_chart, scale_chart, scored
from regate.detectors.sections import MISSING, CategoricalSpec, NumericSpec, Section
from regate.detectors.views import Test

FAMILY: Family = "output_drift"
PREFIX = "output"
CLASS = f"{PREFIX}/class"
SURE = frozenset({"margin", "entropy"})
# Shares of the family's weight, 1 in all.
CLASS_SHARE, SCORE_SHARE, SURE_SHARE, WITHIN_SHARE = 0.4, 0.35, 0.15, 0.1
# Shares of a section's weight: rates of classes and new ones; mean and scale; and the answers that are not there.
UNSEEN_SHARE, MEAN_SHARE, SCALE_SHARE, MISSING_SHARE = 0.1, 0.65, 0.25, 0.1
# A model of more classes is watched by its largest ones; scores within predicted classes only where classes are few.
MAX_CLASSES, FEW_CLASSES = 64, 4
# Two scores whose sum is 1 to within this are one number.
COMPLEMENT = 1e-3


def sections(plan: Plan) -> Own:
    """Return the sections of what the model answered."""
    if plan.config.output.type == "regression":
        return Own(_numeric(plan, "prediction", "prediction"))
    found: list[Section] = []
    classes = plan.view.column("class")
    known = isinstance(classes, Categorical) and bool((classes.codes >= 0).any())
    if known:
        found.append(categorical_section(CLASS, classes, "class", MAX_CLASSES))
    scores = _scores(plan)
    for name in scores:
        found += _numeric(plan, _named(name), f"score/{name}")
    named = class_matrix(plan.rows.scores)
    if named is None:
        return Own(found)
    # Of two classes entropy and margin say the same.
    for source in ("margin",) if len(named[0]) == 2 else ("margin", "entropy"):
        found += _numeric(plan, source, source)
    if isinstance(classes, Categorical) and len(classes.categories) <= FEW_CLASSES:
        for chosen in classes.categories:
            # One score says how near each class is to the boundary; of several, that of the class itself.
            for name in scores if len(scores) == 1 else [name for name in scores if name == chosen]:
                tests = (Test("class", "is", chosen),)
                found += _numeric(plan, f"{_named(name)}|{chosen}", f"score/{name}", tests)
    return Own(found)


def _scores(plan: Plan) -> list[str]:
    """Return the classes whose scores are watched: of two that sum up to 1 only one, the positive where it is known."""
    names = sorted(plan.rows.scores)[:MAX_CLASSES]
    if len(names) != 2:
        return names
    gap = np.abs(plan.rows.scores[names[0]] + plan.rows.scores[names[1]] - 1.0)
    if bool((gap > COMPLEMENT).any()):
        return names
    return [plan.config.output.positive if plan.config.output.positive in names else names[1]]


def _named(score: str) -> str:
    return f"score/{score}" if score else "score"


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
        subject, weight = spec.name.removeprefix(f"{PREFIX}/"), share[spec.name]
        if isinstance(spec, CategoricalSpec):
            rates = weight * (1.0 - UNSEEN_SHARE - MISSING_SHARE)
            found += category_charts(reference, spec, FAMILY, subject, rates)
            found.append(unseen_chart(reference, spec, FAMILY, subject, weight * UNSEEN_SHARE, "change"))
            found.append(_missing(reference, spec, subject, weight * MISSING_SHARE))
        elif isinstance(spec, NumericSpec):
            seen, title = scored(reference, spec), _title(spec)
            parts = _parts(spec, own)
            about = Score(FAMILY, subject, weight * MEAN_SHARE, title=title)
            found.append(made_of(mean_chart(reference, spec, about, seen), *parts))
            if spec.where:
                continue
            wide = Score(FAMILY, subject, weight * SCALE_SHARE, title=f"the spread of {title}")
            found.append(made_of(scale_chart(reference, spec, wide, seen), *parts))
            if _is_score(spec):
                found.append(_missing(reference, spec, subject, weight * MISSING_SHARE))
    return found


def _is_score(spec: Section) -> bool:
    return isinstance(spec, NumericSpec) and not spec.where and spec.path not in SURE


def _parts(spec: NumericSpec, own: list[Section]) -> tuple[str, ...]:
    """Return the names of the scores that a statistic is made of; how sure the model is, is made of all."""
    if spec.path in SURE:
        return tuple(one.name for one in own if _is_score(one))
    return (f"{PREFIX}/{spec.path.removesuffix('/')}",)


def _missing(reference: Reference, spec: NumericSpec | CategoricalSpec, subject: str, weight: float) -> Candidate:
    """Return the chart of answers that say nothing; only a rise."""
    column = reference.events_view.column(spec.path)
    whole = np.ones(reference.rows.n, dtype=np.bool_)
    missing = column.codes < 0 if isinstance(column, Categorical) else np.isnan(getattr(column, "values", np.nan))
    rate = Rate(
        family=FAMILY,
        subject=subject,
        statistic="missing",
        kind="data_quality",
        weight=weight,
        s_column=spec.first + MISSING,
        n_column=EVENTS,
        up_only=True,
        title=f"the share of answers without {subject.partition('/')[0]}",
    )
    return rate_chart(rate, whole & missing, whole, reference)


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
    return SURE_SHARE if spec.path in SURE else SCORE_SHARE


def _shares(own: list[Section]) -> dict[str, float]:
    """Return each section's weight; what a model does not have goes to the others."""
    kinds = [_kind(spec) for spec in own]
    total = sum(set(kinds))
    return {spec.name: kind / kinds.count(kind) / total for spec, kind in zip(own, kinds, strict=True)}
