"""Estimates, calibration, coverage and what labels decide: equal integers and equal words however the stream comes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.scored_streams import BINARY, KEY, Rows, binary, joined, labels_of, profile_of
from tests.telemetry_streams import Pipeline, alone, pick

from regate.detectors.columns import Labels, Numeric, Slice
from regate.detectors.labelled import Delivery
from regate.detectors.profile import Profile

PART = 3_200
FEW = settings(max_examples=8, deadline=None)


@lru_cache(maxsize=1)
def profile() -> Profile:
    rows = binary(12_000, 1)
    rng = np.random.default_rng(1)
    age = np.where(rng.random(12_000) < 0.8, rng.integers(0, 3, 12_000), np.nan)
    label = Numeric(np.where(np.isnan(age), np.nan, rows.label.values))
    return profile_of(BINARY, replace(rows, label=label), delivery=Delivery(age), events_per_second=10.0)


def stream() -> tuple[Slice, Labels]:
    """Steady, uncertain inputs, another concept, steady, one class labelled; labels come up to two minutes late."""
    rows = joined(
        binary(PART, 2), binary(PART, 3, spread=0.4), binary(PART, 4, twist=-0.3), binary(PART, 5), binary(PART, 6)
    )
    n = rows.events.n
    rng = np.random.default_rng(7)
    keep = rng.random(n) < 0.8
    made = rows.events.prediction
    assert isinstance(made, Numeric)
    keep[4 * PART :] &= made.values[4 * PART :] == 1
    labels = labels_of(rows)
    later = rows.events.event_time_us + rng.integers(0, 120, n) * 1_000_000
    part = pick(
        replace(labels, event_time_us=later, arrival_us=later + 50_000),
        np.flatnonzero(keep)[np.argsort(later[keep], kind="stable")],
    )
    assert isinstance(part, Labels)
    return rows.events, part


EVENTS, LABELS = stream()


def run_of(names: list[str]) -> Pipeline:
    return Pipeline(names, (profile(),), BINARY)


@pytest.fixture(scope="module")
def undisturbed() -> Pipeline:
    return alone(EVENTS, LABELS, profile(), BINARY)


def same(run: Pipeline, undisturbed: Pipeline) -> None:
    assert run.integers(KEY) == undisturbed.integers(KEY)
    assert run.said() == undisturbed.said()


def test_the_stream_has_something_of_everything(undisturbed: Pipeline) -> None:
    kinds = {(finding.kind, finding.revision) for finding in undisturbed.findings}
    assert {("change", ""), ("harm", ""), ("data_quality", ""), ("change", "not_valid")} <= kinds


@FEW
@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 3), st.integers(0, 9))
def test_any_partitions_slices_and_interleaving(
    undisturbed: Pipeline, seed: int, partitions: int, label_partitions: int, pieces: int
) -> None:
    rng = np.random.default_rng(seed)
    names = [f"telemetry-{p}" for p in range(partitions)] + [f"labels-{p}" for p in range(label_partitions)]
    run = run_of(names)
    queues: dict[str, list[Slice | Labels]] = {}
    for whole, kind, count in ((EVENTS, "telemetry", partitions), (LABELS, "labels", label_partitions)):
        owner = rng.integers(0, count, whole.n)
        for p in range(count):
            rows = np.flatnonzero(owner == p)
            cuts = np.sort(rng.integers(0, 101, pieces)) * len(rows) // 100
            queues[f"{kind}-{p}"] = [pick(whole, piece) for piece in np.split(rows, cuts) if len(piece)]
    waiting: list[bytes] = []
    while any(queues.values()):
        name = str(rng.choice([name for name, queue in queues.items() if queue]))
        waiting.extend(run.observe(name, queues[name].pop(0)))
        if rng.random() < 0.5:
            run.decide(waiting)
            waiting = []
    run.decide(waiting)
    run.end()
    same(run, undisturbed)


@FEW
@given(st.integers(0, 2**32))
def test_duplicate_events_and_reordering_change_no_figure(undisturbed: Pipeline, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = np.argsort(EVENTS.event_time_us + rng.integers(0, 9_000_000, EVENTS.n), kind="stable")
    run = run_of(["telemetry-0", "labels-0"])
    edges = EVENTS.event_time_us[order]
    for rows in np.array_split(np.arange(EVENTS.n), 40):
        again = order[rng.choice(rows, 20)]
        run.feed("telemetry-0", pick(EVENTS, np.concatenate([order[rows], again])))
        low = -1 if rows[0] == 0 else int(edges[: rows[0]].max())
        due = (LABELS.event_time_us <= int(edges[: rows[-1] + 1].max())) & (LABELS.event_time_us > low)
        if due.any():
            run.feed("labels-0", pick(LABELS, np.flatnonzero(due)))
    rest = np.flatnonzero(LABELS.event_time_us > int(EVENTS.event_time_us.max()))
    if len(rest):
        run.feed("labels-0", pick(LABELS, rest))
    run.end()
    same(run, undisturbed)
    assert run.shard.models[KEY].counters["duplicate"] == 40 * 20


def test_repeated_and_missing_labels_change_no_figure(undisturbed: Pipeline) -> None:
    """A label that comes twice, and one that says nothing, are not outcomes."""
    assert isinstance(LABELS.label, Numeric)
    empty = replace(LABELS, label=Numeric(np.full(LABELS.n, np.nan)))
    run = run_of(["telemetry-0", "labels-0", "labels-1", "labels-2"])
    records = run.observe("telemetry-0", EVENTS)
    for name, part in (("labels-0", LABELS), ("labels-1", LABELS), ("labels-2", empty)):
        records += run.observe(name, part)
    run.decide(records)
    run.end()
    same(run, undisturbed)
    join = run.shard.models[KEY].join
    assert join is not None
    assert join.counters["label_repeated"] == LABELS.n


def test_rows_without_score_or_input_leave_the_figures_of_the_others_alone() -> None:
    rows: Rows = joined(binary(2_000, 8))
    blank = np.arange(2_000) % 2 == 1
    x = rows.events.features["x"]
    assert isinstance(x, Numeric)
    events = replace(
        rows.events,
        scores={"": np.where(blank, np.nan, rows.events.scores[""])},
        features={**rows.events.features, "x": Numeric(np.where(blank, np.nan, x.values))},
    )
    group = np.zeros(2_000, dtype=np.int64)
    part = pick(events, np.flatnonzero(~blank))
    assert isinstance(part, Slice)
    whole, half = (profile().accumulate(one, group[: one.n], 1)[0] for one in (events, part))
    spec = next(one for one in profile().layout.sections if one.type == "scored_error")
    assert whole[spec.first] == half[spec.first] == 1_000
    assert whole[spec.first + 2] == half[spec.first + 2]
    assert whole[spec.first + 1] == 1_000
