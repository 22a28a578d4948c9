"""Incidents: one change is one finding, and nobody can hide behind the first.

Charts that carry an open incident leave the mean and are followed here until they are quiet; the rest
goes on under the full budget. Harm never joins an incident of changed inputs: it is its own finding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from regate.config.canonical import content_id
from regate.detectors.charts import Bank, Explanation
from regate.detectors.columns import BoolArray, FloatArray, ModelKey
from regate.detectors.finding import Carrier, Finding, Kind, Revision
from regate.detectors.layout import ChartSpec
from regate.detectors.numerics import LOG2_10, exp2, log2

# An incident takes charts whose statistic is this far (log10) above the head start of one block: 10^3 times that of 64
# events.
JOIN_LOG10 = 3.6
# Onsets so many blocks, or so many events, apart are one change.
NEAR_BLOCKS, NEAR_EVENTS = 5, 320
# Causes whose evidence is within this (log10) of the most compete for the incident's name by the size of their change.
CLOSE_LOG10 = 1.0
# This many standard deviations off over a stretch is off. A chart whose excursion begins late joins, too, when it was
# off ever since the incident opened: a small part of the same change, whose own onset estimate wanders.
MOVED_DEVIATIONS = 3.0
# What comes into a model; correlations, answers and mixes follow from it.
CAUSES = frozenset({"feature_drift", "data_quality"})
# Charts of harm speak of the same outcomes, and one that joins is no secret: it revises the severity. It joins when it
# had moved since the opening restarted it. Until its own onset it cannot have moved by more than about half of what it
# moved since, or the onset would be earlier: a quarter is nearer to that than to nothing.
MOVED_TOGETHER = 0.25
# Quiet: followed charts under a tenth of the threshold for so many events, and not off over that stretch. R of a small
# standing change comes and goes; without the second half one change became eleven findings.
QUIET_LOG10 = -1.0
QUIET_EVENTS = 1024
# Of which each chart must have seen so many itself: no label is no proof that the error rate is back.
QUIET_OWN = QUIET_EVENTS // 4
# "Not shown to be off" is not "back": a stretch must be long enough to tell what the incident was from nothing, at so
# many standard deviations, and then lie nearer to nothing. A rise of two points in an error rate of .1 takes 8,000
# outcomes; without this one standing change became three findings. Beyond so many events a stretch decides anyway.
TELLING, LONGEST_QUIET = 6.0, 32 * QUIET_EVENTS


@dataclass(slots=True)
class Incident:
    """An open incident: its first finding, and the charts that carry it, by name."""

    finding: Finding
    kind: Kind
    onset_block: int
    opened_block: int
    charts: list[str] = field(default_factory=list)
    quiet_events: int = 0
    quiet_from: dict[str, tuple[int, int, float]] = field(default_factory=dict)  # chart -> sums when it became quiet
    since: dict[str, tuple[int, int, float]] = field(default_factory=dict)  # chart -> sums where its excursion began
    # Of harm: chart -> events for which it has been quiet, and its sums when that began.
    quiet_charts: dict[str, tuple[int, int, int, float]] = field(default_factory=dict)
    severity: float = 0.0  # as last said
    judged: str = ""  # confirmed or withdrawn, by labels
    doubted: bool = False  # of harm: which predictions get labels explains it
    labelled: int = 0  # outcomes predicted after the onset, how many were wrong, and how many the reference expects
    wrong: int = 0
    expected: float = 0.0
    looks: int = 0  # how often these were looked at
    # Of a withdrawn change: chart -> sums when it was withdrawn, and at the last look whether it has grown.
    settled: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    looked: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    looked_events: int = 0

    def near(self, onset_block: int, blocks: int) -> bool:
        """Return whether an excursion that began there, give or take some blocks, is part of this change."""
        return self.onset_block - blocks <= onset_block <= self.opened_block + blocks

    def moved_since(self, explanation: Explanation, chart: int, blocks: int) -> bool:
        """Return whether a chart that this or a later opening restarted has been off, the same way, ever since.

        An excursion that begins where the chart was restarted began before: there is nothing in between to judge by.
        """
        start = int(explanation.start_block[chart])
        at_once = int(explanation.onset_block[chart]) - start <= blocks
        together = bool(explanation.share[chart] >= MOVED_TOGETHER)
        off = bool(explanation.before[chart] >= MOVED_DEVIATIONS)
        # Over thousands of rows a chart is 3 deviations off by chance, or by the error of the reference.
        moved = together or off if self.kind == "harm" else together and off
        return start >= self.opened_block - blocks and (at_once or moved)


@dataclass(frozen=True, slots=True)
class Moment:
    """What a decision is made with: the block's end, the statistic and what it had to pass (log10)."""

    key: ModelKey
    profile_digest: str
    number: int  # ordinal of the incident
    block: int  # ordinal of the block
    cell: int
    events: int
    detected: int  # mark, by the clock
    total: float
    threshold: float
    historical: bool = False


