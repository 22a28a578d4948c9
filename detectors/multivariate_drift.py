"""Multivariate drift: a change of correlation alone, which no chart of a single feature can see.

The statistic of a pair is the sum of products of the two normal scores. For many features the pairs are those of 16
fixed random combinations with signs +1 and -1: what changes many correlations at once is still seen, one pair of a
thousand is not.

A product of two normal scores with correlation r has log moment generating function
``K_r(l) = -ln((1 - l(r + 1))(1 - l(r - 1))) / 2``, so ``exp(l u - K_q(l))`` is an e-value, where q is the correlation
at the edge of the margin on l's side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from regate.config.canonical import digest_bytes
from regate.config.model import Family
from regate.detectors.candidate import Candidate, Own, Plan, Reference, stacked, strong
from regate.detectors.columns import FloatArray, IntArray
from regate.detectors.dependence import ROWS_PER_TAU, inflation, mean_margin, mean_moved
from regate.detectors.feature_drift import feature_sections
from regate.detectors.grids import Coefficients
from regate.detectors.layout import EVENTS, ChartSpec
from regate.detectors.numerics import LN_2, UNIT
from regate.detectors.ranktable import build_table
from regate.detectors.sections import Arrays, NumericSpec, Section, scored
from regate.detectors.views import View

FAMILY: Family = "multivariate_drift"
NAME = "multivariate"
WEIGHT = 1.0  # of all pairs together
# All pairs of so many features; of more, those of as many random combinations.
MAX_DIRECT = 16
SEED = 20_250_301
# Scores in units of 2^-8: products come in units of 2^-16, and sums of 2^33 rows are exact in float64, in any order.
Z_STEP = 1 << 8
LEVERS = np.array([0.1, 0.2, 0.35, 0.5])
# The e-value of a product exists only below 1 / (1 + |r|); near it a single event could be worth everything.
MOST_OF_BOUND = 0.7
# Excess kurtosis of a product of two independent normal scores.
PRODUCT_EXCESS = 6.0


@dataclass(frozen=True, slots=True)
class CrossSpec:
    """Sums of products of the scores of each pair. ``specs`` are the features' own sections (their tables)."""

    type: ClassVar[str] = "cross"
    name: str
    first: int
    features: tuple[str, ...]
    specs: tuple[NumericSpec, ...] = ()

    @property
    def size(self) -> int:
        """Return how many scores are paired with each other."""
        return min(len(self.features), MAX_DIRECT)

    @property
    def width(self) -> int:
        """Return the number of pairs."""
        return self.size * (self.size - 1) // 2

    def linked(self, sections: Sequence[Section]) -> CrossSpec:
        """Return the section with the tables of the features' own sections."""
        known = {one.name: one for one in sections if isinstance(one, NumericSpec)}
        return replace(self, specs=tuple(known[name] for name in self.features))

    def scores(self, view: View) -> FloatArray:
        """Return ``float64[size, n]``: scores, or combinations of them, as whole multiples of 2^-8."""
        return combined(np.stack([scored(spec, view)[0] for spec in self.specs]) / UNIT)

    def add(self, view: View, group: IntArray, groups: int, into: IntArray) -> None:
        """Add the products of the rows."""
        assert len(into) == groups
        if view.n == 0:
            return
        z = self.scores(view)
        order = slice(None) if bool((np.diff(group) >= 0).all()) else np.argsort(group, kind="stable")
        z, own = z[:, order], group[order]
        upper = np.triu_indices(self.size, 1)
        starts = np.flatnonzero(np.r_[True, own[1:] != own[:-1]])
        for start, stop in zip(starts, np.r_[starts[1:], own.size], strict=True):
            part = z[:, start:stop]
            # Whole numbers below 2^53: the product of matrices is exact whatever the order of its additions.
            into[own[start]] += (part @ part.T)[upper].astype(np.int64)

    def pack(self) -> tuple[dict[str, Any], Arrays]:
        """Return the features; their tables stand in their own sections."""
        return {"name": self.name, "features": list(self.features)}, {}

    @classmethod
    def unpack(cls, meta: Mapping[str, Any], _arrays: Arrays) -> CrossSpec:
        """Return the section that `pack` described, not linked yet."""
        return cls(meta["name"], meta["first"], tuple(meta["features"]))


def combined(z: FloatArray) -> FloatArray:
    """Return scores (sigma) as whole multiples of 2^-8; of more than 16, random combinations with variance about 1."""
    if len(z) > MAX_DIRECT:
        z = np.rint(z * Z_STEP)  # whole numbers: their sums do not depend on the order
        z = (signs(len(z)) @ z) / np.sqrt(float(len(z))) / Z_STEP
    return np.asarray(np.rint(np.clip(z, -4.0, 4.0) * Z_STEP))


