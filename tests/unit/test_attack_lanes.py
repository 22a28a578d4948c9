"""Attack lanes: who asks odd things is found, who does what clients do is not, however queries are cut."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.attacks.traffic import BENIGN, START_US, Traffic, attack, benign, benign_client, table, woven
from tests.attack_traffic import KEY, client_hash, config_of, restarted, rows_of

from regate.daemon.backtest import Backtest, Options
from regate.daemon.files.table import read_table
from regate.detectors import decide_state
from regate.detectors.arrays import pack, unpack
from regate.detectors.attack.codec import packed, unpacked
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.ongoing import QUIET_US
from regate.detectors.attack.queries import ordered
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.views import REGION
from regate.detectors.attack.watch import AttackWatch
from regate.detectors.build import build_profile
from regate.detectors.columns import Categorical, Numeric, Slice
from regate.detectors.decide import FOREVER, Shard
from regate.detectors.finding import Finding
from regate.detectors.frames import Frame, decode_frame, encode_frames
from regate.detectors.observe import NO_TIME, Partition, Watched, observe, watched
from regate.detectors.profile import Profile

POPULATION = table(3)
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "attacks"


@pytest.fixture(scope="module")
def normal() -> Slice:
    return rows_of(benign(POPULATION, 120, 30, 1))


@pytest.fixture(scope="module")
def reference(normal: Slice) -> AttackReference:
    made = fitted(normal, tuple(normal.features))
    assert isinstance(made, AttackReference)
    return made


def with_attacker(kind: str, seed: int, queries: int = 120) -> Traffic:
    rng = np.random.default_rng((9, seed))
    parts = [("evil", kind, attack(POPULATION, kind, rng, queries))]
    for number, what in enumerate(("fresh", "jitter", "what-if", "ab")):
        parts.append((f"good{number}", what, benign_client(POPULATION, what, rng, 60)))
    return woven(POPULATION, parts, rng)


def told(reference: AttackReference, rows: Slice, size: int) -> list[tuple[int, int]]:
    memory, found = Memory(reference), []
    for start in range(0, rows.n, size):
        part = reference.queries(rows.cut(slice(start, start + size)))
        found += [(start + alarm.row, alarm.client) for alarm in memory.take(part)]
    return found


@pytest.mark.parametrize(("kind", "most"), [("noise", 6), ("finite differences", 25), ("boundary walk", 70)])
def test_an_attacker_is_found_and_only_he(reference: AttackReference, kind: str, most: int) -> None:
    needed, others = [], 0
    for seed in range(5):
        traffic = with_attacker(kind, seed)
        found = told(reference, rows_of(traffic), 1_000)
        row = next((row for row, client in found if client == client_hash("evil")), None)
        needed.append(999 if row is None else int((traffic.client[: row + 1] == "evil").sum()))
        others += int((traffic.client[[row for row, _ in found]] != "evil").sum())
    assert np.median(needed) <= most, needed
    assert others <= 1  # of 20 clients and 1,200 queries, with a reference of 120 clients


def test_normal_clients_are_not_found(reference: AttackReference) -> None:
    rows = rows_of(benign(POPULATION, 160, 30, 2))
    assert len(told(reference, rows, 1_000)) <= 1


def test_findings_do_not_depend_on_how_queries_are_cut(reference: AttackReference) -> None:
    rows = rows_of(with_attacker("boundary walk", 7))
    whole = told(reference, rows, rows.n)
    assert whole
    for size in (1, 7, 50, 200):
        assert told(reference, rows, size) == whole


HOUR_US = 3_600_000_000


def day() -> Slice:
    """Return a day of attacks that pause, go on and come back, under one id and under many, among normal clients."""
    walk, steps = (
        attack(POPULATION, kind, np.random.default_rng((9, 7)), 150) for kind in ("boundary walk", "finite differences")
    )
    scenes: list[tuple[float, str, np.ndarray]] = [
        (0.0, "evil", walk[:70]),
        (0.5, "evil", walk[70:100]),
        (2.0, "evil", walk[100:]),
        (4.0, "again", walk[:90]),
        (4.5, "new", steps[:90]),
        (7.0, "new", steps[90:]),
        (8.0, "again", walk[90:]),
        (9.5, "evil", np.r_[walk[-1:], POPULATION.draw(np.random.default_rng(1), 20)]),
    ]
    parts = []
    for number, (hour, name, x) in enumerate(scenes):
        rng = np.random.default_rng((23, number))
        others = [(f"good{which}", "fresh", POPULATION.draw(rng, 12)) for which in range(4)]
        made = woven(POPULATION, [(name, "attack", x), *others], rng, START_US + int(hour * HOUR_US))
        if name == "new":
            rotating = np.array([f"new{number}-{row}" for row in range(len(made.x))])
            made = replace(made, client=np.where(made.client == "new", rotating, made.client))
        parts.append(made)
    names = ("x", "client", "kind", "score", "time_us")
    return rows_of(Traffic(*(np.concatenate([getattr(part, name) for part in parts]) for name in names)))


def watch_over(reference: AttackReference, rows: Slice, size: int, restart: int = -1) -> list[Finding]:
    watch, found = AttackWatch(KEY, "sha256:profile", Memory(reference)), []
    for number, start in enumerate(range(0, rows.n, size)):
        found += watch.decide(reference.queries(rows.cut(slice(start, start + size))))
        if number == restart:
            watch = restarted(watch)
    return [*found, *watch.close(int(rows.event_time_us[-1]) + 2 * QUIET_US)]


def test_findings_and_their_ends_do_not_depend_on_slices_or_restarts(reference: AttackReference) -> None:
    rows = day()
    whole = watch_over(reference, rows, rows.n)
    assert {one.incident for one in whole} == {one.id for one in whole if not one.revision}
    assert sorted(one.incident for one in whole if one.revision) == sorted(one.id for one in whole if not one.revision)
    assert any(one.subject.startswith("pattern:") and one.kind == "attack" for one in whole)
    assert any(one.kind == "recurrence" for one in whole)
    # Half an hour is a pause, what comes after more than an hour another incident; who asks normally then is in none.
    evil = [one for one in whole if one.subject == f"{client_hash('evil'):016x}" and one.kind == "attack"]
    assert [one.revision for one in evil] == ["", "recovered", "", "recovered"]
    assert [round((one.detected_us - START_US) / HOUR_US, 1) for one in evil] == [0.0, 1.5, 2.0, 3.0]
    assert [one.detected_us for one in whole] == sorted(one.detected_us for one in whole)
    for size in (1, 7, 50, 200):
        assert watch_over(reference, rows, size) == whole, size
    for restart in (0, 3, 6, 11):
        assert watch_over(reference, rows, 50, restart) == whole, restart


def test_a_retry_is_no_evidence(reference: AttackReference) -> None:
    traffic = with_attacker("noise", 3, 60)
    rows = rows_of(traffic)
    once = [client for _, client in told(reference, rows, 500)]
    again = rows.some(np.ones(rows.n, dtype=np.bool_))
    twice = np.repeat(np.arange(rows.n), 3)
    repeated = replace(
        again,
        n=len(twice),
        event_id=np.arange(1, len(twice) + 1, dtype=np.uint64),
        event_time_us=rows.event_time_us[twice],
        arrival_us=rows.arrival_us[twice],
        features={name: replace(one, values=one.values[twice]) for name, one in rows.features.items()},  # type: ignore[union-attr]
        prediction=replace(rows.prediction, values=rows.prediction.values[twice]),  # type: ignore[union-attr,type-var]
        scores={"": rows.scores[""][twice]},
        client=rows.client[twice],  # type: ignore[index]
    )
    found = told(reference, repeated, 500)
    assert [client for _, client in found] == once
    assert found[0][0] // 3 == told(reference, rows, 500)[0][0]


def test_memory_is_bounded_and_the_least_used_give_way(reference: AttackReference) -> None:
    crowd = [(f"c{number}", "fresh", POPULATION.draw(np.random.default_rng(number), 2)) for number in range(400)]
    rng = np.random.default_rng(4)
    busy = [("busy", "fresh", POPULATION.draw(rng, 60))]
    memory = Memory(reference, 100)
    rows = rows_of(woven(POPULATION, [*crowd, *busy], rng))
    for start in range(0, rows.n, 100):
        memory.take(reference.queries(rows.cut(slice(start, start + 100))))
    table = memory.views[0].table
    assert len(table.slots) == len(table.seen) == 100
    assert table.evicted > 0
    assert client_hash("busy") in table.slots
    for seen in memory.views:
        size = sum(getattr(seen.table, name).nbytes for name in seen.table.arrays)
        assert size <= 512 * len(seen.table.seen)


def test_one_attacker_in_the_reference_does_not_blind_the_lanes(normal: Slice) -> None:
    rng = np.random.default_rng(5)
    traffic = benign(POPULATION, 120, 30, 1)
    evil = attack(POPULATION, "noise", rng, 120)
    parts = [(str(name), "x", traffic.x[traffic.client == name]) for name in np.unique(traffic.client)]
    poisoned = rows_of(woven(POPULATION, [*parts, ("inside", "noise", evil)], rng))
    made = fitted(poisoned, tuple(poisoned.features))
    assert isinstance(made, AttackReference)
    assert client_hash("inside") in made.trimmed
    assert told(made, rows_of(with_attacker("noise", 1)), 500)


def test_without_clients_there_are_no_lanes_and_it_is_said(normal: Slice) -> None:
    made = build_profile(config_of(normal), KEY, replace(normal, client=None), calibrate_seconds=0)
    assert made.attack is None
    assert any("carry no client" in note for note in made.notes)


def test_lanes_by_region_are_left_without_clients_for_who_asks(normal: Slice) -> None:
    config = config_of(normal)
    asked = config.model_copy(update={"detection": config.detection.model_copy(update={"families": {"attack": 1.0}})})
    made = build_profile(asked, KEY, replace(normal, client=None), calibrate_seconds=0)
    assert made.attack is not None
    assert [view.kind for view in made.attack.views] == [REGION]
    assert any("by region only" in note for note in made.notes)
    rows = replace(rows_of(with_attacker("finite differences", 2)), client=None)
    found = Memory(made.attack).take(made.attack.queries(rows))
    assert [(one.view, one.client) for one in found] == [("region", 0)]


def test_odd_columns_are_no_obstacle(normal: Slice) -> None:
    rng = np.random.default_rng(14)
    more = {
        "empty": Numeric(np.full(normal.n, np.nan)),
        "same": Numeric(np.ones(normal.n)),
        "huge": Numeric(rng.normal(size=normal.n) * 1e300),
        "gaps": Numeric(np.where(rng.random(normal.n) < 0.5, np.nan, 1.0)),
        "code": Categorical(rng.integers(-1, 3, normal.n).astype(np.int32), ("a", "b", "c")),
    }
    rows = replace(normal, features={**normal.features, **more})
    made = fitted(rows, tuple(rows.features))
    assert isinstance(made, AttackReference)
    assert "empty" not in made.inputs.names
    assert {"same", "huge", "gaps", "code"} <= set(made.inputs.names)
    assert np.isfinite(made.queries(rows).lanes).all()
    # A feature that later events lack, and a category that nobody knew.
    odd = {**more, "code": Categorical(np.zeros(normal.n, dtype=np.int32), ("new",))}
    del odd["gaps"]
    assert np.isfinite(made.queries(replace(normal, features={**normal.features, **odd})).lanes).all()


def test_a_reference_comes_back_from_its_bytes(reference: AttackReference, normal: Slice) -> None:
    again = unpacked(*unpack(pack(*packed(reference))))
    assert again.digest == reference.digest
    part = normal.cut(slice(0, 300))
    for name in ("sketch", "blocks", "off", "lanes", "label"):
        assert np.array_equal(getattr(again.queries(part), name), getattr(reference.queries(part), name)), name


@pytest.fixture(scope="module")
def profile(normal: Slice) -> Profile:
    return build_profile(config_of(normal), KEY, normal, calibrate_seconds=0, events_per_second=10.0)


def run(profile: Profile, rows: Slice, partitions: int, cuts: int, restart_at: int | None = None) -> list[Finding]:
    """Return the attack findings of the daemon's cores; rows go to partitions in turn."""
    config = config_of(rows)
    models = {KEY: watched(config, profile)}
    lanes = [Partition() for _ in range(partitions)]
    names = tuple(f"telemetry-{number}" for number in range(partitions))
    shard = Shard()
    shard.configure(KEY, profile, config)
    found: list[Finding] = []
    for number, part in enumerate(np.array_split(np.arange(rows.n), cuts)):
        piece = rows.cut(slice(part[0], part[-1] + 1))
        for lane, state in enumerate(lanes):
            own = piece.some((np.arange(piece.n) % partitions) == lane)
            parts = tuple(observe(state, [own], models, Watched())) if own.n else ()
            for record in encode_frames(Frame(names[lane], state.watermark_us, parts=parts, sources=names)):
                shard.take(decode_frame(record, NO_TIME))
        found += shard.close()
        if number == restart_at:
            shard, refused = decide_state.load(decide_state.dump(shard), {str(KEY): profile}, {KEY: config})
            assert refused == []
    return [one for one in found + shard.close(FOREVER - 1) if one.family == "attack"]


