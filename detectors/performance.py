"""Performance: realised errors when labels arrive, and the label-free estimate until then.

A rise of realised errors is harm. What scores or inputs say about errors is a suspicion (kind change): it may ask for
re-validation, and neither rolls back nor clears anything.
"""

from __future__ import annotations

from regate.config.model import Family
from regate.detectors import calibration, delivery, realised
from regate.detectors.candidate import Candidate, Own, Plan, Reference
from regate.detectors.estimate import MOST_ERROR, Estimate, LinearError, ScoredError
from regate.detectors.estimate_chart import estimate_chart
from regate.detectors.estimate_fit import fitted
from regate.detectors.sections import Section
from regate.detectors.support import support_section
from regate.detectors.totals import TotalSpec

FAMILY: Family = "performance"
# Together with the realised charts (1.5) and those of labels (.25) about two numeric features.
CALIBRATION_WEIGHT, ESTIMATE_WEIGHT = 0.2, 0.2


def sections(plan: Plan) -> Own:
    """Return the statistics of outcomes, and of the estimate where the reference supports one."""
    own = Own(delivery.sections(plan), realised.sections(plan))
    estimate = fitted(plan)
    if estimate is not None:
        own.events.extend([estimate, support_section(plan)])
        own.outcomes.append(_judging(estimate))
    return own


def _judging(estimate: Estimate) -> Section:
    """Return the statistics of outcomes that tell whether the estimate holds."""
    if isinstance(estimate, ScoredError):
        return calibration.residual_section(estimate)
    return TotalSpec("realised_error", 0, "loss", estimate.scale, float(MOST_ERROR))


def charts(reference: Reference) -> list[Candidate]:
    """Return all charts of the family; none when the reference has no outcomes."""
    found = list(realised.charts(reference))
    for spec in reference.layout.outcome_sections:
        if isinstance(spec, calibration.ResidualSpec):
            found += calibration.charts(reference, spec, CALIBRATION_WEIGHT)
    for event in reference.layout.sections:
        if isinstance(event, ScoredError | LinearError):
            found.append(estimate_chart(reference, event, ESTIMATE_WEIGHT))
    return found + delivery.charts(reference)
