"""regate as the benchmark drives it: its builder, its bank, its clock, many streams at once. Nothing else here
touches the detectors' code.

A fleet is the bank of one profile with its charts repeated, once a stream: the product's own step and restart run
all streams of a reference together. `Watch` with `on_finding="restart"` gives the same alarms (a unit test).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from benchmarks.calibration.loop import KEY, numeric_config, numeric_rows
from benchmarks.detection.streams import BLOCK, Change, FloatArray, IntArray, Law

from regate.config.model import Detection
from regate.detectors.build import build_profile
from regate.detectors.charts import MAX_RESCALE, Bank
from regate.detectors.columns import BoolArray, Numeric
from regate.detectors.marks import Outcomes
from regate.detectors.profile import Profile

# What a change is about, by the statistic or the family of its chart; the first that the profile has is "one chart".
CHART_OF = {
    "mean": ("mean",),
    "scale": ("scale",),
    "shape": ("shape", "scale"),
    "rate20": ("rate",),
    "rate13": ("rate",),
    "correlation": ("correlation",),
}


def _columns(values: FloatArray) -> dict[str, FloatArray]:
    return {f"x{index}": np.ascontiguousarray(values[:, index]) for index in range(values.shape[1])}


def profile_of(law: Law, reference: FloatArray, budget_events: float, seed: int) -> Profile:
    """Build the profile of a reference ``[rows, width]``; a rate is the rate of realised errors.

    What a peer sees is all that regate sees: how data come, and answers that never change, stay out.
    """
    columns = _columns(reference)
    families = {"families": {"data_quality": 0, "output_drift": 0}}
    config = numeric_config(list(columns)).model_copy(update={"detection": Detection.model_validate(families)})
    if law.inputs != "rate":
        return build_profile(config, KEY, numeric_rows(columns), budget_events=budget_events, seed=seed)
    # The model always says 0, so a label of 1 is an error; its only input says nothing.
    wrong = columns["x0"]
    rows = numeric_rows({"x0": np.zeros(wrong.size)})
    rows, labels = replace(rows, prediction=Numeric(np.zeros(wrong.size))), Numeric(wrong)
    return build_profile(config, KEY, rows, labels, budget_events=budget_events, seed=seed)


def statistics(law: Law, profile: Profile, streams: FloatArray) -> IntArray:
    """Return ``int64[streams, blocks, D]`` of whole blocks."""
    count, rows, width = streams.shape
    blocks = rows // BLOCK
    whole = streams[:, : blocks * BLOCK].reshape(-1, width)
    group = np.arange(len(whole)) // BLOCK
    if law.inputs == "rate":
        none = np.zeros(len(whole))
        rows_in = replace(numeric_rows({"x0": none}), prediction=Numeric(none))
        found = profile.accumulate(rows_in, group, count * blocks)
        outcomes = Outcomes(whole[:, 0].astype(np.int64))
        stratum = np.zeros(len(whole), dtype=np.int16)
        found = found + profile.accumulate_outcomes(outcomes, stratum, group, count * blocks)
    else:
        found = profile.accumulate(numeric_rows(_columns(whole)), group, count * blocks)
    return found.reshape(count, blocks, -1)


def one_chart(profile: Profile, change: Change) -> BoolArray | None:
    """Return the chart that a change is about, alone in the mean; None when the profile has none."""
    for wanted in CHART_OF[change.name]:
        mask = np.array([chart.watchable and wanted in (chart.statistic, chart.family) for chart in profile.charts])
        if mask.any():
            return mask
    return None


@dataclass
class Fleet:
    """The bank of one profile, ``streams`` times over."""

    profile: Profile
    streams: int
    budget_events: float
    active: BoolArray | None = None  # charts in the mean; all others are stepped too

    def __post_init__(self) -> None:
        charts, width, points = self.profile.charts, self.profile.layout.width, self.profile.points
        copies = range(self.streams)
        repeated: dict[str, Any] = {
            field.name: np.tile(getattr(points, field.name), (1, self.streams)) for field in fields(points)
        }
        repeated["chart"] = np.concatenate([points.chart + copy * len(charts) for copy in copies])
        many = tuple(
            replace(chart, s_column=chart.s_column + copy * width, n_column=chart.n_column + copy * width)
            for copy in copies
            for chart in charts
        )
        self.bank = Bank(replace(self.profile, charts=many, points=type(points)(**repeated)))
        weights = Bank(self.profile).weights
        if self.active is not None:
            weights = weights * self.active
            weights = weights * min(MAX_RESCALE, 1.0 / float(weights.sum()))
        self._weights = weights

    @property
    def threshold(self) -> float:
        """log10 of what the calibration says the mean must pass at the nominal budget."""
        return self.bank.threshold(self.budget_events)

    def _totals(self, log_r: FloatArray) -> FloatArray:
        """`Bank.total` of each stream."""
        by_stream = log_r.reshape(self.streams, -1)
        high = by_stream[:, self._weights > 0].max(axis=1)
        gap = np.minimum(by_stream - high[:, None], 0.0)
        return np.asarray(high + np.log10((self._weights * np.power(10.0, gap)).sum(axis=1)))

    def path(self, blocks: IntArray) -> FloatArray:
        """Return log10 of the alarm statistic over the threshold, nothing restarted: ``[streams, blocks]``."""
        state, found = self.bank.start(), []
        for block in blocks.transpose(1, 0, 2):
            result = self.bank.step(state, block.ravel(), 0, BLOCK / self.budget_events)
            state = result.state
            found.append(self._totals(result.log_r) - self.threshold)
        return np.stack(found, axis=1)

    def alarms(self, blocks: IntArray, moved: float = 0.0) -> list[list[int]]:
        """Return the rows that alarms come at, each restarting its stream; ``moved`` is added to the threshold."""
        state, bar = self.bank.start(), self.threshold + moved
        found: list[list[int]] = [[] for _ in range(self.streams)]
        for index, block in enumerate(blocks.transpose(1, 0, 2)):
            result = self.bank.step(state, block.ravel(), 0, BLOCK / self.budget_events)
            state = result.state
            hit = self._totals(result.log_r) >= bar
            if hit.any():
                for stream in np.flatnonzero(hit):
                    found[stream].append((index + 1) * BLOCK - 1)
                state = self.bank.restart(state, np.repeat(hit, len(self.profile.charts)))
        return found
