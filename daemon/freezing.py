"""Incident to scenario: from the events of one client to a record and its rows, without who asked them.

What is frozen is what a slice holds, so the configuration's privacy has been kept before: features to drop and hashed
numbers are not there, hashed categories are hashes. Clients, cohorts, labels, event ids and times of single queries
stay behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import yaml

from regate.config.errors import ConfigError
from regate.config.model import ModelConfig
from regate.daemon.profiles import milliseconds
from regate.daemon.validate.columns import rows_of_slice
from regate.daemon.validate.lanes import lanes_of, slice_of
from regate.daemon.wire.hashing import hash_texts
from regate.detectors.attack.evidence import LANE_BASE
from regate.detectors.attack.memory import Alarm
from regate.detectors.attack.shrinking import shortest
from regate.detectors.columns import IntArray, Slice
from regate.detectors.profile import Profile
from regate.scenarios.catalog.frozen import write_rows
from regate.scenarios.families.attack_replay import AttackReplayRecord, distinct
from regate.scenarios.rows import Rows

# MITRE ATLAS by the lanes that spoke. Queries that follow from the answers to others are a search; those at the
# boundary, or that turned the answer over, aim at evasion; those like nobody's, each by itself, read the model out.
ATLAS: dict[str, tuple[str, ...]] = {
    "AML.T0043.001": ("step", "tree", "spread", "line", "changed off", "changed new"),  # black-box optimization
    "AML.T0015": ("flip", "margin"),  # evade AI model
    "AML.T0024": ("novelty", "range", "residual", "distance", "dependence"),  # exfiltration via inference API
    "AML.T0024.000": ("training record",),  # infer training data membership
}
ANY = "AML.T0043"  # craft adversarial data, where no lane spoke for itself
AGREEMENT = 0.95
HEAD = """\
# Written by `regate patterns freeze`. Queued: no suite may name it before it was reviewed and says `status: active`.
# The ATLAS techniques come from the lanes that said more than {base:g} at the query that crossed the bar:
# steps, trees, lines and changed values are a search (AML.T0043.001), flips and margins evasion (AML.T0015), odd
# values and combinations extraction (AML.T0024), training records membership (AML.T0024.000); none: AML.T0043.
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """Events, and where they stand in their source."""

    events: Slice
    config: ModelConfig
    timed: bool = True  # whether event times are times
    row: IntArray | None = field(default=None)

    def of(self, client: str) -> Asked:
        """Return what one client asked, by (event time, event id): the order of client memory.

        :raises ConfigError: when nobody is called so.
        """
        hashes = self.events.client
        if hashes is None:
            raise ConfigError(
                "the events carry no clients", hint="map `client`; with `privacy: {client: drop}` they are not read"
            )
        own = hashes == hash_texts([client])[0]
        if not own.any() and re.fullmatch(r"[0-9a-f]{16}", client):
            own = hashes == np.uint64(int(client, 16))
        row = np.flatnonzero(own)
        if not row.size:
            raise ConfigError("no event is of that client", hint="findings and `regate backtest` name clients")
        times = self.events.event_time_us[row]
        row = row[np.lexsort((self.events.event_id[row], times))] if self.timed else row
        return replace(self, row=row)

    def between(self, onset: str | None, until: str | None) -> Asked:
        """Return what was asked from a row or time on, and before another.

        :raises ConfigError: when nothing was, or times are asked of rows without one.
        """
        row = self._rows()
        keep = np.ones(row.size, dtype=np.bool_)
        if onset is not None:
            keep &= self._at(row, onset) >= 0
        if until is not None:
            keep &= self._at(row, until) < 0
        if not keep.any():
            raise ConfigError("the client asked nothing in that time", hint="widen --onset and --until")
        return replace(self, row=row[keep])

    def picked(self) -> Slice:
        """Return the events in their order."""
        return self.events.picked(self._rows())

    def _rows(self) -> IntArray:
        return np.arange(self.events.n, dtype=np.int64) if self.row is None else self.row

    def _at(self, row: IntArray, place: str) -> IntArray:
        """Return how far each row lies behind a place: a row number, or a time."""
        if place.isdigit():
            return row - int(place)
        if not self.timed:
            raise ConfigError("the file has no event_time column", hint="give row numbers")
        return np.asarray(self.events.event_time_us[row] - milliseconds(place) * 1000)


