"""Behaviour: who sends, and how.

The mix of declared cohorts, of clients by 64 buckets of their (salted) hashes, and the shape of traffic in time.
"""

from __future__ import annotations

from regate.config.model import Family
from regate.detectors import rhythm
from regate.detectors.candidate import Candidate, Own, Plan, Reference
from regate.detectors.categories import categorical_section, category_charts
from regate.detectors.columns import Categorical, Numeric
from regate.detectors.ranktable import build_table
from regate.detectors.scores import Score, mean_chart, scored
from regate.detectors.sections import CategoricalSpec, NumericSpec, Section

FAMILY: Family = "behaviour"
PREFIX = "behaviour"
CLIENTS = f"{PREFIX}/clients"
RHYTHM = f"{PREFIX}/rhythm"
COHORT_WEIGHT, CLIENT_WEIGHT, RHYTHM_WEIGHT = 0.5, 0.5, 0.25
MAX_GROUPS = 64


def sections(plan: Plan) -> Own:
    """Return a section for each declared cohort, for clients where there are any, for traffic where it tells."""
    found: list[Section] = []
    for name in plan.config.cohorts:
        column = plan.view.column(f"cohort/{name}")
        if isinstance(column, Categorical) and bool((column.codes >= 0).any()):
            found.append(categorical_section(f"{PREFIX}/{name}", column, f"cohort/{name}", MAX_GROUPS))
    clients = plan.view.column("client")
    if isinstance(clients, Categorical) and bool((clients.codes >= 0).any()):
        found.append(categorical_section(CLIENTS, clients, "client", MAX_GROUPS))
    source = rhythm.source_for(plan.rows.event_time_us)
    column = None if source is None else plan.view.column(source)
    if source is not None and isinstance(column, Numeric):
        tables = tuple(build_table(column.values[plan.stratum == which]) for which in plan.strata)
        found.append(NumericSpec(RHYTHM, 0, tables, source))
    return Own(found)


def charts(reference: Reference) -> list[Candidate]:
    """Return the charts of all mixes."""
    own = [
        section
        for section in reference.layout.sections
        if isinstance(section, CategoricalSpec) and section.name.startswith(f"{PREFIX}/")
    ]
    cohorts = sum(section.name != CLIENTS for section in own)
    mixes = [
        chart
        for section in own
        for chart in category_charts(
            reference,
            section,
            FAMILY,
            section.name.removeprefix(f"{PREFIX}/"),
            CLIENT_WEIGHT if section.name == CLIENTS else COHORT_WEIGHT / cohorts,
        )
    ]
    spec = rhythm.section_of(reference.layout.sections)
    if spec is None:
        return mixes
    about = Score(FAMILY, "traffic", RHYTHM_WEIGHT, statistic="burstiness", title="how traffic varies by seconds")
    return [*mixes, mean_chart(reference, spec, about, scored(reference, spec))]
