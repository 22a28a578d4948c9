"""The attack benchmark's own arithmetic: what counts as found, attackers that adapt, the peers, the table."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from benchmarks.attacks import adaptive, measure, oars, toolbox
from benchmarks.attacks.measure import Episode, Outcome, Place, alone, answered, both, interval, referenced, summary
from benchmarks.attacks.peers import Blacklight, Prada, first
from benchmarks.attacks.report import DETECTORS, markdown, pooled, rate, short
from benchmarks.attacks.traffic import Population, attack, benign, benign_client, table
from benchmarks.detection import link
from benchmarks.detection.link import PeerError

POPULATION = table(3)


@pytest.fixture(scope="module")
def place() -> Place:
    between = benign_client(POPULATION, "fresh", np.random.default_rng(4), 120)
    return Place(
        "table",
        referenced(answered(benign(POPULATION, 120, 30, 1))),
        answered(benign(POPULATION, 16, 20, 2)),
        [answered(benign(POPULATION, 8, 20, 100 + at)) for at in range(2)],
        alone(between, both(POPULATION.score(between))),
    )


def episode(kind: str, seed: int, queries: int = 60, goal: int | None = None) -> Episode:
    x = attack(POPULATION, kind, np.random.default_rng((5, seed)), queries)
    return Episode(x, both(POPULATION.score(x)), goal)


class Near:
    """A detector with a law that is known: a query within a distance of an earlier one, of any account."""

    def __init__(self, population: Population, distance: float) -> None:
        self.scale, self.distance = population.scale, distance
        self.seen: list[np.ndarray] = []

    def ask(self, x: np.ndarray, score: float, account: int) -> bool:
        told = any(np.linalg.norm((x - one) / self.scale) < self.distance for one in self.seen)
        self.seen.append(x)
        return told


class Deaf:
    def ask(self, x: np.ndarray, score: float, account: int) -> bool:
        return False


def session(detector: oars.Detector, cap: int, **known: bool) -> oars.Session:
    origin = POPULATION.draw(np.random.default_rng(1), 1)[0]
    return oars.Session(POPULATION, detector, cap, origin, radius=0.0, **known)


def test_a_spread_is_calibrated_to_what_is_not_rejected() -> None:
    one = session(Near(POPULATION, 1.0), 500, leaked=True)
    one.ask(np.zeros(14))
    rng = np.random.default_rng(2)
    spread = oars.Spread(0.01, 0.01, 10.0)

    def draw(size: float) -> np.ndarray:
        step = rng.normal(size=14)
        return size * step / np.linalg.norm(step)

    spread.calibrate(one, draw, rounds=8)
    assert 0.7 < spread.value < 2.5
    blind = oars.Spread(0.01, 0.01, 10.0)
    blind.calibrate(session(Near(POPULATION, 1.0), 500), draw)
    assert blind.value == 0.01  # no oracle, nothing learned


def test_a_verdict_reaches_only_him_to_whom_it_is_leaked() -> None:
    for leaked in (False, True):
        one = session(Near(POPULATION, 1e9), 10, leaked=leaked)
        answers = [one.ask(np.full(14, float(at)))[1] for at in range(4)]
        assert answers == [False, leaked, leaked, leaked]
        assert one.found == [2, 3, 4]
        assert one.account == ([0, 0, 1, 2] if leaked else [0, 0, 0, 0])


def test_who_rotates_leaves_an_account_before_it_is_found() -> None:
    class Fourth:
        def __init__(self) -> None:
            self.count: Counter[int] = Counter()

        def ask(self, x: np.ndarray, score: float, account: int) -> bool:
            self.count[account] += 1
            return self.count[account] == 4

    one = session(Fourth(), 20, leaked=True, rotate=True)
    for _ in range(12):
        one.ask(np.zeros(14))
    assert one.found == [4]
    assert one.account == [0] * 4 + [1, 1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize("name", oars.ATTACKS)
def test_adapting_attackers_reach_their_goal_and_an_oracle_saves_them_findings(name: str) -> None:
    plain, adapted, reached = [], [], 0
    for seed in range(4):
        one = oars.ran(POPULATION, Near(POPULATION, 0.5), name, oars.MODES[0], 150, seed)
        other = oars.ran(POPULATION, Near(POPULATION, 0.5), name, oars.MODES[1], 150, seed)
        plain.append(len(one.found) / len(one.rows))
        adapted.append(len(other.found) / len(other.rows))
        free = oars.ran(POPULATION, Deaf(), name, oars.MODES[0], 600, seed)
        assert not free.found
        if free.goal is not None:
            reached += 1
            assert free.clean
            assert free.goal == len(free.rows)
            score = POPULATION.score(np.array([free.origin, free.rows[-1]]))
            assert (score[0] >= 0.5) != (score[1] >= 0.5)
            assert np.linalg.norm((free.rows[-1] - free.origin) / POPULATION.scale) <= free.radius
    assert reached >= 2
    assert np.mean(adapted) < np.mean(plain)


def test_valid_values_stay_on_the_grid_and_in_the_range() -> None:
    one = oars.ran(POPULATION, Deaf(), "nes", oars.MODES[3], 80, 1)
    rows = np.array(one.rows)
    assert one.whole is not None
    assert one.low is not None
    assert (rows == np.rint(rows)).all()
    assert (rows >= one.low).all()


def test_our_lanes_as_an_oracle_say_what_they_say_of_the_whole(place: Place) -> None:
    queries = episode("noise", 1, 20)
    lanes = adaptive.Lanes(place)
    told = [lanes.ask(x, float(p[1]), 0) for x, p in zip(queries.x, queries.p, strict=True)]
    memory = measure.Memory(place.reference)
    own = measure.sliced(alone(queries.x, queries.p, "attack"))
    rows = [row for row, _ in measure.findings(memory, own)]
    assert np.flatnonzero(told).tolist() == rows
    assert rows[0] <= 5


def test_a_row_of_an_adapting_attacker(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, "ATTACKS", {"hop": oars.hop})
    rows = adaptive.rows(place, POPULATION, 2, 40)
    assert [row["attack"] for row in rows] == [f"hop, {mode.text}" for mode in oars.MODES]
    for row in rows:
        assert set(row) >= {"lanes", "Blacklight", "PRADA"}
        assert row["PRADA"]["plain"]["found"] == 0  # it needs 100 distances
        assert row["lanes"]["plain"]["of"] == 2
    assert rows[0]["Blacklight"]["plain"]["found"] == 2


@pytest.mark.parametrize("way", measure.WAYS)
def test_noise_is_found_however_it_comes(place: Place, way: str) -> None:
    found = [
        measure.world(place.reference, episode("noise", seed), place.around[0], place.between, way, seed).needed
        for seed in range(2, 9)
    ]
    needed = float(np.median([np.inf if one is None else one for one in found]))
    assert needed <= (60 if way == "id a query" else 6), found


def test_what_counts_as_found(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    one = episode("noise", 3, 10, goal=4)

    def said(which: str) -> Outcome:
        def findings(_memory: measure.Memory, rows: measure.Slice) -> list[tuple[int, int]]:
            evil = {int(name) for name in measure.hashed(np.array([1_000_000]))}
            assert rows.client is not None
            mine = [at for at, name in enumerate(rows.client.tolist()) if name in evil]
            other = next(at for at in range(rows.n) if at not in mine)
            attacks = mine[::2]  # one normal query after each
            return {
                "client": [
                    (mine[3], int(rows.client[mine[3]]))
                ],  # a finding at his normal query names him all the same
                "pattern": [(attacks[2], 0)],
                "pattern at a normal query": [(mine[1], 0)],
                "another": [(other, int(rows.client[other]))],
            }[which]

        monkeypatch.setattr(measure, "findings", findings)
        return measure.world(place.reference, one, place.around[0], place.between, "1 between", 3)

    assert said("client") == Outcome(2, 4, 0)
    assert said("pattern") == Outcome(3, 4, 0)
    assert said("pattern").before
    assert said("pattern at a normal query") == Outcome(None, 4, 1)
    assert said("another") == Outcome(None, 4, 1)


def test_normal_queries_between_are_not_counted(place: Place) -> None:
    one = episode("noise", 4, 5)
    own, evil = measure.own_queries(one, place.between, 3)
    assert own.n == 20
    assert np.flatnonzero(evil).tolist() == [0, 4, 8, 12, 16]
    assert (own.x[evil] == one.x).all()
    assert (own.x[1:4] == place.between.x[:3]).all()

    class Tenth:
        name = "tenth"
        count = 0

        def start(self) -> Tenth:
            return self

        def ask(self, row: np.ndarray, label: int) -> bool:
            self.count += 1
            return self.count == 10

        held = 0

    assert measure.peer_world(Tenth(), one, place.between, "3 between").needed == 3


def test_the_summary_counts_missed_episodes_as_never() -> None:
    found = summary([Outcome(3, 9), Outcome(5, 4), Outcome(None, None), Outcome(None, 2)])
    assert found == {"found": 2, "of": 4, "median": None, "p95": None, "reached": 3, "before": 1}
    found = summary([Outcome(at, None) for at in range(1, 11)])
    assert (found["median"], found["p95"], found["reached"]) == (5.5, 10, 0)


def test_intervals_are_those_of_a_poisson_mean() -> None:
    assert interval(0)[1] == pytest.approx(3.689, abs=1e-3)
    assert interval(4) == (pytest.approx(1.090, abs=1e-3), pytest.approx(10.242, abs=1e-3))
    assert rate(0, 1_000) == "0 (0.0e+00 to 3.7e-03)"


def test_blacklight_by_its_index_is_blacklight_by_its_words(place: Place) -> None:
    peer = Blacklight(place.reference)
    rng = np.random.default_rng(6)
    rows = POPULATION.draw(rng, 40)
    rows = np.concatenate([rows, rows[:10] + 0.01 * POPULATION.scale * rng.normal(size=(10, 14))])
    seen, told = peer.start(), []
    earlier: list[set[bytes]] = []
    for row in rows:
        own = peer.prints(row)
        told.append(any(len(own & other) > min(peer.shared, len(own) // 2) for other in earlier))
        earlier.append(own)
        assert seen.ask(row, 0) == told[-1]
    assert any(told[40:])
    assert seen.held > 0


def test_prada_waits_for_a_hundred_distances() -> None:
    rng = np.random.default_rng(7)
    peer = Prada(np.ones(6))
    normal = rng.normal(size=(300, 6))
    odd = np.concatenate([rng.normal(size=(20, 6)), np.repeat(rng.normal(size=(1, 6)), 180, axis=0)])
    odd[20:] += 1e-3 * np.arange(180)[:, None]
    assert first(peer, odd, np.zeros(200, dtype=np.int64)) in range(100, 130)
    assert (first(peer, normal, np.zeros(300, dtype=np.int64)) or 300) > 130


def test_the_table_has_what_is_missed(place: Place) -> None:
    row = place.row("own", "mix", [episode("noise", 5, 30), episode("noise", 6, 30)], ways=("plain", "1 between"))
    missed = json.loads(json.dumps(row))
    missed["attack"] = "nothing odd"
    for cell in missed["lanes"].values():
        cell |= {"found": 0, "median": None, "p95": None}
    normal, cost = place.normal()
    assert sum(one["queries"] for one in normal) == place.live.n
    assert next(one for one in normal if one["kind"] == "retries")["Blacklight"] == 2
    about = {"command": "x", "seed": 1, "machine": "y", "missing": ["the toolbox: gone"]}
    result = {"about": about, "rows": [row, missed], "normal": normal, "cost": [cost]}
    text = markdown(result)
    assert "1 of 2 rows" in text
    assert "- own, table: nothing odd" in text
    assert "## All episodes by ART" not in text
    by_art = {**row, "by": "ART"}
    whole = {**by_art, **{name: dict.fromkeys(measure.WAYS, row[name]["plain"]) for name in DETECTORS}}
    found = row["lanes"]["plain"]["found"]
    assert f"| plain | {found}/2 (" in markdown({**result, "rows": [whole]})
    assert "| own | table | nothing odd | 30 | missed | - | - |" in text
    assert "above the 3e-05 aimed at" in text  # so few queries bound nothing
    assert "- the toolbox: gone" in text
    every = pooled(normal)[-1]
    assert (every["kind"], every["queries"]) == ("all", place.live.n)
    assert short({"found": 2, "of": 3, "median": 7.0}) == "7 (2/3)"
    assert cost["lanes"]["bytes"] > 0
    json.dumps(result)


def test_goals_of_the_toolboxs_attacks() -> None:
    data = toolbox.Data(
        "d", "trees", np.array([[0.0], [1.0], [2.0], [4.0]]), np.array([0, 0, 0, 1]),
        slice(0, 4), slice(0, 4), slice(0, 4), slice(0, 4), np.ones(1, dtype=bool), np.zeros(1, dtype=bool),
    )  # fmt: skip
    x, p = np.array([[3.9], [3.0], [1.9]]), both(np.array([0.9, 0.2, 0.995]))
    own = np.array([0, 0, 0, 1])
    about = {"origin": [0.0], "class": 0}
    assert toolbox.goal(data, {**about, "goal": "near"}, x, p, own) == 3  # the first within half of the way to 4
    assert toolbox.goal(data, {**about, "goal": "flip"}, x, p, own) == 1
    assert toolbox.goal(data, {"goal": "invert", "class": 1}, x, p, own) == 3
    assert toolbox.goal(data, {"goal": "steal", "fidelity": 0.95}, x, p, own) == 3
    assert toolbox.goal(data, {"goal": "steal", "fidelity": 0.5}, x, p, own) is None
    assert toolbox.goal(data, {"goal": None}, x, p, own) is None


def test_shifted_pictures_keep_their_values() -> None:
    picture = np.zeros((1, 64))
    picture[0, 27] = 9.0
    out = toolbox.shifted(np.repeat(picture, 200, axis=0), 8, np.random.default_rng(8))
    assert {int(np.flatnonzero(one)[0]) for one in out} == {
        27 + 8 * down + right for down in (-1, 0, 1) for right in (-1, 0, 1)
    }
    assert (out.sum(axis=1) == 9.0).all()


def test_without_its_environment_the_toolbox_says_why(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(toolbox, "ENVIRONMENTS", tmp_path)
    (tmp_path / "art.failed").write_text("could not be installed: no such package\n")
    monkeypatch.setattr(toolbox.environments, "ENVIRONMENTS", tmp_path)
    assert toolbox.made() == "could not be installed: no such package"
    with pytest.raises(PeerError, match="no such package"):
        toolbox.logs(toolbox.digits(1), toolbox.Size(1, 20, 8), 1)
