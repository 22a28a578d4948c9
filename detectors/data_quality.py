"""Data quality: what is missing, unseen, refused, repeated, late, ahead of its time or old when it arrives.

None of it says that the world changed, so its kind is its own; where it goes with a change of inputs it joins that
incident.
"""

from __future__ import annotations

import numpy as np

from regate.config.model import Family
from regate.detectors.candidate import Candidate, Own, Plan, Reference
from regate.detectors.categories import column_of, unseen_chart
from regate.detectors.columns import BoolArray, Numeric
from regate.detectors.feature_drift import features
from regate.detectors.finding import Kind
from regate.detectors.layout import EVENTS
from regate.detectors.ranktable import build_table
from regate.detectors.rates import Rate, flag_chart, rate_chart
from regate.detectors.scores import Score, mean_chart, scored, values_of
from regate.detectors.sections import MISSING, CategoricalSpec, FlagSpec, NumericSpec, Section
from regate.detectors.views import Test

FAMILY: Family = "data_quality"
KIND: Kind = "data_quality"
PREFIX = "quality"
AGE = f"{PREFIX}/age"
# What observe says of rows (flags), and of events that never became rows (refused, by what was wrong).
DUPLICATE = "duplicate"
FLAGS = {
    DUPLICATE: "events with an id that was there before",
    "late": "events later than the allowed lateness",
    "future": "events ahead of their arrival",
    "out_of_range": "events outside of a declared range",
    "non_finite": "events with a number that is none",
    "schema": "events that break the schema",
}
# Shares of a feature's weight, and of each flag.
MISSING_SHARE, UNSEEN_SHARE, FLAG_WEIGHT, AGE_WEIGHT = 0.25, 0.25, 0.1, 0.2


def flag_name(flag: str) -> str:
    """Return the name of a flag's section."""
    return f"{PREFIX}/{flag}"


def sections(plan: Plan) -> Own:
    """Return one section a flag, and the age at arrival where the reference says any."""
    found: list[Section] = [FlagSpec(flag_name(flag), 0, (Test(f"flag/{flag}", "is", "true"),)) for flag in FLAGS]
    age = plan.view.column("age_ms")
    # A reference from a file has no arrivals: every age would be news.
    if isinstance(age, Numeric) and bool((age.values != 0).any()):
        found.append(
            NumericSpec(AGE, 0, tuple(build_table(age.values[plan.stratum == w]) for w in plan.strata), "age_ms")
        )
    return Own(found)


def charts(reference: Reference) -> list[Candidate]:
    """Return the charts of every feature, every flag, and of the age at arrival."""
    found: list[Candidate] = []
    for spec in features(reference):
        weight = reference.weight(spec.name)
        if isinstance(spec, CategoricalSpec):
            missing = column_of(reference, spec).codes < 0
            found.append(unseen_chart(reference, spec, FAMILY, spec.name, weight * UNSEEN_SHARE, KIND))
        else:
            missing = np.isnan(values_of(reference, spec)[0])
        found.append(_missing(reference, spec, missing, weight * MISSING_SHARE))
    for section in reference.layout.sections:
        flag = section.name.removeprefix(f"{PREFIX}/")
        if isinstance(section, FlagSpec) and section.name == flag_name(flag) and flag in FLAGS:
            found.append(flag_chart(reference, section, _flagged(flag)))
        elif isinstance(section, NumericSpec) and section.name == AGE:
            about = Score(
                FAMILY, "age at arrival", AGE_WEIGHT, KIND, up_only=True, title="the age of events at arrival"
            )
            found.append(mean_chart(reference, section, about, scored(reference, section)))
    return found


def _flagged(flag: str) -> Rate:
    return Rate(
        family=FAMILY,
        subject=flag,
        statistic="rate",
        kind=KIND,
        weight=FLAG_WEIGHT,
        up_only=True,
        title=f"the share of {FLAGS[flag]}",
    )


def _missing(reference: Reference, spec: NumericSpec | CategoricalSpec, missing: BoolArray, weight: float) -> Candidate:
    rate = Rate(
        family=FAMILY,
        subject=spec.name,
        statistic="missing",
        kind=KIND,
        weight=weight,
        s_column=spec.first + MISSING,
        n_column=EVENTS,
    )
    return rate_chart(rate, missing, np.ones(missing.size, dtype=np.bool_), reference)
