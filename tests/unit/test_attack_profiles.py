"""A new profile of a model: open incidents of attacks go on or end with a reason, nobody is forgotten."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.attacks.traffic import START_US, Traffic, attack, benign, table, woven
from tests.attack_traffic import KEY, client_hash, config_of, rows_of

from regate.config.model import ModelConfig
from regate.detectors.attack.ongoing import QUIET_US
from regate.detectors.attack.watch import AttackWatch
from regate.detectors.build import build_profile
from regate.detectors.columns import Slice
from regate.detectors.decide import Shard
from regate.detectors.finding import Finding
from regate.detectors.frames import Frame
from regate.detectors.observe import Partition, Watched, observe, watched
from regate.detectors.profile import Profile

POPULATION = table(3)
WALK = attack(POPULATION, "boundary walk", np.random.default_rng((9, 7)), 150)
EVIL = f"{client_hash('evil'):016x}"
LATER_US = START_US + 600_000_000


def made(seed: int, families: dict[str, float] | None = None) -> tuple[ModelConfig, Profile]:
    rows = rows_of(benign(POPULATION, 120, 30, seed))
    config = config_of(rows)
    if families is not None:
        config = config.model_copy(update={"detection": config.detection.model_copy(update={"families": families})})
    return config, build_profile(config, KEY, rows, calibrate_seconds=0, events_per_second=10.0)


@pytest.fixture(scope="module")
def old() -> tuple[ModelConfig, Profile]:
    return made(1)


def traffic(x: np.ndarray, start_us: int, seed: int) -> Traffic:
    rng = np.random.default_rng((29, seed))
    others = [(f"good{which}", "fresh", POPULATION.draw(rng, 20)) for which in range(5)]
    return woven(POPULATION, [("evil", "attack", x), *others], rng, start_us)


class World:
    """A decide shard with one model, and what it said about attacks."""

    def __init__(self, given: tuple[ModelConfig, Profile]) -> None:
        self.shard, self.partition, self.found, self.asked = Shard(), Partition(), list[Finding](), 0
        self.configure(given)

    def configure(self, given: tuple[ModelConfig, Profile]) -> list[Finding]:
        self.config, self.profile = given
        ended = self.shard.configure(KEY, self.profile, self.config)
        self.found += ended
        return ended

    @property
    def attack(self) -> AttackWatch:
        watch = self.shard.models[KEY].attack
        assert watch is not None
        return watch

    def take(self, given: Traffic, *, close: bool = True) -> None:
        rows: Slice = rows_of(given, self.asked + 1)
        self.asked += rows.n
        parts = tuple(observe(self.partition, [rows], {KEY: watched(self.config, self.profile)}, Watched()))
        self.shard.take(Frame("telemetry-0", self.partition.watermark_us, parts=parts))
        if close:
            self.close(int(given.time_us[-1]) + 1_000_000)

    def close(self, until_us: int) -> None:
        self.found += [one for one in self.shard.close(until_us) if one.family == "attack"]


def test_with_another_reference_what_is_open_goes_on(old: tuple[ModelConfig, Profile]) -> None:
    world = World(old)
    world.take(traffic(WALK[:100], START_US, 1))
    (first,) = world.found
    assert first.subject == EVIL
    accused, known = dict(world.attack.accused), set(world.attack.recurrence.registry.known)
    assert accused
    kept = next(iter(known))
    captured = next(iter(world.attack.recurrence.captures.values()))
    unsealed = sum(len(part) for part in captured.blocks)
    before = len(world.attack.recurrence.registry.known[kept].pattern.blocks)
    world.attack.recurrence.told()

    new = made(2)
    assert new[1].attack is not None
    assert new[1].attack.digest != old[1].attack.digest  # type: ignore[union-attr]
    assert world.configure(new) == []
    assert world.attack.memory.reference.digest == new[1].attack.digest
    assert dict(world.attack.accused) == accused
    assert list(world.attack.incidents.open) == [f"client {EVIL}"]
    # What had been kept of him until then is in his pattern, and other shards are told.
    assert unsealed > 0
    assert len(world.attack.recurrence.registry.known[kept].pattern.blocks) > before
    assert [one.id for one in world.attack.recurrence.told()[0]] == [kept]

    world.take(traffic(WALK[100:], LATER_US, 2))
    assert world.found == [first], "he goes on: it is one incident"
    world.close(LATER_US + 2 * QUIET_US)
    assert [(one.revision, one.incident) for one in world.found] == [("", first.id), ("recovered", first.id)]
    assert world.found[1].detected_us > LATER_US + QUIET_US


def test_queries_of_the_old_reference_that_wait_are_counted(old: tuple[ModelConfig, Profile]) -> None:
    world = World(old)
    given = traffic(WALK[:60], START_US, 1)
    world.take(given, close=False)
    world.configure(made(2))
    assert world.shard.models[KEY].counters["other_profile_queries"] == len(given.x)


def test_the_same_reference_in_a_new_profile_changes_nothing(old: tuple[ModelConfig, Profile]) -> None:
    world = World(old)
    watch = world.attack
    config, profile = old
    world.configure((config, replace(profile, notes=(*profile.notes, "made again"))))
    assert world.profile.digest != profile.digest
    assert world.attack is watch
    assert watch.profile_digest == world.profile.digest


@pytest.mark.parametrize("how", ["turned off", "taken back"])
def test_what_nobody_watches_any_more_ends_with_a_reason(old: tuple[ModelConfig, Profile], how: str) -> None:
    world = World(old)
    world.take(traffic(WALK[:100], START_US, 1))
    (first,) = world.found
    if how == "turned off":
        ended = world.configure(made(1, {"attack": 0.0}))
    else:
        ended = world.shard.configure(KEY, None, world.config)
    assert [(one.type, one.revision, one.incident) for one in ended] == [("revision", "recovered", first.id)]
    assert ended[0].detected_us >= first.detected_us
    assert ("taken back" if how == "taken back" else "does not watch") in ended[0].message
    assert world.shard.models[KEY].attack is None
