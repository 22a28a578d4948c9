"""Whether the estimate may speak: only inside the reference's support, and unless labels contradict it.

Not valid, it is suspended: its chart leaves the mean, what it has opened is withdrawn, and a note says why. It may
speak again after a stretch of rows inside, and of labels that agree with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from regate.config.canonical import content_id
from regate.detectors.calibration import EXCESS, VARIANCE, ResidualSpec
from regate.detectors.columns import FloatArray, IntArray
from regate.detectors.estimate import SUM, Estimate, LinearError, ScoredError
from regate.detectors.estimate_chart import CHART, LEAST_EXPLAINED
from regate.detectors.finding import Finding
from regate.detectors.incidents import Moment, six
from regate.detectors.numerics import LN_2, UNIT, round_log2
from regate.detectors.profile import Profile
from regate.detectors.sections import PRESENT
from regate.detectors.support import OUTSIDE, SupportSpec
from regate.detectors.tilts import RESIDUALS, bennett
from regate.detectors.totals import TOTAL, TotalSpec

# Support is judged on the last so many rows, from a quarter of them on.
RECENT = 1024
LEAST_RECENT = RECENT // 4
# More than this share of recent rows outside, beyond what halves of the reference are of each other, is too much; to
# speak again it must be below half of it.
MOST_OUTSIDE = 0.05
# CUSUMs of log e-values, one a tilt: labels contradict a true estimate at most once in 10,000 blocks on average.
TILTS = np.concatenate((-RESIDUALS[::-1], RESIDUALS))
CONTRADICTED = float(np.log2(10_000 * TILTS.size))
# An estimate is believed again when so many labels in a row agree with it to this many standard deviations.
AGREED, DEVIATIONS = 1024, 2.0

Reason = Literal["outside", "contradicted"]
SUBJECT = "estimated_error"


@dataclass(slots=True)
class Validity:
    """What is known about the estimate. ``recent`` holds [rows, outside, estimates, their sum] of the last blocks.

    ``evidence`` is log2 of each tilt's CUSUM, ``outcomes`` and ``excess`` (errors less estimates) are summed since it
    left 0. ``labelled`` holds outcomes, excess and variance of the stretch that may end a contradiction.
    """

    outside: bool = False
    contradicted: bool = False
    since: int = 0  # mark of the block where it lost its validity
    recent: list[list[int]] = field(default_factory=list)
    evidence: list[float] = field(default_factory=lambda: [0.0] * TILTS.size)
    outcomes: list[float] = field(default_factory=lambda: [0.0] * TILTS.size)
    excess: list[float] = field(default_factory=lambda: [0.0] * TILTS.size)
    labelled: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    @property
    def valid(self) -> bool:
        """Return whether the estimate may speak."""
        return not (self.outside or self.contradicted)

    @property
    def reason(self) -> str:
        """Return why it may not."""
        named: list[tuple[Reason, bool]] = [("outside", self.outside), ("contradicted", self.contradicted)]
        return " and ".join(name for name, holds in named if holds)


@dataclass(frozen=True, slots=True)
class Note:
    """The estimate lost its validity for a reason, or has it back. Evidence and threshold are log10."""

    revision: Literal["not_valid", "valid"]
    reason: str
    effect: float
    unit: str
    evidence: float
    threshold: float
    text: str


def noted(said: Note, moment: Moment, since: int) -> Finding:
    """Return the note as it goes out: a revision that belongs to no incident."""
    key = moment.key
    identity = content_id("note", str(key), said.revision, said.reason, moment.profile_digest, moment.detected)
    verb = "is valid again" if said.revision == "valid" else f"is not valid ({said.reason}) and suspended"
    note = Finding.first(
        key,
        identity,
        family="performance",
        kind="change",
        detector="performance",
        subject=SUBJECT,
        severity=0.0,
        evidence=six(said.evidence),
        threshold=six(said.threshold),
        effect=six(said.effect),
        unit=said.unit,
        onset_us=since,
        detected_us=moment.detected,
        cell=moment.cell,
        events=moment.events,
        profile_digest=moment.profile_digest,
        historical=moment.historical,
        message=f"the estimated error {verb}: {said.text}",
    )
    return note.model_copy(update={"type": "revision", "revision": said.revision})


class Examiner:
    """Judges a profile's estimate block by block.

    ``chart`` is the index of its chart, None where the reference supports no estimate. A chart that dependence makes
    unwatchable still has an estimate that may be right or wrong.
    """

    def __init__(self, profile: Profile) -> None:
        layout = profile.layout
        names = [chart.name for chart in profile.charts]
        self.estimate: Estimate | None = next(
            (one for one in layout.sections if isinstance(one, ScoredError | LinearError)), None
        )
        told = self.estimate is not None and self.estimate.fit.explained >= LEAST_EXPLAINED
        self.chart = names.index(CHART) if told and CHART in names else None
        self._support = next((one for one in layout.sections if isinstance(one, SupportSpec)), None)
        self._residual = next((one for one in layout.outcome_sections if isinstance(one, ResidualSpec)), None)
        self._loss = next(
            (one for one in layout.outcome_sections if isinstance(one, TotalSpec) and one.source == "loss"), None
        )

    def take(self, state: Validity, stats: IntArray, mark: int) -> list[Note]:
        """Take one block; return what changed."""
        if self.chart is None or self.estimate is None or self._support is None:
            return []
        before, first = (state.outside, state.contradicted), self.estimate.first
        at = self._support.first
        state.recent.append(
            [int(stats[at + PRESENT]), int(stats[at + OUTSIDE]), int(stats[first + PRESENT]), int(stats[first + SUM])]
        )
        while sum(row[0] for row in state.recent[1:]) >= RECENT:
            del state.recent[0]
        share, limit = self._outside(state)
        outcomes, excess, variance = self._excess(state, stats)
        self._labels(state, outcomes, excess, variance)
        notes = []
        if state.outside and not before[0]:
            text = f"{share:.1%} of the last rows are outside of the reference's support, {limit:.1%} are allowed"
            evidence = float(np.log10(share / limit))
            notes.append(Note("not_valid", "outside", share, "probability", evidence, 0.0, text))
        if state.contradicted and not before[1]:
            notes.append(self._contradiction(state))
            state.evidence = state.outcomes = state.excess = [0.0] * TILTS.size
        if notes and before == (False, False):
            state.since = mark
        if state.valid and before != (False, False):
            notes.append(Note("valid", "", share, "probability", 0.0, 0.0, "rows are inside, and labels agree"))
        return notes

    def too_far(self, stats: IntArray) -> bool:
        """Tell whether too many rows of a sum of blocks are outside."""
        if self._support is None:
            return False
        rows, outside = (int(stats[self._support.first + column]) for column in (PRESENT, OUTSIDE))
        return outside > (MOST_OUTSIDE + self._support.crossed) * rows

    def _outside(self, state: Validity) -> tuple[float, float]:
        assert self._support is not None
        limit = MOST_OUTSIDE + self._support.crossed
        rows = sum(row[0] for row in state.recent)
        share = sum(row[1] for row in state.recent) / max(rows, 1)
        if rows >= LEAST_RECENT:
            state.outside = share > (limit / 2 if state.outside else limit)
        return share, limit

    def _excess(self, state: Validity, stats: IntArray) -> tuple[int, float, float]:
        """Return a block's outcomes, their errors less estimates, and the variance of that (standardised for numbers).

        A label of a regression does not carry its prediction's estimate: that of the last rows stands for it.
        """
        if self._residual is not None:
            first = self._residual.first
            own = [int(stats[first + column]) for column in (PRESENT, EXCESS, VARIANCE)]
            return own[0], own[1] / UNIT, own[2] / UNIT
        estimates = sum(row[2] for row in state.recent)
        if self._loss is None or self.estimate is None or not estimates:
            return 0, 0.0, 0.0
        outcomes = int(stats[self._loss.first + PRESENT])
        expected = outcomes * (sum(row[3] for row in state.recent) / estimates)
        excess = (int(stats[self._loss.first + TOTAL]) - expected) / UNIT / self.estimate.fit.excess_sd
        return outcomes, excess, float(outcomes)

    def _labels(self, state: Validity, outcomes: int, excess: float, variance: float) -> None:
        assert self.estimate is not None
        if not outcomes:
            return
        fit = self.estimate.fit
        if state.contradicted:
            more = (outcomes, excess, variance)
            state.labelled = [total + one for total, one in zip(state.labelled, more, strict=True)]
            total, off, spread = state.labelled
            if total >= AGREED:
                allowed = DEVIATIONS * float(np.sqrt(spread * fit.excess_tau)) + fit.excess_margin * spread
                state.contradicted = abs(off) > allowed
                state.labelled = [0.0, 0.0, 0.0]
            return
        cost: FloatArray = (bennett(TILTS) + np.abs(TILTS) * fit.excess_margin) * variance
        gain = (TILTS * excess - cost) / fit.excess_tau / LN_2
        evidence = round_log2(np.maximum(np.array(state.evidence) + gain, 0.0))
        state.contradicted = bool(evidence.max() >= CONTRADICTED)
        state.evidence = evidence.tolist()
        state.outcomes = np.where(evidence > 0, np.array(state.outcomes) + outcomes, 0.0).tolist()
        state.excess = np.where(evidence > 0, np.array(state.excess) + excess, 0.0).tolist()

    def _contradiction(self, state: Validity) -> Note:
        best = int(np.argmax(state.evidence))
        off = state.excess[best] / max(state.outcomes[best], 1.0)
        scored = self._residual is not None
        if not scored and self.estimate is not None:
            off *= self.estimate.fit.excess_sd
        text = f"labels say {off:+.3f} {'errors a prediction' if scored else 'mean errors'} beyond the estimate"
        unit = "probability" if scored else "relative"
        evidence, needed = (one * float(np.log10(2)) for one in (state.evidence[best], CONTRADICTED))
        return Note("not_valid", "contradicted", off, unit, evidence, needed, text)
