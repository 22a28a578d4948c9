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
from regate.detectors.finding import Finding
from regate.detectors.history import History
from regate.detectors.incidents import (
    CAUSES,
    JOIN_LOG10,
    MOVED_DEVIATIONS,
    QUIET_EVENTS,
    QUIET_LOG10,
    QUIET_OWN,
    Incident,
    Moment,
    accepted,
    advised,
    followed_level,
    near_blocks,
    open_incident,
    overlapping,
    recovered,
)
from regate.detectors.numerics import LOG2_10, exp2
from regate.detectors.profile import Profile
from regate.detectors.river_adapter import Adviser

# A gap in the stream is elapsed time, which feeds R: unchecked, a night would pass a calibrated threshold
# by itself. No block gets a larger head start than this share of the threshold (log10), or its own share of events.
HEAD_START_LOG10 = -2.0

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
    _index: dict[str, int] = field(init=False)
    _active: BoolArray = field(init=False)
    _grid: FloatArray = field(init=False)

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

    def refresh(self) -> None:
        """Set which charts are in the mean, after ``incidents`` were set from outside."""
        self._active = np.ones(len(self.bank.charts), dtype=np.bool_)
        for incident in self.incidents:
            self._active[self._charts(incident)] = False

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
        result = self.bank.step(
            self.state, block.stats, block.stratum, delta, self._active, mark=self.clock.first(block)
        )
        self.state = result.state
        self.history.add(block, self.state.blocks, delta)
        burnt = [finding for one in self.burns for finding in one.step(block, self.profile.key)]
        alarmed = [one for one in self.advisers if one.step(block.stats, block.stratum)]
        if result.total < threshold and not self.incidents and not alarmed:
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
        if self.on_finding == "restart":
            return burnt + (self._restarted(moment) if result.total >= threshold else self._advise(alarmed, moment))
        findings = burnt + self._follow(result, moment, block.events)
        findings.extend(self._decide(moment, delta))
        findings.extend(self._advise(alarmed, moment))
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

    def _again(self, charts: list[int]) -> None:
        """Take charts back into the mean, from nothing."""
        again = np.zeros(len(self.bank.charts), dtype=np.bool_)
        again[charts] = True
        self._active |= again
        self.state = self.bank.restart(self.state, again)

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
            level = followed_level(result.log_r, charts) if charts else float("-inf")
            self._listen(incident, charts, events, quiet=level < moment.threshold + QUIET_LOG10)
            if incident.quiet_events >= QUIET_EVENTS and self._is_back(incident, charts):
                self.incidents.remove(incident)
                self._again(charts)
                findings.append(recovered(incident, replace(moment, total=max(level, -99.0))))
        self._cap(moment.threshold)
        return findings

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
        s, n, centre = self.state.sum_s.copy(), self.state.sum_n.copy(), self.state.sum_centre.copy()
        judged = [index for index in charts if self.bank.charts[index].name in incident.quiet_from]
        for index in judged:
            first = incident.quiet_from[self.bank.charts[index].name]
            s[index], n[index], centre[index] = s[index] - first[0], n[index] - first[1], centre[index] - first[2]
        if bool((n[judged] < QUIET_OWN).any()):
            return False  # not enough of its own yet: the stretch goes on
        off = np.abs(self.bank.deviations(s, n, centre, tolerant=True)[judged])
        if bool((off >= MOVED_DEVIATIONS).any()):
            incident.quiet_events, incident.quiet_from = 0, {}
            return False
        return True

    def _decide(self, moment: Moment, delta: float) -> list[Finding]:
        """Let charts join open incidents; open a new one when the rest still passes the threshold."""
        log_r = self.bank.log_r(self.state)
        strong = self._active & (log_r >= JOIN_LOG10 + np.log10(delta))
        explanation: Explanation | None = None
        if self.incidents and bool(strong.any()):
            explanation = self.bank.explain(self.state)
            for index in np.flatnonzero(strong):
                self._join(int(index), explanation)
        findings: list[Finding] = []
        while self._active.any() and (total := self.bank.total(log_r, self._active)) >= moment.threshold:
            explanation = explanation or self.bank.explain(self.state)
            lead = self._lead(log_r)
            if not self._join(lead, explanation):
                moment = replace(moment, number=self.opened + 1, total=total)
                findings.append(self._open(lead, explanation, strong, moment))
        if findings:  # what is left after all that passed the threshold starts at nothing
            self.state = self.bank.restart(self.state, self._active)
            self._cap(moment.threshold)
        return findings

    def _open(self, lead: int, explanation: Explanation, strong: BoolArray, moment: Moment) -> Finding:
        kind = np.array([chart.kind == self.bank.charts[lead].kind for chart in self.bank.charts])
        members = strong & self._active & kind & overlapping(explanation, lead, self.state.blocks, self._near)
        members[lead] = True
        lead = self._cause(lead, members, explanation)
        incident = open_incident(self.bank, explanation, lead, members, moment, self._when(explanation, lead))
        self.incidents.append(incident)
        self.opened += 1
        self._active &= ~members
        return incident.finding

    def _cause(self, lead: int, members: BoolArray, explanation: Explanation) -> int:
        """Return the chart that names the incident: where a feature is in it, what follows from it does not."""
        if self.bank.charts[lead].family in CAUSES:
            return lead
        causes = [index for index in np.flatnonzero(members) if self.bank.charts[index].family in CAUSES]
        return int(max(causes, key=lambda index: explanation.log_r[index])) if causes else lead

    def _join(self, chart: int, explanation: Explanation) -> bool:
        spec = self.bank.charts[chart]
        for incident in self.incidents:
            if incident.kind != spec.kind:
                continue
            near = incident.near(int(explanation.onset_block[chart]), self._near)
            if near or incident.moved_since(explanation, chart, self._near):
                incident.charts.append(spec.name)
                incident.quiet_events, incident.quiet_from = 0, {}
                self._active[chart] = False
                return True
        return False

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

    def _charts(self, incident: Incident) -> list[int]:
        return [self._index[name] for name in incident.charts if name in self._index]

    def _when(self, explanation: Explanation, lead: int) -> str:
        mark = int(explanation.onset_mark[lead])
        if isinstance(self.clock, RowClock):
            return f"row {mark}"
        return f"{datetime.fromtimestamp(mark / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"
