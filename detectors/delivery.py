"""How labels come: how old, for which share of predictions, and whether they contradict each other.

Coverage and age are judged when predictions are *mature*: as old as the reference's labels usually become. Before that
only quick labels are there, of which neither says anything. A coverage that depends on the prediction or the cohort
means *selective labels*: what they say about errors is not harm before that is mended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from regate.config.model import Family
from regate.detectors.candidate import Candidate, Plan, Reference
from regate.detectors.columns import BoolArray, Categorical, IntArray, Numeric
from regate.detectors.dependence import inflation
from regate.detectors.labelled import AGE, CONTRADICTED, LABELLED, MADE, TIMELY
from regate.detectors.layout import Layout
from regate.detectors.ranktable import build_table
from regate.detectors.rates import Rate, rate_chart
from regate.detectors.realised import MOST_CLASSES
from regate.detectors.scores import Score, mean_chart, scored
from regate.detectors.sections import HITS, PRESENT, Arrays, FlagSpec, NumericSpec, Section
from regate.detectors.views import Test, View

FAMILY: Family = "performance"
SUBJECT = "labels"
PREFIX = f"{FAMILY}/{SUBJECT}/"
GROUP = f"{PREFIX}coverage of "
# Groups whose coverage is watched, of all attributes together.
MOST_GROUPS = 32
# Column of a coverage section: predictions in the cell in which they were made.
MADE_NOW = 2
COVERAGE_WEIGHT, GROUPS_WEIGHT, AGE_WEIGHT, CONTRADICTION_WEIGHT = 0.05, 0.1, 0.05, 0.05


@dataclass(frozen=True, slots=True)
class CoverageSpec:
    """Predictions of a group when they are mature, those without a label after ``delay`` minutes; and all as made.

    The group is ``value`` of the attribute ``of`` (class, or cohort/<name>), or all predictions. ``tau`` is how much
    more the group's share of the reference's blocks varies than independent predictions would.
    """

    type: ClassVar[str] = "coverage"
    name: str
    first: int
    delay: int
    of: str = ""
    value: str = ""
    tau: float = 1.0

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return 3

    def members(self, view: View, prefix: str = "") -> BoolArray:
        """Return which rows are in the group."""
        if not self.of:
            return np.ones(view.n, dtype=np.bool_)
        return Test(prefix + self.of, "is", self.value).of(view)

    def add(self, view: View, group: IntArray, groups: int, into: IntArray) -> None:
        """Add the reference's rows; live telemetry does not know its labels, and adds nothing."""
        timely = view.column(TIMELY)
        if not isinstance(timely, Categorical):
            return
        own = self.members(view, MADE) & (timely.codes >= 0)
        into[:, PRESENT] = into[:, MADE_NOW] = np.bincount(group[own], minlength=groups)
        into[:, HITS] = np.bincount(group[own & (timely.codes == 0)], minlength=groups)

    def pack(self) -> tuple[dict[str, Any], Arrays]:
        """Return all that the numbers depend on."""
        names = ("name", "delay", "of", "value", "tau")
        return {name: getattr(self, name) for name in names}, {}

    @classmethod
    def unpack(cls, meta: Mapping[str, Any], _arrays: Arrays) -> CoverageSpec:
        """Return the section that `pack` described."""
        return cls(**meta)


def sections(plan: Plan) -> list[Section]:
    """Return the statistics of how labels come: of telemetry, since predictions without a label count."""
    outcomes, delay = plan.outcomes, plan.delay
    if outcomes is None:
        return []
    hit = (Test(CONTRADICTED, "is", "true"),)
    found: list[Section] = [FlagSpec("contradicted", 0, hit, (Test(LABELLED, "is", "true"),))]
    # A mature prediction is counted long after its hour: with strata nobody knows to which one it belongs.
    if delay is None or len(plan.strata) > 1:
        return found
    found.append(CoverageSpec("coverage", 0, delay))
    shape = outcomes.shape
    named = [("class", name) for name in shape.classes] if len(shape.classes) <= MOST_CLASSES else []
    named += [(f"cohort/{attribute}", name) for attribute, names in shape.cohorts for name in names]
    for of, name in named[:MOST_GROUPS]:
        spec = CoverageSpec(f"coverage|{of}={name}", 0, delay, of, name)
        found.append(replace(spec, tau=_runs(spec.members(plan.view, MADE))))
    age = plan.view.column(AGE)
    if isinstance(age, Numeric) and np.isfinite(age.values).any():
        found.append(NumericSpec("label_age", 0, (build_table(age.values),), AGE))
    return found


def _runs(members: BoolArray) -> float:
    share = float(members.mean())
    variance = share * (1.0 - share)
    if variance <= 0.0:
        return 1.0
    middle = members.size // 2
    series = [part.astype(np.float64) - share for part in (members[:middle], members[middle:])]
    return inflation(series, variance, excess=1.0 / variance).tau


def charts(reference: Reference) -> list[Candidate]:
    """Return the charts of how labels come."""
    if reference.outcomes is None:
        return []
    found = []
    covered = [one for one in reference.layout.sections if isinstance(one, CoverageSpec)]
    for spec in reference.layout.sections:
        if isinstance(spec, CoverageSpec):
            found.append(_coverage(reference, spec, len(covered) - 1))
        elif isinstance(spec, FlagSpec) and spec.hit == (Test(CONTRADICTED, "is", "true"),):
            found.append(_contradictions(reference, spec))
        elif isinstance(spec, NumericSpec) and spec.path == AGE:
            about = Score(FAMILY, SUBJECT, AGE_WEIGHT, "data_quality", AGE, title="the age of labels")
            found.append(mean_chart(reference, spec, about, scored(reference, spec)))
    return found


def contradiction_section(layout: Layout) -> FlagSpec | None:
    """Return the section that counts labels and contradictions, None where a profile has none."""
    hit = (Test(CONTRADICTED, "is", "true"),)
    return next((one for one in layout.sections if isinstance(one, FlagSpec) and one.hit == hit), None)


def _coverage(reference: Reference, spec: CoverageSpec, groups: int) -> Candidate:
    view = reference.events_view
    timely = view.column(TIMELY)
    assert isinstance(timely, Categorical)
    what = f"of {spec.of.removeprefix('cohort/')} {spec.value} " if spec.of else ""
    rate = Rate(
        family=FAMILY,
        subject=SUBJECT,
        statistic=f"coverage of {spec.of.removeprefix('cohort/')}={spec.value}" if spec.of else "coverage",
        kind="data_quality",
        weight=GROUPS_WEIGHT / max(groups, 1) if spec.of else COVERAGE_WEIGHT,
        s_column=spec.first + HITS,
        n_column=spec.first + PRESENT,
        title=f"{'selective labels: ' if spec.of else ''}the share of predictions {what}without a label in time",
    )
    trial = spec.members(view, MADE) & (timely.codes >= 0)
    return rate_chart(rate, np.asarray(timely.codes == 0), trial, reference)


def _contradictions(reference: Reference, spec: FlagSpec) -> Candidate:
    view = reference.events_view
    hit, trial = view.where(spec.hit), view.where(spec.trial)
    assert hit is not None
    assert trial is not None
    rate = Rate(
        family=FAMILY,
        subject=SUBJECT,
        statistic="contradictions",
        kind="data_quality",
        weight=CONTRADICTION_WEIGHT,
        s_column=spec.first + HITS,
        n_column=spec.first + PRESENT,
        up_only=True,
        title="the share of labels that contradict an earlier label of the same prediction",
    )
    return rate_chart(rate, hit, trial, reference)
