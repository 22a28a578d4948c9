"""What labels say about a change of inputs: whether anything was lost by it.

An open incident of kind change is *confirmed* when realised performance fell with its onset: an incident of harm whose
outcomes were predicted from then on. It is *withdrawn* when enough outcomes predicted after its onset show no loss: the
upper 99 % limit of their error rate, at 1,024 outcomes or a doubling of that, lies within the margin (at least two
points of accuracy) of the reference's.
"""

from __future__ import annotations

import numpy as np

from regate.detectors.cells import Block
from regate.detectors.columns import IntArray
from regate.detectors.delivery import GROUP, PREFIX
from regate.detectors.history import FIRST, NUMBER, History
from regate.detectors.incidents import Incident, severity
from regate.detectors.labelled import AGE
from regate.detectors.marks import MINUTE_CELLS
from regate.detectors.numerics import UNIT, expit, logit
from regate.detectors.profile import Profile
from regate.detectors.realised import CHART
from regate.detectors.selection import NOISE, TOLERATED, Selected, Selection
from regate.detectors.totals import TOTAL, TotalSpec

# Outcomes are looked at when there are so many, and at each doubling: every look may be wrong once in a hundred times.
LABELLED = 1024
# One-sided 99 % of the normal distribution. With .1 errors, independent outcomes and two points tolerated, about 1,230
# of them show that nothing was lost; with .3 errors about 2,850.
SURE = 2.326
# Errors that rise because of which predictions are labelled hold, and do not roll back.
DOUBTFUL = 0.49
SETTLED = 512  # outcomes that settle the doubt
# Labels that are less than this share of the reference's age have been quick, and slow ones are still to come.
YOUNG = 0.5


class Judge:
    """Judges the incidents of one profile; without a chart of the error rate it has no opinion."""

    def __init__(self, profile: Profile) -> None:
        self._charts = [index for index, chart in enumerate(profile.charts) if chart.name == CHART and chart.watchable]
        self._profile, self._selection = profile, Selection(profile)
        self._age = next(
            (one for one in profile.layout.outcome_sections if isinstance(one, TotalSpec) and one.source == AGE), None
        )

    def listen(self, incident: Incident, block: Block, onset_cell: int) -> None:
        """Count the block's outcomes towards an incident, if on average they were predicted after its onset."""
        if not self._charts:
            return
        spec = self._profile.charts[self._charts[0]]
        outcomes, wrong = int(block.stats[spec.n_column]), int(block.stats[spec.s_column])
        # Ages are differences of whole minutes, so up to one short.
        if not outcomes or block.first - self.age_cells(block.stats) - MINUTE_CELLS < onset_cell:
            return
        incident.labelled += outcomes
        incident.wrong += wrong
        incident.expected += outcomes * float(self._profile.points.centre[block.stratum, self._charts[0]])

    def no_loss(self, incident: Incident) -> str:
        """Return in a sentence why nothing was lost; empty as long as that is not shown. Looks at doublings only."""
        n = incident.labelled
        if n < LABELLED << incident.looks or not self._charts:
            return ""
        while n >= LABELLED << incident.looks:
            incident.looks += 1
        spec = self._profile.charts[self._charts[0]]
        rate, expected = incident.wrong / n, incident.expected / n
        allowed = max(TOLERATED, float(expit(logit(expected) + spec.margin)) - expected)
        spread = max(rate * (1 - rate), expected * (1 - expected))
        upper = rate + SURE * float(np.sqrt(spread * spec.tau / n))
        if upper > expected + allowed:
            return ""
        return (
            f"{n} outcomes predicted since its onset show no loss: error rate {rate:.4f}, at most {upper:.4f} (99 %), "
            f"reference {expected:.4f}, tolerated {expected + allowed:.4f}"
        )

    def age_cells(self, stats: IntArray) -> int:
        """Return the mean age of a sum of outcomes, in cells; 0 where ages are not known."""
        if self._age is None or not stats[self._age.first]:
            return 0
        minutes = int(stats[self._age.first + TOTAL]) // int(stats[self._age.first])
        return minutes * MINUTE_CELLS

    def selected(self, harm: Incident, history: History, onset_cell: int) -> Selected:
        """Return which predictions got the labels behind a harm."""
        stats = history.since(harm.onset_block)["stats"].sum(axis=0)
        return self._selection.look(history, harm.onset_block, onset_cell, self.age_cells(stats))

    def doubt(self, harm: Incident, moved: list[str], history: History, onset_cell: int) -> tuple[str, Selected]:
        """Return what speaks against taking errors at their word: the end of a sentence, and what selection says.

        :param moved: charts of labels that have moved.
        """
        stats = history.since(harm.onset_block)["stats"].sum(axis=0)
        found = self.selected(harm, history, onset_cell)
        said = ""
        names = [f"class={name}" for name in found.classes]
        names = names or [name.removeprefix(GROUP) for name in moved if name.startswith(GROUP)]
        if names:
            said = f"; selective labels ({', '.join(names[:3])}): what is labelled is not what is predicted"
        elif moved:
            said = f"; labels have moved as well ({', '.join(name.removeprefix(PREFIX) for name in moved[:3])})"
        if found.explains:
            said += f", and explains it (at equal shares of classes errors moved by {found.equal:+.3f})"
        usual = -1.0 if self._age is None else self._age.mean * UNIT
        if usual >= 1.0 and self._age is not None and (outcomes := int(stats[self._age.first])):
            age = int(stats[self._age.first + TOTAL]) / outcomes
            if age < YOUNG * usual:
                said += f"; its labels are {age:.0f} minutes old, the reference's {usual:.0f}: only quick ones so far"
        return said, found

    def still_harm(self, harm: Incident, history: History, onset_cell: int) -> tuple[str, float] | None:
        """Return why a doubted harm is one after all, with its severity; None as long as selection explains it."""
        found = self.selected(harm, history, onset_cell)
        if found.outcomes < SETTLED or found.real - NOISE * found.sd <= TOLERATED or not self._charts:
            return None
        shares = "at equal shares of classes" if found.classes else "with labels as ever"
        lost = severity(self._profile.charts[self._charts[0]], found.real)
        return f"the rate of wrong predictions moved by {found.real:+.3f} {shares}, {found.outcomes} outcomes", lost

    def predicted_from(self, harm: Incident, history: History, onset_cell: int) -> int:
        """Return the block in which predictions began whose outcomes are the harm: its onset less their age."""
        kept = history.since(harm.onset_block)
        marks, stats = history.since(0)["marks"], kept["stats"]
        if not len(marks) or not len(stats):
            return harm.onset_block
        cell = onset_cell - self.age_cells(stats.sum(axis=0))
        at = int(np.searchsorted(marks[:, FIRST], cell, side="right")) - 1
        # Older than what is remembered: as many blocks before it as cells, at the pace of what is.
        if at < 0:
            pace = max(1, (int(marks[-1, FIRST]) - int(marks[0, FIRST])) // max(len(marks) - 1, 1))
            return int(marks[0, NUMBER]) - (int(marks[0, FIRST]) - cell) // pace
        return int(marks[at, NUMBER])
