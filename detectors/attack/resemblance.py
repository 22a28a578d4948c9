"""How far a client's query resembles what he asked just before: a session of somebody who changes his case bit by bit.

How values go together says nothing of a query that keeps some of them from one before, for what is odd about it is the
join. It is seen where a client's own queries are known, and holds in every view.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.attack.clients import FRESH, Steps
from regate.detectors.columns import FloatArray

# Of the reference's fresh queries so many share more with one before: who does resembles it.
SELDOM_SHARED = 0.05
# Nearer to the query before than this share of what is usual a query resembles it, farther than the other it does not.
RESEMBLING, UNLIKE = 0.85, 1.05


@dataclass(frozen=True, slots=True)
class Resemblance:
    """What is usual of fresh queries of the reference."""

    shared: float = 0.0  # blocks in which all but one in twenty differ from every query remembered
    apart: float = 1.0  # distance of half of them from the query before, in steps of the sketch

    def unlike(self, steps: Steps, queries: int) -> FloatArray:
        """Return for each query of a slice 0 if it resembles one before or repeats it, 1 if it does not.

        :param steps: of the view by client.
        """
        found = np.zeros(queries)
        near = np.clip((steps.last / self.apart - RESEMBLING) / (UNLIKE - RESEMBLING), 0.0, 1.0)
        found[steps.row] = np.where(steps.changed < self.shared, 0.0, near)
        return found


def fitted(steps: Steps) -> Resemblance:
    """Return what is usual of reference entries."""
    others = (steps.kind == FRESH) & ~steps.first
    if not others.any():
        return Resemblance()
    shared = float(np.quantile(steps.changed[others], SELDOM_SHARED))
    return Resemblance(shared, max(float(np.median(steps.last[others])), 1.0))
