from __future__ import annotations

from dataclasses import replace

import numpy as np
from tests.telemetry_streams import CONFIG, KEY, START_US, Pipeline, pick, profile, telemetry

from regate.detectors.cells import CELL_US
from regate.detectors.observe import Partition, Watched, observe, watched

EVENTS, LABELS = telemetry(3000, seed=3)
MODELS = {KEY: watched(CONFIG, profile())}


def test_statistics_are_those_of_the_profile_by_cell() -> None:
    (found,) = observe(Partition(), [EVENTS], MODELS, Watched())
    fragments = found.fragments
    assert fragments is not None
    cell = EVENTS.event_time_us // CELL_US
    cells = np.unique(cell)
    assert fragments.cell.tolist() == cells.tolist()
    expected = profile().accumulate(EVENTS, np.searchsorted(cells, cell), len(cells))
    assert np.array_equal(fragments.stats, expected)
    assert found.predictions is not None
    assert len(found.predictions.event_id) == 3000


def test_a_repeated_event_is_left_out_and_counted() -> None:
    state = Partition()
    observe(state, [EVENTS], MODELS, Watched())
    (found,) = observe(state, [pick(EVENTS, np.arange(2990, 3000))], MODELS, Watched())
    assert found.fragments is not None
    assert found.fragments.stats[:, 0].sum() == 0
    assert found.fragments.counters == {"duplicate": 10}
    assert found.predictions is not None
    assert len(found.predictions.event_id) == 0


def test_a_late_event_enters_the_oldest_open_cell() -> None:
    state = Partition()
    observe(state, [EVENTS], MODELS, Watched())
    oldest_open = state.watermark_us // CELL_US
    assert oldest_open == (int(EVENTS.event_time_us[-1]) - 10_000_000) // CELL_US
    late = pick(EVENTS, np.arange(5))
    late = replace(late, event_id=late.event_id + np.uint64(1))
    (found,) = observe(state, [late], MODELS, Watched())
    assert found.fragments is not None
    assert found.fragments.cell.tolist() == [oldest_open]
    assert found.fragments.counters["late"] == 5


def test_r07_time_in_the_future_counts_as_its_arrival() -> None:
    state = Partition()
    ahead = replace(EVENTS, event_time_us=EVENTS.event_time_us + 3600 * CELL_US)
    (found,) = observe(state, [ahead], MODELS, Watched())
    assert found.fragments is not None
    assert found.fragments.counters["future"] == 3000
    assert int(found.fragments.cell.max()) == int(EVENTS.arrival_us[-1]) // CELL_US
    assert state.watermark_us <= int(EVENTS.arrival_us[-1])


def test_r07_time_of_1970_is_late_and_historical_and_moves_no_watermark() -> None:
    state = Partition()
    observe(state, [EVENTS], MODELS, Watched())
    before = state.watermark_us
    odd = pick(EVENTS, np.arange(3))
    odd = replace(odd, event_time_us=np.array([0, -5_000_000, 1]), event_id=odd.event_id + np.uint64(1))
    (found,) = observe(state, [odd], MODELS, Watched())
    assert state.watermark_us == before
    assert found.fragments is not None
    assert found.fragments.counters == {"late": 3, "historical": 3}
    assert found.fragments.historical.tolist() == [3]


def test_a_model_without_a_profile_is_learning_counts_only() -> None:
    run = Pipeline(("telemetry-0",))
    stranger = replace(KEY, version="2")
    run.feed("telemetry-0", replace(EVENTS, key=stranger))
    run.end()
    model = run.shard.models[stranger]
    assert model.watch is None
    assert model.learned == 3000
    assert run.findings == []


def test_no_join_rows_without_a_performance_chart() -> None:
    quiet = replace(profile(), charts=tuple(c for c in profile().charts if c.family != "performance"))
    (found,) = observe(Partition(), [EVENTS], {KEY: watched(CONFIG, quiet)}, Watched())
    assert found.predictions is None
    (found,) = observe(Partition(), [LABELS], {KEY: watched(CONFIG, quiet)}, Watched())
    assert found.labels is None


def test_models_on_one_partition_do_not_share_ids() -> None:
    state = Partition()
    other = replace(KEY, model="fraud")
    found = observe(state, [EVENTS, replace(EVENTS, key=other)], MODELS, Watched())
    assert [part.key for part in found] == [KEY, other]
    assert all(part.fragments is not None and "duplicate" not in part.fragments.counters for part in found)


def test_one_slow_partition_holds_the_cells_open() -> None:
    run = Pipeline(("telemetry-0", "telemetry-1"))
    half = np.arange(EVENTS.n) % 2 == 0
    run.feed("telemetry-0", pick(EVENTS, np.flatnonzero(half)))
    assert run.shard.models[KEY].watch is not None
    assert run.shard.open_cell < START_US // CELL_US  # telemetry-1 has said nothing yet
    run.feed("telemetry-1", pick(EVENTS, np.flatnonzero(~half)))
    assert run.shard.open_cell > START_US // CELL_US
    assert "late" not in run.shard.models[KEY].counters


def test_labels_stamped_with_their_predictions_time_hold_no_cell_open() -> None:
    run = Pipeline(("telemetry-0", "labels-0"))
    hour = 3600 * CELL_US
    stale = replace(LABELS, event_time_us=EVENTS.event_time_us, arrival_us=EVENTS.arrival_us + hour)
    run.feed("telemetry-0", EVENTS)
    run.feed("labels-0", pick(stale, np.arange(10)))
    assert run.shard.watermark_us() == run.partitions["telemetry-0"].watermark_us
    assert run.partitions["labels-0"].watermark_us == int(stale.arrival_us[9]) - 10 * CELL_US
    assert run.partitions["labels-0"].counters == {"label_at_arrival": 10}
