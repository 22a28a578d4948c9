"""The shape of traffic: burstier or smoother seconds are found, more or fewer events are not."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.telemetry_streams import CONFIG, KEY, START_US, telemetry

from regate.detectors import decide_state
from regate.detectors.build import build_profile
from regate.detectors.cells import CELL_US, Closed
from regate.detectors.columns import Slice
from regate.detectors.decide import FOREVER, Shard
from regate.detectors.finding import Finding
from regate.detectors.frames import Frame
from regate.detectors.observe import Partition, Watched, observe, watched
from regate.detectors.profile import Profile
from regate.detectors.ranktable import build_table
from regate.detectors.rhythm import COUNTS, RATIOS, Pace, counted, section_of, source_for
from regate.detectors.sections import PRESENT, SUM_Z, NumericSpec

RATE, SECONDS = 20.0, 1_500


def timed(counts: np.ndarray, seed: int, start_us: int = START_US) -> Slice:
    """Return events so many a second, spread evenly at random within each."""
    rng = np.random.default_rng(seed)
    events, _ = telemetry(int(counts.sum()), seed=seed, start_us=start_us)
    second = np.repeat(np.arange(len(counts)), counts)
    times = np.sort(start_us + second * CELL_US + rng.integers(0, CELL_US, second.size))
    return replace(events, event_time_us=times, arrival_us=times + 50_000)


def steady(seed: int, rate: float = RATE, seconds: int = SECONDS) -> np.ndarray:
    return np.random.default_rng((seed, 1)).poisson(rate, seconds)


def bursty(seed: int, seconds: int = SECONDS) -> np.ndarray:
    """Every fourth second holds most of the events; as many of them as in steady traffic."""
    rate = np.where(np.arange(seconds) % 4 == 0, 3.4 * RATE, 0.2 * RATE)
    return np.random.default_rng((seed, 2)).poisson(rate)


@pytest.fixture(scope="module")
def profile() -> Profile:
    reference = timed(steady(1), 1, START_US - 10_000 * CELL_US)
    return build_profile(CONFIG, KEY, reference, calibrate_seconds=5.0, events_per_second=RATE)


def found(profile: Profile, events: Slice, cuts: int = 40) -> list[Finding]:
    shard, partition, findings = Shard(), Partition(), []
    shard.configure(KEY, profile, CONFIG)
    models = {KEY: watched(CONFIG, profile)}
    for part in np.array_split(np.arange(events.n), cuts):
        parts = tuple(observe(partition, [events.cut(slice(part[0], part[-1] + 1))], models, Watched()))
        shard.take(Frame("telemetry-0", partition.watermark_us, parts=parts))
        findings += shard.close()
    return findings + shard.close(FOREVER - 1)


def test_bursts_are_found_under_behaviour(profile: Profile) -> None:
    counts = np.concatenate([steady(2, seconds=400), bursty(3, 600)])
    told = [(one.family, one.subject) for one in found(profile, timed(counts, 4)) if one.type == "finding"]
    assert told == [("behaviour", "traffic")]


@pytest.mark.parametrize("factor", [0.5, 1.0, 5.0])
def test_more_or_less_traffic_of_the_same_kind_is_none(profile: Profile, factor: float) -> None:
    events = timed(steady(5, RATE * factor, 600), 6)
    assert [one for one in found(profile, events) if one.family == "behaviour"] == []


def test_the_source_suits_the_traffic() -> None:
    rng = np.random.default_rng(7)
    wild = rng.poisson(RATE * rng.gamma(1.0, 1.0, 600))
    assert source_for(timed(steady(8), 8).event_time_us) == COUNTS
    assert source_for(timed(wild, 9).event_time_us) == RATIOS
    assert source_for(timed(steady(10, 1.0), 10).event_time_us) is None


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.sets(st.integers(1, 29)))
def test_the_same_seconds_count_however_cells_close(counts: list[int], cuts: set[int]) -> None:
    table = build_table(np.random.default_rng(11).chisquare(1, 500))
    spec = NumericSpec("behaviour/rhythm", 1, (table,), COUNTS)
    cell = np.flatnonzero(counts)
    stats = np.zeros((len(cell), 1 + spec.width), dtype=np.int64)
    stats[:, 0] = np.array(counts)[cell]
    zeros = np.zeros(len(cell), dtype=np.int64)
    whole = counted(spec, Closed(cell, zeros.astype(np.int16), stats, zeros), Pace())
    pace, parts = Pace(), []
    bounds = [0, *sorted(cut for cut in cuts if cut < len(cell)), len(cell)]
    for start, stop in pairwise(bounds):
        own = slice(start, stop)
        parts.append(counted(spec, Closed(cell[own], zeros[own].astype(np.int16), stats[own], zeros[own]), pace).stats)
    assert np.array_equal(np.concatenate(parts), whole.stats)
    follows = np.diff(np.r_[-9, cell]) == 1
    assert whole.stats[:, 1 + PRESENT].tolist() == follows.astype(int).tolist()
    assert not whole.stats[~follows, 1 + SUM_Z].any()


def test_the_last_second_survives_a_snapshot(profile: Profile) -> None:
    events = timed(steady(12, seconds=60), 12)
    shard, partition = Shard(), Partition()
    shard.configure(KEY, profile, CONFIG)
    parts = tuple(observe(partition, [events], {KEY: watched(CONFIG, profile)}, Watched()))
    shard.take(Frame("telemetry-0", partition.watermark_us, parts=parts))
    shard.close()
    again, refused = decide_state.load(decide_state.dump(shard), {str(KEY): profile}, {KEY: CONFIG})
    assert refused == []
    assert again.models[KEY].pace == shard.models[KEY].pace
    assert again.models[KEY].pace.events > 0
    assert section_of(profile.layout.sections) is not None
