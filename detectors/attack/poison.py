"""Poisoned feedback: a source whose labels deny confident predictions, or contradict earlier labels, as no other's do.

Each source has bets against it, over all its labels, by class and by cohort, and over contradictions: nobody can win
them as long as at most a bounded share of its labels is so. The bound is taken from the reference and from the other
sources' labels of now, before each label is looked at: what changes for all (concept drift) moves the bound along.

A bet is a product of likelihood ratios, an e-process (Ramdas, Grünwald, Vovk, Shafer 2023); begun anew at every loss it
is an e-detector, which by chance reaches the bar less than once in e^bar labels (Shin, Ramdas, Rinaldo 2024).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import log, sqrt

import numpy as np

from regate.detectors.arrays import Arrays
from regate.detectors.attack.sign import Sign
from regate.detectors.columns import BoolArray, Categorical, HashArray, Numeric
from regate.detectors.marks import Outcomes

ALL, CLASS, COHORT, FLIP = 0, 1, 2, 3  # lanes
# A million labels, seven bets on each (three alternatives count as one), give a false finding in ten.
BAR = log(7 * 3 * 1e7)
UNIT = float(1 << 20)
# A source may be wrong twice as often as the others, and half a percent more: sources differ.
TIMES, MORE = 2.0, 0.005
LARGEST_SHARE = 0.5  # beyond it nothing can be told
LEAST_OTHERS = 50  # labels by other sources, lately
# Counts are halved when they are so many: lately is some thousand labels ago.
LATELY = 4_096
CAPACITY = 4_096  # (source, lane, group)
GROUPS = 1_024  # (lane, group)
DENIED = 0.5  # half of the reference's predictions are more confident than this quantile
TRIMMED = 0.005
# Columns of an entry.
SOURCE, LANE, GROUP, TURN, LABELS, HITS, SEEN, LOW, MIDDLE, HIGH, SINCE, SINCE_LABELS, SINCE_HITS = range(13)

Key = tuple[int, int, int]
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class LabelReference:
    """Shares of the reference by (lane, group); a reason: the lanes are off."""

    reason: str = "the reference has no labels beside its predictions"
    margin: float = 0.0  # a prediction above it is confident
    shares: tuple[tuple[int, int, float], ...] = ()


@dataclass(slots=True)
class Poison:
    """Bets by source, and the totals of all sources."""

    reference: LabelReference
    capacity: int = CAPACITY
    entries: dict[Key, list[int]] = field(default_factory=dict)
    totals: dict[Place, list[int]] = field(default_factory=dict)  # labels, hits, how often halved
    alone: int = 0  # labels of which nothing could be said for want of other sources
    unnamed: int = 0
    dropped: int = 0
    shares: dict[Place, float] = field(init=False)

    def __post_init__(self) -> None:
        """Look shares up by place."""
        self.shares = {(lane, group): share for lane, group, share in self.reference.shares}

    def take(self, outcomes: Outcomes, source: HashArray, contradicted_by: HashArray, time_us: int) -> list[Sign]:
        """Take the outcomes of one closed cell in the join's order, and who sent labels that contradict others."""
        if self.reference.reason:
            return []
        found: list[Sign] = []
        if outcomes.n:
            denied = denies(outcomes, self.reference.margin).tolist()
            for row, (sender, groups) in enumerate(zip(source.tolist(), places(outcomes), strict=True)):
                if not sender:
                    self.unnamed += 1
                    continue
                for place in groups:
                    found += self._bet(sender, place, int(denied[row]), time_us)
                found += self._bet(sender, (FLIP, 0), 0, time_us)
        for sender in contradicted_by.tolist():
            if sender:
                found += self._bet(sender, (FLIP, 0), 1, time_us)
        return found

    def _bet(self, sender: int, place: Place, hit: int, time_us: int) -> Iterable[Sign]:
        total = self.totals.get(place)
        if total is None:
            if len(self.totals) >= GROUPS:
                return ()
            total = self.totals[place] = [0, 0, 0]
        own = self._entry((sender, *place), total[2])
        labels, hits = max(total[0] - own[LABELS], 0), max(total[1] - own[HITS], 0)
        told: tuple[Sign, ...] = ()
        if labels < LEAST_OTHERS:
            self.alone += place[0] == ALL
        else:
            bound = self._bound(place, labels, hits)
            if bound < LARGEST_SHARE:
                _move(own, bound, hit, time_us)
                if hit and max(own[LOW : HIGH + 1]) > BAR * UNIT:
                    told = (self._sign(own, labels, hits, time_us),)
        total[0] += 1
        total[1] += hit
        own[LABELS] += 1
        own[HITS] += hit
        own[SEEN] += 1
        if total[0] >= LATELY:
            total[:] = [total[0] // 2, total[1] // 2, total[2] + 1]
        return told

    def _bound(self, place: Place, labels: int, hits: int) -> float:
        others = (hits + 2.0 * sqrt(hits + 1.0) + 1.0) / labels
        return TIMES * max(self.shares.get(place, 0.0), others) + MORE

    def _entry(self, key: Key, turn: int) -> list[int]:
        own = self.entries.get(key)
        if own is None:
            if len(self.entries) >= self.capacity:
                self._make_room()
            own = self.entries[key] = [*key, turn, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        elif own[TURN] < turn:  # what was halved meanwhile
            behind = turn - own[TURN]
            own[LABELS], own[HITS], own[TURN] = own[LABELS] >> behind, own[HITS] >> behind, turn
        return own

    def _make_room(self) -> None:
        """Drop the quarter that was used least, those without evidence first."""
        order = sorted(self.entries, key=lambda key: (max(self.entries[key][LOW : HIGH + 1]) > 0, self._used(key), key))
        for key in order[: max(self.capacity // 4, 1)]:
            del self.entries[key]
            self.dropped += 1

    def _used(self, key: Key) -> int:
        return self.entries[key][SEEN]

    def _sign(self, own: list[int], labels: int, hits: int, time_us: int) -> Sign:
        lane = own[LANE]
        subject = f"source:{own[SOURCE]:016x}"
        who = {ALL: "", CLASS: " of one class", COHORT: " of one cohort", FLIP: ""}[lane]
        what = "contradict an earlier label" if lane == FLIP else "deny a confident prediction"
        usual = self.shares.get((lane, own[GROUP]), 0.0)
        said = (
            f"{own[SINCE_HITS]} of {own[SINCE_LABELS]} labels{who} from {subject} {what}; "
            f"of the other sources' {hits} of {labels}, of the reference's {usual:.1%}"
        )
        level = max(own[LOW : HIGH + 1]) / UNIT
        name = "flips" if lane == FLIP else "labels"
        return Sign(name, subject, time_us, own[SINCE], own[SINCE_LABELS], "labels", level, BAR, said)

    def state(self) -> tuple[dict[str, int], Arrays]:
        """Return everything as numbers and arrays."""
        wide = [[*divmod(key[0], 1 << 32), key[1], *divmod(key[2], 1 << 32)] for key in self.entries]
        places = [[place[0], *divmod(place[1], 1 << 32), *total] for place, total in self.totals.items()]
        return {"alone": self.alone, "unnamed": self.unnamed, "dropped": self.dropped}, {
            "keys": np.array(wide, dtype=np.int64).reshape(len(wide), 5),
            "entries": np.array([own[TURN:] for own in self.entries.values()], dtype=np.int64).reshape(len(wide), 10),
            "totals": np.array(places, dtype=np.int64).reshape(len(places), 6),
        }

    def restore(self, said: dict[str, int], arrays: Arrays) -> None:
        """Take back what `state` gave."""
        self.alone, self.unnamed, self.dropped = said["alone"], said["unnamed"], said["dropped"]
        self.entries, self.totals = {}, {}
        for (high, low, lane, far, near), rest in zip(arrays["keys"].tolist(), arrays["entries"].tolist(), strict=True):
            key = ((high << 32) + low, lane, (far << 32) + near)
            self.entries[key] = [*key, *rest]
        for lane, far, near, *total in arrays["totals"].tolist():
            self.totals[lane, (far << 32) + near] = total


def _move(own: list[int], bound: float, hit: int, time_us: int) -> None:
    """Bet against a share of at most ``bound``, at three odds; a lost bet begins anew."""
    if max(own[LOW : HIGH + 1]) <= 0:
        own[SINCE], own[SINCE_LABELS], own[SINCE_HITS] = time_us, 0, 0
    for at, share in ((LOW, 3.0 * bound), (MIDDLE, max(0.25, 2.0 * bound)), (HIGH, max(0.6, 1.5 * bound))):
        share = min(share, 0.95)  # noqa: PLW2901
        own[at] = max(own[at] + round((log(share / bound) if hit else log((1 - share) / (1 - bound))) * UNIT), 0)
        own[at] = min(own[at], round(2 * BAR * UNIT))  # who stops is forgiven as fast as he was found
    own[SINCE_LABELS] += 1
    own[SINCE_HITS] += hit


def margins(outcomes: Outcomes) -> np.ndarray:
    """Return how far each prediction is from another answer, NaN where its score is unknown."""
    score = outcomes.column("score")
    if not isinstance(score, Numeric) or outcomes.shape.type == "regression":
        return np.full(outcomes.n, np.nan)
    gap = 2.0 * score.values - 1.0  # of more than two classes the score is the largest: at least so far
    return np.asarray(np.abs(gap) if outcomes.shape.type == "binary" else np.maximum(gap, 0.0))


def denies(outcomes: Outcomes, margin: float) -> BoolArray:
    """Return which labels deny a confident prediction; where no prediction has a score (margin 0), any."""
    wrong = outcomes.wrong == 1
    return np.asarray(wrong if margin <= 0 else wrong & (np.nan_to_num(margins(outcomes), nan=-1.0) > margin))


def places(outcomes: Outcomes) -> list[list[Place]]:
    """Return the (lane, group) that each outcome counts in."""
    found: list[list[Place]] = [[(ALL, 0)] for _ in range(outcomes.n)]
    if outcomes.label is not None and outcomes.shape.type != "regression":
        for own, label in zip(found, outcomes.label.tolist(), strict=True):
            own.append((CLASS, label))
    for number, (attribute, _) in enumerate(outcomes.shape.cohorts):
        column = outcomes.column(f"cohort/{attribute}")
        if isinstance(column, Categorical):
            for own, code in zip(found, column.codes.tolist(), strict=True):
                if code >= 0:
                    own.append((COHORT, number << 16 | code))
    return found


def fitted(outcomes: Outcomes | None, client: HashArray | None, contradicted: BoolArray | None) -> LabelReference:
    """Return the shares of reference labels (aligned with its rows) that deny confident predictions.

    Clients with the most denied predictions are left out: one poisoner in the reference must not set the bound.
    """
    if outcomes is None or outcomes.predicted is None or not bool(outcomes.known.any()):
        return LabelReference()
    keep = outcomes.known
    sure = margins(outcomes.some(keep))
    margin = float(np.nanquantile(sure, DENIED)) if bool(np.isfinite(sure).any()) else 0.0
    denied = denies(outcomes, margin) & keep
    if client is not None:
        ids, inverse = np.unique(client, return_inverse=True)
        count = np.bincount(inverse[denied], minlength=len(ids))
        worst = np.argsort(-count, kind="stable")[: int(TRIMMED * len(ids))]
        keep = keep & ~np.isin(inverse, worst)
    own = outcomes.some(keep)
    tally: dict[Place, list[int]] = {}
    for groups, hit in zip(places(own), denied[keep].tolist(), strict=True):
        for place in groups:
            counted = tally.setdefault(place, [0, 0])
            counted[0] += 1
            counted[1] += hit
    shares = [(lane, group, (hits + 1.0) / (n + 1.0)) for (lane, group), (n, hits) in sorted(tally.items())]
    flips = 0.0 if contradicted is None else float(contradicted[outcomes.known].mean())
    return LabelReference("", margin, (*shares, (FLIP, 0, flips)))
