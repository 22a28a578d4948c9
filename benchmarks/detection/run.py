"""What is run: every row of the table on every law, at equal realised run length and at its own setting."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from benchmarks.detection.link import Link, PeerError
from benchmarks.detection.peers import PEERS, Peer
from benchmarks.detection.rows import Clock, Effort, Oracle, PeerRow, Profiles, Regate, Row, Side
from benchmarks.detection.scoring import Delays, RunLength, median_ratio
from benchmarks.detection.streams import BLOCK, LAWS, Batch, Change, Law, Plan, changes_of

ONE, WHOLE, ORACLE, STEPPED = "regate, one chart", "regate, whole profile", "oracle", f"oracle, blocks of {BLOCK}"
WITHIN = 3_000
# Run lengths of the curves; only where nothing depends but the change are they drawn.
CURVE = (3_000.0, 10_000.0, 30_000.0)
CURVE_PEERS = ("River ADWIN", "River PageHinkley", "River HDDMA", "River DDM", "driftfdr e-CUSUM")


# What most rows can run comes first.
FIRST = tuple(sorted(LAWS, key=lambda law: law.null != "iid"))


@dataclass(frozen=True, slots=True)
class Size:
    """How much one run of the benchmark does."""

    plan: Plan
    target: float  # events to a false alarm at which everybody is compared
    effort: Effort
    laws: tuple[Law, ...]
    curves: bool


def full(seed: int) -> Size:
    plan = Plan(4, 20_000, 5, 32_000, 50, 2_048, 10_000, seed)
    return Size(plan, 10_000.0, Effort(2.0, 3.0, 6.0), FIRST, curves=True)


def quick(seed: int) -> Size:
    plan = Plan(2, 20_000, 4, 32_000, 30, 2_048, 6_000, seed)
    laws = tuple(law for law in LAWS if law.null == "iid")
    return Size(plan, 10_000.0, Effort(1.0, 2.0, 3.0), laws, curves=False)


@dataclass
class Results:
    """What was found; plain enough for JSON."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    not_run: list[dict[str, str]] = field(default_factory=list)
    delays: dict[tuple[str, str, str, str], Delays] = field(default_factory=dict)
    compared: list[dict[str, Any]] = field(default_factory=list)  # of an earlier run that this one joins


def plain(why: str) -> str:
    """Return an error without the folders of this machine."""
    return re.sub(r"\(?/[^ )]*\)?", "", why)[:200].strip()


def _finite(value: float) -> float | None:
    return round(value, 1) if math.isfinite(value) else None


def plain_run_length(found: RunLength) -> dict[str, Any]:
    low, high = found.interval
    return {"value": _finite(found.value), "low": _finite(low), "high": _finite(high), "alarms": found.alarms}


def plain_delays(found: Delays) -> dict[str, Any]:
    low, high = found.median_interval
    share, least, most = found.within(min(WITHIN, found.horizon))
    return {
        "median": _finite(found.median),
        "low": _finite(low),
        "high": _finite(high),
        "within": round(share, 3),
        "within_low": round(least, 3),
        "within_high": round(most, 3),
        "runs": found.runs,
        "horizon": found.horizon,
    }


