"""River's drift detectors and HalfSpaceTrees beside the calibrated charts, configured by name.

A River detector promises no rate of false alarms, so the profile builder measures it on the reference. Where the upper
95 % limit of that rate keeps within the adapter's share of the budget, or the operator says ``trusted``, an alarm is a
finding; else it is *advice*: told, never acted on.

A detector is fed one value a block: the block mean of its chart's statistic less what the reference expects (in the
chart's unit); those of errors (DDM and its kin) the block's hits, spread evenly over its trials; HalfSpaceTrees the
mean scores of all numeric features. River objects are opaque, so their state is never stored: what is kept is the ring
of values fed since the last cut, and the detector is always exactly what those values make of a fresh one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regate.config.canonical import digest
from regate.config.errors import ConfigError
from regate.detectors.columns import IntArray

# Values fed since the last cut: at twice this many the older half goes and the detector is made anew from the rest.
RING = 512
BINARY = frozenset({"DDM", "EDDM", "FHDDM", "HDDMA", "HDDMW"})
TREES = "HalfSpaceTrees"
# A block's mean z of this size is near the edge of the unit cube that the trees cut.
TREE_SCALE = 4.0


@dataclass(frozen=True, slots=True)
class RiverSpec:
    """One detector of a profile. ``rate`` is the upper limit of its false alarms a block, ``allowed`` its share."""

    detector: str
    chart: str  # the chart that it listens to; for HalfSpaceTrees the first of them
    parameters: tuple[tuple[str, float | bool], ...]
    columns: tuple[tuple[int, int], ...]  # (s, n) of each listened-to chart
    centres: tuple[tuple[float, ...], ...]  # per stratum, of each: what the reference expects of s for each of n
    unit: float  # of s
    trusted: bool
    rate: float
    allowed: float
    cut: float = 0.0  # HalfSpaceTrees: an alarm is a score above the largest of the reference

    @property
    def counts(self) -> bool:
        """Return whether an alarm is a finding."""
        return self.trusted or self.rate <= self.allowed

    @property
    def digest(self) -> str:
        """Return the address of what the state depends on."""
        return digest([self.detector, self.chart, self.parameters, self.columns, self.centres, self.unit, self.cut])


Value = tuple[float, ...]


@dataclass(slots=True)
class Adviser:
    """A detector at work. ``ring`` holds one row a block; equal rings are equal detectors."""

    spec: RiverSpec
    ring: list[Value] = field(default_factory=list)
    alarms: int = 0
    _feed: Callable[[Value], bool] = field(init=False)

    def __post_init__(self) -> None:
        self._feed = _fresh(self.spec)

    def restore(self, ring: Sequence[Value], alarms: int) -> None:
        """Take a ring that another life of this detector left."""
        self.ring, self.alarms = list(ring), alarms
        self._again()

    def step(self, stats: IntArray, stratum: int) -> bool:
        """Take one block; return whether the detector alarms."""
        value = value_of(self.spec, stats, stratum)
        if value is None:
            return False
        if len(self.ring) >= 2 * RING:
            del self.ring[:RING]
            self._again()
        self.ring.append(value)
        alarm = self._feed(value)
        self.alarms += alarm
        return alarm

    def _again(self) -> None:
        self._feed = _fresh(self.spec)
        for value in self.ring:
            self._feed(value)


def value_of(spec: RiverSpec, stats: IntArray, stratum: int) -> Value | None:
    """Return what a block feeds: (hits, trials), block means, or None when nothing was there to see."""
    if spec.detector in BINARY:
        ((s, n),) = spec.columns
        return (float(stats[s]), float(stats[n])) if stats[n] > 0 else None
    found = []
    for (s, n), centre in zip(spec.columns, spec.centres[stratum], strict=True):
        count = int(stats[n])
        found.append((int(stats[s]) - count * centre) / count / spec.unit if count else 0.0)
    return tuple(found) if any(stats[n] > 0 for _, n in spec.columns) else None


def _fresh(spec: RiverSpec) -> Callable[[Value], bool]:
    made = make(spec.detector, dict(spec.parameters))
    if spec.detector in BINARY:

        def bits(value: Value) -> bool:
            hits, trials = int(value[0]), int(value[1])
            wrong = spec.detector != "FHDDM"  # which counts right answers
            alarm = False
            for place in range(trials):
                made.update(((place + 1) * hits // trials - place * hits // trials == 1) is wrong)
                alarm = alarm or bool(made.drift_detected)
            return alarm

        return bits
    if spec.detector == TREES:
        return lambda value: tree_score(made, value) > spec.cut

    def mean(value: Value) -> bool:
        made.update(value[0])
        return bool(made.drift_detected)

    return mean


def tree_score(trees: Any, value: Value) -> float:
    """Return how strange a block is to the trees; they learn it afterwards."""
    point = {str(place): 0.5 + 0.5 * float(np.tanh(x / TREE_SCALE)) for place, x in enumerate(value)}
    score = float(trees.score_one(point))
    trees.learn_one(point)
    return score


def make(detector: str, parameters: dict[str, Any]) -> Any:
    """Return a fresh River object.

    :raises ConfigError: when it does not take these parameters.
    """
    # River's own imports take a second and 100 MB: only who asks for a detector pays.
    from river import anomaly, drift  # noqa: PLC0415
    from river.drift import binary  # noqa: PLC0415

    if detector in {"KSWIN", TREES}:
        parameters = {"seed": 0, **parameters}  # unseeded, two lives of one detector would differ
    kind = anomaly.HalfSpaceTrees if detector == TREES else getattr(binary if detector in BINARY else drift, detector)
    for name in ("window_size", "seed", "n_trees", "height", "clock", "stat_size", "min_instances", "warm_start"):
        if name in parameters:
            parameters[name] = int(parameters[name])
    try:
        return kind(**parameters)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"detection.river: {detector} refuses its parameters: {error}", hint="see River's documentation"
        ) from error
