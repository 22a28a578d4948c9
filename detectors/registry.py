"""The detector families, in the order in which their charts stand in a profile, and the kinds of sections.

A new family is a module with `FAMILY`, ``sections(plan)`` and ``charts(reference)``, and a line here. A family that
needs statistics of its own kind adds a section class (`regate.detectors.sections.Section`) and a line as well.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from regate.config.model import Family as FamilyName
from regate.detectors import (
    behaviour,
    data_quality,
    fairness,
    feature_drift,
    multivariate_drift,
    output_drift,
    performance,
    service,
)
from regate.detectors.calibration import ResidualSpec
from regate.detectors.candidate import Candidate, Own, Plan, Reference
from regate.detectors.delivery import CoverageSpec
from regate.detectors.estimate import LinearError, ScoredError
from regate.detectors.sections import CategoricalSpec, FlagSpec, NumericSpec, Section
from regate.detectors.support import SupportSpec
from regate.detectors.totals import TotalSpec


class Family(Protocol):
    """What the module of a family has."""

    FAMILY: FamilyName

    def sections(self, plan: Plan) -> Own:
        """Return the statistics that the family's charts read, for these reference rows."""

    def charts(self, reference: Reference) -> list[Candidate]:
        """Return the charts that the family proposes."""


FAMILIES: tuple[Family, ...] = (
    feature_drift,
    data_quality,
    multivariate_drift,
    output_drift,
    service,
    behaviour,
    performance,
    fairness,
)

_KINDS: tuple[type[Section], ...] = (
    NumericSpec,
    CategoricalSpec,
    FlagSpec,
    multivariate_drift.CrossSpec,
    ScoredError,
    LinearError,
    SupportSpec,
    ResidualSpec,
    TotalSpec,
    CoverageSpec,
)
SECTIONS: dict[str, type[Section]] = {kind.type: kind for kind in _KINDS}


def sections(plan: Plan) -> Own:
    """Return the statistics of all families."""
    share = plan.config.detection.families
    own = [family.sections(plan) for family in FAMILIES if share.get(family.FAMILY, 1.0) > 0]
    return Own([item for part in own for item in part.events], [item for part in own for item in part.outcomes])


def candidates(reference: Reference) -> list[Candidate]:
    """Return the charts that all families propose for a reference."""
    share = reference.config.detection.families
    return [
        replace(found, spec=replace(found.spec, weight=found.spec.weight * share.get(family.FAMILY, 1.0)))
        for family in FAMILIES
        if share.get(family.FAMILY, 1.0) > 0
        for found in family.charts(reference)
    ]