def test_the_daemon_finds_the_same_over_partitions_slices_and_restarts(profile: Profile) -> None:
    rows = rows_of(with_attacker("noise", 2))
    plain = run(profile, rows, 1, 30)
    assert [one.subject for one in plain if one.type == "finding"] == [f"{client_hash('evil'):016x}"]
    first = plain[0]
    assert (first.kind, first.unit) == ("attack", "queries")
    assert first.onset_us <= first.detected_us
    expected = [(one.id, one.type) for one in plain]
    assert [(one.id, one.type) for one in run(profile, rows, 3, 30)] == expected
    assert [(one.id, one.type) for one in run(profile, rows, 2, 11)] == expected
    assert [(one.id, one.type) for one in run(profile, rows, 1, 30, restart_at=4)] == expected


def test_one_id_for_everybody_is_not_found_for_being_many(reference: AttackReference) -> None:
    # Readings of sensors far apart in such a mixture look like values that nobody has: a loss that the docs state.
    kinds = tuple(kind for kind in BENIGN if kind != "jitter")
    for seed in range(12, 16):
        traffic = benign(POPULATION, 80, 30, seed, kinds)
        proxied = replace(traffic, client=np.full(len(traffic.x), "proxy"))
        assert told(reference, rows_of(proxied), 1_000) == [], seed
    # An attacker behind it is one of many: what each of his queries shows alone is what is left.
    hidden = with_attacker("noise", 6, 60)
    found = told(reference, rows_of(replace(hidden, client=np.full(len(hidden.x), "proxy"))), 1_000)
    assert client_hash("proxy") in {client for _, client in found}


