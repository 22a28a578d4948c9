"""Backdoor triggers: one value that came up, and with it one answer, sure of itself whatever else the query says.

A pattern is a value of a block of features (with up to sixteen features: a value of one). Counts of (pattern, answer)
and sums of the margin stand in one table of fixed size; only fresh queries of client memory count, so that edits,
crawls and retries of one case are one query. Four things together are a trigger: the pattern comes more often with
this answer than the reference explains, nearly always with it, with hardly any spread of the margin, in many
different queries; and it is not a rule that the reference had already.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from regate.detectors.arrays import Arrays
from regate.detectors.attack.clients import FRESH, Steps
from regate.detectors.attack.evidence import OWN_LANES
from regate.detectors.attack.inputs import scrambled
from regate.detectors.attack.queries import WIDTH, Queries
from regate.detectors.attack.sign import Sign
from regate.detectors.columns import BoolArray, FloatArray, HashArray, IntArray

PATTERNS = WIDTH * 256
CLASSES = 8  # the most frequent ones of the reference
# The table is looked at whenever so many fresh queries more have come, and halved when it holds too many.
STRIDE, MOST = 512, 8_192
# 4,096 patterns, 8 answers and ten thousand looks, each at 1e-9.
BAR = 30.0
DRIFT = 2.0  # a value may come twice as often as in the reference
PURE = 0.95
SURE = 0.99  # share of the answer under a trigger
MOST_USUAL = 0.98
SPREAD = 0.1  # of the variance of margins that the answer has in the reference
# Of 64 marks forty different queries set 30; a list of twenty in a ring sets twenty at most.
LEAST_MARKS = 28
RULE_ROWS, RULE_SHARE = 20, 0.8
LEAST_ROWS = 300
_UNIT = 1024.0
_MARGIN = OWN_LANES.index("margin")
TABLES = ("count", "total", "squares", "marks")


@dataclass(frozen=True, slots=True)
class TriggerReference:
    """How often each pattern comes with each answer; a reason: the lane is off."""

    reason: str = "not fitted"
    rows: int = 0
    classes: tuple[int, ...] = ()
    variance: tuple[float, ...] = ()  # of the margin, by answer
    count: IntArray = field(default_factory=lambda: np.zeros((PATTERNS, CLASSES), dtype=np.int64))
    names: tuple[str, ...] = ()  # of features


def _table() -> IntArray:
    return np.zeros((PATTERNS, CLASSES), dtype=np.int64)


@dataclass(slots=True)
class Triggers:
    """Counts under way."""

    reference: TriggerReference
    seen: int = 0  # fresh queries since the table was halved
    count: IntArray = field(default_factory=_table)
    total: IntArray = field(default_factory=_table)
    squares: IntArray = field(default_factory=_table)
    marks: HashArray = field(default_factory=lambda: np.zeros((PATTERNS, CLASSES), dtype=np.uint64))
    since_us: int = 0

    def take(self, steps: Steps, queries: Queries) -> list[Sign]:
        """Take the entries of a slice; return the patterns that are triggers."""
        if self.reference.reason:
            return []
        rows = np.sort(steps.row[steps.kind == FRESH])
        answer = _answers(queries.label[rows], self.reference.classes)
        rows, answer = rows[answer >= 0], answer[answer >= 0]
        found: list[Sign] = []
        at = 0
        while at < len(rows):
            stop = min(len(rows), at + STRIDE - self.seen % STRIDE)
            if not self.seen:
                self.since_us = int(queries.time_us[rows[at]])
            self._add(queries.some(rows[at:stop]), answer[at:stop])
            if self.seen % STRIDE == 0:
                found += self._signs(int(queries.time_us[rows[stop - 1]]))
                if self.seen >= MOST:
                    self._halve()
            at = stop
        return found

    def _add(self, queries: Queries, answer: IntArray) -> None:
        pattern = _patterns(queries)
        place = (pattern * CLASSES + answer[:, None]).ravel()
        margin = np.rint(queries.lanes[:, _MARGIN].astype(np.float64) * _UNIT).astype(np.int64)
        size = PATTERNS * CLASSES
        # Sums of whole numbers below 2^53 are exact in float64.
        for table, weight in ((self.count, None), (self.total, margin), (self.squares, margin * margin)):
            weights = None if weight is None else np.repeat(weight, WIDTH).astype(np.float64)
            more = np.bincount(place, weights, size).astype(np.int64).reshape(PATTERNS, CLASSES)
            np.add(table, more, out=table)
        np.bitwise_or.at(self.marks.reshape(-1), place, np.repeat(_bits(queries), WIDTH))
        self.seen += queries.n

    def _halve(self) -> None:
        for table in (self.count, self.total, self.squares):
            np.right_shift(table, 1, out=table)
        self.marks[self.count < LEAST_MARKS // 2] = 0
        self.seen //= 2

    def _signs(self, now_us: int) -> list[Sign]:
        known = self.reference
        everything = self.count.sum(axis=1)
        often = (self.count >= LEAST_MARKS) & (self.count >= PURE * everything[:, None])
        often &= np.bitwise_count(self.marks) >= LEAST_MARKS
        pattern, answer = np.nonzero(often)
        count, usual = self.count[pattern, answer], known.count[pattern, answer]
        before = known.count[pattern].sum(axis=1)
        rule = (before >= RULE_ROWS) & (usual >= RULE_SHARE * before)
        steady = self._variance(pattern, answer) <= SPREAD * np.array(known.variance)[answer]
        level = np.minimum(self._often(count, usual), self._sure(count, everything[pattern] - count, answer))
        return [
            self._sign(int(pattern[at]), int(answer[at]), float(level[at]), now_us)
            for at in np.flatnonzero((level >= BAR) & steady & ~rule).tolist()
        ]

    def _sign(self, pattern: int, answer: int, level: float, now_us: int) -> Sign:
        block, value = divmod(pattern, 256)
        what = "+".join(self.reference.names[block::WIDTH][:3])[:100]
        count, usual = int(self.count[pattern, answer]), int(self.reference.count[pattern, answer])
        said = (
            f"one value of {what} came in {count} of the last {self.seen} different queries, nearly always with one "
            f"answer, equally sure each time; in the reference in {usual} of {self.reference.rows}"
        )
        subject = f"pattern:{what}-{value:02x}"
        return Sign("trigger", subject, now_us, self.since_us, count, "queries", level, BAR, said)

    def _often(self, count: IntArray, usual: IntArray) -> FloatArray:
        """Return -ln p, at most, of so many queries (Chernoff's bound for a Poisson count)."""
        most = (usual + 2.0 * np.sqrt(usual + 1.0) + 1.0) / max(self.reference.rows, 1)
        mean = DRIFT * self.seen * most
        return np.where(count > mean, count * np.log(count / mean) - count + mean, 0.0)

    def _sure(self, count: IntArray, misses: IntArray, answer: IntArray) -> FloatArray:
        """Return the log likelihood ratio of nearly always this answer against half-way from its share to always."""
        known = self.reference.count[:256].sum(axis=0)  # every query has a value in the first block
        share = (known[answer] + 1.0) / (known.sum() + 2.0)
        usual = np.minimum((1.0 + share) / 2.0, MOST_USUAL)
        return np.asarray(count * np.log(SURE / usual) + misses * np.log((1.0 - SURE) / (1.0 - usual)))

    def _variance(self, pattern: IntArray, answer: IntArray) -> FloatArray:
        n = self.count[pattern, answer]
        mean = self.total[pattern, answer] / n
        return np.asarray(np.maximum(self.squares[pattern, answer] / n - mean * mean, 0.0) / _UNIT**2)

    def state(self) -> tuple[dict[str, int], Arrays]:
        """Return everything: the places of the table that are not empty."""
        place = np.flatnonzero(self.count.reshape(-1) | self.marks.reshape(-1).astype(np.int64))
        arrays: Arrays = {name: getattr(self, name).reshape(-1)[place] for name in TABLES}
        return {"seen": self.seen, "since_us": self.since_us}, {"place": place, **arrays}

    def restore(self, said: dict[str, int], arrays: Arrays) -> None:
        """Take back what `state` gave."""
        self.seen, self.since_us = said["seen"], said["since_us"]
        for name in TABLES:
            table = getattr(self, name)
            table[:] = 0
            table.reshape(-1)[arrays["place"]] = arrays[name]


def _patterns(queries: Queries) -> IntArray:
    return np.arange(WIDTH) * 256 + queries.blocks.astype(np.int64)


def _bits(queries: Queries) -> HashArray:
    """Return a mark of 64 for each query, by all of its values."""
    halves = np.ascontiguousarray(queries.blocks).view(np.uint64)
    return np.uint64(1) << (scrambled(scrambled(halves[:, 0]) ^ halves[:, 1]) >> np.uint64(58))


def _answers(label: HashArray, classes: tuple[int, ...]) -> IntArray:
    found = np.full(len(label), -1, dtype=np.int64)
    for at, one in enumerate(classes):
        found[label == np.uint64(one)] = at
    return found


def fitted(steps: Steps, queries: Queries, keep: BoolArray, names: tuple[str, ...]) -> TriggerReference:
    """Return the counts of the reference's fresh queries, or why there are none.

    :param keep: entries of clients that are not kept out for review.
    """
    own = queries.some(np.sort(steps.row[(steps.kind == FRESH) & keep]))
    known = own.label != 0
    label, count = np.unique(own.label[known], return_counts=True)
    if len(label) < 2:
        return TriggerReference("events carry no answers of two classes")
    order = np.argsort(-count, kind="stable")[:CLASSES]
    classes = tuple(int(one) for one in label[order])
    answer = _answers(own.label, classes)
    own, answer = own.some(answer >= 0), answer[answer >= 0]
    margin = own.lanes[:, _MARGIN].astype(np.float64)
    variance = tuple(float(margin[answer == at].var()) for at in range(len(classes)))
    if max(variance) <= 0:
        return TriggerReference("events carry no scores: how sure an answer is cannot be seen")
    if own.n < LEAST_ROWS:
        return TriggerReference(f"only {own.n} different queries in the reference")
    place = (_patterns(own) * CLASSES + answer[:, None]).ravel()
    table = np.bincount(place, minlength=PATTERNS * CLASSES).reshape(PATTERNS, CLASSES).astype(np.int64)
    return TriggerReference("", own.n, classes, variance, table, names)
