"""Multivariate drift: a change of correlation alone, which no chart of a single feature can see.

The statistic of a pair is the sum of products of the two normal scores. For many features the pairs are those of 16
fixed random combinations with signs +1 and -1: what changes many correlations at once is still seen, one pair of a
thousand is not. A feature of two categories has two scores, what its halves of a normal distribution expect.

A product of two normal scores with correlation r has log moment generating function
``K_r(l) = -ln((1 - l(r + 1))(1 - l(r - 1))) / 2``, so ``exp(l u - K_q(l))`` is an e-value, where q is the correlation
at the edge of the margin on l's side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from regate.config.canonical import digest, digest_bytes
from regate.config.model import Family
from regate.detectors.candidate import Candidate, Own, Plan, Reference, made_of, stacked, strong
from regate.detectors.columns import Categorical, FloatArray, IntArray, Numeric
from regate.detectors.dependence import ROWS_PER_TAU, inflation, mean_margin, mean_moved
from regate.detectors.feature_drift import feature_sections
from regate.detectors.grids import STEADY, Coefficients
from regate.detectors.layout import EVENTS, ChartSpec
from regate.detectors.numerics import LN_2, UNIT, Z_CLIP, normal_density, normal_quantile
from regate.detectors.ranktable import build_table
from regate.detectors.sections import KEPT, Arrays, CategoricalSpec, NumericSpec, Section, cells_of, scored
from regate.detectors.views import View

FAMILY: Family = "multivariate_drift"
NAME = "multivariate"
WEIGHT = 1.0  # of all pairs together
# All pairs of so many features; of more, those of as many random combinations.
MAX_DIRECT = 16
SEED = 20_250_301
# Scores in units of 2^-8: products come in units of 2^-16.
Z_STEP = 1 << 8
COARSE = UNIT // Z_STEP
# Whole numbers below 2^53 add up exactly in float64, in any order: of products of at most (4 * 2^8)^2 = 2^20, so many.
MOST_ROWS = (1 << 53) // int(Z_CLIP * Z_STEP) ** 2
# A matrix product for each group costs as much as adding up all pairs at once where groups are shorter than this.
LONG = 64
LEVERS = np.array([0.15, 0.25, 0.4, 0.5])
# This much is looked for however short the reference (`regate.detectors.grids.STEADY`).
ALWAYS_LEVER = 0.4
# The e-value of a product exists only below 1 / (1 + |r|); near it a single event could be worth everything.
MOST_OF_BOUND = 0.7
# Excess kurtosis of a product of two independent normal scores.
PRODUCT_EXCESS = 6.0

# The score of a rarer category is so large that bets which hold for normal scores would gain by it.
LEAST_SHARE = 0.05

# Features whose scores are in memory at once while they are combined.
AT_ONCE = 32

Source = NumericSpec | CategoricalSpec
Write = Callable[[int, FloatArray], None]


@dataclass(frozen=True, slots=True)
class CrossSpec:
    """Sums of products of the scores of each pair.

    ``specs`` are the features' own sections (their tables), ``halves`` the two scores of each feature of two
    categories (in units of 2^-8, in the order of its kept categories), ``scale`` the standard deviations of random
    combinations in the reference; empty where features are paired themselves.
    """

    type: ClassVar[str] = "cross"
    name: str
    first: int
    features: tuple[str, ...]
    halves: tuple[tuple[int, ...], ...]  # empty for a numeric feature
    scale: tuple[float, ...] = ()
    specs: tuple[Source, ...] = ()

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
        known = {one.name: one for one in sections if isinstance(one, NumericSpec | CategoricalSpec)}
        return replace(self, specs=tuple(known[name] for name in self.features))

    def scores(self, view: View) -> FloatArray:
        """Return ``float64[size, n]``: scores, or combinations of them, as whole multiples of 2^-8; 0 where missing."""

        def write(row: int, into: FloatArray) -> None:
            _score(self.specs[row], self.halves[row], view, into)

        return combined(len(self.specs), view.n, write, self.scale)

    def add(self, view: View, group: IntArray, groups: int, into: IntArray) -> None:
        """Add the products of the rows."""
        assert len(into) == groups
        assert view.n <= MOST_ROWS
        if view.n == 0:
            return
        z = self.scores(view)
        order = slice(None) if bool((np.diff(group) >= 0).all()) else np.argsort(group, kind="stable")
        z, own = z[:, order], group[order]
        starts = np.flatnonzero(np.r_[True, own[1:] != own[:-1]])
        left, right = np.triu_indices(self.size, 1)
        if view.n < LONG * starts.size:
            sums = [np.add.reduceat(z[one] * z[other], starts) for one, other in zip(left, right, strict=True)]
            into[own[starts]] += np.stack(sums, axis=1).astype(np.int64)
            return
        for start, stop in zip(starts, np.r_[starts[1:], own.size], strict=True):
            part = z[:, start:stop]
            into[own[start]] += (part @ part.T)[left, right].astype(np.int64)

    def pack(self) -> tuple[dict[str, Any], Arrays]:
        """Return features and their scores; the tables stand in the features' own sections."""
        return {
            "name": self.name,
            "features": list(self.features),
            "halves": [list(pair) for pair in self.halves],
            "scale": list(self.scale),
        }, {}

    @classmethod
    def unpack(cls, meta: Mapping[str, Any], _arrays: Arrays) -> CrossSpec:
        """Return the section that `pack` described, not linked yet."""
        halves = tuple(tuple(pair) for pair in meta["halves"])
        return cls(meta["name"], meta["first"], tuple(meta["features"]), halves, tuple(meta["scale"]))


