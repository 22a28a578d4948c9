"""Climbs: who has the model ever surer of one answer is found, who asks in no order is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.attacks.inversion import climbing, tuned
from benchmarks.attacks.traffic import FloatArray, Traffic, benign, benign_client, real, woven
from tests.attack_traffic import client_hash, rows_of, signed

from regate.detectors.attack import climb
from regate.detectors.attack.clients import EDIT, NEAR, Clients
from regate.detectors.attack.climb import BAR, RECORD_SHARE, UNIT, WARM, Climb, ClimbReference
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.reference import AttackReference
from regate.detectors.columns import Slice
from regate.detectors.finding import Finding

POPULATION = real(3)
EVIL = f"{client_hash('evil'):016x}"


@pytest.fixture(scope="module")
def normal() -> Slice:
    return rows_of(benign(POPULATION, 120, 40, 1))


@pytest.fixture(scope="module")
def reference(normal: Slice) -> AttackReference:
    made = fitted(normal, tuple(normal.features))
    assert isinstance(made, AttackReference)
    assert made.habits.climb == ClimbReference("", BAR, made.habits.climb.clients)
    return made


def among(x: FloatArray, seed: int) -> Traffic:
    """Return what a client asks among what twelve normal ones do."""
    rng = np.random.default_rng((71, seed))
    kinds = ("fresh", "jitter", "what-if", "session", "crawler", "ab")
    others = [(f"good{at}", kind, benign_client(POPULATION, kind, rng, 40)) for at, kind in enumerate(kinds * 2)]
    return woven(POPULATION, [("evil", "attack", x), *others], rng)


def climbs(found: list[Finding]) -> list[Finding]:
    return [one for one in found if one.detector == "attack/climb" and one.type == "finding"]


@pytest.mark.parametrize(("way", "most"), [("random steps, kept when they help", 60), ("cloud (NES)", 120)])
def test_inversion_is_found_and_only_it(reference: AttackReference, way: str, most: int) -> None:
    needed = []
    for seed in range(3):
        traffic = among(climbing(POPULATION, way, "a real row", np.random.default_rng((seed, 1))), seed)
        found = climbs(signed(reference, rows_of(traffic)))
        assert {one.subject for one in found} == {EVIL}
        row = int(np.searchsorted(traffic.time_us, found[0].detected_us))
        needed.append(int((traffic.client[: row + 1] == "evil").sum()))
        assert "ever surer of one answer" in found[0].message
    assert np.median(needed) <= most, needed


def test_who_asks_in_no_order_is_not_found(reference: AttackReference) -> None:
    rng = np.random.default_rng(72)
    base = POPULATION.draw(rng, 1)
    sensor = base + 0.02 * POPULATION.scale * rng.normal(size=(400, base.shape[1]))
    cases = base + np.where(rng.random((400, base.shape[1])) < 0.1, POPULATION.draw(rng, 400) - base, 0.0)
    for x in (sensor, cases, tuned(POPULATION, rng, 400)):
        assert climbs(signed(reference, rows_of(among(x, 1)))) == []


def test_a_sweep_upwards_is_no_climb_and_a_shuffled_climb_is_none(reference: AttackReference) -> None:
    rng = np.random.default_rng(73)
    up = np.repeat(POPULATION.draw(rng, 1), 200, axis=0)
    steep = int(np.argmax(np.abs(POPULATION.weights)))
    up[:, steep] += np.sign(POPULATION.weights[steep]) * POPULATION.scale[steep] * np.linspace(0.0, 1.0, 200)
    assert climbs(signed(reference, rows_of(among(up, 2)))) == []
    x = climbing(POPULATION, "random steps, kept when they help", "a real row", rng)
    assert climbs(signed(reference, rows_of(among(x, 3))))
    assert climbs(signed(reference, rows_of(among(x[rng.permutation(len(x))], 3)))) == []


def test_nothing_depends_on_slices_or_restarts(reference: AttackReference) -> None:
    x = climbing(POPULATION, "cloud (NES)", "a real row", np.random.default_rng(74))
    rows = rows_of(among(x, 4))
    whole = climbs(signed(reference, rows, 10_000))
    assert whole
    for size in (1, 7, 150):
        assert climbs(signed(reference, rows, size)) == whole
    for at in (0, 1, 3):
        assert climbs(signed(reference, rows, 100, restart=at)) == whole


def test_the_levels_are_those_of_bets_one_by_one(reference: AttackReference) -> None:
    x = climbing(POPULATION, "random steps, kept when they help", "a real row", np.random.default_rng(75))
    queries = reference.queries(rows_of(among(x, 5)))
    table = Clients()
    steps = table.take(queries, reference.tau)
    found = Climb(ClimbReference("")).walks(steps, queries, len(table.seen))
    level = dict(zip(found.entry.tolist(), found.level.tolist(), strict=True))
    walks: dict[tuple[int, int, int], tuple[int, float, int]] = {}
    last: dict[int, tuple[int, int, int]] = {}
    compared = 0
    for entry in range(len(steps.row)):
        if not (steps.kind[entry] == NEAR or (steps.kind[entry] == EDIT and steps.turns[entry])):
            assert entry not in level
            continue
        row, who = int(steps.row[entry]), int(steps.slot[entry])
        name = (who, int(queries.label[row]), int(steps.chain.root[steps.place[entry]]))
        sure = -round(float(queries.lanes[row, 5]) * UNIT)  # told apart no more finely
        count, best, won = walks.get(name, (0, -np.inf, 0)) if last.get(who) == name else (0, -np.inf, 0)
        count += 1
        if count >= WARM:
            odds = RECORD_SHARE * count if sure > best else (1 - RECORD_SHARE) / (1 - 1 / count)
            won = max(won + round(float(np.log(odds)) * UNIT), 0)
        walks[name], last[who] = (count, max(best, sure), won), name
        assert level[entry] == pytest.approx(won / UNIT, abs=1e-5)
        compared += won > 0
    assert compared > 20


def test_walks_in_no_order_seldom_come_near_the_bar() -> None:
    rng = np.random.default_rng(76)
    walks, length = 4_000, 150
    sure = rng.exponential(size=(walks, length))  # whatever their distribution
    record = sure >= np.maximum.accumulate(sure, axis=1)
    edge = np.arange(walks) * length
    walk = np.repeat(np.arange(walks), length)
    count = np.tile(np.arange(1, length + 1), walks)
    level = Climb._levels(record.ravel(), count, walk, edge, np.zeros(walks, dtype=np.int64)) / UNIT
    highest = np.maximum.reduceat(level, edge)
    # A CUSUM of fair bets is above a in a share of at most e^-a of its queries.
    for bar in (3.0, 5.0, 7.0):
        assert (level > bar).mean() <= np.exp(-bar), bar
    assert highest.max() < BAR


def test_why_it_is_off_is_said(normal: Slice) -> None:
    bare = fitted(replace(normal, scores={}), tuple(normal.features))
    assert isinstance(bare, AttackReference)
    assert bare.habits.climb.reason == "events of the reference carry no scores"
    assert any(note.startswith("attack lanes, climbs: off") for note in bare.habits.notes())
    rng = np.random.default_rng(77)
    parts = [
        (f"c{at}", "x", climbing(POPULATION, "random steps, kept when they help", "a real row", rng)[:100])
        for at in range(20)
    ]
    parts += [(f"g{at}", "x", POPULATION.draw(rng, 30)) for at in range(100)]
    rows = rows_of(woven(POPULATION, parts, rng))
    made = fitted(rows, tuple(rows.features))
    assert isinstance(made, AttackReference)
    assert "climb themselves" in made.habits.climb.reason
    assert (
        Climb(made.habits.climb).take(Clients().take(made.queries(rows), made.tau), made.queries(rows), Clients()) == []
    )


def test_few_climbers_of_a_reference_are_for_review(normal: Slice) -> None:
    assert climb.TRIMMED * 240 >= 1
    rng = np.random.default_rng(78)
    parts = [(f"g{at}", "x", POPULATION.draw(rng, 30)) for at in range(240)]
    parts += [("inside", "x", climbing(POPULATION, "random steps, kept when they help", "a real row", rng)[:200])]
    rows = rows_of(woven(POPULATION, parts, rng))
    made = fitted(rows, tuple(rows.features))
    assert isinstance(made, AttackReference)
    assert made.habits.climb.trimmed == (client_hash("inside"),)
    assert any(f"{client_hash('inside'):016x}" in note for note in made.habits.notes())
