"""Budgets of volume and coverage: who asks very many different things, be each of them as ordinary as it likes.

Who copies a model with rows as the reference has them steps, flips and leaves nothing: only how much he asks is left to
see. Coverage counts the different *fresh* queries of a client, so that a sweep of one value, a sensor that is read
again and what-if edits cover hardly anything, against what clients of the reference cover. Volume counts different
queries of any kind against a number that the operator sets. Windows begin at fixed times (days are those of UTC).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regate.detectors.arrays import Arrays
from regate.detectors.attack.clients import FRESH, Steps
from regate.detectors.attack.inputs import scrambled
from regate.detectors.attack.queries import Queries
from regate.detectors.attack.sign import Sign
from regate.detectors.attack.tally import SLOTS, Asked, Beyond, Tally
from regate.detectors.columns import BoolArray, HashArray, IntArray

# A reference shows only some clients and days: what four times its largest is allowed leaves room for.
TIMES_USUAL = 4
LEAST = 200
DAY_US = 86_400_000_000
# A window is the longest of these that the reference spans: what is usual within a day is not known from an hour.
SPANS = {"a day": DAY_US, "six hours": DAY_US // 4, "an hour": DAY_US // 24, "ten minutes": DAY_US // 144}
# With fewer the next client exceeds their largest too often.
LEAST_CLIENTS = 10
SLOTS_A_CHUNK = 8_192
MEMBERS_A_CHUNK = 512  # half a megabyte

Chunk = tuple[str, dict[str, Any], Arrays]


@dataclass(frozen=True, slots=True)
class VolumeReference:
    """What clients of the reference cover; a reason: that budget is off. The other one is a setting."""

    reason: str = "not fitted"
    span: str = "a day"
    most: int = 0  # different fresh queries of one client within the span
    clients: int = 0
    asked: int = 0  # different queries of any kind that a client may ask a day, 0: any number

    @property
    def coverage(self) -> int:
        """Return how many different fresh queries a client may ask within the span."""
        return max(TIMES_USUAL * self.most, LEAST)


@dataclass(slots=True)
class Volume:
    """Both budgets at work, each with a tally where it is on."""

    reference: VolumeReference
    tallies: dict[str, Tally] = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing counted."""
        known, self.tallies = self.reference, {}
        if not known.reason:
            self.tallies["coverage"] = Tally(known.coverage, SPANS[known.span])
        if known.asked:
            self.tallies["asked"] = Tally(known.asked, DAY_US)

    def take(self, steps: Steps, queries: Queries, slots: int) -> list[Sign]:
        """Take the entries of a slice; return who is beyond a budget.

        :param slots: of client memory.
        """
        if not self.tallies:
            return []
        order = np.argsort(steps.row)
        signs: list[Sign] = []
        for name, tally in self.tallies.items():
            at = order[steps.kind[order] == FRESH] if name == "coverage" else order
            row = steps.row[at]
            asked = Asked(queries.client[row], steps.slot[at], _word(queries, row), queries.time_us[row])
            signs += [self._sign(name, tally.allowed, one) for one in tally.take(asked, slots)]
        return signs

    def _sign(self, name: str, allowed: int, one: Beyond) -> Sign:
        known = self.reference
        if name == "coverage":
            said = (
                f"client {{subject}} asked {one.count} different things within {known.span}, "
                f"{one.count / max(known.most, 1):.2g} times what any of {known.clients} clients of the reference did: "
                "each may be ordinary, as from who copies a model, or from a new bulk user"
            )
        else:
            said = (
                f"client {{subject}} asked {one.count} different queries within a day: "
                f"detection.distinct_queries_per_day allows {allowed}"
            )
        level, bar = float(np.log(one.count)), float(np.log(allowed))
        return Sign("volume", "", one.time_us, one.since_us, one.count, "queries", level, bar, said, one.client)

    def chunks(self, prefix: str) -> Iterator[Chunk]:
        """Return the state as chunks."""
        for name, tally in self.tallies.items():
            members = tally.state()
            yield f"{prefix}{name}", {"window": tally.window, "members": len(members["owner"])}, {}
            for kind, arrays, size in (
                ("slots", {item: getattr(tally, item) for item in SLOTS}, SLOTS_A_CHUNK),
                ("table", members, MEMBERS_A_CHUNK),
            ):
                for number, start in enumerate(range(0, len(next(iter(arrays.values()))), size)):
                    own = slice(start, start + size)
                    part = {item: array[own] for item, array in arrays.items()}
                    yield f"{prefix}{name}/{kind}/{number:06}", {}, part

    def restore(self, prefix: str, own: Mapping[str, tuple[dict[str, Any], Arrays]]) -> None:
        """Take back what `chunks` gave; what is missing begins anew."""
        for name, tally in self.tallies.items():
            if (said := own.get(f"{prefix}{name}")) is None:
                continue
            slots, members = (_joined(own, f"{prefix}{name}/{kind}/") for kind in ("slots", "table"))
            if slots and len(members.get("owner", ())) == said[0]["members"]:
                tally.restore(said[0]["window"], slots, members)


def _joined(own: Mapping[str, tuple[dict[str, Any], Arrays]], start: str) -> Arrays:
    pieces = [arrays for name, (_, arrays) in sorted(own.items()) if name.startswith(start)]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]} if pieces else {}


def _word(queries: Queries, row: IntArray) -> HashArray:
    """Return a hash of each query.

    A block of features has one byte of hash: a sweep of one value has 256 at most. The sketch tells more of them apart.
    """
    word = np.zeros(len(row), dtype=np.uint64)
    for part in (queries.blocks, queries.sketch):
        halves = np.ascontiguousarray(part[row]).view(np.uint64)
        word = scrambled(scrambled(word ^ halves[:, 0]) ^ halves[:, 1])
    return word


def fitted(steps: Steps, queries: Queries, keep: BoolArray) -> VolumeReference:
    """Return what reference clients (all their entries at once) cover.

    :param keep: entries of clients that are not kept out for review.
    """
    at = steps.row[keep & (steps.kind == FRESH)]
    client, time_us = queries.client[at], queries.time_us[at]
    clients = len(np.unique(client))
    if clients < LEAST_CLIENTS:
        return VolumeReference(f"only {clients} clients of the reference are left; {LEAST_CLIENTS} are needed")
    start = int(time_us.min())
    lasts = int(time_us.max()) - start
    span = next((name for name, width in SPANS.items() if lasts >= width), None)
    if span is None:
        return VolumeReference(f"the reference is shorter than {list(SPANS)[-1]}")
    # From its own beginning, so that its first window is a whole one.
    most = _most(client, (time_us - start) // SPANS[span], _word(queries, at))
    return VolumeReference("", span, most, clients)


def _most(client: HashArray, window: IntArray, word: HashArray) -> int:
    """Return the most different words of one client in one window."""
    order = np.lexsort((word, window, client))
    client, window, word = client[order], window[order], word[order]
    other = np.r_[True, (client[1:] != client[:-1]) | (window[1:] != window[:-1])]
    new = other | np.r_[True, word[1:] != word[:-1]]
    return int(np.add.reduceat(new.astype(np.int64), np.flatnonzero(other)).max())
