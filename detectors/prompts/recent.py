"""Texts in code that came lately, known or not: the same one under many clients is nobody's habit."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regate.detectors.arrays import Arrays
from regate.detectors.prompts.library import CAPACITY, Library
from regate.detectors.prompts.prints import Reading

# What nobody sent for a day begins anew.
QUIET_US = 86_400_000_000
# Clients of one text that are kept: enough to tell some from many.
MOST_SENDERS = 16
MOST_COATS = 8
FIRST, LAST, COUNT = range(3)


@dataclass(slots=True)
class Sent:
    """Who sent one text in code, and in which coats."""

    digest: int
    clients: list[int] = field(default_factory=list)
    coats: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=lambda: [0, 0, 0])  # first and last, and how often


@dataclass(slots=True)
class Recent:
    """Bounded memory of texts in code; the longest unseen gives way, as in its library."""

    library: Library
    sent: OrderedDict[str, Sent] = field(default_factory=OrderedDict)
    number: int = 0

    def take(self, readings: tuple[Reading, ...], coat: int, client: int, time_us: int) -> Sent:
        """Take what was behind a coat, and the other readings of that text; return who sent it lately."""
        reading, match = readings[0], self.library.match_readings(readings)
        if match is None:
            self.number += 1
            name = f"{self.number}"
            self.library.add_reading(name, reading)
            own = self.sent[name] = Sent(reading.digest)
            while len(self.sent) > len(self.library):
                self.sent.popitem(last=False)
        else:
            own = self.sent[match.id]
            self.sent.move_to_end(match.id)
        if not own.times[COUNT] or time_us - own.times[LAST] > QUIET_US:
            own.clients, own.coats, own.times = [], [], [time_us, time_us, 0]
        own.times[LAST] = time_us
        own.times[COUNT] += 1
        if client and client not in own.clients and len(own.clients) < MOST_SENDERS:
            own.clients.append(client)
        if coat not in own.coats and len(own.coats) < MOST_COATS:
            own.coats.append(coat)
        return own

    def state(self, start: int, stop: int) -> tuple[dict[str, Any], Arrays]:
        """Return some texts, the longest unseen first, as JSON and arrays."""
        meta, arrays = self.library.entries(start, stop)
        some = [self.sent[name] for name in meta["ids"]]
        clients = np.zeros((len(some), MOST_SENDERS), dtype=np.uint64)
        coats = np.zeros((len(some), MOST_COATS), dtype=np.uint16)
        for row, own in enumerate(some):
            clients[row, : len(own.clients)] = own.clients
            coats[row, : len(own.coats)] = own.coats
        whose: Arrays = {
            "sent.digest": np.array([own.digest for own in some], dtype=np.uint64),
            "sent.clients": clients,
            "sent.coats": coats,
            "sent.sizes": np.array([[len(own.clients), len(own.coats)] for own in some], dtype=np.int64).reshape(-1, 2),
            "sent.times": np.array([own.times for own in some], dtype=np.int64).reshape(-1, 3),
        }
        return meta, arrays | whose

    def restore(self, meta: dict[str, Any], arrays: Arrays) -> None:
        """Add what `state` gave, in its order."""
        self.library.restore(meta, {name: array for name, array in arrays.items() if not name.startswith("sent.")})
        for row, name in enumerate(meta["ids"]):
            clients, coats = arrays["sent.sizes"][row].tolist()
            self.sent[name] = Sent(
                int(arrays["sent.digest"][row]),
                arrays["sent.clients"][row, :clients].tolist(),
                arrays["sent.coats"][row, :coats].tolist(),
                arrays["sent.times"][row].tolist(),
            )


def empty(salt: int) -> Recent:
    """Return a memory in which nothing was seen."""
    return Recent(Library(CAPACITY, salt=salt))