def _score(spec: Source, halves: tuple[int, ...], view: View, into: FloatArray) -> None:
    """Write the scores of a feature in units of 2^-8, where ``into`` is 0."""
    column = view.column(spec.path)
    if isinstance(spec, CategoricalSpec):
        if isinstance(column, Categorical):
            score = np.zeros(spec.width)
            score[KEPT : KEPT + 2] = halves
            np.take(score, spec.cells(column), out=into, mode="clip")
    elif isinstance(column, Numeric):
        if len(spec.tables) == 1:
            np.take(spec.tables[0].coarse, cells_of(spec, view, column), out=into, mode="clip")
        else:
            into[:] = np.rint(scored(spec, view)[0] / COARSE)


def halves_of(share: float) -> tuple[int, int]:
    """Return the scores of two categories, the first of which has this share: the means of a cut normal distribution.

    >>> halves_of(0.5)
    (-204, 204)
    """
    density = float(normal_density(normal_quantile(np.array([share])))[0])
    return -round(density / share * Z_STEP), round(density / (1.0 - share) * Z_STEP)


def combined(features: int, n: int, write: Write, scale: tuple[float, ...] = ()) -> FloatArray:
    """Return the scores that are paired: of the features, or of more than 16 their random combinations.

    :param write: puts the scores of a feature, whole multiples of 2^-8, into ``n`` zeros.
    :param scale: standard deviations of the combinations; without them they are plain sums.
    """
    if features <= MAX_DIRECT:
        return _written(range(features), n, write)
    mixed, sign = np.zeros((MAX_DIRECT, n)), signs(features)
    for first in range(0, features, AT_ONCE):
        rows = range(first, min(first + AT_ONCE, features))
        mixed += sign[:, rows.start : rows.stop] @ _written(rows, n, write)  # whole numbers: exact in any order
    if not scale:
        return mixed
    return np.asarray(np.rint(np.clip(mixed / np.array(scale)[:, None], -Z_CLIP * Z_STEP, Z_CLIP * Z_STEP)))


def _written(rows: range, n: int, write: Write) -> FloatArray:
    z = np.zeros((len(rows), n))
    for place, row in enumerate(rows):
        write(row, z[place])
    return z


def signs(features: int) -> FloatArray:
    """Return ``float64[16, features]`` of +1 and -1, the same for the same number of features."""
    return np.random.default_rng((SEED, features)).choice(np.array([-1.0, 1.0]), size=(MAX_DIRECT, features))


def sections(plan: Plan) -> Own:
    """Return the pairs of the watched features that have a score; none when there are fewer than two."""
    specs: list[Source] = []
    halves: list[tuple[int, ...]] = []
    for one in feature_sections(plan):
        if isinstance(one, NumericSpec) and any(table.rows for table in one.tables):
            specs.append(one)
            halves.append(())
        elif isinstance(one, CategoricalSpec) and len(one.kept) == 2 and not one.rare:
            column = plan.view.column(one.path)
            assert isinstance(column, Categorical)
            cells = one.cells(column)
            counts = np.bincount(cells, minlength=one.width)[KEPT:]
            if counts.min() >= LEAST_SHARE * counts.sum():
                specs.append(one)
                halves.append(_halves(one, cells))
    if len(specs) < 2:
        return Own()
    whole = CrossSpec(NAME, 0, tuple(spec.name for spec in specs), tuple(halves), (), tuple(specs))
    if len(specs) <= MAX_DIRECT:
        return Own([whole])
    spread = whole.scores(plan.view).std(axis=1) / Z_STEP
    return Own([replace(whole, scale=tuple(max(float(one), 1.0 / Z_STEP) for one in spread))])


