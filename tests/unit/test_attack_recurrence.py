"""What came before is known when it comes back: under any client, in any order, after restarts, across shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.attacks.traffic import ATTACKS, START_US, Traffic, attack, benign, table, woven
from tests.attack_traffic import KEY, config_of, rows_of

from regate.config.errors import ConfigError, PoisonError
from regate.config.model import ModelConfig
from regate.config.settings import Bus
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.port import OutRecord, Record
from regate.daemon.bus.provision import provision
from regate.daemon.bus.topics import Topics
from regate.daemon.control import document_record, pattern_gone, pattern_record, profile_records
from regate.daemon.patterns import Held, described, exported, held, imported, key_of_text, put, take_back
from regate.daemon.roles.decide import DecideCore
from regate.daemon.shell.core import Batch, Output, StepInput
from regate.daemon.wire.cloudevents import decode_event
from regate.detectors.arrays import pack, unpack
from regate.detectors.attack import manner, state
from regate.detectors.attack.fingerprints import MOST_PATTERNS, Registry
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.pattern import MOST_PRINTS, Pattern, from_text, merged, packed, same, unpacked
from regate.detectors.attack.recurrence import Hits, Recurrence
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.watch import AttackWatch
from regate.detectors.build import build_profile
from regate.detectors.decide import FOREVER
from regate.detectors.finding import Finding
from regate.detectors.frames import Frame, encode_frames
from regate.detectors.observe import Partition, Watched, observe, watched
from regate.detectors.profile import Profile

POPULATION = table(3)
LATER_US = START_US + 30 * 3_600_000_000
KINDS = ("boundary walk", "finite differences", "square", "noise")


@pytest.fixture(scope="module")
def reference() -> AttackReference:
    rows = rows_of(benign(POPULATION, 300, 40, 1))
    made = fitted(rows, tuple(rows.features))
    assert isinstance(made, AttackReference)
    return made


def watch_of(reference: AttackReference) -> AttackWatch:
    return AttackWatch(KEY, "sha256:profile", Memory(reference))


def traffic(queries: np.ndarray, seed: int, name: str, start: int, *, rotating: bool = False) -> Traffic:
    """Return an attacker among six normal clients."""
    rng = np.random.default_rng((31, seed))
    others = [(f"{name}-good{number}", "fresh", POPULATION.draw(rng, 40)) for number in range(6)]
    made = woven(POPULATION, [(name, "attack", queries), *others], rng, start)
    if rotating:
        names = made.client.astype(object)
        mine = names == name
        names[mine] = [f"{name}{number}" for number in range(int(mine.sum()))]
        made = replace(made, client=names.astype(str), kind=np.where(mine, "attack", "fresh"))
    return made


def queries_of(kind: str, seed: int) -> np.ndarray:
    return attack(POPULATION, kind, np.random.default_rng((5, seed)), 120)


def after(watch: AttackWatch, reference: AttackReference, made: Traffic, first_id: int) -> list[Finding]:
    found = watch.decide(reference.queries(rows_of(made, first_id)))
    return [one for one in found if one.type == "finding" and one.kind == "recurrence"]


def needed(finding: Finding, made: Traffic) -> int:
    """Return how many of the attack's queries had been asked with the one that was found."""
    row = int(np.searchsorted(made.time_us, finding.detected_us))
    assert made.kind[row] == "attack"
    return int((made.kind[: row + 1] == "attack").sum())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["same", "near", "other order"])
def test_the_same_queries_under_another_client_are_known(reference: AttackReference, kind: str, how: str) -> None:
    count = []
    for seed in range(3):
        rng = np.random.default_rng((6, seed))
        x = queries_of(kind, seed)
        again = {
            "same": x,
            "near": x + 0.003 * POPULATION.scale * rng.normal(size=x.shape),
            "other order": x[rng.permutation(len(x))],
        }[how]
        watch = watch_of(reference)
        watch.decide(reference.queries(rows_of(traffic(x, seed, "evil", START_US))))
        made = traffic(again, seed + 100, "other", LATER_US)
        found = after(watch, reference, made, 100_000)
        assert found, (kind, how, seed)
        count.append(needed(found[0], made))
    assert np.median(count) <= 3, count


