"""What is usual beside the lanes of client memory: bursts, pace, climbs, repetitions, triggers, labels, volume.

Part of a reference.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from regate.detectors.arrays import Arrays
from regate.detectors.attack import bursts, climb, crowd, poison, probes, triggers, volume
from regate.detectors.attack.bursts import PaceReference
from regate.detectors.attack.clients import Steps
from regate.detectors.attack.climb import ClimbReference
from regate.detectors.attack.crowd import CrowdReference
from regate.detectors.attack.poison import LabelReference
from regate.detectors.attack.probes import ProbeReference
from regate.detectors.attack.queries import Queries
from regate.detectors.attack.triggers import CLASSES, PATTERNS, TriggerReference
from regate.detectors.attack.volume import VolumeReference
from regate.detectors.columns import BoolArray, HashArray
from regate.detectors.marks import Outcomes


@dataclass(frozen=True, slots=True)
class Habits:
    """References of all views; each says in a reason why it is off."""

    crowd: CrowdReference = field(default_factory=CrowdReference)
    pace: PaceReference = field(default_factory=PaceReference)
    probe: ProbeReference = field(default_factory=ProbeReference)
    trigger: TriggerReference = field(default_factory=TriggerReference)
    labels: LabelReference = field(default_factory=LabelReference)
    volume: VolumeReference = field(default_factory=VolumeReference)
    climb: ClimbReference = field(default_factory=ClimbReference)

    def notes(self) -> tuple[str, ...]:
        """Return why what is off is off, and whom a person should look at."""
        told = {
            "bursts of new clients": self.crowd.reason,
            "regular gaps": self.pace.reason,
            "timing probes": self.probe.reason,
            "backdoor triggers": self.trigger.reason,
            "poisoned labels": self.labels.reason,
            "coverage by clients": self.volume.reason,
            "climbs": self.climb.reason,
        }
        odd = {"regular gaps": self.pace.trimmed, "climbs": self.climb.trimmed}
        return (
            *(f"attack lanes, {name}: off, {reason}" for name, reason in told.items() if reason),
            *(
                f"attack lanes, {name}: clients for review: {', '.join(f'{client:016x}' for client in clients)}"
                for name, clients in odd.items()
                if clients
            ),
        )


def fitted(queries: Queries, steps: Steps, trimmed: HashArray, names: tuple[str, ...]) -> Habits:
    """Return what reference queries (with ids, in order) and their entries in client memory are like.

    :param trimmed: clients that are kept out for review.
    """
    clients = len(np.unique(queries.client))
    again = np.ones(queries.n, dtype=np.bool_)
    again[steps.row] = False
    keep = ~np.isin(queries.client[steps.row], trimmed)
    return Habits(
        crowd.fitted(queries),
        bursts.fitted(steps, queries, clients),
        probes.fitted(queries, again, clients),
        triggers.fitted(steps, queries, keep, names),
        volume=volume.fitted(steps, queries, keep),
        climb=climb.fitted(steps, queries, clients),
    )


def labels_of(outcomes: Outcomes | None, client: HashArray | None, contradicted: BoolArray | None) -> LabelReference:
    """Return what reference labels are like."""
    return poison.fitted(outcomes, client, contradicted)


def packed(habits: Habits) -> tuple[dict[str, Any], Arrays]:
    """Return habits as JSON and arrays."""
    trigger = asdict(habits.trigger)
    count = trigger.pop("count").reshape(-1)
    place = np.flatnonzero(count)
    meta = {
        "crowd": asdict(habits.crowd),
        "pace": asdict(habits.pace),
        "probe": asdict(habits.probe),
        "labels": asdict(habits.labels),
        "trigger": trigger,
        "volume": asdict(habits.volume),
        "climb": asdict(habits.climb),
    }
    return meta, {"trigger.place": place, "trigger.count": count[place]}


def unpacked(meta: dict[str, Any], arrays: Arrays) -> Habits:
    """Return the habits that `packed` gave."""
    count = np.zeros(PATTERNS * CLASSES, dtype=np.int64)
    count[arrays["trigger.place"]] = arrays["trigger.count"]
    plain = {name: {key: _frozen(value) for key, value in said.items()} for name, said in meta.items()}
    return Habits(
        CrowdReference(**plain["crowd"]),
        PaceReference(**plain["pace"]),
        ProbeReference(**plain["probe"]),
        TriggerReference(**plain["trigger"], count=count.reshape(PATTERNS, CLASSES)),
        LabelReference(**plain["labels"]),
        VolumeReference(**plain["volume"]),
        ClimbReference(**plain["climb"]),
    )


def _frozen(value: Any) -> Any:
    return tuple(_frozen(one) for one in value) if isinstance(value, list | tuple) else value
