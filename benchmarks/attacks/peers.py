"""Two published detectors, re-implemented from their papers, for rows beside ours. Not used by the product.

Blacklight (Li, Shan, Wenger, Zhang, Zheng, Zhao: USENIX Security 2022): hashes of sliding windows over the quantised
input, the 50 largest kept; a query that shares more than 25 of them with an earlier one is an attack. Settings of the
paper for small inputs: window 20, step 1, quantisation 50 grey levels of 255; here levels are .2 of a feature's spread.

PRADA (Juuti, Szyller, Marchal, Asokan: EuroS&P 2019): the distances of new queries to the nearest earlier one of the
same class; an attack when, of at least 100, they are no longer normal (Shapiro-Wilk below .95).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.stats import shapiro

from regate.detectors.attack.reference import AttackReference

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class Peer(Protocol):
    """A detector that watches one client."""

    name: str

    def first(self, x: FloatArray, label: BoolArray) -> int | None:
        """Return the number of the first query that is flagged, from 1; None when none is."""


@dataclass
class Blacklight:
    """Shared fingerprints."""

    reference: AttackReference
    name: str = "Blacklight"
    window: int = 20
    kept: int = 50
    shared: int = 25
    level: float = 0.2

    def _prints(self, row: FloatArray) -> set[bytes]:
        step = self.level * self.reference.sketch.scale
        quantised = np.rint((row - self.reference.sketch.centre) / step).astype(np.int32)
        window = min(self.window, max(len(row) // 4, 1))
        prints = [
            hashlib.sha256(quantised[start : start + window].tobytes() + bytes([start])).digest()
            for start in range(len(row) - window + 1)
        ]
        return set(sorted(prints, reverse=True)[: self.kept])

    def first(self, x: FloatArray, label: BoolArray) -> int | None:  # noqa: ARG002  (it looks at inputs alone)
        """Return the first query that shares half of its fingerprints with an earlier one."""
        seen: list[set[bytes]] = []
        for number, row in enumerate(x, start=1):
            own = self._prints(row)
            most = min(self.shared, len(own) // 2)
            if any(len(own & other) > most for other in seen):
                return number
            seen.append(own)
        return None


@dataclass
class Prada:
    """The distribution of distances to the nearest earlier query of the same class."""

    name: str = "PRADA"
    least: int = 100
    normal: float = 0.95

    def first(self, x: FloatArray, label: BoolArray) -> int | None:
        """Return the first query at which distances are no longer normal."""
        kept: dict[bool, list[FloatArray]] = {True: [], False: []}
        distances: list[float] = []
        spread = x.std(axis=0) + 1e-9
        for number, (row, answer) in enumerate(zip(x / spread, label.tolist(), strict=True), start=1):
            own = kept[answer]
            if own:
                nearest = float(np.sqrt(((np.array(own) - row) ** 2).sum(axis=1)).min())
                distances.append(nearest)
            own.append(row)
            if len(distances) < self.least or number % 5:
                continue
            values = np.array(distances)
            inner = values[np.abs(values - values.mean()) <= 3 * values.std()]
            if len(inner) > 3 and float(inner.std()) > 0 and float(shapiro(inner).statistic) < self.normal:
                return number
        return None