def test_under_ever_new_clients_it_is_the_pattern_that_is_found(reference: AttackReference) -> None:
    x = queries_of("finite differences", 1)
    watch = watch_of(reference)
    watch.decide(reference.queries(rows_of(traffic(x, 1, "evil", START_US))))
    made = traffic(x, 2, "new", LATER_US, rotating=True)
    found = after(watch, reference, made, 100_000)
    assert found[0].subject.startswith("pattern:")
    assert needed(found[0], made) <= 8
    pattern = watch.recurrence.registry.known[found[0].subject.removeprefix("pattern:")].pattern
    assert pattern.seen >= 2
    assert pattern.distinct_clients >= 2


def test_the_same_tool_on_other_inputs_is_known_by_its_manner(reference: AttackReference) -> None:
    known = total = 0
    for kind in KINDS:
        for seed in range(3):
            watch = watch_of(reference)
            first = rows_of(traffic(queries_of(kind, seed), seed, "evil", START_US))
            second = traffic(queries_of(kind, seed + 50), seed + 100, "other", LATER_US)
            opened = [one for one in watch.decide(reference.queries(first)) if one.kind == "attack"]
            if not opened or not any(one.pattern.manner.any() for one in watch.recurrence.registry.known.values()):
                continue  # its attack had no 30 queries left when it was found
            found = watch.decide(reference.queries(rows_of(second, 100_000)))
            told = [one for one in found if one.kind == "attack" and one.type == "finding"]
            back = [one for one in found if one.kind == "recurrence"]
            if not told or int((second.kind[second.time_us > told[0].detected_us] == "attack").sum()) < manner.ENOUGH:
                continue
            total += 1
            if back:
                start, end = np.searchsorted(second.time_us, (told[0].detected_us, back[0].detected_us))
                asked = second.x[start + 1 : end + 1][second.kind[start + 1 : end + 1] == "attack"]
                known += len(np.unique(asked, axis=0)) <= manner.ENOUGH + 2  # retries do not count, nor two far ones
    assert total >= 10
    assert known / total >= 0.7, (known, total)


def test_unlike_tools_are_not_taken_for_each_other(reference: AttackReference) -> None:
    for one in KINDS:
        for other in KINDS:
            if one == other:
                continue
            watch = watch_of(reference)
            watch.decide(reference.queries(rows_of(traffic(queries_of(one, 1), 1, "evil", START_US))))
            made = traffic(queries_of(other, 60), 101, "other", LATER_US)
            assert after(watch, reference, made, 100_000) == [], (one, other)


def test_normal_clients_bring_nothing_back(reference: AttackReference) -> None:
    watch = watch_of(reference)
    for number, kind in enumerate(ATTACKS):
        made = traffic(queries_of(kind, number), number, f"evil{number}", START_US + number * 3_600_000_000)
        watch.decide(reference.queries(rows_of(made, number * 10_000 + 1)))
    assert len(watch.recurrence.registry.known) >= 4
    normal = benign(POPULATION, 400, 40, 9)
    later = replace(normal, time_us=normal.time_us - START_US + LATER_US)
    assert after(watch, reference, later, 500_000) == []


def story(found: list[Finding]) -> list[tuple[str, str, str, str]]:
    return [(one.id, one.type, one.kind, one.subject) for one in found if one.type == "finding"]


