"""The benchmark's own arithmetic: run lengths, delays, levels, and that its fleet is the product."""

from __future__ import annotations

import math

import numpy as np
import pytest
from benchmarks.detection import oracle, own
from benchmarks.detection.report import compared, markdown
from benchmarks.detection.rows import Oracle
from benchmarks.detection.run import WHOLE, Results, plain_delays
from benchmarks.detection.scoring import (
    Delays,
    RunLength,
    alarms_above,
    delays_of,
    level_for,
    median_ratio,
    score_level,
    search,
)
from benchmarks.detection.streams import CHANGES, LAWS, Law, Plan, changes_of, draw, log_ratio
from scipy.stats import kstest

from regate.detectors.cells import BLOCK_CELLS, BLOCK_EVENTS, Block
from regate.detectors.clocks import RowClock
from regate.detectors.watch import Watch

IID = Law("numeric", "iid")
PLAN = Plan(2, 4_000, 3, 16_000, 20, 512, 3_000, seed=3)


def test_a_run_length_is_events_over_alarms_and_its_interval_holds_it() -> None:
    length = RunLength(40, 400_000)
    assert length.value == 10_000
    assert length.interval[0] < 10_000 < length.interval[1]
    assert RunLength(0, 1000).value == math.inf
    assert length.matches(11_000)
    assert not length.matches(20_000)


def test_delays_count_from_the_change_and_earlier_alarms_do_not() -> None:
    found = delays_of([[5, 100, 130], [50], []], np.array([100, 60, 60]), horizon=1000)
    assert found.found == (1,)
    assert (found.runs, found.median) == (3, math.inf)
    assert plain_delays(found)["median"] is None


def test_a_level_found_on_paths_gives_the_run_length() -> None:
    rng = np.random.default_rng(1)
    steps = rng.normal(-0.5, 1.0, (200, 4_000))
    level = level_for([oracle.path(steps)], 1_000.0)
    alarms = oracle.alarms(rng.normal(-0.5, 1.0, (200, 4_000)), level)
    assert RunLength(sum(map(len, alarms)), 800_000).value == pytest.approx(1_000, rel=0.15)


def test_a_score_level_goes_beyond_what_was_seen_by_its_tail() -> None:
    rng = np.random.default_rng(2)
    scores = [rng.exponential(size=20_000)]
    assert score_level(scores, 1_000.0, 0) == pytest.approx(math.log(1_000), abs=0.4)
    assert score_level(scores, 100_000.0, 0) == pytest.approx(math.log(100_000), abs=1.5)
    assert alarms_above(np.array([0.0, 3.0, 3.0, 3.0]), 2.0, rest=1) == [1, 3]


def test_the_search_ends_near_the_target() -> None:
    tried = search(lambda level: RunLength(round(1e6 / level**2), 1_000_000), 1.0, 1_000.0, 10_000.0)
    assert tried[-1].run_length.value == pytest.approx(10_000, rel=0.1)


def test_the_ratio_of_medians_has_an_interval_around_it() -> None:
    slow, fast = Delays(tuple(range(100, 200)), 100, 1000), Delays(tuple(range(50, 100)) * 2, 100, 1000)
    value, low, high = median_ratio(slow, Delays(tuple(sorted(fast.found)), 100, 1000))
    assert low <= value <= high
    assert value == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("law", [law for law in LAWS if law.inputs != "joint"], ids=lambda law: law.name)
def test_log_ratios_are_likelihoods(law: Law) -> None:
    """E[exp(log ratio)] of a step is 1 under the null, given the past: so its mean is."""
    rng = np.random.default_rng(4)
    streams = draw(law, None, rng, 400, np.full(400, 400), 288)
    for change in changes_of(law):
        ratio = log_ratio(law, change, streams, 288)
        mean = float(np.exp(np.minimum(ratio, 8.0)).mean())
        assert mean == pytest.approx(1.0, abs=0.08), change.name


def test_a_shape_changes_neither_mean_nor_variance() -> None:
    change = next(one for one in CHANGES if one.name == "shape")
    values = draw(IID, change, np.random.default_rng(5), 20_000, np.zeros(1, dtype=np.int64))[0, :, 0]
    assert values.mean() == pytest.approx(0.0, abs=0.03)
    assert values.var() == pytest.approx(1.0, abs=0.03)
    assert kstest(values, "norm").pvalue < 1e-6


def test_the_fleet_alarms_where_the_product_does() -> None:
    batch = next(PLAN.batches(IID, CHANGES[0], "judge"))
    profile = own.profile_of(IID, batch.reference, 10_000.0, seed=1)
    blocks = own.statistics(IID, profile, batch.streams)
    fleet = own.Fleet(profile, len(batch.streams), 10_000.0).alarms(blocks)
    for stream in range(5):
        watch = Watch(profile, RowClock(10_000.0, batch.streams.shape[1]), "restart")
        found = []
        for number, stats in enumerate(blocks[stream]):
            if watch.step(Block(0, number * BLOCK_CELLS, number * BLOCK_CELLS, stats, 0)):
                found.append((number + 1) * BLOCK_EVENTS - 1)
        assert found == fleet[stream]
    assert sum(map(len, fleet)) >= len(fleet)


def test_the_oracle_finds_every_plain_change() -> None:
    row = Oracle(IID, CHANGES[0], PLAN)
    level = row.level(2_000.0)
    assert row.delays(level, CHANGES[0]).within(1_000)[0] == 1.0


def test_the_report_says_who_is_behind() -> None:
    found = Results()
    fast, slow = Delays(tuple(range(20, 60)), 40, 1_000), Delays(tuple(range(200, 240)), 40, 1_000)
    found.delays = {
        ("numeric/iid", WHOLE, "matched", "mean"): slow,
        ("numeric/iid", "Peer", "matched", "mean"): fast,
        ("numeric/iid", "Other", "matched", "mean"): Delays((), 40, 1_000),
        ("numeric/iid", "oracle", "matched", "mean"): fast,
    }
    verdicts = {row["peer"]: row["verdict"] for row in compared(found)}
    assert verdicts == {"Peer": "behind", "Other": "ahead"}
    about = {"command": "x", "seed": 1, "target": 10_000.0, "machine": "y", "missing": ["environment peers: gone"]}
    text = markdown(found, [], about)
    assert "behind in\n1 of 2 rows" in text
    assert "environment peers: gone" in text