def spread(kind: str, seed: int, queries: int, name: str) -> Traffic:
    """Return an attack with another id for each query (or the same for all), among normal clients."""
    traffic = with_attacker(kind, seed, queries)
    rotating = np.array([f"{name}{number}" for number in range(len(traffic.x))])
    return replace(traffic, client=np.where(traffic.client == "evil", rotating, traffic.client))


def test_an_attack_under_ever_new_ids_is_found_by_region(reference: AttackReference) -> None:
    needed = []
    for seed in range(5):
        traffic = spread("finite differences", seed, 120, "new")
        evil = np.char.startswith(traffic.client.astype(str), "new")
        memory, rows = Memory(reference), rows_of(traffic)
        alarms = memory.take(reference.queries(rows))
        assert all(evil[alarm.row] for alarm in alarms)
        assert {(alarm.view, alarm.client) for alarm in alarms} == {("region", 0)}
        needed.append(int(evil[: alarms[0].row + 1].sum()))
    assert np.median(needed) <= 25, needed


def test_queries_without_an_id_are_seen_by_region(reference: AttackReference) -> None:
    rows = rows_of(with_attacker("finite differences", 2))
    memory = Memory(reference)
    found = memory.take(reference.queries(replace(rows, client=None)))
    assert {(alarm.view, alarm.client) for alarm in found} == {("region", 0)}
    assert (memory.queries, memory.nameless) == (rows.n, rows.n)