def test_what_is_found_does_not_depend_on_slices_or_restarts(reference: AttackReference) -> None:
    parts = [
        rows_of(traffic(queries_of("boundary walk", 1), 1, "evil", START_US)),
        rows_of(traffic(queries_of("boundary walk", 1), 2, "other", LATER_US), 100_000),
        rows_of(traffic(queries_of("boundary walk", 70), 3, "third", 2 * LATER_US - START_US), 200_000),
    ]

    def told(size: int, restart: int | None = None) -> list[tuple[str, str, str, str]]:
        watch, found, number = watch_of(reference), [], 0
        for rows in parts:
            for start in range(0, rows.n, size):
                found += watch.decide(reference.queries(rows.cut(slice(start, start + size))))
                number += 1
                if number == restart:
                    stored = {name: unpack(pack(meta, arrays)) for name, meta, arrays in state.chunks(watch)}
                    watch = watch_of(reference)
                    state.restore(watch, stored)
        return story(found)

    whole = told(10_000)
    assert [kind for _, _, kind, _ in whole].count("recurrence") >= 2
    assert told(37) == whole
    assert told(100, restart=2) == whole
    assert told(100, restart=5) == whole


def a_pattern(number: int, **more: object) -> Pattern:
    rng = np.random.default_rng(number)
    made = Pattern(f"p{number}", "space", "inputs", number, number + 10, incidents=(f"i{number}",))
    sketch, blocks = rng.integers(-90, 90, (20, 16)).astype(np.int8), rng.integers(0, 255, (20, 16)).astype(np.uint8)
    return replace(made.with_prints(sketch, blocks).under(number * 7919 + 1), **more)  # type: ignore[arg-type]


def test_a_pattern_comes_back_from_its_text_and_nothing_else_does(tmp_path: Path) -> None:
    one = Held(KEY, a_pattern(1))
    path = tmp_path / "patterns.jsonl"
    path.write_text(exported([one]))
    assert "p1" in path.read_text()
    back = imported(path)
    assert back[0].key == KEY
    assert same(back[0].pattern, one.pattern)
    lines = path.read_text().splitlines()
    for broken in ("", "{}\n", lines[0] + "\n", lines[0] + "\n" + lines[1][:-9] + "\n", "\n".join([*lines, lines[1]])):
        path.write_text(broken)
        with pytest.raises(ConfigError):
            imported(path)
    for text in ("", "AAAA", "not base64", lines[1][:40]):
        with pytest.raises(PoisonError):
            from_text(text)
    with pytest.raises(PoisonError):
        unpacked(pack({"format": 1, "id": "x"}, {}))


def test_states_of_one_pattern_merge_the_same_in_any_order() -> None:
    early = a_pattern(1)
    late = replace(early.under(99), seen=3, last_us=500, incidents=("i1", "i9"), scenario="scn-1")
    assert same(merged(early, late), merged(late, early))
    assert merged(early, late).seen == 3
    assert merged(early, late).first_us == early.first_us
    assert same(merged(late, late), late)


def test_the_registry_is_bounded(reference: AttackReference) -> None:
    registry = Registry(reference.sample)
    registry.learn([a_pattern(number) for number in range(MOST_PATTERNS + 5)])
    assert len(registry.known) == MOST_PATTERNS
    assert (registry.evicted, registry.gone) == (5, {f"p{number}" for number in range(5)})
    kept = Recurrence(registry, crowds={name: Hits(name, 1.0, 1) for name in ("p0", "p9")})
    assert kept.told() == ([], [f"p{number}" for number in range(5)])
    assert set(kept.crowds) == {"p9"}  # what is counted by pattern goes with it
    big = a_pattern(1).with_prints(
        np.zeros((2_000, 16), dtype=np.int8), np.arange(32_000, dtype=np.int64).reshape(2_000, 16).astype(np.uint8)
    )
    assert len(big.blocks) <= MOST_PRINTS
    assert len(packed(big)) < 64_000


