"""Budgets of volume and coverage: who copies a model with ordinary rows is found, who asks much of the same is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.attacks.traffic import START_US, FloatArray, benign, benign_client, real
from tests.attack_traffic import KEY, Asked, client_hash, config_of, lively, restarted, rows_of, signed, with_more

from regate.config.model import ModelConfig
from regate.daemon.backtest import Backtest, Options
from regate.daemon.files.table import read_table
from regate.detectors.arrays import pack, unpack
from regate.detectors.attack import state as attack_state
from regate.detectors.attack.codec import packed, unpacked
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.hyperloglog import growing, registers
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.tally import BITS, PART, REGISTERS, Tally
from regate.detectors.attack.tally import Asked as Entries
from regate.detectors.attack.volume import DAY_US, LEAST, TIMES_USUAL, Volume, VolumeReference
from regate.detectors.attack.watch import AttackWatch
from regate.detectors.build import build_profile
from regate.detectors.columns import Slice
from regate.detectors.finding import Finding

POPULATION = real(3)
HOUR = 3_600.0
MIDNIGHT = (START_US // DAY_US + 1) * DAY_US
TO_MIDNIGHT = (MIDNIGHT - START_US) / 1e6  # some fifteen hours


@pytest.fixture(scope="module")
def normal() -> Slice:
    """Return a day and a half of normal clients."""
    return lively(rows_of(benign(POPULATION, 300, 40, 1)), 1, 0.1)


@pytest.fixture(scope="module")
def reference(normal: Slice) -> AttackReference:
    made = fitted(normal, tuple(normal.features))
    assert isinstance(made, AttackReference)
    return made


@pytest.fixture(scope="module")
def live() -> Slice:
    return lively(rows_of(benign(POPULATION, 120, 30, 2)), 2, 0.1)


def draws(seed: int, n: int) -> FloatArray:
    return POPULATION.draw(np.random.default_rng((31, seed)), n)


def asked(client: str, x: FloatArray, first: float = 100.0, seconds: float = 8 * HOUR) -> Asked:
    """Return queries at times as people have them."""
    rng = np.random.default_rng((32, len(x)))
    return Asked(client, x, first + np.sort(rng.random(len(x))) * seconds)


def thief(queries: int = 1_000, first: float = 100.0, seconds: float = 8 * HOUR) -> Asked:
    return asked("thief", draws(1, queries), first, seconds)


def volume(found: list[Finding]) -> list[Finding]:
    return [one for one in found if one.detector == "attack/volume"]


def until(rows: Slice, found: Finding, client: str) -> int:
    """Return how many queries of a client came until a finding."""
    assert rows.client is not None
    return int(((rows.client == client_hash(client)) & (rows.event_time_us <= found.detected_us)).sum())


def story(found: list[Finding]) -> list[tuple[str, str, str, str]]:
    return [(one.id, one.type, one.effect, one.message) for one in found]


def test_who_copies_a_model_with_ordinary_rows_is_found_at_about_the_budget(
    reference: AttackReference, live: Slice
) -> None:
    known = reference.habits.volume
    assert (known.reason, known.span, known.coverage) == ("", "a day", max(TIMES_USUAL * known.most, LEAST))
    rows = with_more(live, POPULATION, [thief()])
    (found,) = volume(signed(reference, rows))
    assert (found.type, found.family, found.kind) == ("finding", "attack", "attack")
    assert (found.subject, found.unit) == (f"{client_hash('thief'):016x}", "queries")
    assert known.coverage < until(rows, found, "thief") <= 1.25 * known.coverage
    assert f"asked {found.effect} different things within a day" in found.message
    assert "clients of the reference did" in found.message
    assert found.onset_us == int(rows.event_time_us[rows.client == client_hash("thief")].min())
    assert volume(signed(reference, with_more(live, POPULATION, [thief(known.coverage)]))) == []


@pytest.mark.parametrize(("kind", "queries"), [("load-test", 3_000), ("crawler", 1_000), ("jitter", 1_000)])
def test_who_asks_much_of_the_same_covers_little(
    reference: AttackReference, live: Slice, kind: str, queries: int
) -> None:
    x = benign_client(POPULATION, kind, np.random.default_rng(33), queries)
    assert volume(signed(reference, with_more(live, POPULATION, [asked(kind, x)]))) == []


def test_findings_do_not_depend_on_slices_or_restarts(reference: AttackReference, live: Slice) -> None:
    more = asked("other", draws(2, 400), TO_MIDNIGHT - HOUR, 2 * HOUR)
    rows = with_more(live, POPULATION, [thief(600), more, asked("ring", np.tile(draws(3, 20), (40, 1)))])
    whole = volume(signed(reference, rows, rows.n))
    assert [one.type for one in whole] == ["finding"]
    for size in (7, 100, 700):
        assert story(volume(signed(reference, rows, size))) == story(whole)
    for at in (0, 2, 4, 6):
        assert story(volume(signed(reference, rows, 300, restart=at))) == story(whole)


def test_each_utc_day_counts_anew_and_an_incident_stays_open_while_the_client_goes_on(
    reference: AttackReference, live: Slice
) -> None:
    parted = thief(300, TO_MIDNIGHT - HOUR, 2 * HOUR)
    assert volume(signed(reference, with_more(live, POPULATION, [parted]))) == []
    together = replace(parted, seconds=parted.seconds - 1.1 * HOUR)
    assert len(volume(signed(reference, with_more(live, POPULATION, [together])))) == 1
    # Three days at a hundred an hour with nights between, then two days in which somebody else asks.
    days = [thief(500, TO_MIDNIGHT + 24 * HOUR * day + 9 * HOUR, 5 * HOUR) for day in range(3)]
    x = draws(4, 1_500)
    days = [replace(day, x=x[500 * at : 500 * at + 500]) for at, day in enumerate(days)]
    later = Asked("good", draws(5, 3), TO_MIDNIGHT + 24 * HOUR * np.array([2.9, 3.4, 4.0]))
    found = volume(signed(reference, with_more(live, POPULATION, [*days, later]), 500))
    assert [(one.type, one.revision) for one in found] == [("finding", ""), ("revision", "recovered")]
    assert found[1].detected_us > MIDNIGHT + 3.5 * DAY_US


def test_what_is_asked_again_is_counted_once_and_the_estimate_is_within_its_error() -> None:
    rng = np.random.default_rng(34)
    for count, error in ((200, 0.1), (1_000, 0.1), (5_000, 0.13), (50_000, 0.15)):
        words = rng.integers(1, 2**63, count).astype(np.uint64)
        ranks = np.zeros(REGISTERS, dtype=np.uint8)
        register, rank = registers(np.r_[words, words], BITS)
        np.maximum.at(ranks, register, rank)
        assert growing(ranks) == pytest.approx(count, rel=error)
    ranks, last = np.zeros(REGISTERS, dtype=np.uint8), 0.0
    for at, one in zip(register[:8_000].tolist(), rank[:8_000].tolist(), strict=True):
        ranks[at] = max(ranks[at], one)
        assert growing(ranks) >= last
        last = growing(ranks)


def entries(rng: np.random.Generator, clients: int, n: int) -> Entries:
    """Return entries of clients, the first of which ask most; every tenth client goes round a list."""
    who = np.minimum((clients * rng.random(n) ** 4).astype(np.int64), clients - 1)
    word = np.where(who % 10 == 0, rng.integers(0, 20, n), rng.integers(0, 2**62, n)).astype(np.uint64)
    return Entries(who.astype(np.uint64) + np.uint64(1), who, word, np.sort(rng.integers(0, 3_000_000, n)))


def told(tally: Tally, given: Entries, size: int) -> list[tuple[int, int, int, int]]:
    found = []
    for start in range(0, len(given.time_us), size):
        found += tally.take(given.some(start, start + size), 1_000)
    return sorted((one.time_us, one.client, one.since_us, one.count) for one in found)


@pytest.mark.parametrize("capacity", [1_000, 40])
def test_a_full_table_keeps_the_busy_whatever_the_slices(capacity: int) -> None:
    given = entries(np.random.default_rng(35), 300, 10_000)
    whole = told(Tally(50, 1_000_000, capacity), given, 10_000)
    exact = set()
    for window in range(3):
        own = given.time_us // 1_000_000 == window
        for client in np.unique(given.client[own]).tolist():
            distinct = len(np.unique(given.word[own & (given.client == client)]))
            exact |= {(window, client)} if distinct > 1.3 * 50 else set()
    assert len(exact) > 10
    assert exact <= {(time_us // 1_000_000, client) for time_us, client, *_ in whole}
    assert not any(client % 10 == 1 for _, client, *_ in whole)  # a list of twenty
    for size in (1, 17, 1_000):
        tally = Tally(50, 1_000_000, capacity)
        assert told(tally, given, size) == whole
        assert len(tally.members) <= len(tally.owner) <= capacity


def test_who_goes_on_is_told_of_every_ten_minutes_and_no_more_often() -> None:
    n = 6_000
    given = Entries(
        np.ones(n, dtype=np.uint64),
        np.zeros(n, dtype=np.int64),
        np.random.default_rng(36).integers(0, 2**62, n).astype(np.uint64),
        np.arange(n, dtype=np.int64) * 1_000_000,
    )
    times = [time_us for time_us, *_ in told(Tally(200, DAY_US), given, 50)]
    assert np.diff(times).tolist() == [600_000_000] * (len(times) - 1)
    assert len(times) == 10


def with_asked(reference: AttackReference, allowed: int) -> AttackReference:
    return replace(reference, habits=replace(reference.habits, volume=replace(reference.habits.volume, asked=allowed)))


def test_a_budget_of_queries_of_any_kind_counts_sweeps_too_but_no_ring(reference: AttackReference, live: Slice) -> None:
    sweep = benign_client(POPULATION, "crawler", np.random.default_rng(37), 1_000)
    ring = np.tile(draws(3, 20), (150, 1))
    rows = with_more(live, POPULATION, [asked("sweep", sweep), asked("ring", ring)])
    (found,) = volume(signed(with_asked(reference, 500), rows))
    assert found.subject == f"{client_hash('sweep'):016x}"
    assert "distinct_queries_per_day allows 500" in found.message
    assert 500 < until(rows, found, "sweep") <= 625
    both = with_more(live, POPULATION, [thief()])
    assert len(volume(signed(with_asked(reference, 500), both))) == 1  # one finding of a client, whatever it exceeds


def allowing(config: ModelConfig, allowed: int | None, weight: float = 1.0) -> ModelConfig:
    said = {"distinct_queries_per_day": allowed, "families": {"attack": weight}}
    return config.model_copy(update={"detection": config.detection.model_copy(update=said)})


def test_the_setting_reaches_the_profile_and_says_when_nobody_counts(normal: Slice) -> None:
    rows = normal.cut(slice(0, 3_000))
    config = config_of(rows)
    made = build_profile(allowing(config, 700), KEY, rows, calibrate_seconds=0)
    assert made.attack is not None
    assert made.attack.habits.volume.asked == 700
    assert not any("distinct_queries_per_day" in note for note in made.notes)
    for off, given in (
        (allowing(config, 700), replace(rows, client=None)),
        (allowing(config, 700, 0.0), rows),
    ):
        made = build_profile(off, KEY, given, calibrate_seconds=0)
        assert any("distinct_queries_per_day: off" in note for note in made.notes)
    made = build_profile(allowing(config, None, 0.0), KEY, rows, calibrate_seconds=0)
    assert made.attack is None


def test_backtest_counts_by_event_time_and_says_that_rows_are_no_days(
    tmp_path: Path, normal: Slice, live: Slice
) -> None:
    sweep = benign_client(POPULATION, "crawler", np.random.default_rng(38), 600)
    rows = with_more(live, POPULATION, [asked("sweep", sweep, seconds=5 * HOUR)])
    later = 3 * DAY_US
    both = [normal, replace(rows, event_time_us=rows.event_time_us + later)]
    table = {
        "event_id": np.arange(sum(one.n for one in both)),
        "event_time": pa.array(np.concatenate([one.event_time_us for one in both]), pa.timestamp("us")),
        "client": [f"{name:x}" for one in both for name in (one.client if one.client is not None else [])],
        **{name: np.concatenate([one.features[name].values for one in both]) for name in normal.features},  # type: ignore[union-attr]
    }
    path = tmp_path / "asked.parquet"
    pq.write_table(pa.table(table), path)
    config = allowing(read_table(path).config, 300)
    found = {}
    for clock in ("event", "rows"):
        run = Backtest(read_table(path, config), Options(normal.n, clock=clock, calibrate_seconds=0))  # type: ignore[arg-type]
        run.build()
        told_of = [one for one in run.findings() if one["detector"] == "attack/volume"]
        found[clock] = [one["message"] for one in told_of if one["type"] == "finding"]
        assert any("row numbers are no times" in note for note in run.notes) == (clock == "rows")
    (said,) = found["event"]
    assert "distinct_queries_per_day allows 300" in said
    assert found["rows"] == []


def test_a_reference_that_knows_too_little_turns_coverage_off_and_says_so(normal: Slice) -> None:
    def volume_of(rows: Slice) -> VolumeReference:
        made = fitted(rows, tuple(rows.features))
        assert isinstance(made, AttackReference)
        known = made.habits.volume
        assert any("coverage by clients: off" in note for note in made.habits.notes()) == bool(known.reason)
        return known

    assert normal.client is not None
    ten = np.unique(normal.client)[:10]
    few = replace(normal, client=ten[np.arange(normal.n) % 10]).cut(slice(0, 2_000))
    assert "only 9 clients" in volume_of(few).reason  # one of ten is kept out for review
    times = normal.event_time_us
    short = replace(normal, event_time_us=times[0] + (times - times[0]) // 1_000)
    assert "shorter than ten minutes" in volume_of(short).reason
    known = volume_of(replace(normal, event_time_us=times[0] + (times - times[0]) // 10))
    assert (known.reason, known.span) == ("", "an hour")  # what a day is like is not known from four hours


def test_memory_is_fixed_and_fits_into_snapshots(reference: AttackReference) -> None:
    budgets = with_asked(reference, 10_000)
    watch = AttackWatch(KEY, "profile", Memory(budgets))
    tally = watch.memory.beside.volume.tallies["coverage"]
    rng = np.random.default_rng(39)
    for number in range(30):
        clients = np.repeat(np.arange(200, dtype=np.int64) + 200 * number, 1 + LEAST // PART)
        word = rng.integers(0, 2**62, len(clients)).astype(np.uint64)
        given = Entries(clients.astype(np.uint64) + np.uint64(1), clients, word, np.full(len(clients), START_US))
        tally.take(given, 6_000)
    assert len(tally.members) == len(tally.owner) == 4_096
    assert tally.ranks.nbytes == 4 * 2**20
    assert sum(getattr(tally, name).nbytes for name in ("client", "seen", "count", "since_us")) == 6_000 * 32
    again = restarted(watch).memory.beside.volume.tallies["coverage"]  # no chunk is too large
    assert (again.members, again.window) == (tally.members, tally.window)
    assert np.array_equal(again.ranks, tally.ranks)
    tally.take(Entries(given.client[:1], given.slot[:1], given.word[:1], np.array([MIDNIGHT])), 6_000)
    assert len(tally.members) == 0
    assert tally.ranks.nbytes <= 2**20


def test_profiles_and_snapshots_without_the_view_are_read(reference: AttackReference, live: Slice) -> None:
    again = unpacked(*unpack(pack(*packed(reference))))
    assert (again.digest, again.habits.volume) == (reference.digest, reference.habits.volume)
    off = replace(reference, habits=replace(reference.habits, volume=VolumeReference()))
    read = unpacked(*unpack(pack(*packed(off))))
    assert (read.digest, read.habits.volume.reason) == (off.digest, "not fitted")
    assert Volume(read.habits.volume).tallies == {}
    watch = AttackWatch(KEY, "profile", Memory(reference))
    rows = with_more(live, POPULATION, [thief()])
    watch.decide(reference.queries(rows.cut(slice(0, 500))))
    kept = {name: unpack(pack(meta, arrays)) for name, meta, arrays in attack_state.chunks(watch)}
    before = {name: chunk for name, chunk in kept.items() if "/volume" not in name}
    assert len(before) < len(kept)
    anew = AttackWatch(KEY, "profile", Memory(reference))
    attack_state.restore(anew, before)
    assert anew.memory.queries == 500
    found = anew.decide(reference.queries(rows.cut(slice(500, rows.n))))
    assert [one.type for one in volume(found)] == ["finding"]
