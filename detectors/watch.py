"""One model version under watch: blocks in, findings and revisions out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from regate.detectors.burn import Burn, burns
from regate.detectors.cells import Block
from regate.detectors.charts import CHART_FIELDS, POINT_FIELDS, Bank, BankState, Explanation, StepResult
from regate.detectors.clocks import Clock, EventClock, RowClock
from regate.detectors.columns import BoolArray, FloatArray, IntArray
from regate.detectors.delivery import PREFIX
from regate.detectors.estimate import SUM
from regate.detectors.finding import Finding
from regate.detectors.harmless import grown, settle
from regate.detectors.history import STRATUM, History
from regate.detectors.incidents import (
    CAUSES,
    CLOSE_LOG10,
    JOIN_LOG10,
    LONGEST_QUIET,
    MOVED_DEVIATIONS,
    QUIET_EVENTS,
    QUIET_LOG10,
    QUIET_OWN,
    TELLING,
    Incident,
    Moment,
    accepted,
    advised,
    carrier,
    describe,
    followed_level,
    harmful,
    near_blocks,
    open_incident,
    overlapping,
    recovered,
    revised,
    severity,
)
from regate.detectors.judgement import DOUBTFUL, Judge
from regate.detectors.layout import ChartSpec
from regate.detectors.numerics import LOG2_10, UNIT, exp2
from regate.detectors.profile import Profile
from regate.detectors.river_adapter import Adviser
from regate.detectors.sections import PRESENT
from regate.detectors.validity import Examiner, Note, Validity, noted

# A gap in the stream is elapsed time, which feeds R: unchecked, a night would pass a calibrated threshold
# by itself. No block gets a larger head start than this share of the threshold (log10), or its own share of events.
HEAD_START_LOG10 = -2.0
# Charts of one numeric feature: each bets with the others as the reference has them.
OF_ONE = frozenset({"mean", "scale", "shape"})

ChartState = dict[str, FloatArray | IntArray]
OnFinding = Literal["incident", "restart"]


@dataclass(slots=True)
class Watch:
    """State and step of one model's charts. ``events`` counts telemetry events decided on."""

    profile: Profile
    clock: Clock
    on_finding: OnFinding = "incident"
    bank: Bank = field(init=False)
    state: BankState = field(init=False)
    history: History = field(init=False)
    incidents: list[Incident] = field(default_factory=list)
    advisers: list[Adviser] = field(init=False)
    burns: list[Burn] = field(init=False)
    opened: int = 0  # incidents ever opened
    events: int = 0
    validity: Validity = field(default_factory=Validity)
    examiner: Examiner = field(init=False)
    judge: Judge = field(init=False)
    _index: dict[str, int] = field(init=False)
    _active: BoolArray = field(init=False)
    _grid: FloatArray = field(init=False)
    _features: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.bank = Bank(self.profile)
        self.state = self.bank.start()
        self.history = History(self.profile.layout.width)
        # Windows of event time mean nothing where cells are counted off in rows.
        self.burns = [] if isinstance(self.clock, RowClock) else burns(self.profile.objectives)
        self.advisers = [Adviser(spec) for spec in self.profile.river]
        self._index = {chart.name: index for index, chart in enumerate(self.bank.charts)}
        self._grid = np.bincount(self.profile.points.chart, minlength=len(self.bank.charts)).astype(np.float64)
        self._active = np.ones(len(self.bank.charts), dtype=np.bool_)
        self._features = frozenset(chart.subject for chart in self.bank.charts if chart.family in CAUSES)
        self.examiner, self.judge = Examiner(self.profile), Judge(self.profile)

    def refresh(self) -> None:
        """Set which charts are in the mean: those of no open incident, and the estimate's while it is valid."""
        self._active = np.ones(len(self.bank.charts), dtype=np.bool_)
        for incident in self.incidents:
            self._active[self._charts(incident)] = False
        if self.examiner.chart is not None and not self.validity.valid:
            self._active[self.examiner.chart] = False

    def grid_sizes(self) -> IntArray:
        """Return the number of grid points of each chart."""
        return self._grid.astype(np.int64)

    def chart_state(self, chart: int) -> ChartState:
        """Return the state of one chart, to be kept under its digest."""
        return self.bank.dump(self.state, chart)

    def adopt(self, kept: Mapping[str, ChartState], blocks: int) -> list[str]:
        """Take states by chart digest; return the names of the charts that start anew."""
        fresh = replace(self.bank.start(), blocks=blocks, events=self.events)
        fresh = self.bank.restart(fresh, np.ones(len(self.bank.charts), dtype=np.bool_))
        arrays = {name: getattr(fresh, name).copy() for name in (*POINT_FIELDS, *CHART_FIELDS)}
        new = []
        first = np.concatenate([[0], np.cumsum(self._grid)]).astype(np.int64)
        for index, chart in enumerate(self.bank.charts):
            state = kept.get(chart.digest)
            points = slice(first[index], first[index + 1])
            if state is None or len(state["log2_r"]) != points.stop - points.start:
                new.append(chart.name)
                continue
            for name in POINT_FIELDS:
                arrays[name][points] = state[name]
            for name in CHART_FIELDS:
                arrays[name][index] = state[name][0]
        self.state = replace(fresh, **arrays)
        return new

    def take(self, blocks: Iterable[Block]) -> list[Finding]:
        """Take closed blocks in order; return what they decide."""
        return [finding for block in blocks for finding in self.step(block)]

    def step(self, block: Block) -> list[Finding]:
        """Take one block."""
        self.clock.note(block)
        share = self.clock.share(block)
        traffic = self.clock.traffic()
        # The ceiling holds for blocks of any size.
        threshold = 0.0 if traffic is None or not self.clock.full_blocks() else self.bank.threshold(traffic)
        delta = self._head_start(share, block.events, traffic, threshold)
        self.events += block.events
        notes = self.examiner.take(self.validity, block.stats, self.clock.first(block))
        if notes:
            self.refresh()
        result = self.bank.step(
            self.state, block.stats, block.stratum, delta, self._active, mark=self.clock.first(block)
        )
        self.state = result.state
        self.history.add(block, self.state.blocks, delta)
        burnt = [finding for one in self.burns for finding in one.step(block, self.profile.key)]
        alarmed = [one for one in self.advisers if one.step(block.stats, block.stratum)]
        if result.total < threshold and not self.incidents and not alarmed and not notes:
            return burnt
        moment = Moment(
            key=self.profile.key,
            profile_digest=self.profile.digest,
            number=self.opened + 1,
            block=self.state.blocks,
            cell=block.last,
            events=self.events,
            detected=self.clock.last(block),
            total=result.total,
            threshold=threshold,
            historical=2 * block.historical >= max(block.events, 1),
        )
        findings = [finding for one in notes for finding in self._noted(one, moment)]
        if self.on_finding == "restart":
            decided = self._restarted(moment) if result.total >= threshold else self._advise(alarmed, moment)
            return [*burnt, *findings, *decided]
        findings.extend(burnt)
        findings.extend(self._follow(result, moment, block.events))
        findings.extend(self._decide(moment, delta))
        findings.extend(self._advise(alarmed, moment))
        findings.extend(self._judged(block, moment, findings))
        return findings

    def _advise(self, alarmed: list[Adviser], moment: Moment) -> list[Finding]:
        """Tell what River's detectors say of charts that no incident has: a finding where they keep their budget."""
        findings = []
        for one in alarmed:
            chart = self._index[one.spec.chart]
            if not self._active[chart]:
                continue
            explanation = self.bank.explain(self.state)
            members = np.zeros(len(self.bank.charts), dtype=np.bool_)
            moment = replace(moment, number=self.opened + 1)
            incident = open_incident(self.bank, explanation, chart, members, moment, self._when(explanation, chart))
            incident.finding = advised(incident.finding, one.spec.detector, counts=one.spec.counts)
            findings.append(incident.finding)
            if one.spec.counts:
                self.opened += 1
                if self.on_finding == "incident":
                    self.incidents.append(incident)
                    self._active[chart] = False
        return findings

    def accept(self, incident: str, said: str) -> Finding | None:
        """Close an open incident as the new normal; its charts start over. None when no such incident is open."""
        for one in self.incidents:
            if one.finding.id == incident:
                self.incidents.remove(one)
                self._again(self._charts(one))
                detected = self.clock.ended_us or 0 if isinstance(self.clock, EventClock) else 0
                return accepted(one, detected, self.events, said)
        return None

    def _noted(self, said: Note, moment: Moment) -> list[Finding]:
        """Say that the estimate lost its validity, and take back what it alone has opened; or that it has it again."""
        chart = self.examiner.chart
        assert chart is not None
        found = [noted(said, moment, self.validity.since)]
        own, name = np.zeros(len(self.bank.charts), dtype=np.bool_), self.bank.charts[chart].name
        own[chart] = True
        for incident in [one for one in self.incidents if name in one.charts]:
            incident.charts.remove(name)
            if incident.finding.carriers[0].chart == name:  # the others have to speak for themselves
                own[self._charts(incident)] = True
                self.incidents.remove(incident)
                found.append(revised(incident, "withdrawn", moment, f"the estimate is not valid: {said.text}"))
        self.state = self.bank.restart(self.state, own)
        self.refresh()
        return found

    def _judged(self, block: Block, moment: Moment, findings: list[Finding]) -> list[Finding]:
        """Let labels decide about open incidents of changed inputs."""
        found = []
        new = {finding.incident for finding in findings if finding.type == "finding"}
        harms = [one for one in self.incidents if one.kind == "harm"]
        for harm in [one for one in harms if one.doubted]:
            still = self.judge.still_harm(harm, self.history, self.clock.cell(harm.finding.onset_us))
            if still is not None:
                harm.doubted = False
                found.append(revised(harm, "confirmed", moment, still[0], max(harm.severity, still[1])))
        selective = bool(self._moved_labels())  # then what is labelled speaks for no others
        for incident in [one for one in self.incidents if one.kind == "change" and not one.judged]:
            if not selective:
                self.judge.listen(incident, block, self.clock.cell(incident.finding.onset_us))
            for harm in harms:
                if new & {harm.finding.id, incident.finding.id} and self._overlap(incident, harm):
                    incident.judged = "confirmed"
                    what = "realised performance fell" if self._by_labels(harm) else "harm began"
                    said = f"{what} with this change: {harm.finding.message}"
                    lost = max(incident.severity, harm.severity)
                    found.append(revised(incident, "confirmed", moment, said, lost))
                    break
            if not incident.judged and (said := self.judge.no_loss(incident)):
                # It stays here, so that a change that does no harm is not found again and again.
                incident.judged = "withdrawn"
                settle(incident, self.state, self._named(self._charts(incident)))
                found.append(revised(incident, "withdrawn", moment, said))
        return found

    def _overlap(self, change: Incident, harm: Incident) -> bool:
        """Tell whether harm began with a change. An onset is known to half of the time until it was found."""
        onset = harm.onset_block
        if self._by_labels(harm):
            onset = self.judge.predicted_from(harm, self.history, self.clock.cell(harm.finding.onset_us))
        known = max(one.opened_block - one.onset_block for one in (change, harm)) // 2
        return abs(change.onset_block - onset) <= max(self._near, known)

    def _by_labels(self, harm: Incident) -> bool:
        """Tell whether only labels show a harm; errors of the service are known at once, and of every event."""
        return all(self.bank.charts[index].n_column >= self.profile.layout.outcomes for index in self._charts(harm))

    def _head_start(self, share: float, events: int, traffic: float | None, threshold: float) -> float:
        most = float(exp2((threshold + HEAD_START_LOG10) * LOG2_10))
        if traffic:
            most = max(most, events / traffic)
        return min(share, most)

    def _restarted(self, moment: Moment) -> list[Finding]:
        explanation = self.bank.explain(self.state)
        lead = self._lead(explanation.log_r)
        members = np.zeros(len(self.bank.charts), dtype=np.bool_)
        incident = open_incident(self.bank, explanation, lead, members, moment, self._when(explanation, lead))
        self.opened += 1
        self.state = self.bank.restart(self.state, np.ones(len(self.bank.charts), dtype=np.bool_))
        return [incident.finding]

    def _follow(self, result: StepResult, moment: Moment, events: int) -> list[Finding]:
        """Follow open incidents: who is quiet long enough has recovered, and its charts start anew."""
        findings = []
        for incident in list(self.incidents):
            charts = self._charts(incident)
            if incident.judged == "withdrawn" and grown(incident, self.bank, self.state, self._named(charts), events):
                self.incidents.remove(incident)  # what it has grown to is found anew
                self._again(charts)
                continue
            level = followed_level(result.log_r, charts) if charts else float("-inf")
            self._listen(incident, charts, events, quiet=level < moment.threshold + QUIET_LOG10)
            if incident.quiet_events >= QUIET_EVENTS and self._is_back(incident, charts):
                self.incidents.remove(incident)
                self._again(charts)
                if incident.judged != "withdrawn":  # that one was closed before
                    findings.append(recovered(incident, replace(moment, total=max(level, -99.0))))
            elif incident.kind == "harm" and len(charts) > 1:
                self._leave(incident, result.log_r, events, moment.threshold + QUIET_LOG10)
        self._cap(moment.threshold)
        return findings

    def _again(self, charts: list[int]) -> None:
        """Put charts back into the mean, from nothing."""
        again = np.zeros(len(self.bank.charts), dtype=np.bool_)
        again[charts] = True
        self.state = self.bank.restart(self.state, again)
        self.refresh()

    def _leave(self, incident: Incident, log_r: FloatArray, events: int, level: float) -> None:
        """Let charts that are back by themselves leave an incident of harm: the next harm there is a new finding."""
        back = []
        for index in self._charts(incident):
            name = self.bank.charts[index].name
            if log_r[index] + np.log10(self.bank.weights[index]) >= level:  # as it would count in the mean
                incident.quiet_charts.pop(name, None)
                continue
            now = (int(self.state.sum_s[index]), int(self.state.sum_n[index]), float(self.state.sum_centre[index]))
            quiet, *first = incident.quiet_charts.get(name, (0, *now))
            incident.quiet_charts[name] = (quiet + events, int(first[0]), int(first[1]), float(first[2]))
            if quiet + events < QUIET_EVENTS:
                continue
            off = self._off(incident, {index: (int(first[0]), int(first[1]), float(first[2]))})
            if off is not None:
                del incident.quiet_charts[name]
                back += [] if off else [index]
        if len(back) < len(incident.charts):
            for index in back:
                incident.charts.remove(self.bank.charts[index].name)
            if back:
                self._again(back)

    def _off(self, incident: Incident, since: dict[int, tuple[int, int, float]]) -> bool | None:
        """Tell whether any chart is off the reference since its sums were these; None: too few trials to tell."""
        s, n, centre = self.state.sum_s.copy(), self.state.sum_n.copy(), self.state.sum_centre.copy()
        charts = list(since)
        for index, first in since.items():
            s[index], n[index], centre[index] = s[index] - first[0], n[index] - first[1], centre[index] - first[2]
        if bool((self.bank.trials(n)[charts] < QUIET_OWN).any()):
            return None  # not enough of its own yet: the stretch goes on
        off = np.abs(self.bank.deviations(s, n, centre, tolerant=True)[charts])
        if bool((off >= MOVED_DEVIATIONS).any()):
            return True
        return self._stands(incident, since, s, n, centre)

    def _stands(
        self, incident: Incident, since: dict[int, tuple[int, int, float]], s: IntArray, n: IntArray, centre: FloatArray
    ) -> bool | None:
        """Tell whether a stretch is nearer to what the incident was before it than to nothing; None: too short."""
        known = {
            index: incident.since[name] for index in since if (name := self.bank.charts[index].name) in incident.since
        }
        if not known:
            return False
        s0, n0, centre0 = np.zeros_like(s), np.zeros_like(n), np.zeros_like(centre)
        for index, first in known.items():
            quiet = since[index]
            s0[index], n0[index], centre0[index] = quiet[0] - first[0], quiet[1] - first[1], quiet[2] - first[2]
        at = list(known)
        before = self.bank.deviations(s0, n0, centre0)[at] / np.sqrt(np.maximum(self.bank.trials(n0)[at], 1.0))
        length = np.sqrt(self.bank.trials(n)[at])
        if bool((np.abs(before) * length < TELLING).any()) and int(n[at].max()) < LONGEST_QUIET:
            return None
        now = self.bank.deviations(s, n, centre)[at] / length
        return bool((np.sign(before) * now > np.abs(before) / 2.0).any())

    def _listen(self, incident: Incident, charts: list[int], events: int, *, quiet: bool) -> None:
        """Count the quiet events of an incident, and keep the sums from which its charts are judged."""
        if not quiet:
            incident.quiet_events, incident.quiet_from = 0, {}
            return
        if incident.quiet_events == 0:
            state = self.state
            incident.quiet_from = {
                self.bank.charts[index].name: (
                    int(state.sum_s[index]),
                    int(state.sum_n[index]),
                    float(state.sum_centre[index]),
                )
                for index in charts
            }
        incident.quiet_events += events

    def _is_back(self, incident: Incident, charts: list[int]) -> bool:
        """Tell whether the charts of a quiet incident are as in the reference; if one is off, listen anew."""
        names = {index: self.bank.charts[index].name for index in charts}
        quiet = {i: incident.quiet_from[name] for i, name in names.items() if name in incident.quiet_from}
        off = self._off(incident, quiet)
        if off:
            incident.quiet_events, incident.quiet_from = 0, {}
        return off is False

    def _decide(self, moment: Moment, delta: float) -> list[Finding]:
        """Let charts join open incidents; open a new one when the rest still passes the threshold."""
        log_r = self.bank.log_r(self.state)
        strong = self._active & (log_r >= JOIN_LOG10 + np.log10(delta))
        explanation: Explanation | None = None
        joined: list[tuple[Incident, int]] = []
        if self.incidents and bool(strong.any()):
            explanation = self.bank.explain(self.state)
            for index in np.flatnonzero(strong):
                if (incident := self._join(int(index), explanation)) is not None:
                    joined.append((incident, int(index)))
        findings: list[Finding] = []
        while self._active.any() and (total := self.bank.total(log_r, self._active)) >= moment.threshold:
            explanation = explanation or self.bank.explain(self.state)
            lead = self._lead(log_r)
            if (incident := self._join(lead, explanation)) is not None:
                joined.append((incident, lead))
            else:
                moment = replace(moment, number=self.opened + 1, total=total)
                findings.append(self._open(lead, explanation, strong, moment))
        if explanation is not None:
            findings.extend(self._worse(joined, explanation, moment))
        if any(finding.type == "finding" for finding in findings):
            # What is left after all that passed the threshold starts at nothing.
            self.state = self.bank.restart(self.state, self._active)
            self._cap(moment.threshold)
        return findings

    def _open(self, lead: int, explanation: Explanation, strong: BoolArray, moment: Moment) -> Finding:
        kind = np.array([harmful(chart.kind) == harmful(self.bank.charts[lead].kind) for chart in self.bank.charts])
        members = strong & self._active & kind & overlapping(explanation, lead, self.state.blocks, self._near)
        members[lead] = True
        lead = self._cause(lead, members, explanation)
        incident = open_incident(
            self.bank,
            explanation,
            lead,
            members,
            moment,
            self._when(explanation, lead),
            self._suspected(int(explanation.onset_block[lead])),
        )
        if incident.kind == "harm":
            said, incident.doubted = self._doubt(incident, strong)
            incident.severity = min(incident.severity, DOUBTFUL) if incident.doubted else incident.severity
            more = {"message": incident.finding.message + said, "severity": incident.severity}
            incident.finding = incident.finding.model_copy(update=more)
        for index in np.flatnonzero(members):
            self._remember(incident, int(index), explanation)
        self.incidents.append(incident)
        self.opened += 1
        self._active &= ~members
        return incident.finding

    def _remember(self, incident: Incident, chart: int, explanation: Explanation) -> None:
        s, n, centre = explanation.base
        incident.since[self.bank.charts[chart].name] = (int(s[chart]), int(n[chart]), float(centre[chart]))

    def _cause(self, lead: int, members: BoolArray, explanation: Explanation) -> int:
        """Return the chart that names the incident: where a feature is in it, what follows from it does not.

        Of causes with about as much evidence, who was ahead when the bar was passed says little: the one that changed
        most.
        """
        spec = self.bank.charts[lead]
        causes = [int(index) for index in np.flatnonzero(members) if self.bank.charts[index].family in CAUSES]
        if not causes or (spec.kind != "change" and spec.family not in CAUSES):  # how labels come follows from no input
            return lead
        best = max(float(explanation.log_r[index]) for index in causes)
        close = [index for index in causes if explanation.log_r[index] >= best - CLOSE_LOG10]
        return max(close, key=lambda index: (float(explanation.size[index]), -index))

    def _doubt(self, harm: Incident, strong: BoolArray) -> tuple[str, bool]:
        """Return what is known of the labels behind a harm, and whether that explains it."""
        if not self._by_labels(harm):
            return "", False
        moved = self._moved_labels()
        moved += [name for i in np.flatnonzero(strong) if (name := self.bank.charts[i].name).startswith(PREFIX)]
        onset = self.clock.cell(harm.finding.onset_us)
        said, found = self.judge.doubt(harm, sorted(set(moved)), self.history, onset)
        return said, found.explains

    def _moved_labels(self) -> list[str]:
        """Return the charts of labels that carry an open incident."""
        return [name for incident in self.incidents for name in incident.charts if name.startswith(PREFIX)]

    def _suspected(self, onset_block: int) -> float | None:
        """Return the severity that the estimate gives to a change since a block; None where it may not speak."""
        chart, spec = self.examiner.chart, self.examiner.estimate
        if chart is None or spec is None or not self.validity.valid:
            return None
        kept = self.history.since(onset_block)
        if self.examiner.too_far(kept["stats"].sum(axis=0)):
            return None  # not yet suspended, but what has changed lies where the estimate does not hold
        rows, total = (kept["stats"][:, spec.first + column] for column in (PRESENT, SUM))
        number = int(rows.sum())
        if not number:
            return None
        expected = float((rows * self.profile.points.centre[kept["marks"][:, STRATUM].astype(np.int64), chart]).sum())
        return severity(self.bank.charts[chart], (int(total.sum()) - expected) / number / UNIT)

    def _join(self, chart: int, explanation: Explanation) -> Incident | None:
        spec = self.bank.charts[chart]
        for incident in self.incidents:
            if harmful(incident.kind) != harmful(spec.kind):
                continue
            onset, blocks = int(explanation.onset_block[chart]), self._near
            if spec.kind == "harm":  # of the same outcomes, and never silent: an onset is known to half of its delay
                blocks = max(blocks, (self.state.blocks - onset) // 2)
            moved = incident.near(onset, blocks) or incident.moved_since(explanation, chart, self._near)
            if moved or self._follows(incident, spec):
                incident.charts.append(spec.name)
                self._remember(incident, chart, explanation)
                incident.quiet_events, incident.quiet_from = 0, {}
                self._active[chart] = False
                return incident
        return None

    def _follows(self, incident: Incident, spec: ChartSpec) -> bool:
        """Tell whether an incident is about something that a chart is made of: meanwhile it tells nothing new.

        The bets of such a chart hold where each of its parts is as in the reference. A part without charts of its own
        (a combination of features) may have moved where any chart made of it has. Mean, spread and shape of one feature
        bet on each other being as they were.
        """
        charts = [self.bank.charts[index] for index in self._charts(incident)]
        if spec.statistic in OF_ONE and any(one.subject == spec.subject and one.statistic in OF_ONE for one in charts):
            return True
        if not spec.of:
            return False
        about = {one.subject for one in charts if one.family in CAUSES}
        about |= {part for one in charts for part in one.of if part not in self._features}
        return not about.isdisjoint(spec.of)

    def _worse(self, joined: list[tuple[Incident, int]], explanation: Explanation, moment: Moment) -> list[Finding]:
        """Revise open incidents of harm where a chart that joined shows a larger loss than was said."""
        found = []
        by_loss = sorted((-severity(self.bank.charts[i], float(explanation.effect[i])), i, one) for one, i in joined)
        for loss, index, incident in by_loss:  # the worst first: the others say nothing new
            spec, effect, lost = self.bank.charts[index], float(explanation.effect[index]), -loss
            if incident.kind != "harm" or lost <= incident.severity:
                continue
            more, incident.doubted = self._doubt(incident, np.zeros_like(self._active))
            if not incident.doubted:
                said = describe(spec, effect, self._when(explanation, index), moment.total, moment.threshold)
                who = carrier(self.bank, explanation, index)
                found.append(revised(incident, "confirmed", moment, said + more, lost, who))
        return found

    @property
    def _near(self) -> int:
        return near_blocks(self.state.blocks, self.state.events)

    def _cap(self, threshold: float) -> None:
        """Cap followed charts: one grid point alone at the cap puts R at the threshold, so that they come down soon."""
        followed = ~self._active
        if followed.any():
            cap = np.where(followed, threshold * LOG2_10 + np.log2(self._grid), np.inf)
            capped = np.minimum(self.state.log2_r, cap[self.profile.points.chart])
            self.state = replace(self.state, log2_r=capped)

    def _lead(self, log_r: FloatArray) -> int:
        with np.errstate(divide="ignore"):
            return int(np.argmax(np.where(self._active, log_r + np.log10(self.bank.weights), -np.inf)))

    def _named(self, charts: list[int]) -> dict[str, int]:
        return {self.bank.charts[index].name: index for index in charts}

    def _charts(self, incident: Incident) -> list[int]:
        return [self._index[name] for name in incident.charts if name in self._index]

    def _when(self, explanation: Explanation, lead: int) -> str:
        mark = int(explanation.onset_mark[lead])
        if isinstance(self.clock, RowClock):
            return f"row {mark}"
        return f"{datetime.fromtimestamp(mark / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"
