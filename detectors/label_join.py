"""Late labels meet their predictions: bounded memory, first label wins, contradictions are counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from regate.detectors.columns import BoolArray, HashArray, IntArray
from regate.detectors.marks import Outcomes, OutcomeShape, ages
from regate.detectors.outcomes import LabelRows, Predictions, sampled, wrong

# A segment holds less than twice this, 24 bytes each: a snapshot chunk stays below a record's default limit of 1 MB.
SEGMENT = 16_384
# A remembered prediction is one integer: its value in the low 64 bits, its mark above.
VALUE = (1 << 64) - 1
_SHAPE = OutcomeShape()


@dataclass(slots=True)
class Segment:
    """Predictions that came after each other, and the labels that came for them."""

    number: int
    predictions: dict[int, int] = field(default_factory=dict)  # event id -> value and, above it, mark; no label yet
    answered: dict[int, int] = field(default_factory=dict)  # event id -> first label

    def __len__(self) -> int:
        return len(self.predictions) + len(self.answered)


@dataclass(frozen=True, slots=True)
class Taken:
    """What the labels of one cell decided."""

    outcomes: Outcomes
    stratum: IntArray  # of each outcome
    matched: BoolArray  # which outcomes met a remembered prediction
    contradicted: IntArray  # strata of labels that contradict an earlier one
    source: HashArray  # who sent the label of each outcome, 0 unknown
    contradicted_by: HashArray  # who sent each label that contradicts


# Prediction with its mark, label, stratum, whether the prediction was remembered, who sent the label.
Pair = tuple[int, int, int, bool, int]
Against = tuple[int, int]  # stratum and sender of a label that contradicts


@dataclass(slots=True)
class Join:
    """The memory of one model's join. Cells come in order; within a cell predictions come first, both by event id."""

    capacity: int
    shift: int = 0
    segments: list[Segment] = field(default_factory=list)
    # A label before its prediction: value, stratum, sender.
    waiting: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    made: int = 0  # segments ever made
    counters: dict[str, int] = field(default_factory=dict)

    def take(
        self,
        predictions: Predictions,
        labels: LabelRows,
        cutoff: float | None,
        cell: int = 0,
        shape: OutcomeShape = _SHAPE,
    ) -> Taken:
        """Take the rows of one closed cell; return the outcomes that it decides."""
        pairs: list[Pair] = []
        against: list[Against] = []
        self._remember(predictions, pairs)
        for event_id, label, own, stratum, source, kept in _ordered(labels, self.shift):
            if kept:
                self._label(event_id, label, own, stratum, source, pairs, against)
            elif own:  # outside the sample nothing is remembered, and nothing needs to be
                pairs.append((own, label, stratum, False, source))
        self._bound()
        contradicted = np.array([stratum for stratum, _ in against], dtype=np.int64)
        by = np.array([source for _, source in against], dtype=np.uint64)
        if not pairs:
            none = np.zeros(0, dtype=np.int64)
            return Taken(
                Outcomes(none, shape=shape), none, none.astype(np.bool_), contradicted, none.astype(np.uint64), by
            )
        made = np.array([(pair[0] & VALUE, pair[0] >> 64, pair[1]) for pair in pairs], dtype=np.uint64)
        value, mark, known = made[:, 0].copy(), made[:, 1].copy(), made[:, 2].copy()
        found = Outcomes(wrong(value, known, cutoff), value, known, mark, ages(mark, cell), shape)
        stratum_of = np.array([pair[2] for pair in pairs], dtype=np.int64)
        matched = np.array([pair[3] for pair in pairs], dtype=np.bool_)
        sender = np.array([pair[4] for pair in pairs], dtype=np.uint64)
        return Taken(found, stratum_of, matched, contradicted, sender, by)

    def _remember(self, rows: Predictions, pairs: list[Pair]) -> None:
        if not len(rows.event_id):
            return
        keep = sampled(rows.event_id, self.shift)
        order = np.argsort(rows.event_id[keep], kind="stable")
        ids, low, high = (part[keep][order].tolist() for part in (rows.event_id, rows.value, rows.mark))
        values = [value | mark << 64 for value, mark in zip(low, high, strict=True)]
        for start in range(0, len(ids), SEGMENT):
            span = slice(start, start + SEGMENT)
            self._segment().predictions.update(zip(ids[span], values[span], strict=True))
        if self.waiting:
            for event_id, value in zip(ids, values, strict=True):
                early = self.waiting.pop(event_id, None)
                if early is not None:
                    pairs.append((value, early[0], early[1], True, early[2]))
                    self._answer(event_id, early[0])

    def _segment(self) -> Segment:
        if not self.segments or len(self.segments[-1]) >= SEGMENT:
            self.segments.append(Segment(self.made))
            self.made += 1
        return self.segments[-1]

    def _answer(self, event_id: int, label: int) -> None:
        for segment in reversed(self.segments):
            if segment.predictions.pop(event_id, None) is not None:
                segment.answered[event_id] = label
                return

    def _label(
        self,
        event_id: int,
        label: int,
        own: int,
        stratum: int,
        source: int,
        pairs: list[Pair],
        against: list[Against],
    ) -> None:
        for segment in reversed(self.segments):
            value = segment.predictions.pop(event_id, None)
            if value is not None:
                segment.answered[event_id] = label
                pairs.append((value, label, stratum, True, source))
                return
            first = segment.answered.get(event_id)
            if first is not None:
                self._again(first, label, (stratum, source), against)
                return
        if own:
            self._segment().answered[event_id] = label
            pairs.append((own, label, stratum, False, source))
        elif event_id in self.waiting:
            self._again(self.waiting[event_id][0], label, (stratum, source), against)
        else:
            self.waiting[event_id] = (label, stratum, source)

    def _again(self, first: int, label: int, told: Against, against: list[Against]) -> None:
        """Count a label of a prediction that has one: the first one wins."""
        if first != label:
            against.append(told)
        self._count("label_repeated" if first == label else "label_contradiction")

    def _bound(self) -> None:
        """Keep open predictions and waiting labels within capacity by halving the sample, the answered by age."""
        while sum(len(segment.predictions) for segment in self.segments) > self.capacity and self.shift < 63:
            self.shift += 1
            for segment in self.segments:
                segment.predictions = _thinned(segment.predictions, self.shift)
            self._count("join_halved")
        while len(self.waiting) > self.capacity:
            del self.waiting[next(iter(self.waiting))]
            self._count("label_unmatched")
        answered = sum(len(segment.answered) for segment in self.segments)
        for segment in self.segments:
            if answered <= self.capacity:
                break
            answered -= len(segment.answered)
            segment.answered = {}
        self.segments = [segment for segment in self.segments if len(segment)]

    def _count(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1


def _thinned(values: dict[int, int], shift: int) -> dict[int, int]:
    ids = np.fromiter(values, dtype=np.uint64, count=len(values))
    return {event_id: values[event_id] for event_id in ids[sampled(ids, shift)].tolist()}


def _ordered(labels: LabelRows, shift: int) -> Iterable[tuple[int, int, int, int, int, bool]]:
    order = np.lexsort((labels.source, labels.stratum, labels.mark, labels.own, labels.value, labels.event_id))
    own = [
        value and value | mark << 64
        for value, mark in zip(labels.own[order].tolist(), labels.mark[order].tolist(), strict=True)
    ]
    return zip(
        labels.event_id[order].tolist(),
        labels.value[order].tolist(),
        own,
        labels.stratum[order].tolist(),
        labels.source[order].tolist(),
        sampled(labels.event_id[order], shift).tolist(),
        strict=True,
    )