@dataclass
class Bench:
    """One run over all laws."""

    size: Size
    link: Link
    peers: tuple[Peer, ...] = PEERS
    alone: bool = False  # the peers, without regate, oracles and frames
    found: Results = field(default_factory=Results)

    def run(self, save: Callable[[Results], None]) -> Results:
        """Run law after law; what is known is saved after each."""
        for law in self.size.laws:
            began = time.perf_counter()
            self._law(law)
            save(self.found)
            print(f"{law.name}: {time.perf_counter() - began:.0f} s", flush=True)
        return self.found

    def _law(self, law: Law) -> None:
        plan, target, changes = self.size.plan, self.size.target, changes_of(law)
        profiles = Profiles(law, plan, target)
        for change in () if self.alone else changes:
            for block in (1, BLOCK):
                self._add(law, Oracle(law, change, plan, block), "matched", (change,))
            self._add(law, Regate(ONE, profiles, change), "matched", (change,))
            self._ratio(law, change)
        if not self.alone:
            whole = Regate(WHOLE, profiles)
            self._add(law, whole, "matched", changes)
            self._add(law, whole, "nominal", changes, level=0.0)
            self._add(law, Clock("dummy: an alarm by the clock", plan, law), "matched", changes)
            self._add(law, Clock("never an alarm", plan, law, never=True), "matched", changes)

        @cache
        def source(change: Change | None, side: Side) -> list[Batch]:
            return list(plan.batches(law, change, side))

        for peer in self.peers:
            if law.inputs in peer.inputs and law.null in peer.nulls:
                self._peer(law, peer, source, changes)
        if self.size.curves and not self.alone and law.null == "iid":
            self._curves(law, profiles, source, changes)

    def _peer(
        self,
        law: Law,
        peer: Peer,
        source: Callable[[Change | None, Side], list[Batch]],
        changes: tuple[Change, ...],
    ) -> None:
        row = self._row(law, peer, source)
        try:
            self._add(law, row, "matched", changes, notes=peer.note)
            if peer.default is not None:
                self._add(law, row, "default", changes, level=peer.default, notes=peer.note)
        except PeerError as error:
            self.found.not_run.append({"law": law.name, "detector": peer.name, "why": plain(str(error))})

    def _row(self, law: Law, peer: Peer, source: Callable[[Change | None, Side], list[Batch]]) -> PeerRow:
        label = law.name.replace("/", "-")
        several = law.inputs == "joint"  # parameters in the data's own units
        return PeerRow(peer, source, label, self.link, self.size.effort, standardise=several)

    def _add(
        self, law: Law, row: Row, setting: str, changes: tuple[Change, ...], level: float | None = None, notes: str = ""
    ) -> None:
        at = row.level(self.size.target) if level is None else level
        seen = row.run_length(at)
        said = [notes] if notes else []
        if setting == "matched" and row.name != "never an alarm" and not seen.matches(self.size.target):
            said.append("its run length is off the target by more than 15 %")
        cells = {}
        for change in changes:
            found = row.delays(at, change)
            if not found.runs:
                said.append(f"{change.name}: no stream in which it said nothing before the change")
                continue
            self.found.delays[law.name, row.name, setting, change.name] = found
            cells[change.name] = plain_delays(found)
        said += getattr(row, "notes", [])
        self.found.rows.append(
            {
                "law": law.name,
                "detector": row.name,
                "setting": setting,
                "level": float(f"{at:.5g}"),
                "arl": plain_run_length(seen),
                "changes": cells,
                "notes": "; ".join(said),
            }
        )

    def _ratio(self, law: Law, change: Change) -> None:
        own = self.found.delays[law.name, ONE, "matched", change.name]
        for name in (ORACLE, STEPPED):
            best = self.found.delays[law.name, name, "matched", change.name]
            value, low, high = median_ratio(own, best)
            both = {"law": law.name, "change": change.name, "over": name}
            self.found.ratios.append({**both, "ratio": _finite(value), "low": _finite(low), "high": _finite(high)})

    def _curves(
        self,
        law: Law,
        profiles: Profiles,
        source: Callable[[Change | None, Side], list[Batch]],
        changes: tuple[Change, ...],
    ) -> None:
        peers = [
            self._row(law, peer, source)
            for peer in self.peers
            if peer.name in CURVE_PEERS and law.inputs in peer.inputs and law.null in peer.nulls
        ]
        for change in changes:
            rows: list[Row] = [
                Oracle(law, change, self.size.plan),
                Oracle(law, change, self.size.plan, BLOCK),
                Regate(ONE, profiles, change),
                Regate(WHOLE, profiles),
                *peers,
            ]
            for row in rows:
                points = []
                try:
                    for target in CURVE:
                        level = row.level(target)
                        seen, delay = row.run_length(level), row.delays(level, change)
                        points.append({"arl": _finite(seen.value), "median_delay": _finite(delay.median)})
                except PeerError:
                    pass  # named among what was not run
                self.found.curves.append({"change": change.text, "detector": row.name, "points": points})
