"""The longest normal silence, by the hour of a model's week."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.telemetry_streams import CONFIG, KEY, profile

from regate.detectors.decide import Shard
from regate.detectors.gaps import HOUR_US, gap_table, longest_gap_us

MONDAY = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1e6)  # 00:00 UTC
SECOND, DAY_US = 1_000_000, 24 * HOUR_US


def office(weeks: int, zone_hours: int = 0, seed: int = 3) -> np.ndarray:
    """Events about once a second from 8 to 18 o'clock, Monday to Friday."""
    rng = np.random.default_rng(seed)
    days = [MONDAY + (7 * week + day) * DAY_US for week in range(weeks) for day in range(5)]
    return np.concatenate([d + (8 - zone_hours) * HOUR_US + rng.integers(0, 10 * HOUR_US, 36_000) for d in days])


def test_a_quiet_night_is_normal_and_a_quiet_noon_is_not() -> None:
    table = gap_table(office(2), "UTC")
    noon = MONDAY + 12 * HOUR_US
    assert longest_gap_us(table, noon, noon + 30 * SECOND, "UTC") < 60 * SECOND
    evening = MONDAY + 17 * HOUR_US + 59 * 60 * SECOND
    assert longest_gap_us(table, evening, evening + 8 * HOUR_US, "UTC") > 13 * HOUR_US
    friday = MONDAY + 4 * DAY_US + 17 * HOUR_US + 59 * 60 * SECOND
    assert longest_gap_us(table, friday, friday + 2 * DAY_US, "UTC") > 60 * HOUR_US


def test_hours_are_local_also_when_the_clocks_change() -> None:
    # Berlin is two hours ahead in June; a reference of the same local hours in winter is one ahead.
    table = gap_table(office(2, zone_hours=2), "Europe/Berlin")
    winter = int(datetime(2026, 12, 7, 11, 0, tzinfo=UTC).timestamp() * 1e6)  # noon in Berlin
    assert longest_gap_us(table, winter, winter + 60 * SECOND, "Europe/Berlin") < 60 * SECOND
    assert longest_gap_us(table, winter + 7 * HOUR_US, winter + 8 * HOUR_US, "Europe/Berlin") > 13 * HOUR_US


def test_too_few_gaps_borrow_from_their_hour_of_day_and_then_from_all() -> None:
    sparse = MONDAY + np.arange(0, 7 * DAY_US, 600 * SECOND)
    sparse = np.delete(sparse, slice(300, 306))  # one hour's pause, once
    table = gap_table(sparse, "UTC")
    assert set(table) == {70 * 60 * SECOND}
    assert gap_table(np.array([5]), "UTC") == ()
    assert longest_gap_us((), 0, 10**12, "UTC") == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 14 * DAY_US), min_size=2, max_size=60), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter_and_no_gap_is_longer_than_the_longest(times: list[int], random) -> None:
    shuffled = times[:]
    random.shuffle(shuffled)
    table = gap_table(np.array(times), "UTC")
    assert table == gap_table(np.array(shuffled), "UTC")
    assert max(table, default=0) == int(np.diff(np.sort(times)).max())


def test_silence_at_noon_is_found_and_at_night_not() -> None:
    from dataclasses import replace

    known = replace(profile(), gaps_us=gap_table(office(2), "UTC"))
    week = MONDAY + 7 * DAY_US

    def silent_from(hour: float, seconds: int) -> list[str]:
        shard = Shard()
        shard.configure(KEY, known, CONFIG)
        start_ms = (week + round(hour * HOUR_US)) // 1000
        found = []
        for ms in range(start_ms - 60_000, start_ms + seconds * 1000, 10_000):
            shard.silence.alive("telemetry-0", ms)
            if ms <= start_ms:
                shard.silence.heard(KEY, "telemetry-0", ms)
            found += [finding.subject for finding in shard.tick(ms, {})]
        return found

    assert silent_from(12.0, 120) == ["model"]
    assert silent_from(17.99, 12 * 3600) == []
