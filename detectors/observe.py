"""Observe: from decoded slices of one partition to cell fragments and join rows, vectorised per slice.

Pure: what a slice gives depends on the slice, on the partition's watermark before the batch and on the
ids seen in its open cells. Events that are not late give the same fragments however they are cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from regate.config.model import ModelConfig
from regate.detectors.accumulate import accumulate
from regate.detectors.attack.queries import Queries
from regate.detectors.cells import CELL_US, Fragments, group_rows, layout_digest
from regate.detectors.columns import BoolArray, HashArray, IntArray, Labels, ModelKey, Slice
from regate.detectors.data_quality import DUPLICATE, flag_name
from regate.detectors.marks import marks, marks_of
from regate.detectors.outcomes import (
    NO_VALUE,
    LabelRows,
    Predictions,
    predicted,
    sample_shift,
    sampled,
    values_of,
)
from regate.detectors.profile import Profile
from regate.detectors.prompts.rows import Prints
from regate.detectors.sections import HITS, PRESENT
from regate.detectors.seen import Seen
from regate.detectors.views import event_view

# Before the first event there is no watermark; far enough back that every event time is after it.
NO_TIME = -(1 << 62)


@dataclass(frozen=True, slots=True)
class Watched:
    """What observe has to know of one model version: its configuration and, once there is one, its profile."""

    lateness_us: int = 10_000_000
    max_age_us: int = 3_600_000_000
    profile: Profile | None = None
    config: ModelConfig | None = None
    layout: str = ""  # of the profile: computed once, it hashes all tables

    @property
    def joins(self) -> bool:
        """Return whether outcomes are watched, so that predictions and labels must meet."""
        if self.profile is None:
            return False
        first = self.profile.layout.outcomes
        return any(chart.n_column >= first and chart.watchable for chart in self.profile.charts)


def watched(config: ModelConfig | None, profile: Profile | None) -> Watched:
    """Return what observe needs of a model version; without configuration the defaults hold."""
    if config is None:
        return Watched(profile=profile, layout="" if profile is None else layout_digest(profile.layout))
    detection = config.detection
    return Watched(
        lateness_us=round(detection.allowed_lateness_seconds * 1e6),
        max_age_us=round(detection.max_event_age_seconds * 1e6),
        profile=profile,
        config=config,
        layout="" if profile is None else layout_digest(profile.layout),
    )


@dataclass(slots=True)
class Partition:
    """State of one input partition."""

    watermark_us: int = NO_TIME  # largest event time less the allowed lateness
    seen: dict[ModelKey, Seen] = field(default_factory=dict)
    last_seen_ms: dict[str, int] = field(default_factory=dict)  # placement -> newest arrival
    versions_ms: dict[str, int] = field(default_factory=dict)  # model key -> newest arrival
    counters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observed:
    """What one slice of telemetry or labels gives to the decide shard of its model."""

    key: ModelKey
    fragments: Fragments | None = None
    predictions: Predictions | None = None
    labels: LabelRows | None = None
    queries: Queries | None = None
    queries_of: str = ""  # digest of the attack reference that made them
    prompts: Prints | None = None
    prompts_of: str = ""  # salt and features under which prints were made


@dataclass(frozen=True, slots=True)
class _Times:
    """Event times as counted: clamped, in cells, with what was wrong with them."""

    time_us: IntArray
    cell: IntArray
    late: BoolArray
    ahead: BoolArray
    watermark_us: int

    @property
    def future(self) -> int:
        """Return how many events are ahead of their arrival."""
        return int(np.count_nonzero(self.ahead))


def _times(state: Partition, event_time_us: IntArray, arrival_us: IntArray, lateness_us: int) -> _Times:
    ahead = event_time_us > arrival_us + lateness_us
    # A clock that runs ahead would keep its cells open until the world catches up: arrival stands in.
    time_us = np.where(ahead, arrival_us, event_time_us) if bool(ahead.any()) else event_time_us
    newest = int(np.minimum(time_us, arrival_us).max())
    # Late against the watermark before this batch: a stricter rule would depend on how batches are cut.
    oldest_open = state.watermark_us // CELL_US
    cell = time_us // CELL_US
    late = cell < oldest_open
    if bool(late.any()):
        cell = np.maximum(cell, oldest_open)
    return _Times(time_us, cell, late, ahead, newest - lateness_us)


def observe_slice(state: Partition, rows: Slice, model: Watched, watermark_us: int) -> tuple[Observed, int]:
    """Return what a slice gives, and the watermark that it proves (at least ``watermark_us``).

    The caller sets the state's watermark when the whole batch is through.
    """
    times = _times(state, rows.event_time_us, rows.arrival_us, model.lateness_us)
    seen = state.seen.get(rows.key)
    if seen is None:
        seen = state.seen[rows.key] = Seen(max(1, model.lateness_us // CELL_US))
    repeated = _repeated(seen, rows.event_id, times)
    old = rows.arrival_us - rows.event_time_us > model.max_age_us
    counters = {
        "duplicate": int(np.count_nonzero(repeated)),
        "late": int(np.count_nonzero(times.late)),
        "future": times.future,
        "historical": int(np.count_nonzero(old)),
    }
    counted = rows if times.future == 0 else replace(rows, event_time_us=times.time_us)
    fragments = cell_fragments(
        counted,
        model.profile,
        times.cell,
        layout=model.layout,
        repeated=repeated,
        old=old,
        flags={"late": times.late, "future": times.ahead},
        counters={name: number for name, number in counters.items() if number},
    )
    queries = _queries(counted, model, repeated, old)
    made_by = (
        "" if queries is None or model.profile is None or model.profile.attack is None else model.profile.attack.digest
    )
    prompts, prompts_of = _prompts(counted, model, repeated, old) if rows.texts else (None, "")
    found = Observed(
        rows.key,
        fragments,
        _predictions(counted, model, times.cell, repeated),
        queries=queries,
        queries_of=made_by,
        prompts=prompts,
        prompts_of=prompts_of,
    )
    placement = rows.key.placement
    newest_ms = int(rows.arrival_us.max()) // 1000
    state.last_seen_ms[placement] = max(newest_ms, state.last_seen_ms.get(placement, newest_ms))
    version = str(rows.key)
    state.versions_ms[version] = max(newest_ms, state.versions_ms.get(version, newest_ms))
    return found, max(watermark_us, times.watermark_us)


def _repeated(seen: Seen, event_id: HashArray, times: _Times) -> BoolArray:
    if not times.late.any():
        return seen.duplicates(event_id, times.cell)
    repeated = np.zeros(len(event_id), dtype=np.bool_)
    fresh = ~times.late  # ids of closed cells are forgotten: a late event cannot be known as a repetition
    repeated[fresh] = seen.duplicates(event_id[fresh], times.cell[fresh])
    return repeated


def cell_fragments(
    rows: Slice,
    profile: Profile | None,
    cell: IntArray,
    *,
    layout: str,
    repeated: BoolArray | None = None,
    old: BoolArray | None = None,
    flags: Mapping[str, BoolArray] | None = None,
    counters: dict[str, int] | None = None,
) -> Fragments:
    """Return the statistics of a slice by cell and stratum; ``repeated`` rows are left out, ``old`` ones counted.

    :param flags: what else observe found of each row, by name; sections read them as ``flag/<name>``.
    """
    stratum = np.zeros(rows.n, dtype=np.int16) if profile is None else profile.stratum(rows.event_time_us)
    groups = group_rows(cell, stratum)
    count, group = len(groups.cell), groups.group
    thrown = False
    if repeated is not None and bool(repeated.any()):
        thrown = True
        group = np.where(repeated, count, group)  # one group more, thrown away
    total = count + thrown
    if profile is None:
        stats = np.bincount(group, minlength=total).astype(np.int64).reshape(total, 1)
    else:
        stats = accumulate(profile.layout, event_view(rows, stratum, flags), group, total)
        if repeated is not None and thrown:
            _count_repeated(profile, groups.group[repeated], stats)
    historical: IntArray = np.zeros(total, dtype=np.int64)
    if old is not None and bool(old.any()):
        historical = np.bincount(group[old], minlength=total).astype(np.int64)
    return Fragments(
        key=rows.key,
        layout=layout,
        cell=groups.cell,
        stratum=groups.stratum,
        stats=stats[:count],
        historical=historical[:count],
        last_arrival_us=int(rows.arrival_us.max()),
        counters=counters or {},
    )


def _count_repeated(profile: Profile, group: IntArray, stats: IntArray) -> None:
    """Count what was left out as what it is: repeated events are trials and hits of one chart, and nothing else."""
    spec = next((one for one in profile.layout.sections if one.name == flag_name(DUPLICATE)), None)
    if spec is not None:
        count = np.bincount(group, minlength=len(stats))
        stats[:, spec.first + PRESENT] += count
        stats[:, spec.first + HITS] += count


def _shift(model: Watched) -> int:
    if model.config is None or model.profile is None:
        return 0
    return sample_shift(model.config.detection.open_predictions, model.profile.events_per_second)


def _predictions(rows: Slice, model: Watched, cell: IntArray, repeated: BoolArray) -> Predictions | None:
    if not model.joins or model.config is None:
        return None
    value = predicted(rows, model.config.output)
    if value is None:
        return None
    assert model.profile is not None
    keep = (value != NO_VALUE) & ~repeated & sampled(rows.event_id, _shift(model))
    mark = marks_of(rows, model.profile.layout.shape, cell)
    return Predictions(rows.event_id[keep], cell[keep], value[keep], mark[keep])


def _queries(rows: Slice, model: Watched, repeated: BoolArray, old: BoolArray) -> Queries | None:
    """Return what client memory takes; imported history is nobody's query of now."""
    if model.profile is None or model.profile.attack is None:
        return None
    keep = ~repeated & ~old
    if not bool(keep.any()):
        return None
    return model.profile.attack.queries(rows if bool(keep.all()) else rows.some(keep))


