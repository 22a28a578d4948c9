"""Attack state as chunks: blocks of client slots, so that a snapshot writes those that changed; and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from regate.detectors.arrays import Arrays
from regate.detectors.attack.clients import ARRAYS
from regate.detectors.attack.queries import Queries, joined, of_columns
from regate.detectors.attack.watch import AttackWatch
from regate.detectors.finding import Finding

# 1,024 slots are half a megabyte.
SLOTS_A_CHUNK = 1_024
WAITING_A_CHUNK = 4_000
PREFIX = "attack/"


def chunks(watch: AttackWatch) -> Iterator[tuple[str, dict[str, Any], Arrays]]:
    """Return the chunks of one model's attack lanes."""
    table = watch.memory.table
    used = len(table.slots)
    yield (
        f"{PREFIX}watch",
        {
            "reference": watch.memory.reference.digest,
            "opened": watch.opened,
            "untold": watch.untold,
            "queries": watch.memory.queries,
            "nameless": watch.memory.nameless,
            "evicted": table.evicted,
            "used": used,
            "open": [[client, finding.model_dump(mode="json")] for client, finding in sorted(watch.open.items())],
        },
        {},
    )
    for number, start in enumerate(range(0, used, SLOTS_A_CHUNK)):
        own = slice(start, min(start + SLOTS_A_CHUNK, used))
        yield f"{PREFIX}slots/{number:06}", {}, {name: getattr(table, name)[own] for name in ARRAYS}
    yield from watch.memory.patterns.chunks()
    if watch.waiting:
        waiting = joined(watch.waiting)
        for number, start in enumerate(range(0, waiting.n, WAITING_A_CHUNK)):
            part = waiting.some(slice(start, start + WAITING_A_CHUNK))
            yield f"{PREFIX}waiting/{number:06}", {}, {item.name: getattr(part, item.name) for item in fields(Queries)}


def restore(watch: AttackWatch, own: Mapping[str, tuple[dict[str, Any], Arrays]]) -> None:
    """Take back what `chunks` gave, when it was made with the same reference."""
    said = own.get(f"{PREFIX}watch")
    if said is None or said[0]["reference"] != watch.memory.reference.digest:
        return
    meta, table = said[0], watch.memory.table
    watch.opened, watch.untold = meta["opened"], meta["untold"]
    watch.memory.queries, watch.memory.nameless, table.evicted = meta["queries"], meta["nameless"], meta["evicted"]
    watch.open = {int(client): Finding.model_validate(finding) for client, finding in meta["open"]}
    watch.memory.patterns.restore(own)
    pieces = [arrays for name, (_, arrays) in sorted(own.items()) if name.startswith(f"{PREFIX}slots/")]
    if sum(len(piece["seen"]) for piece in pieces) == meta["used"] and pieces:  # a lost chunk: memory starts anew
        for name in ARRAYS:
            setattr(table, name, np.concatenate([piece[name] for piece in pieces]))
        table.slots = {int(client): at for at, client in enumerate(table.client)}
    watch.waiting = [
        of_columns(arrays) for name, (_, arrays) in sorted(own.items()) if name.startswith(f"{PREFIX}waiting/")
    ]
