"""Two published detectors, re-implemented from their papers, for rows beside ours. Not used by the product.

Blacklight (Li, Shan, Wenger, Zhang, Zheng, Zhao: USENIX Security 2022): hashes of sliding windows over the quantised
input, the 50 largest kept; a query that shares more than 25 of them with an earlier one is an attack. Settings of the
paper for small inputs: window 20, step 1, quantisation 50 grey levels of 255; here levels are .2 of a feature's spread.

PRADA (Juuti, Szyller, Marchal, Asokan: EuroS&P 2019): the distances of new queries to the nearest earlier one of the
same class; an attack when, of at least 100, they are no longer normal (Shapiro-Wilk below .95).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.stats import shapiro

from regate.detectors.attack.reference import AttackReference

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Seen(Protocol):
    """What a detector remembers of one client."""

    def ask(self, row: FloatArray, label: int) -> bool:
        """Take the next query; return whether it is flagged."""

    @property
    def held(self) -> int:
        """Return the bytes that it cannot do without."""


class Peer(Protocol):
    """A detector that watches one client."""

    name: str

    def start(self) -> Seen:
        """Return a new memory."""


def first(peer: Peer, x: FloatArray, label: IntArray) -> int | None:
    """Return the number of the first query that is flagged, from 1; None when none is."""
    seen = peer.start()
    return next((number for number, row in enumerate(x, start=1) if seen.ask(row, int(label[number - 1]))), None)


@dataclass
class Blacklight:
    """Shared fingerprints."""

    reference: AttackReference
    name: str = "Blacklight"
    window: int = 20
    kept: int = 50
    shared: int = 25
    level: float = 0.2

    def start(self) -> BlacklightSeen:
        return BlacklightSeen(self)

    def prints(self, row: FloatArray) -> set[bytes]:
        """Return the fingerprints of an input."""
        step = self.level * self.reference.sketch.scale
        quantised = np.rint((row - self.reference.sketch.centre) / step).astype(np.int32)
        window = min(self.window, max(len(row) // 4, 1))
        prints = [
            hashlib.sha256(quantised[start : start + window].tobytes() + bytes([start])).digest()
            for start in range(len(row) - window + 1)
        ]
        return set(sorted(prints, reverse=True)[: self.kept])


@dataclass
class BlacklightSeen:
    """Earlier queries by their fingerprints."""

    peer: Blacklight
    queries: int = 0
    by_print: dict[bytes, list[int]] = field(default_factory=dict)

    def ask(self, row: FloatArray, label: int) -> bool:  # noqa: ARG002  (it looks at inputs alone)
        """Take a query; flag it when it shares half of its fingerprints with an earlier one."""
        own = self.peer.prints(row)
        most = min(self.peer.shared, len(own) // 2)
        counts: Counter[int] = Counter()
        for one in own:
            known = self.by_print.setdefault(one, [])
            counts.update(known)
            known.append(self.queries)
        self.queries += 1
        return bool(counts) and max(counts.values()) > most

    @property
    def held(self) -> int:
        return sum(len(one) + 4 * len(queries) for one, queries in self.by_print.items())


@dataclass
class Prada:
    """The distribution of distances to the nearest earlier query of the same class."""

    scale: FloatArray
    name: str = "PRADA"
    least: int = 100
    normal: float = 0.95
    every: int = 5

    def start(self) -> PradaSeen:
        return PradaSeen(self)


@dataclass
class PradaSeen:
    """Earlier queries by class, and their distances."""

    peer: Prada
    queries: int = 0
    kept: dict[int, tuple[FloatArray, int]] = field(default_factory=dict)
    distances: list[float] = field(default_factory=list)

    def ask(self, row: FloatArray, label: int) -> bool:
        """Take a query; flag it when distances are no longer normal."""
        self.queries += 1
        own, used = self.kept.get(label, (np.empty((16, len(row))), 0))
        scaled = row / self.peer.scale
        if used:
            self.distances.append(float(np.sqrt(((own[:used] - scaled) ** 2).sum(axis=1).min())))
        if used == len(own):
            own = np.concatenate([own, np.empty_like(own)])
        own[used] = scaled
        self.kept[label] = (own, used + 1)
        if len(self.distances) < self.peer.least or self.queries % self.peer.every:
            return False
        values = np.array(self.distances)
        inner = values[np.abs(values - values.mean()) <= 3 * values.std()]
        spread = len(inner) > 3 and float(np.ptp(inner)) > 0
        return spread and float(shapiro(inner).statistic) < self.peer.normal

    @property
    def held(self) -> int:
        return sum(8 * used * own.shape[1] for own, used in self.kept.values()) + 8 * len(self.distances)
