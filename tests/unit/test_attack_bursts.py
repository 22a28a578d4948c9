"""Bursts of new clients, clients by the clock, timing probes, backdoor triggers; normal traffic gives nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.attacks.traffic import START_US, FloatArray, Population, benign, benign_client, pictures, real, table
from tests.attack_traffic import KEY, Asked, client_hash, lively, rows_of, signed, with_more

from regate.detectors.arrays import pack, unpack
from regate.detectors.attack import probes
from regate.detectors.attack.codec import packed, unpacked
from regate.detectors.attack.crowd import Crowd, CrowdReference
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.hyperloglog import REGISTERS, distinct, registers
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.ongoing import QUIET_US
from regate.detectors.attack.queries import Queries
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.sign import Sign
from regate.detectors.attack.signs import Signs
from regate.detectors.attack.watch import hex_name
from regate.detectors.columns import Numeric, Slice
from regate.detectors.finding import Finding

POPULATION = real(3)
FORMS = table(5)


def reference_of(population: Population, seed: int = 1, clients: int = 300) -> AttackReference:
    rows = lively(rows_of(benign(population, clients, 40, seed)), seed)
    made = fitted(rows, tuple(rows.features))
    assert isinstance(made, AttackReference)
    return made


@pytest.fixture(scope="module")
def reference() -> AttackReference:
    return reference_of(POPULATION)


@pytest.fixture(scope="module")
def forms() -> AttackReference:
    return reference_of(FORMS)


@pytest.fixture(scope="module")
def live() -> Slice:
    return lively(rows_of(benign(POPULATION, 120, 30, 2)), 2)


def draws(seed: int, n: int, population: Population = POPULATION) -> FloatArray:
    return population.draw(np.random.default_rng((12, seed)), n)


def story(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.id, one.type) for one in found]


def asked_before(rows: Slice, found: Finding, client: str) -> int:
    """Return how many queries of a client came until a finding."""
    assert rows.client is not None
    return int(((rows.client == client_hash(client)) & (rows.event_time_us <= found.detected_us)).sum())


def stuffing(rows: Slice, clients: int, first: float, seconds: float, seed: int = 1) -> Slice:
    """Return rows with so many new clients that ask once or twice within a time."""
    rng = np.random.default_rng((13, seed))
    parts = [
        Asked(f"n{number:05}", draws(number, times), first + np.sort(rng.random(times)) * seconds)
        for number, times in enumerate(rng.integers(1, 3, clients).tolist())
    ]
    return with_more(rows, POPULATION, parts)


def by_the_clock(seed: int = 1, queries: int = 45, spread: float = 0.03) -> Asked:
    rng = np.random.default_rng((14, seed))
    gaps = 2.0 * (1.0 + spread * rng.normal(size=queries)).clip(0.05)
    return Asked("bot", draws(seed, queries), 20.0 + np.cumsum(gaps))


def probe(queries: int = 80, apart: float = 0.0, latency: bool = True) -> Asked:
    """Return two inputs asked in turn, the second slower by a share."""
    rng = np.random.default_rng(15)
    two = np.arange(queries) % 2
    took = 12.0 * np.exp(0.2 * rng.normal(size=queries)) * (1.0 + apart * two) if latency else np.full(queries, 5.0)
    return Asked("timer", draws(1, 2)[two], 20.0 + np.cumsum(rng.exponential(0.5, queries)), took)


def triggered(seed: int = 1, queries: int = 600, column: int = 5, spread: float = 0.0) -> list[Asked]:
    """Return queries of thirty clients in which one value was planted; the model answers surely, or as it likes."""
    rng = np.random.default_rng((16, seed))
    parts = []
    for number in range(30):
        x = draws(100 + number, queries // 30, FORMS)
        x[:, column] = 3.0
        x[:, 7] = 41.5
        sure = 0.999 - np.abs(rng.normal(size=len(x))) * spread
        parts.append(Asked(f"t{number}", x, np.sort(rng.random(len(x))) * 600, score=np.clip(sure, 0.5, 1)))
    return parts


def test_a_burst_of_new_clients_is_found_while_it_lasts(reference: AttackReference, live: Slice) -> None:
    rows = stuffing(live, 1_500, 120.0, 20.0)
    found = signed(reference, rows)
    assert [(one.type, one.subject, one.detector) for one in found[:1]] == [
        ("finding", "pattern:new-clients", "attack/crowd")
    ]
    assert "never seen before" in found[0].message
    assert rows.client is not None
    new = np.isin(rows.client, [client_hash(f"n{number:05}") for number in range(1_500)])
    assert int((new & (rows.event_time_us <= found[0].detected_us)).sum()) <= 700


def test_a_crowd_is_new_and_large(reference: AttackReference, live: Slice) -> None:
    """Known clients may ask much, new ones may come at the usual volume, and many may come among more known ones."""
    rng = np.random.default_rng(17)
    assert reference.habits.crowd.volume > 180
    quiet = live.some((live.event_time_us - START_US) // 1_000_000 < 110)
    assert signed(reference, stuffing(quiet, 100, 120.0, 9.0)) == []
    busy = [
        Asked(f"k{number:05}", draws(number, 31), np.r_[5.0, 120.0 + np.sort(rng.random(30)) * 9.0])
        for number in range(50)
    ]
    known = with_more(live, POPULATION, busy)
    assert signed(reference, known) == []
    assert signed(reference, stuffing(known, 200, 120.0, 9.0)) == []
    assert signed(reference, stuffing(live, 200, 120.0, 9.0)) != []
    assert signed(reference, stuffing(live, 300, 0.0, 9.0)) == []  # everybody is new when watching begins


def test_a_client_by_the_clock_is_found_after_thirty_gaps(reference: AttackReference, live: Slice) -> None:
    rows = with_more(live, POPULATION, [by_the_clock()])
    (found,) = signed(reference, rows)
    assert (found.subject, found.detector) == (f"{client_hash('bot'):016x}", "attack/pace")
    assert asked_before(rows, found, "bot") == 31
    assert found.onset_us < found.detected_us
    assert signed(reference, with_more(live, POPULATION, [by_the_clock(spread=0.2)])) == []


def test_load_tests_and_crawlers_by_the_clock_are_none(reference: AttackReference, live: Slice) -> None:
    rng = np.random.default_rng(18)
    parts = []
    for number, kind in enumerate(("load-test", "crawler", "ab", "what-if", "jitter") * 3):
        x = benign_client(POPULATION, kind, rng, 200)
        parts.append(Asked(f"bot{number}", x, 10.0 + number + 1.0 * np.arange(len(x))))
    assert signed(reference, with_more(live, POPULATION, parts)) == []


def test_where_reference_clients_are_regular_the_lane_is_off_and_says_so(live: Slice) -> None:
    rows = lively(rows_of(benign(POPULATION, 120, 30, 1)), 1)
    bots = [replace(by_the_clock(number), client=f"bot{number}") for number in range(5)]
    made = fitted(with_more(rows, POPULATION, bots), tuple(rows.features))
    assert isinstance(made, AttackReference)
    assert "ask by the clock themselves" in made.habits.pace.reason
    assert any("regular gaps: off" in note for note in made.habits.notes())
    assert signed(made, with_more(live, POPULATION, [by_the_clock(9)])) == []


def test_one_input_again_and_again_is_a_timing_probe(reference: AttackReference, live: Slice) -> None:
    rows = with_more(live, POPULATION, [probe()])
    (found,) = signed(reference, rows)
    assert (found.subject, found.detector) == (f"{client_hash('timer'):016x}", "attack/probe")
    assert asked_before(rows, found, "timer") <= 2 * 30 + 2
    assert "told apart" not in found.message
    single = replace(probe(), x=draws(1, 1).repeat(80, axis=0))
    rows = with_more(live, POPULATION, [single])
    assert asked_before(rows, signed(reference, rows)[0], "timer") == 31
    (slower,) = signed(reference, with_more(live, POPULATION, [probe(400, apart=0.5)]))
    assert "only the time varies" in slower.message
    memory = Memory(reference)
    memory.take(reference.queries(with_more(live, POPULATION, [probe(400, apart=0.5)])))
    assert any("told apart by time" in sign.said for sign in memory.beside.waiting)


def test_without_varying_latency_or_with_varying_answers_it_is_none(reference: AttackReference, live: Slice) -> None:
    assert signed(reference, with_more(live, POPULATION, [probe(latency=False)])) == []
    asked = probe()
    unsure = replace(asked, score=np.random.default_rng(3).random(80))
    assert signed(reference, with_more(live, POPULATION, [unsure])) == []
    assert signed(reference, with_more(live, POPULATION, [replace(asked, seconds=asked.seconds * 5_000)])) == []


def test_where_reference_clients_repeat_the_lane_is_off_or_asks_for_more(live: Slice) -> None:
    rows = lively(rows_of(benign(POPULATION, 120, 30, 1)), 1)
    monitors = [replace(probe(), client=f"mon{number}") for number in range(3)]
    made = fitted(with_more(rows, POPULATION, monitors), tuple(rows.features))
    assert isinstance(made, AttackReference)
    assert "repeat one input" in made.habits.probe.reason
    rows = lively(rows_of(benign(POPULATION, 300, 30, 1)), 1)
    one = fitted(with_more(rows, POPULATION, monitors[:1]), tuple(rows.features))
    assert isinstance(one, AttackReference)
    assert (one.habits.probe.reason, one.habits.probe.least) == ("", 120)
    assert signed(one, with_more(live, POPULATION, [probe()])) == []
    assert len(signed(one, with_more(live, POPULATION, [probe(400)]))) == 1


def test_a_planted_value_with_one_sure_answer_is_a_trigger(forms: AttackReference) -> None:
    rows = with_more(lively(rows_of(benign(FORMS, 150, 40, 2)), 2), FORMS, triggered())
    found = [one for one in signed(forms, rows) if one.type == "finding"]
    assert {one.detector for one in found} == {"attack/trigger"}
    assert {one.subject[:12] for one in found} <= {"pattern:f005", "pattern:f007"}
    assert "pattern:f007" in {one.subject[:12] for one in found}
    assert rows.client is not None
    planted = np.isin(rows.client, [client_hash(f"t{number}") for number in range(30)])
    assert int((planted & (rows.event_time_us <= found[0].detected_us)).sum()) <= 300


def test_a_new_value_with_the_models_own_answers_is_none(forms: AttackReference) -> None:
    background = lively(rows_of(benign(FORMS, 150, 40, 2)), 2)
    usual = [replace(part, score=None) for part in triggered()]
    assert signed(forms, with_more(background, FORMS, usual)) == []
    unsure = triggered(spread=0.2)
    assert signed(forms, with_more(background, FORMS, unsure)) == []
    rows = np.arange(600) % 20  # a load test with a short list, all of it planted
    planted = triggered(queries=600)[0].x[rows]
    seconds = np.sort(np.random.default_rng(2).random(600)) * 600
    ring = Asked("ring", planted, seconds, score=np.full(600, 0.999))
    assert signed(forms, with_more(background, FORMS, [ring])) == []
    assert signed(forms, with_more(background, FORMS, triggered(queries=60))) == []  # so few may be of one answer
    assert signed(forms, with_more(background, FORMS, triggered())) != []
    trigger = forms.habits.trigger
    count = trigger.count.copy()
    count[5 * 256 : 8 * 256, :2] = trigger.rows // 10  # values that are usual there, with either answer
    usual = replace(forms, habits=replace(forms.habits, trigger=replace(trigger, count=count)))
    assert signed(usual, with_more(background, FORMS, triggered())) == []


def test_a_rule_that_the_reference_had_is_no_trigger_when_it_comes_more_often() -> None:
    rows = with_more(lively(rows_of(benign(FORMS, 150, 40, 1)), 1), FORMS, triggered(queries=60))
    made = fitted(rows, tuple(rows.features))
    assert isinstance(made, AttackReference)
    background = lively(rows_of(benign(FORMS, 150, 40, 2)), 2)
    assert signed(made, with_more(background, FORMS, triggered())) == []


@pytest.mark.parametrize("population", [table(1), real(1), pictures(1)], ids=lambda one: one.name)
def test_normal_traffic_gives_nothing(population: Population) -> None:
    made = reference_of(population)
    for seed in (2, 3):
        assert signed(made, lively(rows_of(benign(population, 600, 40, seed)), seed), 2_000) == []


def everything(rows: Slice) -> Slice:
    rows = stuffing(rows, 1_500, 120.0, 20.0)
    return with_more(rows, POPULATION, [by_the_clock(), probe()])


def test_findings_do_not_depend_on_slices_or_restarts(reference: AttackReference, live: Slice) -> None:
    rows = everything(live.cut(slice(0, 2_500)))
    whole = signed(reference, rows, rows.n)
    assert {one.detector for one in whole} == {"attack/crowd", "attack/pace", "attack/probe"}
    for size in (13, 100, 777):
        assert story(signed(reference, rows, size)) == story(whole)
    for at in (1, 4, 7):
        assert story(signed(reference, rows, 500, restart=at)) == story(whole)


def test_triggers_do_not_depend_on_slices_or_restarts(forms: AttackReference) -> None:
    rows = with_more(lively(rows_of(benign(FORMS, 60, 40, 2)), 2), FORMS, triggered())
    whole = signed(forms, rows, rows.n)
    assert whole
    for size in (50, 700):
        assert story(signed(forms, rows, size)) == story(whole)
    assert story(signed(forms, rows, 400, restart=2)) == story(whole)


def test_an_incident_ends_an_hour_after_its_last_sign(reference: AttackReference, live: Slice) -> None:
    bot = by_the_clock()
    later = Asked("good", draws(3, 2), np.array([7_000.0, 7_100.0]))
    found = signed(reference, with_more(live, POPULATION, [bot, later]), 500)
    assert [(one.type, one.revision) for one in found] == [("finding", ""), ("revision", "recovered")]
    assert found[1].detected_us == found[0].detected_us + QUIET_US
    assert found[1].incident == found[0].id


def test_what_comes_back_after_its_end_is_another_incident() -> None:
    once = Sign("probe", "", 1_000, 0, 30, "queries", 4.0, 3.0, "client {subject} asks", 5)
    again = replace(once, time_us=1_000 + 2 * QUIET_US)
    stories = []
    for batches in ([[once, again]], [[once], [again]]):
        signs, found = Signs(), []
        for batch in batches:
            found += signs.take(batch, batch[-1].time_us, KEY, "profile", hex_name)
        stories.append([(one.id, one.type, one.detected_us) for one in found])
    assert stories[0] == stories[1]
    assert [kind for _, kind, _ in stories[0]] == ["finding", "revision", "finding"]


def test_memory_is_bounded(reference: AttackReference, live: Slice, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(reference)
    memory.beside.probes.capacity = 20
    rng = np.random.default_rng(19)
    parts = [
        Asked(f"r{number}", draws(number, 3).repeat(4, axis=0), 1.0 + number + np.sort(rng.random(12)))
        for number in range(200)
    ]
    rows = with_more(live, POPULATION, parts)
    memory.take(reference.queries(rows))
    views = memory.beside
    assert len(views.probes.clients) == 20
    assert max(len(inputs) for inputs in views.probes.clients.values()) <= probes.INPUTS
    assert len(views.pace.client) <= len(memory.views[0].table.seen)
    assert views.triggers.count.shape == (4_096, 8)
    crowd = Crowd(CrowdReference(1 << 60, 1, 0.5, ""))
    monkeypatch.setattr("regate.detectors.attack.crowd.MOST_PIECES", 4)
    queries = reference.queries(rows)
    for _ in range(3):
        crowd.take(queries)
    assert len(crowd.here) <= 4 + 1


def test_who_was_seen_long_ago_is_forgotten_by_generations() -> None:
    crowd = Crowd(CrowdReference(1_000, 1, 0.5, ""))
    for number in range(6):
        client = np.arange(1, 30_001, dtype=np.uint64) + np.uint64(number * 30_000)
        crowd._turn(number)
        crowd._add(client)
        assert crowd.newcomers > 0.6 * len(client)
    assert crowd.known.sum() == crowd.filled < crowd.before.sum()


def test_distinct_clients_are_counted_within_a_few_percent() -> None:
    rng = np.random.default_rng(20)
    for count in (10, 300, 5_000, 200_000):
        client = rng.integers(1, 2**63, count).astype(np.uint64)
        ranks = np.zeros(REGISTERS, dtype=np.uint8)
        register, rank = registers(np.r_[client, client])
        np.maximum.at(ranks, register, rank)
        assert distinct(ranks) == pytest.approx(count, rel=0.2)


def test_habits_come_back_from_their_bytes(forms: AttackReference) -> None:
    again = unpacked(*unpack(pack(*packed(forms))))
    assert again.digest == forms.digest
    assert again.habits.crowd == forms.habits.crowd
    assert np.array_equal(again.habits.trigger.count, forms.habits.trigger.count)
    assert again.habits.trigger.classes == forms.habits.trigger.classes


def test_queries_of_before_have_no_latency(reference: AttackReference, live: Slice) -> None:
    from regate.detectors.attack.queries import of_columns

    part = reference.queries(live.cut(slice(0, 50)))
    assert (part.latency_us > 0).all()
    old = {name: getattr(part, name) for name in Queries.__slots__ if name != "latency_us"}
    assert of_columns(old).latency_us.tolist() == [-1] * 50
    odd = replace(live.cut(slice(0, 3)), latency_ms=np.array([np.nan, -1.0, 2.5]))
    assert reference.queries(odd).latency_us.tolist() == [-1, -1, 2_500]
    assert isinstance(live.features["f000"], Numeric)