@pytest.mark.parametrize(("kind", "most"), [("noise", 10), ("finite differences", 40)])
def test_normal_queries_between_do_not_hide_an_attack(reference: AttackReference, kind: str, most: int) -> None:
    needed = []
    for seed in range(5):
        rng = np.random.default_rng((15, seed))
        evil = attack(POPULATION, kind, rng, 100)
        between = POPULATION.draw(rng, 300).reshape(100, 3, -1)
        mixed = np.concatenate([np.concatenate([one[None], rest]) for one, rest in zip(evil, between, strict=True)])
        found = told(reference, rows_of(woven(POPULATION, [("evil", kind, mixed)], rng)), 1_000)
        needed.append(found[0][0] // 4 + 1 if found else 999)
    assert np.median(needed) <= most, needed


def test_what_lifts_everybody_is_nobodys_attack(reference: AttackReference) -> None:
    before = benign(POPULATION, 40, 30, 21)
    after = benign(POPULATION, 160, 30, 22)
    moved = replace(after, x=after.x + 0.37 * POPULATION.scale, time_us=after.time_us - START_US + before.time_us[-1])
    rows = rows_of(before), rows_of(moved, 100_000)
    memory = Memory(reference)
    found = [alarm for part in rows for alarm in memory.take(reference.queries(part))]
    # Every value of every client leaves the lattice. Without the tide nearly all of them are found.
    assert len({alarm.client for alarm in found if alarm.client}) <= 8


def test_queries_of_another_reference_are_counted_and_not_looked_at(profile: Profile, normal: Slice) -> None:
    config, shard, state = config_of(normal), Shard(), Partition()
    shard.configure(KEY, profile, config)
    rows = rows_of(with_attacker("noise", 2))
    parts = observe(state, [rows], {KEY: watched(config, profile)}, Watched())
    other = tuple(replace(part, queries_of="sha256:other") for part in parts)
    shard.take(Frame("telemetry-0", state.watermark_us, parts=other))
    assert [one for one in shard.close(FOREVER - 1) if one.family == "attack"] == []
    assert shard.models[KEY].counters["other_profile_queries"] == rows.n


def test_more_clients_at_once_than_the_table_holds(reference: AttackReference) -> None:
    rng = np.random.default_rng(8)
    crowd = [(f"c{number}", "fresh", POPULATION.draw(rng, 1)) for number in range(300)]
    memory = Memory(reference, 50)
    rows = rows_of(woven(POPULATION, crowd, rng))
    memory.take(reference.queries(rows))
    table = memory.views[0].table
    assert len(table.slots) == 50
    assert table.evicted == 250
    assert sorted(table.slots.values()) == list(range(50))


def test_the_family_can_be_turned_off(normal: Slice) -> None:
    config = config_of(normal)
    off = config.detection.model_copy(update={"families": {"attack": 0.0}})
    made = build_profile(config.model_copy(update={"detection": off}), KEY, normal, calibrate_seconds=0)
    assert made.attack is None


def test_a_smaller_weight_asks_for_more_evidence(normal: Slice, reference: AttackReference) -> None:
    strict = fitted(normal, tuple(normal.features), weight=0.01)
    assert isinstance(strict, AttackReference)
    assert (strict.views[0].bar - reference.views[0].bar) / 2**20 == pytest.approx(np.log(100), abs=2.0)
    rows = rows_of(with_attacker("noise", 2))
    assert 0 < told(strict, rows, 500)[0][0] - told(reference, rows, 500)[0][0] < 40


def test_an_incident_ends_when_the_client_is_quiet_or_gone(profile: Profile) -> None:
    rng = np.random.default_rng(6)
    rows = rows_of(with_attacker("noise", 4, 30))
    much_later = int(rows.event_time_us[-1]) + 7_200_000_000
    good = [("good", "fresh", POPULATION.draw(rng, 50))]
    later = rows_of(woven(POPULATION, good, rng, much_later), 10_000)
    apart = np.cumsum(rng.exponential(1e5, later.n)).astype(np.int64)  # a client by the clock would be another finding
    later = replace(later, event_time_us=much_later + apart, arrival_us=much_later + apart + 50_000)
    config, shard, state = config_of(rows), Shard(), Partition()
    shard.configure(KEY, profile, config)
    found = []
    for part in (rows, later):
        parts = tuple(observe(state, [part], {KEY: watched(config, profile)}, Watched()))
        shard.take(Frame("telemetry-0", state.watermark_us, parts=parts))
        found += shard.close()
    found += shard.close(FOREVER - 1)
    told_of = [(one.type, one.revision) for one in found if one.family == "attack"]
    assert told_of == [("finding", ""), ("revision", "recovered")]


def test_ordered_queries_are_by_time_then_id(reference: AttackReference, normal: Slice) -> None:
    part = reference.queries(normal.cut(slice(0, 50)))
    shuffled = part.some(np.random.default_rng(7).permutation(50))
    assert np.array_equal(ordered(shuffled).event_id, ordered(part).event_id)


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("digits_dev", {"hopskipjump": 4, "boundary": 4, "square": 10, "knockoff_random": 10}),
        ("adult_dev", {"hopskipjump": 4, "zoo": 10, "copycat_noise": 10, "knockoff_random": 10}),
    ],
)
def test_logged_attacks_are_found_within_the_bounds(name: str, bounds: dict[str, int]) -> None:
    path = SHARED / f"{name}.parquet"
    assert path.exists(), f"the developers' data folder is needed: {path}"
    truth = json.loads((SHARED / f"{name}.truth.json").read_text())
    options = Options(reference_rows=truth["reference_rows"], calibrate_seconds=0.0)
    run_of = Backtest(read_table(path, None), options)
    run_of.build()
    found = [one for one in run_of.findings() if one["family"] == "attack" and one["type"] == "finding"]
    attackers = {one["client"]: one for one in truth["attacks"]}
    assert [one["subject"] for one in found if one["subject"] not in attackers] == []
    client = np.array(run_of.table.columns["client"].to_pylist())
    needed: dict[str, list[float]] = {}
    for who, episode in attackers.items():
        row = next((one["row"] for one in found if one["subject"] == who), None)
        own = np.flatnonzero(client == who)
        count = np.inf if row is None else int((own <= row).sum())
        needed.setdefault(episode["attack"], []).append(count)
    for kind, most in bounds.items():
        assert np.median(needed[kind]) <= most, (kind, needed[kind])


