"""The detectors as oracles, asked a query at a time, and the rows of the table about attackers that adapt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from benchmarks.attacks.measure import (
    PLAIN,
    FloatArray,
    Outcome,
    Place,
    Rows,
    both,
    findings,
    hashed,
    sliced,
    summary,
)
from benchmarks.attacks.oars import ATTACKS, MODES, Detector, Session, ran
from benchmarks.attacks.peers import Blacklight, Peer, Seen
from benchmarks.attacks.traffic import START_US, Population

from regate.detectors.attack.memory import Memory

_EVIL = 1_000_000


class Lanes:
    """Our lanes, with normal clients in memory before the attacker comes."""

    def __init__(self, place: Place, number: int = 0) -> None:
        self.memory, self.codes = Memory(place.reference), place.codes
        around = place.around[number % len(place.around)]
        findings(self.memory, sliced(around, self.codes))
        self.next = around.n

    def ask(self, x: FloatArray, score: float, account: int) -> bool:
        """Return whether this query raised a finding."""
        client = np.array([_EVIL + account])
        rows = Rows(x[None], both(np.array([score])), client, np.array(["attack"]))
        own = sliced(rows, self.codes, self.next + 1, START_US + self.next * 100_000)
        self.next += 1
        name = int(hashed(client)[0])
        return any(client in (0, name) for _, client in findings(self.memory, own))


@dataclass
class Accounts:
    """A peer: Blacklight remembers everybody in one store, PRADA each account for itself."""

    peer: Peer
    seen: dict[int, Seen] = field(default_factory=dict)

    def ask(self, x: FloatArray, score: float, account: int) -> bool:
        """Return whether this query is flagged."""
        name = 0 if isinstance(self.peer, Blacklight) else account
        if name not in self.seen:
            self.seen[name] = self.peer.start()
        return self.seen[name].ask(x, int(score >= 0.5))


def oracles(place: Place) -> dict[str, Callable[[int], Detector]]:
    """Return how a detector is made anew for an episode, by name."""
    made: dict[str, Callable[[int], Detector]] = {"lanes": lambda number: Lanes(place, number)}
    for peer in place.peers():
        made[peer.name] = lambda _number, peer=peer: Accounts(peer)  # type: ignore[misc]
    return made


def cell(sessions: Sequence[Session]) -> dict[str, Any]:
    """Return the summary of episodes, with how many goals were reached by an account that was never found."""
    outcomes = [Outcome(one.found[0] if one.found else None, one.goal) for one in sessions]
    return {
        **summary(outcomes),
        "clean": sum(one.clean for one in sessions),
        "findings": float(np.median([len(one.found) for one in sessions])),
        "accounts": float(np.median([one.account[-1] + 1 if one.account else 0 for one in sessions])),
    }


def rows(place: Place, population: Population, episodes: int, cap: int) -> list[dict[str, Any]]:
    """Measure every adapting attacker against every detector."""
    some = population.draw(np.random.default_rng(7), 200)
    whole = bool((some == np.rint(some)).all(axis=0).any())
    made, out = oracles(place), []
    for name in ATTACKS:
        for mode in MODES:
            if mode.valid and not whole:
                continue
            sessions = {
                detector: [ran(population, start(seed), name, mode, cap, seed) for seed in range(episodes)]
                for detector, start in made.items()
            }
            cells = {detector: {PLAIN: cell(episodes_)} for detector, episodes_ in sessions.items()}
            asked = int(np.median([len(one.rows) for one in sessions["lanes"]]))
            out.append({"by": "OARS", "data": place.name, "attack": f"{name}, {mode.text}", "queries": asked, **cells})
    return out
