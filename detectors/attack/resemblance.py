"""How far a client's query resembles what he asked just before: a session of somebody who changes his case bit by bit.

How values go together says nothing of a query that keeps some of them from one before, for what is odd about it is the
join. It is seen where a client's own queries are known, and holds in every view.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.attack.clients import Steps
from regate.detectors.attack.queries import PARTS, ByteArray
from regate.detectors.columns import FloatArray

# Of pairs of queries that have nothing to do with each other so many share no more: up to the first a query does not
# resemble the one before, beyond the other it does.
UNLIKE, RESEMBLING = 0.75, 0.99
# A byte of hash is the same by chance in one of 256: one part in common, or two, is no resemblance yet.
CHANCE = 3.0
_PAIRS = 40_000


@dataclass(frozen=True, slots=True)
class Resemblance:
    """How many of 32 parts of features are the same in queries that have nothing to do with each other."""

    unlike: float = PARTS - 1.0
    resembling: float = PARTS

    def of(self, steps: Steps, queries: int) -> FloatArray:
        """Return for each query of a slice 0 if it resembles the one before or repeats it, 1 if it does not.

        :param steps: of the view by client.
        """
        found = np.zeros(queries)
        found[steps.row] = np.clip((self.resembling - steps.alike) / (self.resembling - self.unlike), 0.0, 1.0)
        return found


def fitted(parts: ByteArray, seed: int) -> Resemblance:
    """Return what is usual of random pairs of reference queries."""
    rng = np.random.default_rng((seed, 23))
    left, right = rng.integers(len(parts), size=(2, _PAIRS))
    alike = (parts[left] == parts[right]).sum(axis=1)[left != right]
    if not alike.size:
        return Resemblance()
    unlike, resembling = np.quantile(alike, [UNLIKE, RESEMBLING])
    return Resemblance(float(unlike), float(max(resembling + 1.0, unlike + CHANCE)))
