"""Behaviour: who sends. The mix of declared cohorts, and of clients by 64 buckets of their (salted) hashes."""

from __future__ import annotations

from regate.config.model import Family
from regate.detectors.candidate import Candidate, Own, Plan, Reference
from regate.detectors.categories import categorical_section, category_charts
from regate.detectors.columns import Categorical
from regate.detectors.sections import CategoricalSpec, Section

FAMILY: Family = "behaviour"
PREFIX = "behaviour"
CLIENTS = f"{PREFIX}/clients"
COHORT_WEIGHT, CLIENT_WEIGHT = 0.5, 0.5
MAX_GROUPS = 64


def sections(plan: Plan) -> Own:
    """Return one section a declared cohort, and one of the clients where events have any."""
    found: list[Section] = []
    for name in plan.config.cohorts:
        column = plan.view.column(f"cohort/{name}")
        if isinstance(column, Categorical) and bool((column.codes >= 0).any()):
            found.append(categorical_section(f"{PREFIX}/{name}", column, f"cohort/{name}", MAX_GROUPS))
    clients = plan.view.column("client")
    if isinstance(clients, Categorical) and bool((clients.codes >= 0).any()):
        found.append(categorical_section(CLIENTS, clients, "client", MAX_GROUPS))
    return Own(found)


def charts(reference: Reference) -> list[Candidate]:
    """Return the charts of all mixes."""
    own = [
        section
        for section in reference.layout.sections
        if isinstance(section, CategoricalSpec) and section.name.startswith(f"{PREFIX}/")
    ]
    cohorts = sum(section.name != CLIENTS for section in own)
    return [
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
