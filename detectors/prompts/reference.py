"""What texts of normal traffic are like: how many are in code, which of them, how many clients send the same one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import log, sqrt
from typing import Any

import numpy as np

from regate.config.canonical import digest_bytes
from regate.detectors.arrays import Arrays, pack
from regate.detectors.attack.inputs import scrambled
from regate.detectors.columns import Slice
from regate.detectors.prompts import rows as print_rows
from regate.detectors.prompts.library import Library
from regate.detectors.prompts.rows import Prints

# With fewer texts a share of texts in code could not be told from none.
LEAST_TEXTS = 100
# Enough to know a share of one in a thousand; more would make the building of a profile minutes longer.
MOST_TEXTS = 5_000
# Of texts in code, and of all texts: kept to know what is usual. A row is 400 bytes.
MOST_KEPT = 256
# Of the clients so many, those with the most texts in code, are left out: an attacker must not set the bound.
TRIMMED = 0.005
# False findings a text, all lanes together, as for the attack lanes.
RATE = 3e-5
# A client may send code twice as often as all together, and once in two hundred texts more: clients differ.
TIMES, MORE = 2.0, 0.005
LARGEST_SHARE = 0.5  # beyond it nothing can be told
# Clients under which one text in code must be seen; and more than in the reference by so many.
LEAST_CLIENTS, MORE_CLIENTS = 3, 2
ODDS = 3  # alternatives that the bets try


@dataclass(frozen=True)
class PromptReference:
    """Everything that is fitted. Equal references give equal ones."""

    names: tuple[str, ...]  # watched features of type text
    salt: int  # of all hashes
    texts: int
    coded: int
    clients: int  # distinct ones that sent the same text in code, at most
    weight: float
    usual: Prints  # readings of texts in code: no evidence when they come again
    sample: Prints  # plain readings: what a pattern must not match to be told at sight

    @property
    def bound(self) -> float:
        """Return the share of texts in code that a normal client stays below."""
        upper = (self.coded + 2.0 * sqrt(self.coded + 1.0) + 1.0) / max(self.texts, 1)
        return TIMES * upper + MORE

    @property
    def bar(self) -> float:
        """Return the evidence (nats) that a client's bets must reach."""
        return log(ODDS / (RATE * self.weight))

    @property
    def many(self) -> int:
        """Return the number of clients under which one text in code is no chance."""
        return max(LEAST_CLIENTS, self.clients + MORE_CLIENTS)

    @cached_property
    def digest(self) -> str:
        """Return the address of all of it."""
        return digest_bytes(pack(*packed(self)))

    @property
    def made_by(self) -> str:
        """Return what prints must agree in to be compared: salt and features."""
        return f"{self.salt:016x}/{'/'.join(self.names)}"

    def prints(self, rows: Slice) -> Prints | None:
        """Return the prints of a slice's texts, None where it has none."""
        return print_rows.made(rows, self.names, self.salt) if rows.texts else None

    def usual_library(self) -> Library:
        """Return the texts in code that normal traffic has."""
        return _library(self.usual, self.salt)

    def matches(self, known: Library) -> int:
        """Return how many texts of the sample are, nearly are or hold one that is known."""
        return sum(known.match_readings((self.sample.reading(row),)) is not None for row in range(self.sample.n))


def salt_of(tenant: str, model: str) -> int:
    """Return a model's salt: the same for all its profiles, so that what was learned stays known."""
    return int.from_bytes(hashlib.blake2b(f"{tenant}/{model}".encode(), digest_size=8).digest(), "little")


