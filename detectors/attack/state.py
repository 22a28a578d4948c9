"""Attack state as chunks: blocks of client slots, so that a snapshot writes those that changed; and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from regate.detectors.arrays import Arrays
from regate.detectors.attack.beside import SIGNS
from regate.detectors.attack.memory import Seen
from regate.detectors.attack.pattern import packed, unpacked
from regate.detectors.attack.queries import ByteArray, Queries, joined, of_columns
from regate.detectors.attack.recurrence import Capture, Hits, Recent, Recurrence
from regate.detectors.attack.watch import AttackWatch
from regate.detectors.columns import IntArray

# 1,024 slots are half a megabyte.
SLOTS_A_CHUNK = 1_024
WAITING_A_CHUNK = 4_000
PREFIX = "attack/"
INCIDENTS = f"{PREFIX}incidents"


def chunks(watch: AttackWatch) -> Iterator[tuple[str, dict[str, Any], Arrays]]:
    """Return the chunks of one model's attack lanes."""
    yield (
        f"{PREFIX}watch",
        {
            "reference": watch.memory.reference.digest,
            "accused": list(watch.accused),
            "queries": watch.memory.queries,
            "nameless": watch.memory.nameless,
            "views": [[len(one.table.slots), one.table.evicted, one.tide.off] for one in watch.memory.views],
        },
        {},
    )
    yield from watch.incidents.chunks(INCIDENTS)
    for seen in watch.memory.views:
        name, table, used = seen.view.kind.name, seen.table, len(seen.table.slots)
        yield f"{PREFIX}{name}/tide", {}, {"owner": seen.tide.owner, "logs": seen.tide.logs}
        last_us: IntArray = np.fromiter(seen.last.values(), np.int64, len(seen.last))
        yield f"{PREFIX}{name}/above", {}, {"whom": np.fromiter(seen.last, np.uint64, len(seen.last)), "last": last_us}
        for number, start in enumerate(range(0, used, SLOTS_A_CHUNK)):
            own = slice(start, min(start + SLOTS_A_CHUNK, used))
            yield f"{PREFIX}{name}/slots/{number:06}", {}, {item: getattr(table, item)[own] for item in table.arrays}
    yield from watch.memory.beside.chunks()
    yield from _registry(watch.recurrence)
    if watch.waiting:
        waiting = joined(watch.waiting)
        for number, start in enumerate(range(0, waiting.n, WAITING_A_CHUNK)):
            part = waiting.some(slice(start, start + WAITING_A_CHUNK))
            yield f"{PREFIX}waiting/{number:06}", {}, {item.name: getattr(part, item.name) for item in fields(Queries)}


def restore(watch: AttackWatch, own: Mapping[str, tuple[dict[str, Any], Arrays]]) -> None:
    """Take back what `chunks` gave; all but open incidents only when it was made with the same reference."""
    watch.incidents.restore(INCIDENTS, own)
    watch.memory.beside.signs.restore(SIGNS, own)
    said = own.get(f"{PREFIX}watch")
    if said is None or said[0]["reference"] != watch.memory.reference.digest:
        return
    meta = said[0]
    watch.accused = dict.fromkeys(meta["accused"])
    watch.memory.queries, watch.memory.nameless = meta["queries"], meta["nameless"]
    for seen, (used, evicted, off) in zip(watch.memory.views, meta["views"], strict=True):
        _restore_view(seen, own, used, evicted, off)
    watch.memory.beside.restore(own)
    _restore_registry(watch.recurrence, own)
    watch.waiting = [
        of_columns(arrays) for name, (_, arrays) in sorted(own.items()) if name.startswith(f"{PREFIX}waiting/")
    ]


def _restore_view(
    seen: Seen, own: Mapping[str, tuple[dict[str, Any], Arrays]], used: int, evicted: int, off: int
) -> None:
    start, table = f"{PREFIX}{seen.view.kind.name}/", seen.table
    table.evicted, seen.tide.off = evicted, off
    if (tide := own.get(f"{start}tide")) is not None:
        seen.tide.owner, seen.tide.logs = tide[1]["owner"], tide[1]["logs"]
    if (above := own.get(f"{start}above")) is not None:
        seen.last = dict(zip(above[1]["whom"].tolist(), above[1]["last"].tolist(), strict=True))
    pieces = [arrays for name, (_, arrays) in sorted(own.items()) if name.startswith(f"{start}slots/")]
    if sum(len(piece["seen"]) for piece in pieces) == used and pieces:  # a lost chunk: memory starts anew
        for name in table.arrays:
            setattr(table, name, np.concatenate([piece[name] for piece in pieces]))
        table.slots = {int(client): at for at, client in enumerate(table.client)}


def _registry(recurrence: Recurrence) -> Iterator[tuple[str, dict[str, Any], Arrays]]:
    """Return the chunks of patterns, and of what is being kept of attacks that go on."""
    captures = [
        [client, one.pattern, one.count, one.manner.tolist()] for client, one in sorted(recurrence.captures.items())
    ]
    yield (
        f"{PREFIX}recurrence",
        {
            "entries": recurrence.entries,
            "evicted": recurrence.registry.evicted,
            "hits": [[client, *_hits(one)] for client, one in recurrence.hits.items()],
            "crowds": [_hits(one) for _, one in sorted(recurrence.crowds.items())],
            "captures": captures,
        },
        {},
    )
    recent = recurrence.recent
    yield f"{PREFIX}recent", {}, {"client": recent.client, "sketch": recent.sketch, "blocks": recent.blocks}
    for client, one in sorted(recurrence.captures.items()):
        if one.sketch:
            arrays = {"sketch": np.concatenate(one.sketch), "blocks": np.concatenate(one.blocks)}
            yield f"{PREFIX}capture/{client:016x}", {}, arrays
    for name, known in sorted(recurrence.registry.known.items()):
        data: ByteArray = np.frombuffer(packed(known.pattern), dtype=np.uint8)
        yield f"{PREFIX}pattern/{name}", {}, {"pattern": data}


def _restore_registry(recurrence: Recurrence, own: Mapping[str, tuple[dict[str, Any], Arrays]]) -> None:
    stored = [arrays["pattern"].tobytes() for name, (_, arrays) in own.items() if name.startswith(f"{PREFIX}pattern/")]
    recurrence.learn([unpacked(data) for data in stored])
    if (said := own.get(f"{PREFIX}recurrence")) is None:
        return
    meta = said[0]
    recurrence.entries, recurrence.registry.evicted = meta["entries"], meta["evicted"]
    recurrence.hits = {client: _of_hits(said) for client, *said in meta["hits"]}
    recurrence.crowds = {said[0]: _of_hits(said) for said in meta["crowds"]}
    if (recent := own.get(f"{PREFIX}recent")) is not None:
        recurrence.recent = Recent(**recent[1])
    for client, name, count, manner in meta["captures"]:
        capture = recurrence.captures[client] = Capture(name, count, np.array(manner, dtype=np.int64))
        if (kept := own.get(f"{PREFIX}capture/{client:016x}")) is not None:
            capture.sketch, capture.blocks = [kept[1]["sketch"]], [kept[1]["blocks"]]


def _hits(one: Hits) -> list[Any]:
    return [one.pattern, one.level, one.number, list(one.prints), one.last_us]


def _of_hits(said: list[Any]) -> Hits:
    pattern, level, number, prints, last_us = said
    return Hits(pattern, level, number, tuple(prints), last_us)
