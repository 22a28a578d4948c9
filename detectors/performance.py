"""Performance: the rate of realised errors, known when labels arrive. A rise is harm, not just change."""

from __future__ import annotations

import numpy as np

from regate.config.model import Family
from regate.detectors.candidate import Candidate, Own, Plan, Reference
from regate.detectors.rates import Rate, rate_chart

FAMILY: Family = "performance"
SUBJECT = "error"
WEIGHT = 1.0
# A loss of this much accuracy has severity 1.
WORST_LOSS = 0.2


def sections(_plan: Plan) -> Own:
    """Return nothing: outcomes and errors stand in every layout."""
    return Own()


def charts(reference: Reference) -> list[Candidate]:
    """Return the chart of realised errors; none when the reference has no outcomes."""
    outcomes = reference.outcomes
    if outcomes is None:
        return []
    rate = Rate(
        family=FAMILY,
        subject=SUBJECT,
        statistic="rate",
        kind="harm",
        weight=WEIGHT,
        s_column=reference.layout.outcomes + 1,
        n_column=reference.layout.outcomes,
        up_only=True,
        title="the rate of wrong predictions",
        worst=WORST_LOSS,
    )
    return [rate_chart(rate, np.asarray(outcomes.wrong == 1), outcomes.known, reference)]
