"""What every row of the table can do: find the level of a run length, watch nulls, watch changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from benchmarks.detection import oracle, own
from benchmarks.detection.link import Link, PeerError
from benchmarks.detection.peers import Peer
from benchmarks.detection.scoring import (
    Delays,
    RunLength,
    Tried,
    alarms_above,
    delays_of,
    level_for,
    score_level,
    search,
)
from benchmarks.detection.streams import BLOCK, Batch, Change, FloatArray, IntArray, Law, Plan, log_ratio

from regate.detectors.profile import Profile

Side = Literal["tune", "judge"]


class Row(Protocol):
    """One detector on one law."""

    name: str

    def level(self, target: float) -> float:
        """Return the level that gives this run length on the tuning side's nulls."""

    def run_length(self, level: float) -> RunLength:
        """Return the run length on the judging side's nulls."""

    def delays(self, level: float, change: Change) -> Delays:
        """Return the delays on the judging side's streams."""


def _counted(alarms: list[list[int]], rows: int) -> RunLength:
    return RunLength(sum(len(one) for one in alarms), len(alarms) * rows)


@dataclass
class Oracle:
    """A CUSUM that knows the law before and after one change; ``block`` 1 decides with each event."""

    law: Law
    change: Change
    plan: Plan
    block: int = 1
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = "oracle" if self.block == 1 else f"oracle, blocks of {self.block}"

    def _ratios(self, change: Change | None, side: Side) -> Iterator[tuple[Batch, FloatArray]]:
        for batch in self.plan.batches(self.law, change, side):
            ratio = log_ratio(self.law, self.change, batch.streams, self.plan.reference_rows)
            yield batch, ratio if self.block == 1 else oracle.by_blocks(ratio, self.block)

    def level(self, target: float) -> float:
        paths = [oracle.path(ratio).astype(np.float32) for _, ratio in self._ratios(None, "tune")]
        return level_for(paths, target, self.block)

    def _alarms(self, ratio: FloatArray, level: float) -> list[list[int]]:
        return [[(step + 1) * self.block - 1 for step in one] for one in oracle.alarms(ratio, level)]

    def run_length(self, level: float) -> RunLength:
        total = RunLength(0, 0)
        for _, ratio in self._ratios(None, "judge"):
            total = total + _counted(self._alarms(ratio, level), ratio.shape[1] * self.block)
        return total

    def delays(self, level: float, change: Change) -> Delays:
        alarms: list[list[int]] = []
        at: list[int] = []
        for batch, ratio in self._ratios(change, "judge"):
            alarms += self._alarms(ratio, level)
            at += batch.change.tolist()
        return delays_of(alarms, np.array(at), self.plan.after)


class Profiles:
    """The profiles of a law's references, built once each."""

    def __init__(self, law: Law, plan: Plan, budget_events: float) -> None:
        self.law, self.plan, self.budget_events = law, plan, budget_events
        self._made: dict[tuple[Side, int], Profile] = {}

    def of(self, side: Side, batch: Batch) -> Profile:
        place = (side, batch.number)
        if place not in self._made:
            self._made[place] = own.profile_of(self.law, batch.reference, self.budget_events, seed=batch.number)
        return self._made[place]

    def first(self) -> Profile:
        return self.of("tune", next(iter(self.plan.batches(self.law, None, "tune"))))