def test_a_pattern_of_another_model_is_compared_by_its_manner_only(reference: AttackReference) -> None:
    watch = watch_of(reference)
    watch.decide(reference.queries(rows_of(traffic(queries_of("noise", 1), 1, "evil", START_US))))
    known = next(iter(watch.recurrence.registry.known.values())).pattern
    other = watch_of(reference)
    other.recurrence.learn([replace(known, space="sha256:other", inputs="sha256:other")])
    made = traffic(queries_of("noise", 1), 2, "other", LATER_US)
    found = after(other, reference, made, 100_000)
    assert ["manner" in one.message for one in found] == [True]


@pytest.fixture(scope="module")
def profiled() -> tuple[ModelConfig, Profile]:
    rows = rows_of(benign(POPULATION, 120, 30, 1))
    config = config_of(rows)
    return config, build_profile(config, KEY, rows, calibrate_seconds=0, events_per_second=10.0)


def records(given: Sequence[OutRecord], start: int = 0) -> tuple[Record, ...]:
    return tuple(
        Record("regate.control.v1", 0, start + number, 0, one.key, one.value, one.headers)
        for number, one in enumerate(given)
    )


def cells(config: ModelConfig, profile: Profile, made: Traffic, first_id: int, until_us: int = FOREVER - 1) -> Batch:
    state = Partition()
    parts = tuple(observe(state, [rows_of(made, first_id)], {KEY: watched(config, profile)}, Watched()))
    frames = encode_frames(Frame("telemetry-0", until_us, parts=parts, sources=("telemetry-0",)))
    log = [Record("cells", 0, number, 0, None, frame) for number, frame in enumerate(frames)]
    return Batch("cells", 0, 0, len(log), log)


def told(outputs: Sequence[Output], topic: str) -> list[OutRecord]:
    return [one for one in outputs if isinstance(one, OutRecord) and one.topic == topic]


def test_another_shard_knows_a_pattern_from_the_control_topic(profiled: tuple[ModelConfig, Profile]) -> None:
    config, profile = profiled
    core = DecideCore(1)
    settings = records([document_record(config, 1), *profile_records(profile, 1)])
    x = queries_of("finite differences", 1)
    first = core.initial("0")
    core.step(first, StepInput(control=settings))
    out = core.step(first, StepInput((cells(config, profile, traffic(x, 1, "evil", START_US), 1),)))
    patterns = told(out, "control")
    assert [(one.key or b"").decode().startswith(f"pattern/{KEY}#") for one in patterns] == [True]

    second = core.initial("0")
    core.step(second, StepInput(control=(*settings, *records(patterns, 10))))
    second = core.load("0", core.dump(second))
    assert second.refused_chunks == []
    later = core.step(second, StepInput((cells(config, profile, traffic(x, 2, "other", LATER_US), 100_000),)))
    found = [decode_event(one.value, "finding", Finding) for one in told(later, "findings")]
    assert next(one.kind for one in found if one.type == "finding" and one.family == "attack") == "recurrence"

    # What comes back to who told it changes nothing, and what is taken back is not compared any more.
    assert told(core.step(first, StepInput(control=records(patterns, 20))), "control") == []
    name = next(iter(first.core.models[KEY].attack.recurrence.registry.known))  # type: ignore[union-attr]
    core.step(first, StepInput(control=records([pattern_gone(KEY, name)], 30)))
    assert first.core.models[KEY].attack.recurrence.registry.known == {}  # type: ignore[union-attr]
    assert not [chunk for chunk in core.dump(first) if "#" in chunk and "pattern/" in chunk]