def charts(reference: Reference) -> list[Candidate]:
    """Return one chart a pair."""
    spec = next((one for one in reference.layout.sections if isinstance(one, CrossSpec)), None)
    if spec is None:
        return []
    z = _cross_scored(reference, spec) / Z_STEP
    names = spec.features if not spec.scale else tuple(f"mix {n}" for n in range(spec.size))
    depends = _depends(spec)
    found = []
    for column, (left, right) in enumerate(zip(*np.triu_indices(spec.size, 1), strict=True)):
        subject = f"{names[left]} × {names[right]}"  # noqa: RUF001  (the sign for a pair)
        own = depends[left] + depends[right] if not spec.scale else "".join(depends)
        chart = _chart(reference, spec, column, subject, z[left] * z[right], own)
        found.append(made_of(chart, names[left], names[right]))
    return found


def _halves(spec: CategoricalSpec, cells: IntArray) -> tuple[int, ...]:
    """Return the scores of a feature of two categories where it has these cells; the later name is the upper one."""
    counts = np.bincount(cells, minlength=spec.width)[KEPT:]
    if not counts.all():
        return (0, 0)
    order = sorted(range(2), key=lambda index: spec.kept[index])
    low, high = halves_of(float(counts[order[0]] / counts.sum()))
    return (low, high) if order[0] == 0 else (high, low)


def _cross_scored(reference: Reference, spec: CrossSpec) -> FloatArray:
    """Return the scores that are paired, each half's by the other half's tables, in units of 2^-8, 0 where missing."""
    first, second = reference.halves

    def write(row: int, into: FloatArray) -> None:
        one = spec.specs[row]
        column = reference.events_view.column(one.path)
        for own, other in ((first, second), (second, first)):
            if isinstance(one, CategoricalSpec) and isinstance(column, Categorical):
                cells = one.cells(column)
                score = np.zeros(one.width)
                score[KEPT:] = _halves(one, cells[other])
                into[own] = score[cells[own]]
                continue
            if not isinstance(column, Numeric):
                continue
            for which in reference.strata:
                mine = np.flatnonzero(reference.stratum[own] == which) + own.start
                table = build_table(column.values[other][reference.stratum[other] == which])
                into[mine] = np.rint(np.nan_to_num(table.score(column.values[mine])[0]) * Z_STEP)

    return combined(len(spec.specs), reference.rows.n, write, spec.scale)


def _depends(spec: CrossSpec) -> list[str]:
    """Return the digest of what the score of each feature is made with."""
    found = []
    for one, halves in zip(spec.specs, spec.halves, strict=True):
        if isinstance(one, CategoricalSpec):
            found.append(digest([list(one.kept), list(halves)]))
        else:
            found.append(digest_bytes(b"".join(t.edges.tobytes() + t.z.tobytes() for t in one.tables)))
    return found


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
        strong(bets_of(float(r), margin * float(np.hypot(1.0, r)), shown.tau, count), float(r) * UNIT)
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
        sd=float(np.hypot(1.0, np.abs(centres).max())),
    )
    return Candidate(made, a, b, centres * UNIT, depends, shown.reach)


def bets_of(r: float, margin: float, tau: float, rows: int) -> Coefficients:
    """Return (a, b) for shifts of the mean of a product of scores with correlation ``r`` by more than ``margin``.

    :param rows: of the reference: smaller bets than it knows its own correlation for are left out.
    """
    bound = MOST_OF_BOUND / (1.0 + min(abs(r) + margin, 1.0))
    levers = LEVERS[bound >= LEVERS]
    levers = levers[levers >= min(ALWAYS_LEVER, levers.max(), STEADY * float(np.sqrt(tau / max(rows, 1))))]
    lever = np.concatenate((-levers[::-1], levers))
    edge = np.clip(r + np.sign(lever) * margin, -1.0, 1.0)
    log_mgf = -0.5 * (np.log1p(-lever * (edge + 1.0)) + np.log1p(-lever * (edge - 1.0)))
    return lever / tau / UNIT / LN_2, -log_mgf / tau / LN_2