def fitted(
    rows: Slice, names: Sequence[str], tenant: str, model: str, weight: float = 1.0
) -> PromptReference | str | None:
    """Return the reference; in a sentence why there is none; None without a watched text.

    :param names: watched features of type text, in the order of the configuration.
    :param weight: of the family: multiplies the rate of false findings that the bar allows.
    """
    if not names:
        return None
    salt = salt_of(tenant, model)
    order = np.argsort(scrambled(rows.event_id), kind="stable")[:MOST_TEXTS]
    part = rows if rows.n <= MOST_TEXTS else rows.some(np.isin(np.arange(rows.n), order))
    prints = print_rows.made(part, names, salt)
    starts = [] if prints is None else print_rows.texts_of(prints)
    if prints is None or len(starts) < LEAST_TEXTS:
        had = f"{len(starts)} texts in the reference's {part.n} rows"
        return f"prompts are not watched: {had}, at least {LEAST_TEXTS} are needed"
    worst = _worst(prints, [first for first, _ in starts if prints.coat[first]])
    own = [(first, stop) for first, stop in starts if int(prints.client[first]) not in worst]
    coded = [(first, stop) for first, stop in own if prints.coat[first]]
    chosen = [prints.readings(first, stop)[prints.text(first, stop).coated] for first, stop in coded]
    library, senders = Library(len(chosen) + 1, salt=salt), dict[str, set[int]]()
    kept = []
    for row in chosen:
        reading = prints.reading(row)
        match = library.match_readings((reading,))
        name = str(row) if match is None else match.id
        if match is None:
            library.add_reading(name, reading)
            kept.append(row)
        senders.setdefault(name, set()).add(int(prints.client[row]))
    firsts = np.array([first for first, _ in own], dtype=np.int64)
    sample = firsts[np.argsort(scrambled(prints.digest[firsts]), kind="stable")[:MOST_KEPT]]
    return PromptReference(
        names=tuple(names),
        salt=salt,
        texts=len(own),
        coded=len(coded),
        clients=max((len(some - {0}) for some in senders.values()), default=0),
        weight=weight,
        usual=_nobodys(prints.some(np.array(kept[:MOST_KEPT], dtype=np.int64))),
        sample=_nobodys(prints.some(np.sort(sample))),
    )


def _nobodys(prints: Prints) -> Prints:
    """Return prints without who sent them, and when."""
    return replace(prints, **{name: np.zeros(prints.n, dtype=kind) for name, kind in _WHOSE.items()})


def _worst(prints: Prints, coded: Sequence[int]) -> set[int]:
    """Return the clients with the most texts in code."""
    everyone = np.unique(prints.client[prints.client != 0])
    clients, count = np.unique(prints.client[np.array(coded, dtype=np.int64)], return_counts=True)
    named = clients != 0
    order = np.argsort(-count[named], kind="stable")[: int(TRIMMED * len(everyone))]
    return set(clients[named][order].tolist())


def _library(prints: Prints, salt: int) -> Library:
    found = Library(max(prints.n, 1), salt=salt)
    for row in range(prints.n):
        found.add_reading(str(row), prints.reading(row))
    return found


_PLAIN = ("texts", "coded", "clients", "weight")


def packed(reference: PromptReference) -> tuple[dict[str, Any], Arrays]:
    """Return the reference as JSON and arrays."""
    meta = {
        "names": list(reference.names),
        "salt": f"{reference.salt:016x}",
        **{name: getattr(reference, name) for name in _PLAIN},
    }
    arrays = {
        f"prompts.{part}.{item.name}": getattr(getattr(reference, part), item.name)
        for part in ("usual", "sample")
        for item in fields(Prints)
        if item.name not in _WHOSE
    }
    return meta, arrays


def unpacked(meta: dict[str, Any], arrays: Arrays) -> PromptReference:
    """Return the reference that `packed` gave."""
    parts = {}
    for part in ("usual", "sample"):
        own = {item.name: arrays[f"prompts.{part}.{item.name}"] for item in fields(Prints) if item.name not in _WHOSE}
        n = len(own["digest"])
        none = {name: np.zeros(n, dtype=kind) for name, kind in _WHOSE.items()}
        parts[part] = print_rows.of_columns({**none, **own})
    return PromptReference(
        names=tuple(meta["names"]),
        salt=int(meta["salt"], 16),
        texts=meta["texts"],
        coded=meta["coded"],
        clients=meta["clients"],
        weight=meta["weight"],
        usual=parts["usual"],
        sample=parts["sample"],
    )


_WHOSE: dict[str, type[np.generic]] = {"event_id": np.uint64, "time_us": np.int64, "client": np.uint64}