def test_a_pattern_whose_chunk_is_lost_is_learned_again_from_control(profiled: tuple[ModelConfig, Profile]) -> None:
    config, profile = profiled
    core = DecideCore(1)
    first = core.initial("0")
    core.step(first, StepInput(control=records([document_record(config, 1), *profile_records(profile, 1)])))
    x = queries_of("finite differences", 1)
    batch = cells(config, profile, traffic(x, 1, "evil", START_US), 1, LATER_US)
    out = core.step(first, StepInput((batch,)))
    core.step(first, StepInput(control=records(told(out, "control"), 10)))
    core.step(first, StepInput(control=records([pattern_record(KEY, a_pattern(1), 1)], 20)))
    core.step(first, StepInput(control=records([pattern_gone(KEY, "p1")], 21)))
    (name,) = first.core.models[KEY].attack.recurrence.registry.known  # type: ignore[union-attr]
    chunks = core.dump(first)
    kept = {one: data for one, data in chunks.items() if not one.endswith(f"attack/pattern/{name}")}
    assert len(kept) == len(chunks) - 1
    again = core.load("0", kept)
    # Not the one that was taken back.
    assert set(again.core.models[KEY].attack.recurrence.registry.known) == {name}  # type: ignore[union-attr]
    assert core.dump(again) == chunks
    found = core.step(again, StepInput((cells(config, profile, traffic(x, 2, "other", LATER_US), 100_000),)))
    kinds = [decode_event(one.value, "finding", Finding).kind for one in told(found, "findings")]
    assert "recurrence" in kinds
    # Where everything of the lanes is lost, too.
    bare = core.load("0", {one: data for one, data in chunks.items() if "/attack/" not in one})
    assert set(bare.core.models[KEY].attack.recurrence.registry.known) == {name}  # type: ignore[union-attr]


def test_what_a_new_profile_does_not_watch_any_more_is_told_to_have_ended(
    profiled: tuple[ModelConfig, Profile],
) -> None:
    config, profile = profiled
    core = DecideCore(1)
    state = core.initial("0")
    core.step(state, StepInput(control=records([document_record(config, 1), *profile_records(profile, 1)])))
    made = traffic(queries_of("finite differences", 1), 1, "evil", START_US)
    batch = cells(config, profile, made, 1, int(made.time_us[-1]) + 1_000_000)
    said = [
        decode_event(one.value, "finding", Finding) for one in told(core.step(state, StepInput((batch,))), "findings")
    ]
    opened = {one.incident for one in said if one.family == "attack"}
    out = core.step(state, StepInput(control=records(profile_records(replace(profile, attack=None), 2), 20)))
    ends = [decode_event(one.value, "finding", Finding) for one in told(out, "findings")]
    assert opened
    assert {(one.incident, one.revision) for one in ends} == {(one, "recovered") for one in opened}


def test_a_damaged_pattern_is_refused_and_the_rest_goes_on(profiled: tuple[ModelConfig, Profile]) -> None:
    config, profile = profiled
    core = DecideCore(1)
    state = core.initial("0")
    good = pattern_record(KEY, a_pattern(1), 1)
    bad = replace(pattern_record(KEY, a_pattern(2), 1), value=(good.value or b"").replace(b"p1", b"p9")[:-40])
    given = [document_record(config, 1), *profile_records(profile, 1), bad, good]
    core.step(state, StepInput(control=records(given)))
    assert set(state.core.models[KEY].attack.recurrence.registry.known) == {"p1"}  # type: ignore[union-attr]
    assert state.standing.refused == 1


def test_patterns_are_put_on_the_bus_listed_and_taken_back() -> None:
    bus, topics = MemoryBus(), Topics(Bus(partitions=2))
    provision(bus.admin(), topics)
    early, late = Held(KEY, a_pattern(1)), Held(KEY, a_pattern(2, last_us=10_000))
    put(bus, topics, [early, late])
    put(bus, topics, [Held(KEY, early.pattern.under(5))])
    assert [one.pattern.id for one in held(bus, topics)] == ["p2", "p1"]
    assert described(held(bus, topics)[1])["clients"] == 2
    take_back(bus, topics, early)
    assert [one.pattern.id for one in held(bus, topics)] == ["p2"]
    assert key_of_text(str(KEY)) == KEY
    with pytest.raises(ConfigError):
        key_of_text("t/m/d")
