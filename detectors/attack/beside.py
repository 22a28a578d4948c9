"""The views beside client memory, at work: each takes the same queries or labels; their signs become incidents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regate.detectors.arrays import Arrays
from regate.detectors.attack import bursts, climb
from regate.detectors.attack.bursts import Pace
from regate.detectors.attack.clients import Clients, Steps
from regate.detectors.attack.climb import Climb
from regate.detectors.attack.crowd import Crowd
from regate.detectors.attack.habits import Habits
from regate.detectors.attack.poison import Poison
from regate.detectors.attack.probes import Probes
from regate.detectors.attack.queries import Queries
from regate.detectors.attack.sign import Sign
from regate.detectors.attack.signs import Events, Name, Signs, none_counted
from regate.detectors.attack.triggers import Triggers
from regate.detectors.attack.volume import Volume
from regate.detectors.columns import HashArray, ModelKey
from regate.detectors.finding import Finding
from regate.detectors.marks import Outcomes

PREFIX = "attack/beside/"
SIGNS = f"{PREFIX}signs"
# Bytes of a snapshot chunk: 8,192 slots of pace.
SLOTS_A_CHUNK = 8_192

Chunk = tuple[str, dict[str, Any], Arrays]


@dataclass(slots=True)
class Beside:
    """State of all views. Without event times (a backtest by rows) those that measure time say nothing."""

    habits: Habits
    timed: bool = True
    crowd: Crowd = field(init=False)
    pace: Pace = field(init=False)
    climb: Climb = field(init=False)
    probes: Probes = field(init=False)
    triggers: Triggers = field(init=False)
    poison: Poison = field(init=False)
    volume: Volume = field(init=False)
    signs: Signs = field(default_factory=Signs)
    waiting: list[Sign] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        self.crowd, self.pace = Crowd(self.habits.crowd), Pace(self.habits.pace)
        self.probes, self.triggers = Probes(self.habits.probe), Triggers(self.habits.trigger)
        self.poison, self.volume = Poison(self.habits.labels), Volume(self.habits.volume)
        self.climb = Climb(self.habits.climb)

    def take(self, queries: Queries, steps: Steps, table: Clients) -> None:
        """Take queries with ids in order, and what client memory says of them."""
        again = np.ones(queries.n, dtype=np.bool_)
        again[steps.row] = False
        if self.timed:
            self.waiting += self.crowd.take(queries)
            self.waiting += self.pace.take(steps, queries, table)
            self.waiting += self.volume.take(steps, queries, len(table.seen))
        self.waiting += self.climb.take(steps, queries, table)
        self.waiting += self.probes.take(queries, again)
        self.waiting += self.triggers.take(steps, queries)

    def answered(self, outcomes: Outcomes, source: HashArray, contradicted_by: HashArray, time_us: int) -> None:
        """Take the outcomes of one closed cell."""
        self.waiting += self.poison.take(outcomes, source, contradicted_by, time_us)

    def findings(
        self, now_us: int, key: ModelKey, profile_digest: str, name: Name, events: Events = none_counted
    ) -> list[Finding]:
        """Return what was found up to a time, and what has ended."""
        signs, self.waiting = self.waiting, []
        if not signs and not self.signs.open:
            return []
        if not self.timed:
            now_us = 0  # numbers of rows stand for times: no time passes
        return self.signs.take(signs, now_us, key, profile_digest, name, events)

    def succeed(self, before: Beside) -> None:
        """Take over what is open, and what was seen and not told, from views with another reference."""
        self.signs.carry(before.signs)
        self.waiting, self.timed = before.waiting, before.timed

    def chunks(self) -> Iterator[Chunk]:
        """Return the state as chunks. Signs are told before a snapshot is made: none wait."""
        yield from self.signs.chunks(SIGNS)
        yield f"{PREFIX}crowd", *self.crowd.state()
        yield f"{PREFIX}probes", {}, self.probes.state()
        yield f"{PREFIX}triggers", *self.triggers.state()
        yield f"{PREFIX}poison", *self.poison.state()
        yield from self.volume.chunks(f"{PREFIX}volume/")
        for name, view, arrays in self._by_slot():
            for number, start in enumerate(range(0, len(view.client), SLOTS_A_CHUNK)):
                own = slice(start, start + SLOTS_A_CHUNK)
                yield f"{PREFIX}{name}/{number:06}", {}, {item: getattr(view, item)[own] for item in arrays}

    def restore(self, own: Mapping[str, tuple[dict[str, Any], Arrays]]) -> None:
        """Take back what `chunks` gave, but for signs; what is missing begins anew."""
        if f"{PREFIX}probes" in own:
            self.probes.restore(own[f"{PREFIX}probes"][1])
        for name, restore in (
            ("crowd", self.crowd.restore),
            ("triggers", self.triggers.restore),
            ("poison", self.poison.restore),
        ):
            if PREFIX + name in own:
                restore(*own[PREFIX + name])
        self.volume.restore(f"{PREFIX}volume/", own)
        for name, view, arrays in self._by_slot():
            pieces = [held for chunk, (_, held) in sorted(own.items()) if chunk.startswith(f"{PREFIX}{name}/")]
            for item in arrays if pieces else ():
                setattr(view, item, np.concatenate([piece[item] for piece in pieces]))

    def _by_slot(self) -> tuple[tuple[str, Pace | Climb, tuple[str, ...]], ...]:
        """Return the views whose arrays stand beside the slots of client memory."""
        return ("pace", self.pace, bursts.ARRAYS), ("climb", self.climb, climb.ARRAYS)