def six(value: float) -> str:
    """Return a decimal string of 6 significant digits.

    >>> six(4.123456789)
    '4.12346'
    """
    return f"{value:.6g}"


def harmful(kind: Kind) -> bool:
    """Return which side a kind is on: harm never joins an incident of changed inputs, nor the other way round."""
    return kind == "harm"


def near_blocks(blocks: int, events: int) -> int:
    """Return how many blocks apart onsets still are one change, from the mean length of blocks so far.

    >>> near_blocks(100, 6400), near_blocks(100, 100)
    (5, 320)
    """
    return max(NEAR_BLOCKS, -(-NEAR_EVENTS * blocks // max(events, 1)))


def overlapping(explanation: Explanation, lead: int, block: int, near: int) -> BoolArray:
    """Return the charts whose onset estimate overlaps the lead's.

    An onset is known to within a few blocks when the change is strong, and only to a share of the time
    since when it is weak.
    """
    onset = explanation.onset_block
    since = block - np.minimum(onset, onset[lead])
    return np.asarray(np.abs(onset - onset[lead]) <= np.maximum(near, since // 2))


def severity(spec: ChartSpec, effect: float) -> float:
    """Return 0 to 1: the chart's own, and where it measures a loss, more with the loss."""
    share = min(max(effect, 0.0) / spec.worst, 1.0) if spec.worst else 0.0
    return round(spec.severity + (spec.most - spec.severity) * share, 4)


def describe(spec: ChartSpec, effect: float, since: str, total: float, threshold: float) -> str:
    """Return one sentence for a person."""
    if spec.unit == "sigma":
        what = f"{spec.title or spec.subject} moved {effect:+.2f} sigma"
    elif spec.unit == "logits":
        what = f"the odds of {spec.title or spec.subject} became {math.exp(effect):.2f} times what they were"
    elif spec.unit == "ratio":
        what = f"{spec.title or f'the spread of {spec.subject}'} became {effect:.2f} times what it was"
    else:
        what = f"{spec.title or f'{spec.subject}: {spec.statistic}'} moved by {effect:+.3f}"
    return f"{what} since {since}; evidence 10^{total:.1f} against 10^{threshold:.1f}"


def open_incident(
    bank: Bank,
    explanation: Explanation,
    lead: int,
    members: BoolArray,
    moment: Moment,
    since: str,
    suspected: float | None = None,
) -> Incident:
    """Return a new incident of the charts in ``members`` (the lead among them), with its finding.

    :param suspected: the severity that the label-free estimate gives to a change; None where there is none.
    """
    spec = bank.charts[lead]
    chosen = [lead, *(int(index) for index in np.flatnonzero(members) if index != lead)]
    names = [bank.charts[index].name for index in chosen]
    onset = int(explanation.onset_mark[lead])
    identity = content_id(
        "finding", str(moment.key), sorted(names), moment.profile_digest, onset, moment.detected, moment.number
    )
    effect = float(explanation.effect[lead])
    loss = _loss(bank, explanation, chosen, suspected if spec.kind == "change" else None)
    finding = Finding.first(
        moment.key,
        identity,
        family=spec.family,
        kind=spec.kind,
        detector=spec.family,
        subject=spec.subject,
        severity=loss,
        evidence=six(moment.total),
        threshold=six(moment.threshold),
        effect=six(effect),
        unit=spec.unit,
        onset_us=onset,
        detected_us=moment.detected,
        cell=moment.cell,
        events=moment.events,
        carriers=tuple(carrier(bank, explanation, index) for index in chosen),
        profile_digest=moment.profile_digest,
        historical=moment.historical,
        message=describe(spec, effect, since, moment.total, moment.threshold) + _with(bank, chosen),
    )
    onset_block = int(explanation.onset_block[lead])
    return Incident(finding, spec.kind, onset_block, moment.block, names, severity=loss)


def _loss(bank: Bank, explanation: Explanation, chosen: list[int], suspected: float | None) -> float:
    """Return the severity: the largest loss that a chart shows. Of moved inputs it is what the estimate says, or .5."""
    known = [index for index in chosen if suspected is None or bank.charts[index].family == "performance"]
    shown = [severity(bank.charts[index], float(explanation.effect[index])) for index in known]
    return max(shown if suspected is None else [*shown, suspected])


def _with(bank: Bank, chosen: list[int]) -> str:
    lead = bank.charts[chosen[0]].subject
    others = list(dict.fromkeys(bank.charts[index].subject for index in chosen if bank.charts[index].subject != lead))
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return f"; with {', '.join(others[:5])}{more}" if others else ""


def carrier(bank: Bank, explanation: Explanation, index: int) -> Carrier:
    """Return one chart as a finding names it."""
    spec = bank.charts[index]
    return Carrier(
        chart=spec.name,
        family=spec.family,
        subject=spec.subject,
        statistic=spec.statistic,
        evidence=six(float(explanation.log_r[index])),
        effect=six(float(explanation.effect[index])),
        unit=spec.unit,
    )


def advised(finding: Finding, detector: str, *, counts: bool) -> Finding:
    """Return the finding of one of River's detectors; advice when its false alarms are not within its budget."""
    identity = content_id("advice", finding.id, detector)
    return finding.model_copy(
        update={
            "id": identity,
            "incident": identity,
            "type": "finding" if counts else "advice",
            "detector": "river_adapter",
            "severity": finding.severity if counts else 0.0,
            "message": f"River's {detector} alarms: {finding.message}",
        }
    )


def accepted(incident: Incident, detected: int, events: int, said: str) -> Finding:
    """Return the revision that closes an incident because a person took the change for the new normal."""
    first = incident.finding
    return first.model_copy(
        update={
            "type": "revision",
            "revision": "accepted",
            "id": content_id("revision", first.id, "accepted"),
            "detected_us": max(first.detected_us, detected),
            "events": events,
            "message": f"{first.subject}: {said}",
        }
    )


def revised(
    incident: Incident,
    revision: Revision,
    moment: Moment,
    message: str,
    severity: float | None = None,
    joined: Carrier | None = None,
) -> Finding:
    """Return a revision of an incident's first finding, as said at a moment; ``joined`` is who gives cause for it."""
    first = incident.finding
    incident.severity = max(first.severity, incident.severity) if severity is None else severity
    of = (first.id, revision) if severity is None else (first.id, revision, incident.severity)
    return first.model_copy(
        update={
            "type": "revision",
            "revision": revision,
            "id": content_id("revision", *of),
            "severity": incident.severity,
            "carriers": first.carriers if joined is None else (*first.carriers, joined),
            "evidence": six(moment.total),
            "threshold": six(moment.threshold),
            "detected_us": moment.detected,
            "cell": moment.cell,
            "events": moment.events,
            "message": message,
        }
    )


def recovered(incident: Incident, moment: Moment) -> Finding:
    """Return the revision that closes an incident whose charts have become quiet."""
    said = f"{incident.finding.subject} is back: quiet and as in the reference for {incident.quiet_events} events"
    return revised(incident, "recovered", moment, said)


def followed_level(log_r: FloatArray, charts: list[int]) -> float:
    """Return log10 of the mean R of the charts that carry an incident."""
    chosen = log_r[charts]
    high = float(chosen.max())
    return high + float(log2(float(exp2((chosen - high) * LOG2_10).mean()))) / LOG2_10
