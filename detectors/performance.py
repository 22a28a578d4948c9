"""Performance: the rate of realised errors, known when labels arrive. A rise is harm, not just change."""

from __future__ import annotations

import numpy as np

from regate.detectors.candidate import Candidate, Reference
from regate.detectors.rates import Rate, rate_chart

FAMILY = "performance"
SUBJECT = "error"
WEIGHT = 1.0


def charts(reference: Reference) -> list[Candidate]:
    """Return the chart of realised errors; none when the reference has no outcomes."""
    if reference.wrong is None or not (reference.wrong >= 0).any():
        return []
    rate = Rate(
        family="performance",
        subject=SUBJECT,
        statistic="rate",
        kind="harm",
        weight=WEIGHT,
        s_column=reference.layout.outcomes + 1,
        n_column=reference.layout.outcomes,
        up_only=True,
    )
    return [rate_chart(rate, np.asarray(reference.wrong == 1), np.asarray(reference.wrong >= 0), reference)]