@pytest.mark.parametrize(("between", "most"), [(1, 10), (3, 40)])
@pytest.mark.parametrize("name", ["digits_dev", "adult_dev"])
def test_normal_queries_between_do_not_hide_a_logged_attack(name: str, between: int, most: int) -> None:
    path = SHARED / f"{name}.parquet"
    assert path.exists(), f"the developers' data folder is needed: {path}"
    truth = json.loads((SHARED / f"{name}.truth.json").read_text())
    table_of = read_table(path, None)
    reference = fitted(table_of.slice(0, truth["reference_rows"]), tuple(table_of.config.features))
    assert isinstance(reference, AttackReference)
    client = np.array(table_of.columns["client"].to_pylist())[truth["reference_rows"] :]
    queries = reference.queries(table_of.slice(truth["reference_rows"], truth["reference_rows"] + len(client)))
    normal = np.flatnonzero(~np.isin(client, [one["client"] for one in truth["attacks"]]))
    rng = np.random.default_rng((16, between))
    needed: dict[str, list[float]] = {}
    for episode in truth["attacks"]:
        evil = np.flatnonzero(client == episode["client"])[:120]
        rows = np.concatenate([evil[:, None], rng.choice(normal, (len(evil), between))], axis=1).ravel()
        times = START_US + np.arange(len(rows), dtype=np.int64) * 1_000_000
        mixed = replace(queries.some(rows), client=np.ones(len(rows), dtype=np.uint64), time_us=times)
        alarms = Memory(reference).take(mixed)
        needed.setdefault(episode["attack"], []).append(alarms[0].row // (between + 1) + 1 if alarms else np.inf)
    for kind in {"hopskipjump", "boundary", "zoo"} & set(needed):
        assert np.median(needed[kind]) <= (most if kind != "zoo" else 40), (kind, needed[kind])
