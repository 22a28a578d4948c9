"""State of watched prompts as chunks, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from regate.config.errors import PoisonError
from regate.detectors.arrays import Arrays
from regate.detectors.prompts.library import Library
from regate.detectors.prompts.rows import Prints, joined, of_columns
from regate.detectors.prompts.watch import PromptWatch

PREFIX = "prompts/"
# Known texts are 210 bytes each and an id of up to 200 characters, those sent lately 400 bytes.
TEXTS_A_CHUNK = 1_000
WAITING_A_CHUNK = 1_500  # 400 bytes each

Chunk = tuple[str, dict[str, Any], Arrays]


def chunks(watch: PromptWatch) -> Iterator[Chunk]:
    """Return the chunks of one model's prompts."""
    counts = {"texts": watch.texts, "coded": watch.coded, "number": watch.recent.number, "dropped": watch.bets.dropped}
    libraries = _libraries(watch)
    meta = {
        **counts,
        "salt": f"{watch.reference.salt:016x}",
        "reference": watch.reference.digest,
        "known": len(watch.library),
        "plain": sorted(watch.plain),
        "evicted": {name: library.evicted for name, library in libraries.items()},
    }
    yield f"{PREFIX}watch", meta, {}
    yield from watch.signs.chunks(f"{PREFIX}signs")
    yield f"{PREFIX}bets", {}, watch.bets.state()
    for name, library in libraries.items():
        for number, start in enumerate(range(0, len(library), TEXTS_A_CHUNK)):
            stop = start + TEXTS_A_CHUNK
            both = watch.recent.state(start, stop) if name == "recent" else library.entries(start, stop)
            yield f"{PREFIX}{name}/{number:06}", *both
    if watch.waiting:
        waiting = joined(watch.waiting)
        for number, start in enumerate(range(0, waiting.n, WAITING_A_CHUNK)):
            part = waiting.some(slice(start, start + WAITING_A_CHUNK))
            yield f"{PREFIX}waiting/{number:06}", {}, {item.name: getattr(part, item.name) for item in fields(Prints)}


def restore(watch: PromptWatch, own: Mapping[str, tuple[dict[str, Any], Arrays]]) -> None:
    """Take back what `chunks` gave, when it was made under the same salt; bets only with the same reference."""
    meta = own.get(f"{PREFIX}watch", ({}, {}))[0]
    watch.lost = True
    if meta.get("salt") != f"{watch.reference.salt:016x}":
        return
    watch.texts, watch.coded, watch.recent.number = meta["texts"], meta["coded"], meta["number"]
    watch.plain = set(meta["plain"])
    watch.signs.restore(f"{PREFIX}signs", own)
    if f"{PREFIX}bets" in own and meta["reference"] == watch.reference.digest:
        watch.bets.restore(own[f"{PREFIX}bets"][1])
        watch.bets.dropped = meta["dropped"]
    for name, library in _libraries(watch).items():
        library.evicted = meta["evicted"].get(name, 0)
        for piece, both in sorted(own.items()):
            if piece.startswith(f"{PREFIX}{name}/"):
                _add(watch, name, library, *both)
    watch.lost = len(watch.library) < meta["known"]
    waiting = [arrays for name, (_, arrays) in sorted(own.items()) if name.startswith(f"{PREFIX}waiting/")]
    watch.waiting = [of_columns(arrays) for arrays in waiting]


def _add(watch: PromptWatch, name: str, library: Library, meta: dict[str, Any], arrays: Arrays) -> None:
    try:
        if name == "recent":
            watch.recent.restore(meta, arrays)
        else:
            library.restore(meta, arrays)
    except PoisonError:  # of another build: what it held starts anew
        return


def _libraries(watch: PromptWatch) -> dict[str, Library]:
    return {"library": watch.library, "recent": watch.recent.library, "kept": watch.kept}