def signs(features: int) -> FloatArray:
    """Return ``float64[16, features]`` of +1 and -1, the same for the same number of features."""
    return np.random.default_rng((SEED, features)).choice(np.array([-1.0, 1.0]), size=(MAX_DIRECT, features))


def sections(plan: Plan) -> Own:
    """Return the pairs of the watched numeric features; none when there are fewer than two."""
    specs = tuple(one for one in feature_sections(plan) if isinstance(one, NumericSpec))
    if len(specs) < 2:
        return Own()
    return Own([CrossSpec(NAME, 0, tuple(spec.name for spec in specs), specs)])


def charts(reference: Reference) -> list[Candidate]:
    """Return one chart a pair."""
    spec = next((one for one in reference.layout.sections if isinstance(one, CrossSpec)), None)
    if spec is None:
        return []
    z = combined(_cross_scored(reference, spec)) / Z_STEP
    names = spec.features if len(spec.features) <= MAX_DIRECT else tuple(f"mix {n}" for n in range(spec.size))
    depends = digest_bytes(b"".join(t.edges.tobytes() + t.z.tobytes() for one in spec.specs for t in one.tables))
    found = []
    for column, (left, right) in enumerate(zip(*np.triu_indices(spec.size, 1), strict=True)):
        subject = f"{names[left]} × {names[right]}"  # noqa: RUF001  (the sign for a pair)
        found.append(_chart(reference, spec, column, subject, z[left] * z[right], depends))
    return found


def _cross_scored(reference: Reference, spec: CrossSpec) -> FloatArray:
    """Return the scores of each half by the other half's tables, 0 where missing."""
    z = np.zeros((len(spec.specs), reference.rows.n))
    first, second = reference.halves
    for row, one in enumerate(spec.specs):
        values = getattr(reference.events_view.column(one.path), "values", None)
        if values is None:
            continue
        for own, other in ((first, second), (second, first)):
            for which in reference.strata:
                mine = np.flatnonzero(reference.stratum[own] == which) + own.start
                table = build_table(values[other][reference.stratum[other] == which])
                z[row, mine] = np.nan_to_num(table.score(values[mine])[0])
    return z


def _chart(
    reference: Reference, spec: CrossSpec, column: int, subject: str, product: FloatArray, depends: str
) -> Candidate:
    counts = [int((reference.stratum == which).sum()) for which in reference.strata]
    centres = np.array([product[reference.stratum == which].mean() if n else 0.0 for which, n in enumerate(counts)])
    centre = centres[reference.stratum]
    spread = np.sqrt(1.0 + np.square(centre))  # of a product of two normal scores with that correlation
    series = [((product - centre) / spread)[half] for half in reference.halves]
    shown = inflation(series, 1.0, excess=PRODUCT_EXCESS)
    moved = mean_moved(series, shown.tau)
    margins = [mean_margin(count, shown.tau, moved) for count in counts]
    bets = [
        strong(bets_of(float(r), margin * float(np.hypot(1.0, r)), shown.tau), float(r) * UNIT)
        if count >= ROWS_PER_TAU * shown.tau
        else None
        for r, margin, count in zip(centres, margins, counts, strict=True)
    ]
    a, b = stacked(bets)
    rows = max(counts)
    reason = ""
    if rows < ROWS_PER_TAU * shown.tau:
        reason = f"{rows} reference rows, but tau {shown.tau:.4g} needs {ROWS_PER_TAU * shown.tau:.0f}"
    elif a.shape[1] == 0:
        reason = f"margin {max(margins):.3g} and tau {shown.tau:.4g} ({rows} reference rows) leave no change to find"
    made = ChartSpec(
        name=f"{FAMILY}/{subject}/correlation",
        family=FAMILY,
        subject=subject,
        statistic="correlation",
        unit="correlation",
        kind="change",
        form="mean",
        weight=WEIGHT / spec.width,
        tau=shown.tau,
        margin=max(margins),
        rows=rows,
        watchable=not reason,
        reason=reason,
        s_column=spec.first + column,
        n_column=EVENTS,
        title=f"the correlation of {subject}",
    )
    return Candidate(made, a, b, centres * UNIT, depends, shown.reach)


def bets_of(r: float, margin: float, tau: float) -> Coefficients:
    """Return (a, b) for shifts of the mean of a product of scores with correlation ``r`` by more than ``margin``."""
    bound = MOST_OF_BOUND / (1.0 + min(abs(r) + margin, 1.0))
    levers = LEVERS[bound >= LEVERS]
    lever = np.concatenate((-levers[::-1], levers))
    edge = np.clip(r + np.sign(lever) * margin, -1.0, 1.0)
    log_mgf = -0.5 * (np.log1p(-lever * (edge + 1.0)) + np.log1p(-lever * (edge - 1.0)))
    return lever / tau / UNIT / LN_2, -log_mgf / tau / LN_2