def _prompts(rows: Slice, model: Watched, repeated: BoolArray, old: BoolArray) -> tuple[Prints | None, str]:
    """Return the prints of texts, and what made them: the texts themselves go no further."""
    if model.profile is None or model.profile.prompts is None:
        return None, ""
    keep = ~repeated & ~old
    if not bool(keep.any()):
        return None, ""
    reference = model.profile.prompts
    return reference.prints(rows if bool(keep.all()) else rows.some(keep)), reference.made_by


def observe_labels(state: Partition, rows: Labels, model: Watched, watermark_us: int) -> tuple[Observed, int]:
    """Return the join rows of late labels, and the watermark that they prove.

    Many producers stamp a label with the time of its prediction. A label that is older at arrival than the
    allowed lateness counts at its arrival: by its own time it would hold back every cell since.
    """
    stale = rows.arrival_us - rows.event_time_us > model.lateness_us
    known_us = np.where(stale, rows.arrival_us, rows.event_time_us)
    count = int(np.count_nonzero(stale))
    if count:
        state.counters["label_at_arrival"] = state.counters.get("label_at_arrival", 0) + count
    times = _times(state, known_us, rows.arrival_us, model.lateness_us)
    watermark_us = max(watermark_us, times.watermark_us)
    if not model.joins or model.config is None or model.profile is None:
        return Observed(rows.key), watermark_us
    output = model.config.output
    label = values_of(rows.label, output)
    own = np.zeros(rows.n, dtype=np.uint64) if rows.prediction is None else values_of(rows.prediction, output)
    keep = (label != NO_VALUE) & ((own != NO_VALUE) | sampled(rows.event_id, _shift(model)))
    stratum = model.profile.stratum(times.time_us).astype(np.int64)
    # A label that carries its prediction speaks of now: its age is 0.
    mark = marks(rows.n, rows.score, {}, model.profile.layout.shape, times.cell)
    source = np.zeros(rows.n, dtype=np.uint64) if rows.source is None else rows.source
    columns = (rows.event_id, times.cell, label, own, stratum, mark, source)
    found = LabelRows(*(column[keep] for column in columns))
    return Observed(rows.key, labels=found), watermark_us


def observe(
    state: Partition, batch: Iterable[Slice | Labels], models: Mapping[ModelKey, Watched], default: Watched
) -> list[Observed]:
    """Take all slices of one batch of the partition; return what they give, in their order."""
    watermark_us = state.watermark_us
    found = []
    for rows in batch:
        if rows.n == 0:
            continue
        model = models.get(rows.key, default)
        if isinstance(rows, Slice):
            one, watermark_us = observe_slice(state, rows, model, watermark_us)
        else:
            one, watermark_us = observe_labels(state, rows, model, watermark_us)
        found.append(one)
    state.watermark_us = watermark_us
    for seen in state.seen.values():
        seen.forget(watermark_us // CELL_US)
    return found
