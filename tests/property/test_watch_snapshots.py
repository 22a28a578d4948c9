"""State goes through bytes at any point without a trace; a damaged chunk loses only what it held."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.telemetry_streams import CONFIG, KEY, Pipeline, alone, pick, profile, shifted, telemetry, wronged

from regate.detectors import decide_state, observe_state
from regate.detectors.observe import watched

ROWS, CHANGE = 9_000, 5_000
EVENTS, LABELS = telemetry(ROWS, seed=17)
EVENTS = wronged(shifted(EVENTS, CHANGE, last=CHANGE + 1500), CHANGE, 0.3)
UNDISTURBED = alone(EVENTS, LABELS)


def through_bytes(run: Pipeline) -> None:
    chunks = decide_state.dump(run.shard)
    assert max(map(len, chunks.values())) < 900_000
    run.shard, refused = decide_state.load(chunks, {str(KEY): profile()}, {KEY: CONFIG})
    assert refused == []
    assert decide_state.dump(run.shard) == chunks
    for name, partition in run.partitions.items():
        kept = observe_state.dump(partition)
        run.partitions[name], refused = observe_state.load(kept)
        assert refused == []
        assert observe_state.dump(run.partitions[name]) == kept


def test_the_stream_opens_and_closes_incidents() -> None:
    kinds = [(finding.type, finding.subject) for finding in UNDISTURBED.findings]
    assert ("finding", "income") in kinds
    assert ("revision", "income") in kinds
    assert ("finding", "error") in kinds


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_a_snapshot_anywhere_changes_nothing(seed: int, snapshots: int) -> None:
    rng = np.random.default_rng(seed)
    run = Pipeline(("telemetry-0", "labels-0"))
    when = set(rng.integers(0, 60, snapshots).tolist())
    for number, rows in enumerate(np.array_split(np.arange(ROWS), 60)):
        again = rng.choice(rows, 5)  # known only if the ids of open cells survive
        run.feed("telemetry-0", pick(EVENTS, rows))
        if number in when:
            through_bytes(run)
        run.feed("telemetry-0", pick(EVENTS, again))
        run.feed("labels-0", pick(LABELS, rows))
    run.end()
    assert run.integers() == UNDISTURBED.integers()
    assert run.said() == UNDISTURBED.said()


def test_labels_that_wait_for_their_predictions_survive() -> None:
    early = replace(LABELS, event_time_us=EVENTS.event_time_us - 30_000_000, arrival_us=EVENTS.arrival_us - 30_000_000)
    run = Pipeline(("telemetry-0", "labels-0"))
    for rows in np.array_split(np.arange(3000), 20):
        run.feed("labels-0", pick(early, rows))
        run.feed("telemetry-0", pick(EVENTS, rows))
        through_bytes(run)
    run.end()
    watch = run.shard.models[KEY].watch
    assert watch is not None
    stats = watch.history.since(0)["stats"]
    outcomes = int(stats[:, profile().layout.outcomes].sum())
    assert watch.events - 100 < outcomes <= 3000


def test_a_damaged_chunk_is_named_and_the_rest_is_kept() -> None:
    run = alone(pick(EVENTS, np.arange(CHANGE + 1000)), pick(LABELS, np.arange(CHANGE)))
    chunks = decide_state.dump(run.shard)
    name = f"model/{KEY}/charts/000000"
    chunks[name] = chunks[name][:-1] + b"\0" if chunks[name][-1:] != b"\0" else chunks[name][:-1] + b"\1"
    shard, refused = decide_state.load(chunks, {str(KEY): profile()}, {KEY: CONFIG})
    assert refused == [name]
    watch, before = shard.models[KEY].watch, run.shard.models[KEY].watch
    assert watch is not None
    assert before is not None
    assert [incident.finding for incident in watch.incidents] == [incident.finding for incident in before.incidents]
    assert float(watch.state.log2_r.max()) < -1000  # charts start at nothing


def test_a_changed_weight_restarts_only_that_chart_and_incidents_survive() -> None:
    run = alone(pick(EVENTS, np.arange(CHANGE + 1000)), pick(LABELS, np.arange(CHANGE)))
    old = profile()
    changed = replace(old.charts[0], weight=2.0, digest="sha256:other")
    new = replace(old, charts=(changed, *old.charts[1:]))
    before = run.shard.models[KEY].watch
    assert before is not None
    run.shard.configure(KEY, new, CONFIG)
    run.models[KEY] = watched(CONFIG, new)
    watch = run.shard.models[KEY].watch
    assert watch is not None
    assert watch.profile.digest != old.digest
    point = new.points.chart
    same = point != 0
    assert np.array_equal(watch.state.log2_r[same], before.state.log2_r[same])
    assert float(watch.state.log2_r[~same].max()) < -1000
    assert [incident.finding.id for incident in watch.incidents] == [
        incident.finding.id for incident in before.incidents
    ]
    assert watch.incidents
    # The layout is the same, so that fragments made before and after the change add up.
    assert watched(CONFIG, old).layout == watched(CONFIG, new).layout


def test_a_profile_of_another_layout_drops_fragments_of_the_old_one_and_counts_them() -> None:
    run = Pipeline(("telemetry-0",))
    records = run.observe("telemetry-0", pick(EVENTS, np.arange(2000)))
    other = profile(3000)
    run.shard.configure(KEY, other, CONFIG)
    run.decide(records)
    run.end()
    model = run.shard.models[KEY]
    assert model.counters["other_profile"] == 2000
    assert model.watch is not None
    assert model.watch.events == 0
