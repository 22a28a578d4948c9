"""The label-free estimate of the error: what scores, or inputs, say about it by what the reference has taught.

Classification: the score's calibrated probability says how likely the prediction is wrong (confidence-based estimation,
CBPE). Regression: an additive model of the absolute error on the inputs (direct loss estimation). Both hold only where
the reference has rows and as long as P(outcome | inputs) stays as it was: see `regate.detectors.validity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from regate.detectors.classes import class_hash
from regate.detectors.columns import BoolArray, Categorical, FloatArray, IntArray, Numeric
from regate.detectors.isotonic import Steps
from regate.detectors.numerics import UNIT
from regate.detectors.sections import MISSING, PRESENT, Arrays
from regate.detectors.views import View, sums

SUM = 2
# Errors of a regression count in multiples of the reference's mean error, up to this.
MOST_ERROR = 16


@dataclass(frozen=True, slots=True)
class Fit:
    """How well the estimate holds on the reference, each half estimated by the other.

    ``explained`` is the share of the errors' variance that it explains; ``tau``, ``moved`` and ``reach`` are those of
    the estimate as a series; ``excess_tau`` and ``excess_margin`` those of errors less estimates, the margin in logits
    (classification) or standard deviations (regression), and ``excess_sd`` their standard deviation.
    """

    explained: float = 0.0
    tau: float = 1.0
    moved: float = 0.0
    reach: int = 1
    excess_tau: float = 1.0
    excess_margin: float = 0.1
    excess_sd: float = 1.0


def _fill(errors: IntArray, known: BoolArray, group: IntArray, groups: int, into: IntArray) -> None:
    into[:, PRESENT] = np.bincount(group[known], minlength=groups)
    into[:, MISSING] = np.bincount(group[~known], minlength=groups)
    into[:, SUM] = sums(group[known], errors[known].astype(np.float64), groups)


@dataclass(frozen=True, slots=True)
class ScoredError:
    """Estimated error by score: present, missing, sum of P(wrong) in units of 2^-16.

    The steps map the score to P(positive), or without a ``positive`` class the confidence to P(right).
    """

    type: ClassVar[str] = "scored_error"
    name: str
    first: int
    source: str
    positive: str
    steps: Steps
    fit: Fit = Fit()

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return 3

    def errors(self, view: View) -> tuple[IntArray, BoolArray]:
        """Return P(wrong) of each row in units of 2^-16, and which rows have one."""
        score, made = view.column(self.source), view.column("class")
        if not isinstance(score, Numeric) or not isinstance(made, Categorical):
            return np.zeros(view.n, dtype=np.int64), np.zeros(view.n, dtype=np.bool_)
        known = ~np.isnan(score.values) & (made.codes >= 0)
        p = self.steps.at(score.values)
        if not self.positive:
            return UNIT - p, known
        wanted = class_hash(self.positive)
        # The last entry is what code -1, missing, picks.
        positive = np.array([class_hash(name) == wanted for name in made.categories] + [False])[made.codes]
        return np.where(positive, UNIT - p, p), known

    def add(self, view: View, group: IntArray, groups: int, into: IntArray) -> None:
        """Add the estimates of the rows."""
        errors, known = self.errors(view)
        _fill(errors, known, group, groups, into)

    def pack(self) -> tuple[dict[str, Any], Arrays]:
        """Return names and fit, and the steps."""
        meta = {"name": self.name, "source": self.source, "positive": self.positive, "fit": asdict(self.fit)}
        return meta, {"edges": self.steps.edges, "values": self.steps.values}

    @classmethod
    def unpack(cls, meta: Mapping[str, Any], arrays: Arrays) -> ScoredError:
        """Return the section that `pack` described."""
        steps = Steps(arrays["edges"], arrays["values"])
        return cls(meta["name"], meta["first"], meta["source"], meta["positive"], steps, Fit(**meta["fit"]))


@dataclass(frozen=True, slots=True)
class LinearError:
    """Estimated absolute error by inputs, in multiples of the reference's mean error ``scale``.

    The sum of ``base`` and one step function a feature, in units of 2^-16. A missing value adds nothing: the mean.
    """

    type: ClassVar[str] = "linear_error"
    name: str
    first: int
    scale: float
    base: int
    features: tuple[str, ...]
    steps: tuple[Steps, ...]
    fit: Fit = Fit()

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return 3

    def errors(self, view: View) -> tuple[IntArray, BoolArray]:
        """Return the estimate of each row in units of 2^-16, and which rows have one: those with any input."""
        total = np.full(view.n, self.base, dtype=np.int64)
        known = np.zeros(view.n, dtype=np.bool_)
        for name, steps in zip(self.features, self.steps, strict=True):
            column = view.column(f"feature/{name}")
            if isinstance(column, Numeric):
                present = ~np.isnan(column.values)
                total += np.where(present, steps.at(column.values), 0)
                known |= present
        return np.clip(total, 0, MOST_ERROR * UNIT), known

    def add(self, view: View, group: IntArray, groups: int, into: IntArray) -> None:
        """Add the estimates of the rows."""
        errors, known = self.errors(view)
        _fill(errors, known, group, groups, into)

    def pack(self) -> tuple[dict[str, Any], Arrays]:
        """Return names and fit, and the steps one behind the other."""
        meta = {
            "name": self.name,
            "scale": self.scale,
            "base": self.base,
            "features": list(self.features),
            "fit": asdict(self.fit),
        }
        sizes = np.array([steps.edges.size for steps in self.steps], dtype=np.int64)
        edges = np.concatenate([steps.edges for steps in self.steps])
        return meta, {"edges": edges, "values": np.concatenate([s.values for s in self.steps]), "sizes": sizes}

    @classmethod
    def unpack(cls, meta: Mapping[str, Any], arrays: Arrays) -> LinearError:
        """Return the section that `pack` described."""
        cuts = np.cumsum(arrays["sizes"])[:-1]
        edges = np.split(arrays["edges"], cuts)
        values = np.split(arrays["values"], cuts + np.arange(1, len(arrays["sizes"])))
        steps = tuple(Steps(one, two) for one, two in zip(edges, values, strict=True))
        features = tuple(meta["features"])
        return cls(meta["name"], meta["first"], meta["scale"], meta["base"], features, steps, Fit(**meta["fit"]))


Estimate = ScoredError | LinearError


def realised(estimate: Estimate, wrong: BoolArray, loss: FloatArray | None) -> FloatArray:
    """Return what the estimate estimates: 1 where wrong, or the absolute error in multiples of the mean error."""
    if isinstance(estimate, ScoredError) or loss is None:
        return wrong.astype(np.float64)
    return np.minimum(loss / estimate.scale, float(MOST_ERROR))
