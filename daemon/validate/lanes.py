"""The attack lanes of a profile, as scenarios listen with them: rows of one fresh client in, the first alarm out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from regate.daemon.bus.port import Bus
from regate.daemon.bus.topics import Topics
from regate.daemon.control import current
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.shrinking import first_alarm
from regate.detectors.columns import Categorical, Column, ModelKey, Numeric, Slice
from regate.detectors.profile import Profile
from regate.scenarios.rows import Column as Plain
from regate.scenarios.rows import Rows
from regate.scenarios.subject import Heard, Lanes, NoLanes

# Lanes tell clients apart and know nothing else of them: any number but 0 is a fresh one.
FRESH_CLIENT = 1


@dataclass(frozen=True, slots=True)
class ProfileLanes:
    """Lanes that are there."""

    reference: AttackReference
    key: ModelKey
    off: str = ""

    def hear(self, asked: Rows) -> Heard:
        """Return the first alarm over rows as one fresh client asks them."""
        alarm = first_alarm(self.reference, self.reference.queries(slice_of(asked, self.key)))
        return Heard(None) if alarm is None else Heard(alarm.row, alarm.lanes)


class LaterLanes:
    """Lanes that are looked for when a scenario asks for them: most suites never do."""

    def __init__(self, find: Callable[[], Lanes]) -> None:
        self._find = find

    @cached_property
    def _lanes(self) -> Lanes:
        return self._find()

    @property
    def off(self) -> str:
        """Return why there are none; empty when there are."""
        return self._lanes.off

    def hear(self, asked: Rows) -> Heard:
        """Return what they say."""
        return self._lanes.hear(asked)


def lanes_of(profile: Profile | None) -> Lanes:
    """Return the lanes of a profile; where it has none, why."""
    if profile is None:
        return NoLanes("the model has no profile: regate profile build")
    if profile.attack is None:
        why = next((note for note in profile.notes if note.startswith("no attack lanes")), "")
        return NoLanes(why or f"profile {profile.digest} has no attack lanes")
    return ProfileLanes(profile.attack, profile.key)


def lanes_in_force(bus: Bus, topics: Topics, key: ModelKey) -> Lanes:
    """Return the lanes of the profile that the control topic has in force for a model version."""
    reader = bus.reader()
    try:
        return lanes_of(current(reader, topics).profiles.get(str(key)))
    finally:
        reader.close()


def slice_of(rows: Rows, key: ModelKey) -> Slice:
    """Return rows as the queries of one fresh client; row numbers stand for times and ids."""
    number = np.arange(rows.n, dtype=np.int64)
    return Slice(
        key,
        rows.n,
        number.astype(np.uint64),
        number,
        number,
        {name: _column(values) for name, values in rows.features.items()},
        prediction=None if rows.prediction is None else _column(rows.prediction),
        scores=dict(rows.scores),
        client=np.full(rows.n, FRESH_CLIENT, dtype=np.uint64),
    )


def _column(values: Plain) -> Column:
    """Return a plain column as detectors read it."""
    if values.dtype == np.float64:
        return Numeric(values)
    names: dict[str, int] = {}
    codes = [-1 if value is None else names.setdefault(str(value), len(names)) for value in values]
    return Categorical(np.array(codes, dtype=np.int32), tuple(names))
