"""Findings do not depend on how the stream is cut, keyed, interleaved or repeated: equal integers, equal bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.telemetry_streams import KEY, Pipeline, alone, pick, shifted, telemetry, wronged

from regate.detectors.columns import Labels, Slice

ROWS, CHANGE = 9_000, 6_000
EVENTS, LABELS = telemetry(ROWS, seed=7)
EVENTS = wronged(shifted(EVENTS, CHANGE), CHANGE, 0.3)
FEW = settings(max_examples=12, deadline=None)


@pytest.fixture(scope="module")
def undisturbed() -> Pipeline:
    return alone(EVENTS, LABELS)


def parts_of(whole: Slice | Labels, owner: np.ndarray, source: int, cuts: np.ndarray) -> list[Slice | Labels]:
    rows = np.flatnonzero(owner == source)
    return [pick(whole, piece) for piece in np.split(rows, np.sort(cuts) * len(rows) // 100) if len(piece)]


def spread(rng: np.random.Generator, partitions: int, label_partitions: int, pieces: int) -> Pipeline:
    """Run the stream over many partitions, each cut anywhere, their slices in any interleaving."""
    names = [f"telemetry-{p}" for p in range(partitions)] + [f"labels-{p}" for p in range(label_partitions)]
    run = Pipeline(names)
    owner = rng.integers(0, partitions, ROWS)
    label_owner = rng.integers(0, label_partitions, ROWS)
    queues: dict[str, list[Slice | Labels]] = {}
    for p in range(partitions):
        queues[f"telemetry-{p}"] = parts_of(EVENTS, owner, p, rng.integers(0, 101, pieces))
    for p in range(label_partitions):
        queues[f"labels-{p}"] = parts_of(LABELS, label_owner, p, rng.integers(0, 101, pieces))
    waiting: list[bytes] = []
    while any(queues.values()):
        name = rng.choice([name for name, queue in queues.items() if queue])
        waiting.extend(run.observe(str(name), queues[name].pop(0)))
        if rng.random() < 0.5:  # decide may lag, and take many frames in one step
            run.decide(waiting)
            waiting = []
    run.decide(waiting)
    run.end()
    return run


def test_the_stream_has_a_change_and_harm(undisturbed: Pipeline) -> None:
    assert {(finding.kind, finding.subject) for finding in undisturbed.findings} == {
        ("change", "income"),
        ("harm", "error"),
    }
    watch = undisturbed.shard.models[KEY].watch
    assert watch is not None
    assert watch.events == ROWS or watch.events > ROWS - 64 * 2  # the last block may still be forming


@FEW
@given(st.integers(0, 2**32), st.integers(1, 16), st.integers(1, 3), st.integers(0, 12))
def test_any_partitions_slices_and_interleaving(
    undisturbed: Pipeline, seed: int, partitions: int, label_partitions: int, pieces: int
) -> None:
    run = spread(np.random.default_rng(seed), partitions, label_partitions, pieces)
    assert run.integers() == undisturbed.integers()
    assert run.said() == undisturbed.said()


@FEW
@given(st.integers(0, 2**32))
def test_duplicates_within_a_partition(undisturbed: Pipeline, seed: int) -> None:
    rng = np.random.default_rng(seed)
    run = Pipeline(("telemetry-0", "labels-0"))
    for rows in np.array_split(np.arange(ROWS), 60):
        again = rng.choice(rows, 20)  # at-least-once: events of this batch come again, anywhere behind
        run.feed("telemetry-0", pick(EVENTS, np.concatenate([rows, again])))
        run.feed("labels-0", pick(LABELS, rows))
    run.end()
    assert run.integers() == undisturbed.integers()
    assert run.said() == undisturbed.said()
    assert run.shard.models[KEY].counters["duplicate"] == 60 * 20


@FEW
@given(st.integers(0, 2**32))
def test_reordering_within_the_lateness(undisturbed: Pipeline, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = np.argsort(EVENTS.event_time_us + rng.integers(0, 9_000_000, ROWS), kind="stable")
    run = Pipeline(("telemetry-0", "labels-0"))
    for rows in np.array_split(np.arange(ROWS), 40):
        run.feed("telemetry-0", pick(EVENTS, order[rows]))
        run.feed("labels-0", pick(LABELS, rows))
    run.end()
    assert run.integers() == undisturbed.integers()
    assert run.said() == undisturbed.said()
    assert "late" not in run.shard.models[KEY].counters
