"""Backtest: the daemon's own observe and decide cores over one file.

Rows clock (the default): blocks are 64 consecutive rows in file order, whatever columns exist; event
time serves only strata. Event clock: cells are seconds of event time, as in the daemon. Either way the
last, shorter block is closed too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from regate.config.errors import ConfigError
from regate.daemon.files.table import Table, training_rows
from regate.detectors.build import build_profile
from regate.detectors.cells import BLOCK_EVENTS, CELL_US
from regate.detectors.clocks import EventClock, RowClock, row_cells
from regate.detectors.columns import Categorical, Column, IntArray, Labels, Slice, cut_column
from regate.detectors.decide import FOREVER, Shard, place
from regate.detectors.decide_model import Model
from regate.detectors.estimate_chart import CHART
from regate.detectors.fairness import figures
from regate.detectors.finding import Finding
from regate.detectors.frames import Frame
from regate.detectors.labelled import Delivery
from regate.detectors.marks import MINUTE_CELLS, marks_of
from regate.detectors.observe import Observed, Partition, Watched, cell_fragments, observe, watched
from regate.detectors.outcomes import (
    NO_VALUE,
    LabelRows,
    Predictions,
    predicted,
    values_of,
)
from regate.detectors.profile import Profile
from regate.detectors.watch import OnFinding, Watch

# Rows taken at once: statistics are vectorised over them, and progress and findings appear this often.
CHUNK_BLOCKS = 512
SOURCE = "file"

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What a backtest is asked for."""

    reference_rows: int
    clock: Literal["rows", "event"] = "rows"
    budget_events: float | None = None  # None: 10^6 by rows, the configured period by event time
    on_finding: OnFinding = "incident"
    label_delay: int = 0
    events_per_second: float | None = None
    calibrate_seconds: float | None = None
    seed: int = 0
    trained: Path | None = None  # rows that the model was trained on