@dataclass
class Regate:
    """regate at one nominal budget; ``about`` chooses the one chart of a change, else all charts are in the mean."""

    name: str
    profiles: Profiles
    about: Change | None = None

    def _fleets(self, change: Change | None, side: Side) -> Iterator[tuple[Batch, own.Fleet, IntArray]]:
        profiles = self.profiles
        for batch in profiles.plan.batches(profiles.law, change, side):
            profile = profiles.of(side, batch)
            active = None if self.about is None else own.one_chart(profile, self.about)
            fleet = own.Fleet(profile, len(batch.streams), profiles.budget_events, active)
            yield batch, fleet, own.statistics(profiles.law, profile, batch.streams)

    def level(self, target: float) -> float:
        """Return how far the calibrated threshold (log10) has to be moved."""
        return level_for([fleet.path(blocks) for _, fleet, blocks in self._fleets(None, "tune")], target, BLOCK)

    def run_length(self, level: float) -> RunLength:
        total = RunLength(0, 0)
        for _, fleet, blocks in self._fleets(None, "judge"):
            total = total + _counted(fleet.alarms(blocks, level), blocks.shape[1] * BLOCK)
        return total

    def delays(self, level: float, change: Change) -> Delays:
        alarms: list[list[int]] = []
        at: list[int] = []
        for batch, fleet, blocks in self._fleets(change, "judge"):
            alarms += fleet.alarms(blocks, level)
            at += batch.change.tolist()
        return delays_of(alarms, np.array(at), self.profiles.plan.after)


@dataclass
class Clock:
    """An alarm every so many events, whatever they are; its level is the period. 0: never."""

    name: str
    plan: Plan
    law: Law
    never: bool = False

    def level(self, target: float) -> float:
        return 0.0 if self.never else target

    def _alarms(self, batch: Batch, level: float) -> list[list[int]]:
        streams, rows = batch.streams.shape[:2]
        if self.never:
            return [[] for _ in range(streams)]
        rng = np.random.default_rng((self.plan.seed, batch.number))
        return oracle.clock_alarms(streams, rows, round(level), rng)

    def run_length(self, level: float) -> RunLength:
        total = RunLength(0, 0)
        for batch in self.plan.batches(self.law, None, "judge"):
            total = total + _counted(self._alarms(batch, level), batch.streams.shape[1])
        return total

    def delays(self, level: float, change: Change) -> Delays:
        alarms: list[list[int]] = []
        at: list[int] = []
        for batch in self.plan.batches(self.law, change, "judge"):
            alarms += self._alarms(batch, level)
            at += batch.change.tolist()
        return delays_of(alarms, np.array(at), self.plan.after)


@dataclass(frozen=True, slots=True)
class Effort:
    """Seconds that a peer may take on one law."""

    search: float  # for each level tried
    judge: float  # for the run length, and for each change
    scores: float  # for a statistic that is taken once