@dataclass(frozen=True, slots=True)
class Frozen:
    """The shortest run that alarms, as rows, and what is known of it."""

    rows: Rows
    alarm: Alarm
    profile: Profile
    asked: int  # queries before it was shrunk
    first: datetime | None
    last: datetime | None


def frozen(asked: Asked, profile: Profile) -> Frozen:
    """Return the shortest run of what one client asked at which the profile's lanes alarm.

    The lanes hear just what a replay lets them hear: rows, as one fresh client asks them, with the answers of then.

    :raises ConfigError: when the profile has no lanes, or they raise nothing over these queries alone.
    """
    lanes = lanes_of(profile)
    if profile.attack is None:
        raise ConfigError(lanes.off, hint="build the profile from events with clients: regate profile build")
    events = replace(asked.picked(), cohorts={}, error=None)
    rows = rows_of_slice(events, asked.config)
    run = shortest(profile.attack, profile.attack.queries(slice_of(rows, profile.key)))
    if run is None:
        raise ConfigError(
            f"the lanes of {profile.digest} raise no finding over the {rows.n} queries of this client alone",
            hint="give the profile that was in force, or an earlier --onset; what many clients did together stays out",
        )
    part = np.arange(run.start, run.stop, dtype=np.int64)
    times = [datetime.fromtimestamp(int(events.event_time_us[at]) / 1e6, UTC) for at in (part[0], part[-1])]
    first, last = times if asked.timed else (None, None)
    return Frozen(rows.pick(part), run.alarm, profile, rows.n, first, last)


def atlas_of(spoke: Iterable[str]) -> tuple[str, ...]:
    """Return the ATLAS techniques that lanes speak for.

    >>> atlas_of(["flip", "step"]), atlas_of([])
    (('AML.T0015', 'AML.T0043.001'), ('AML.T0043',))
    """
    said = set(spoke)
    return tuple(sorted(name for name, lanes in ATLAS.items() if said & set(lanes))) or (ANY,)


def record_of(found: Frozen, *, incident: str, author: str, created: date) -> AttackReplayRecord:
    """Return the queued record of a frozen run."""
    rows, key = found.rows, found.profile.key
    digest = rows.digest()
    within = distinct(rows.features, rows.n)
    lanes = {name: round(value, 3) for name, value in found.alarm.lanes if value > 0}
    spoke = [name for name, value in lanes.items() if value > LANE_BASE]
    return AttackReplayRecord.model_validate(
        {
            "id": f"scn-attack-{digest.removeprefix('sha256:')[:8]}",
            "version": "1.0.0",
            "status": "queued",
            "title": f"An attack on {key.model}: {within} queries of one client",
            "objective": (
                "Show that the attack lanes still find the queries of this incident, and whether the attack still "
                "does to the model what it did."
            ),
            "authors": [author],
            "created": created,
            "parents": [incident] if incident else [],
            "family": "attack_replay",
            "taxonomy": {"atlas": atlas_of(spoke)},
            "failure_mode": "attack_unseen",
            "level": "component",
            "method": "recorded",
            "instrumentation": ["label", "scores", "attack lanes"],
            "parameters": {"queries": digest},
            "provenance": {
                "incident": incident,
                "model": str(key),
                "profile": found.profile.digest,
                "view": found.alarm.view,
                "lanes": lanes,
                "asked": found.asked,
                "first": found.first,
                "last": found.last,
            },
            "detect_within_n": within,
            "expected": {
                "detected_within": {"comparator": "<=", "bound": within, "critical": True, "unit": "queries"},
                "agreement": {"comparator": ">=", "bound": AGREEMENT},
            },
            "assumptions": [
                "The queries do not answer to the target: an attacker would ask others where it answers otherwise.",
                "The client is fresh and asks nothing else in between.",
            ],
            "corrective_actions": [
                "Not detected: compare the profile's lanes with those of the provenance before it goes into force.",
                "Still flips the class: refit with these rows, or bound how often a client may ask.",
            ],
        }
    )


def write(folder: Path, record: AttackReplayRecord, rows: Rows) -> Path:
    """Write rows and record into a folder; return the record's file.

    :raises ConfigError: when there is a record of these queries already.
    """
    path = folder / f"{record.id}.yaml"
    if path.exists():
        raise ConfigError(f"{path} is there already", hint="these queries were frozen before; change that record")
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder, rows)
    plain = record.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump(plain, sort_keys=False, width=110, allow_unicode=True)
    path.write_text(HEAD.format(base=LANE_BASE) + text, encoding="utf-8")
    return path