@dataclass
class Backtest:
    """One run: the profile of the first rows, and the findings of the rest as they are decided."""

    table: Table
    options: Options
    profile: Profile = field(init=False)
    notes: list[str] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    fairness: list[dict[str, Any]] = field(default_factory=list)  # selection and ratios of each group, at the end
    estimate: dict[str, Any] | None = None  # whether the label-free estimate holds; None where there is none

    def build(self, progress: Progress | None = None) -> Profile:
        """Build the profile of the reference rows.

        :raises ConfigError: when the file is not longer than the reference, or nothing can be watched.
        """
        table, options = self.table, self.options
        if not 0 < options.reference_rows < table.rows:
            raise ConfigError(
                f"{options.reference_rows} reference rows of {table.rows} leave nothing to watch",
                hint="choose fewer: --reference-rows",
            )
        if options.clock == "event" and table.event_time_us() is None:
            raise ConfigError("the file has no event_time column", hint="use --clock rows")
        reference = table.slice(0, options.reference_rows)
        self.profile = build_profile(
            table.config,
            table.key,
            reference,
            self._labels(0, options.reference_rows),
            delivery=self._delivery(),
            budget_events=_budget(options),
            events_per_second=options.events_per_second,
            calibrate_seconds=options.calibrate_seconds,
            seed=options.seed,
            trained=None if options.trained is None else training_rows(options.trained, table.config),
            progress=progress,
        )
        if options.clock == "rows" and table.config.detection.distinct_queries_per_day is not None:
            self.notes.append("no budget of distinct queries a day: row numbers are no times; --clock event knows days")
        if not table.has_label:
            self.notes.append("no performance chart: the file has no labels")
        elif not any(chart.family == "performance" for chart in self.profile.charts):
            self.notes.append("no performance chart: the file has no predictions (or no scores) beside its labels")
        return self.profile

    def findings(self, progress: Progress | None = None) -> Iterator[dict[str, Any]]:
        """Yield findings and revisions in the form of the contract, in order of their rows."""
        run = self._by_rows if self.options.clock == "rows" else self._by_event_time
        for finding, row, first_row in run(progress or _silent):
            yield as_json(finding, row, first_row)

    def _labels(self, start: int, stop: int) -> Column | None:
        labels = self.table.labels()
        return None if labels is None else cut_column(labels, slice(start, stop))

    @cached_property
    def _joined(self) -> bool:
        """Return whether labels come apart from their predictions: late, or not at all for some."""
        labels = self._labels(0, self.table.rows)
        if labels is None:
            return False
        known = labels.codes >= 0 if isinstance(labels, Categorical) else ~np.isnan(labels.values)
        return self.options.label_delay > 0 or not bool(known.all())

    def _delivery(self) -> Delivery | None:
        """Return how old the labels of the reference are when they come, in minutes; None where they come at once."""
        options, delay = self.options, self.options.label_delay
        if not self._joined:
            return None
        rows = np.arange(options.reference_rows)
        if options.clock == "rows":
            cells, later = row_cells(rows), row_cells(rows + delay)
        else:
            times = self.table.whole.event_time_us
            cells, later = (times[np.minimum(rows + more, self.table.rows - 1)] // CELL_US for more in (0, delay))
        return Delivery(age=(later // MINUTE_CELLS - cells // MINUTE_CELLS).astype(np.float64))

    def _by_rows(self, progress: Progress) -> Iterator[tuple[Finding, int, int]]:
        first, rows = self.options.reference_rows, self.table.rows
        clock = RowClock(_budget(self.options) or DEFAULT_BUDGET, rows, offset=first)
        model = Model()
        place(model, Watch(self.profile, clock, self.options.on_finding), self.table.config)
        if model.attack is not None:
            model.attack.memory.beside.timed = False  # row numbers are no times
        if model.prompts is not None:
            model.prompts.timed = False
        joins = watched(self.table.config, self.profile).joins
        for start in range(first, rows, CHUNK_BLOCKS * BLOCK_EVENTS):
            stop = min(start + CHUNK_BLOCKS * BLOCK_EVENTS, rows)
            piece = self.table.slice(start, stop)
            cell = row_cells(np.arange(start, stop) - first)
            flags = {name: rows[start:stop] for name, rows in self.table.flags.items()}
            again = flags.pop("duplicate", None)
            part = Observed(
                piece.key,
                cell_fragments(piece, self.profile, cell, layout=model.layout, repeated=again, flags=flags),
            )
            if joins:
                part = replace(part, predictions=self._predictions(piece, cell), labels=self._label_rows(start, stop))
            model.take(part, 0)
            limit = FOREVER if stop == rows else int(cell[-1]) + 1
            found = [*model.close(limit), *self._attacks(model, piece, start), *self._prompts(model, piece, start)]
            for finding in sorted(found, key=lambda one: one.detected_us):
                yield finding, finding.detected_us, finding.onset_us
            progress("watch", (stop - first) / (rows - first))
        self._count(model)

    def _attacks(self, model: Model, piece: Slice, start: int) -> list[Finding]:
        """Return what client memory says of some rows; their numbers stand for their times."""
        if model.attack is None:
            return []
        rows = replace(piece, event_time_us=np.arange(start, start + piece.n, dtype=np.int64))
        queries = model.attack.memory.reference.queries(rows)
        return model.attack.decide(queries, self.table.client_name)

    def _prompts(self, model: Model, piece: Slice, start: int) -> list[Finding]:
        """Return what is said of some rows' texts; their numbers stand for their times."""
        if model.prompts is None:
            return []
        rows = replace(piece, event_time_us=np.arange(start, start + piece.n, dtype=np.int64))
        prints = model.prompts.reference.prints(rows)
        return [] if prints is None else model.prompts.decide(prints, self.table.client_name)

    def _predictions(self, piece: Slice, cell: IntArray) -> Predictions | None:
        value = predicted(piece, self.table.config.output)
        if value is None or not self._joined:  # then each label carries its prediction
            return None
        known = value != NO_VALUE
        mark = marks_of(piece, self.profile.layout.shape, cell)
        return Predictions(piece.event_id[known], cell[known], value[known], mark[known])

    def _label_rows(self, start: int, stop: int) -> LabelRows | None:
        """Return the labels that arrive with rows ``start`` to ``stop``: those of rows ``--label-delay`` before."""
        first, delay = self.options.reference_rows, self.options.label_delay
        low, high = max(start - delay, first), stop - delay
        labels = self._labels(low, high) if high > low else None
        if labels is None:
            return None
        piece = self.table.slice(low, high)
        value = values_of(labels, self.table.config.output)
        own = None if self._joined else predicted(piece, self.table.config.output)
        if own is None:
            own = np.zeros(piece.n, dtype=np.uint64)
        cell = row_cells(np.arange(low, high) + delay - first)
        mark = marks_of(piece, self.profile.layout.shape, cell)
        times = self.table.slice(low + delay, high + delay).event_time_us
        known = (value != NO_VALUE) & ((own != NO_VALUE) | self._joined)
        stratum = self.profile.stratum(times).astype(np.int64)
        nobody = np.zeros(piece.n, dtype=np.uint64)  # a file does not say who gave its labels
        columns = (piece.event_id, cell, value, own, stratum, mark, nobody)
        return LabelRows(*(column[known] for column in columns))

    def _by_event_time(self, progress: Progress) -> Iterator[tuple[Finding, int, int]]:
        first, rows = self.options.reference_rows, self.table.rows
        shard, partition, key = Shard(), Partition(), self.table.key
        shard.configure(key, self.profile, self.table.config)
        model = shard.models[key]
        budget = self.options.budget_events
        if model.watch is not None:
            model.watch.on_finding = self.options.on_finding
            if budget is not None and isinstance(model.watch.clock, EventClock):
                model.watch.clock.period_us = self._period_us(budget)
        models = {key: watched(self.table.config, self.profile)}
        reached = np.maximum.accumulate(self.table.whole.event_time_us[first:])
        for start in range(first, rows, CHUNK_BLOCKS * BLOCK_EVENTS):
            stop = min(start + CHUNK_BLOCKS * BLOCK_EVENTS, rows)
            batch: list[Slice | Labels] = [self.table.slice(start, stop)]
            labels = self._late_labels(start, stop)
            if labels is not None:
                batch.append(labels)
            parts = tuple(observe(partition, batch, models, Watched()))
            shard.take(Frame(SOURCE, partition.watermark_us, parts=parts))
            for finding in shard.close(None if stop < rows else FOREVER - 1):
                row = int(np.searchsorted(reached, finding.detected_us, side="left")) - 1
                onset = int(np.searchsorted(reached, finding.onset_us, side="left"))
                yield finding, first + min(max(row, 0), len(reached) - 1), first + min(onset, len(reached) - 1)
            progress("watch", (stop - first) / (rows - first))
        self._count(model)

    def _period_us(self, budget_events: float) -> int:
        """Return how long ``budget_events`` take at the reference's traffic."""
        times = self.table.slice(0, self.options.reference_rows).event_time_us
        span = max(int(times.max() - times.min()), CELL_US)
        return max(1, round(span * budget_events / len(times)))

    def _late_labels(self, start: int, stop: int) -> Labels | None:
        delay, first = self.options.label_delay, self.options.reference_rows
        low, high = max(start - delay, first), stop - delay
        labels = self._labels(low, high) if high > low else None
        if labels is None:
            return None
        piece, later = self.table.slice(low, high), self.table.slice(low + delay, high + delay)
        return Labels(
            key=piece.key,
            n=piece.n,
            event_id=piece.event_id,
            event_time_us=later.event_time_us,
            arrival_us=later.arrival_us,
            label=labels,
            prediction=None if self._joined else piece.prediction,
        )

    def _count(self, model: Model) -> None:
        self.counters.update({name: number for name, number in model.counters.items() if number})
        if model.join is not None:
            self.counters.update(model.join.counters)
        if model.watch is None:
            return
        self.fairness = [asdict(one) for one in figures(model.watch.bank, model.watch.state)]
        if model.watch.examiner.estimate is None:
            return
        chart = next((one for one in self.profile.charts if one.name == CHART), None)
        state = model.watch.validity
        if model.watch.examiner.chart is not None:
            since = None if state.valid else self._row(state.since)
            self.estimate = {"valid": state.valid, "reason": state.reason, "since_row": since}
        elif chart is not None:  # refused when the profile was built
            self.estimate = {"valid": False, "reason": chart.reason, "since_row": self.options.reference_rows}

    def _row(self, mark: int) -> int:
        """Return the row of a mark of the clock in use."""
        if self.options.clock == "rows":
            return mark
        first = self.options.reference_rows
        reached = np.maximum.accumulate(self.table.whole.event_time_us[first:])
        return first + min(int(np.searchsorted(reached, mark, side="left")), len(reached) - 1)


DEFAULT_BUDGET = 1_000_000.0


def _budget(options: Options) -> float | None:
    if options.budget_events is not None or options.clock == "event":
        return options.budget_events
    return DEFAULT_BUDGET


def _silent(_stage: str, _share: float) -> None:
    return


def as_json(finding: Finding, row: int, first_row: int) -> dict[str, Any]:
    """Return a finding in the form of the contract (docs: Backtest)."""
    lead = finding.carriers[0] if finding.carriers else None
    return {
        "type": finding.type,
        "row": row,
        "first_row": min(first_row, row),
        "family": finding.family,
        "kind": finding.kind,
        "detector": finding.detector,
        "subject": finding.subject,
        "evidence": float(finding.evidence),
        "threshold": float(finding.threshold),
        "effect": float(finding.effect),
        "unit": finding.unit,
        "statistic": lead.statistic if lead else "",
        "severity": finding.severity,
        "id": finding.id,
        "incident": finding.incident,
        "revision": finding.revision,
        "charts": [carrier.chart for carrier in finding.carriers],
        "message": finding.message,
    }