@dataclass
class PeerRow:
    """A peer behind a link: either tuned by trying levels, or its statistic taken once and levels chosen after."""

    peer: Peer
    source: Callable[[Change | None, Side], list[Batch]]
    label: str  # of the arrays that it shares with the other peers
    link: Link
    effort: Effort
    standardise: bool = False
    tried: list[Tried] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    name: str = field(init=False)
    _scores: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = self.peer.name

    def level(self, target: float) -> float:
        if self.peer.mode == "scores":
            scores = [self._array(one) for one in self._scored(None, "tune")]
            if not any(bool(np.isfinite(one).any()) for one in scores):
                raise PeerError("no score on the tuning streams within its time")
            return score_level(scores, target / self.peer.every, self.peer.rest)
        goal = target
        if self.tried:  # another run length was asked for before: start from what is known
            known = sorted({one.level: one for one in self.tried}.values(), key=lambda one: one.run_length.value)
            logs = np.log([one.run_length.events / max(one.run_length.alarms, 0.5) for one in known])
            levels = np.log([one.level for one in known])
            return float(np.exp(np.interp(np.log(goal), np.maximum.accumulate(logs), levels)))
        self.tried = search(lambda level: self._null(level, "tune", goal), self.peer.loose, self.peer.strict, goal)
        return self.tried[-1].level

    def run_length(self, level: float) -> RunLength:
        if self.peer.mode == "alarms":
            return self._null(level, "judge", None)
        scored = self._scored(None, "judge")
        alarms = sum(len(alarms_above(self._array(one), level, self.peer.rest)) for one in scored)
        return RunLength(alarms, sum(len(one["scores"]) for one in scored) * self.peer.every)

    def delays(self, level: float, change: Change) -> Delays:
        horizon = self.peer.post
        batches = self.source(change, "judge")
        if self.peer.mode == "alarms":
            streams = self._ask(change, "judge", level=level, most_alarms=1 << 40, seconds=self.effort.judge)["streams"]
            rows = [one["alarms"] for one in streams]
        else:
            streams = self._scored(change, "judge")
            every = self.peer.every
            rows = [
                [
                    one["start"] + (place + 1) * every - 1
                    for place in alarms_above(self._array(one), level, self.peer.rest)
                ]
                for one in streams
            ]
        at = np.array([batches[one["group"]].change[one["stream"]] for one in streams])
        return delays_of(rows, at, min(horizon, self._after(batches)))

    def alarm_rows(self, level: float) -> list[int]:
        """Return the alarms on the one judged stream that has no change marked."""
        if self.peer.mode == "alarms":
            rows = self._ask(None, "judge", level=level, most_alarms=1 << 40, seconds=self.effort.judge)["streams"]
            return list(rows[0]["alarms"]) if rows else []
        scored = self._scored(None, "judge")
        every = self.peer.every
        return [(place + 1) * every - 1 for place in alarms_above(self._array(scored[0]), level, self.peer.rest)]

    @staticmethod
    def _after(batches: list[Batch]) -> int:
        return min(int(batch.streams.shape[1] - batch.change.max()) for batch in batches)

    @staticmethod
    def _array(one: dict[str, Any]) -> FloatArray:
        return np.array([np.nan if value is None else value for value in one["scores"]], dtype=np.float64)

    def _null(self, level: float, side: Side, target: float | None) -> RunLength:
        seconds = self.effort.judge if target is None else self.effort.search
        batches = self.source(None, side)
        events = sum(batch.streams.shape[0] * batch.streams.shape[1] for batch in batches)
        # When a level is far too loose a few alarms say so.
        most = 1 << 40 if target is None else max(60, int(3 * events / target))
        result = self._ask(None, side, level=level, most_alarms=most, seconds=seconds)
        return RunLength(sum(len(one["alarms"]) for one in result["streams"]), max(int(result["events"]), 1))

    def _scored(self, change: Change | None, side: Side) -> list[dict[str, Any]]:
        place = f"{side}/{change.name if change else 'null'}"
        if place not in self._scores:
            seconds = self.effort.scores if change is None else self.effort.judge
            peer = self.peer
            result = self._ask(
                change, side, level=None, seconds=seconds, every=peer.every, lead=peer.lead, post=peer.post
            )
            if not result["streams"]:
                raise PeerError(f"not one stream within {seconds:.0f} s")
            self._scores[place] = result["streams"]
        return self._scores[place]

    def _ask(self, change: Change | None, side: Side, *, seconds: float, **job: Any) -> dict[str, Any]:
        arrays, streams = self._arrays(change, side)
        result = self.link.ask(
            self.peer.home,
            self.peer.library,
            {"mode": self.peer.mode, "call": self.peer.call, "arrays": str(arrays), "streams": streams, **job},
            seconds,
        )
        if result["cut"] and side == "judge" and not any("cut" in note for note in self.notes):
            self.notes.append(f"cut at {seconds:.0f} s")
        return result

    def _arrays(self, change: Change | None, side: Side) -> tuple[Path, int]:
        batches = self.source(change, side)
        path = self.link.folder / f"{self.label}-{change.name if change else 'null'}-{side}.npz"
        if not path.exists():
            np.savez(
                path,
                reference=np.stack([self._scaled(batch, batch.reference) for batch in batches]),
                streams=np.stack([self._scaled(batch, batch.streams) for batch in batches]),
                change=np.stack([batch.change for batch in batches]),
            )
        return path, len(batches[0].streams)

    def _scaled(self, batch: Batch, values: FloatArray) -> FloatArray:
        """Standardise by the reference: some peers' parameters are in the data's own units."""
        if not self.standardise:
            return values
        spread = batch.reference.std(axis=0)
        return np.asarray((values - batch.reference.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
