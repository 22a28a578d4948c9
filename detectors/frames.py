"""Frames: what one step of one observe shard sends to one decide shard, as one record.

Fragments, join rows and the watermark travel together because their order matters: a watermark must
never overtake the fragments that it speaks of, and only one record is in order by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from regate.config.errors import PoisonError
from regate.detectors.arrays import Arrays, pack, unpack
from regate.detectors.attack.evidence import OWN_LANES
from regate.detectors.attack.queries import PARTS, WIDTH, Queries, of_columns
from regate.detectors.cells import Fragments
from regate.detectors.columns import ModelKey
from regate.detectors.notices import Notice
from regate.detectors.observe import Observed
from regate.detectors.outcomes import LabelRows, Predictions
from regate.detectors.prompts.rows import Prints
from regate.detectors.prompts.rows import of_columns as prints_of

# A record's default limit is 1 MB; the envelope and the header take the rest.
FRAME_BYTES = 800_000


@dataclass(frozen=True, slots=True)
class Frame:
    """One record. A frame without parts tells a watermark only."""

    source: str  # observe shard: telemetry-3, labels-0
    watermark_us: int
    idle: bool = False  # proven empty for 30 s: left out of the minimum
    tick_ms: int = 0  # 0: not made at a tick
    sources: tuple[str, ...] = ()  # all input partitions known: cells wait for each of them
    parts: tuple[Observed, ...] = ()
    notices: tuple[Notice, ...] = ()


def encode_frames(frame: Frame) -> list[bytes]:
    """Return the frame as records. Parts too large for one record are cut by rows; the last carries the watermark."""
    records: list[bytes] = []
    waiting: list[Observed] = []
    size = 0
    for part in frame.parts:
        for piece in _pieces(part):
            more = _bytes(piece)
            if waiting and size + more > FRAME_BYTES:
                records.append(_encode(frame, waiting, whole=False))
                waiting, size = [], 0
            waiting.append(piece)
            size += more
    records.append(_encode(frame, waiting, whole=True))
    return records


def _bytes(part: Observed) -> int:
    fields = (part.fragments, part.predictions, part.labels, part.queries, part.prompts)
    total = 500
    for one in fields:
        for name in getattr(one, "__slots__", ()):
            total += getattr(getattr(one, name), "nbytes", 0)
    return total


def _pieces(part: Observed) -> list[Observed]:
    size = _bytes(part)
    if size <= FRAME_BYTES:
        return [part]
    rows = [0]
    if part.fragments is not None:
        rows.append(len(part.fragments.cell))
    for one in (part.predictions, part.labels):
        rows.append(0 if one is None else len(one.cell))
    for table in (part.queries, part.prompts):
        rows.append(0 if table is None else table.n)
    count = -(-size // (FRAME_BYTES // 2))
    # Each piece takes the same share of rows of every table; one row alone may be larger, and goes alone.
    count = min(max(count, 1), max(rows))
    return [_piece(part, number, count) for number in range(count)]


def _piece(part: Observed, number: int, count: int) -> Observed:
    def cut(length: int) -> slice:
        return slice(length * number // count, length * (number + 1) // count)

    fragments, predictions, labels = part.fragments, part.predictions, part.labels
    if fragments is not None:
        rows = cut(len(fragments.cell))
        fragments = Fragments(
            fragments.key,
            fragments.layout,
            fragments.cell[rows],
            fragments.stratum[rows],
            fragments.stats[rows],
            fragments.historical[rows],
            fragments.last_arrival_us,
            fragments.counters if number == 0 else {},
        )
    if predictions is not None:
        rows = cut(len(predictions.cell))
        predictions = Predictions(*(getattr(predictions, name)[rows] for name in Predictions.__slots__))
    if labels is not None:
        rows = cut(len(labels.cell))
        labels = LabelRows(*(getattr(labels, name)[rows] for name in LabelRows.__slots__))
    queries = None if part.queries is None else part.queries.some(cut(part.queries.n))
    prompts = None if part.prompts is None else part.prompts.some(cut(part.prompts.n))
    return Observed(part.key, fragments, predictions, labels, queries, part.queries_of, prompts, part.prompts_of)


# Columns that frames of before had not, with what stands for them.
_LATER: dict[str, dict[str, np.generic]] = {
    "p": {"mark": np.uint64(0)},
    "l": {"mark": np.uint64(0), "source": np.uint64(0)},
    "q": {"latency_us": np.int64(-1)},
}

_TABLES: dict[str, tuple[str, ...]] = {
    "f": ("cell", "stratum", "stats", "historical"),
    "p": ("event_id", "cell", "value", "mark"),
    "l": LabelRows.__slots__,
    "q": Queries.__slots__,
    "t": Prints.__slots__,
}


def _encode(frame: Frame, parts: Sequence[Observed], *, whole: bool) -> bytes:
    arrays: Arrays = {}
    listed: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        entry: dict[str, Any] = {"key": asdict(part.key)}
        tables = (part.fragments, part.predictions, part.labels, part.queries, part.prompts)
        for letter, one in zip(_TABLES, tables, strict=True):
            if one is None:
                continue
            for name in _TABLES[letter]:
                arrays[f"{number}{letter}.{name}"] = getattr(one, name)
            entry[letter] = True
        if part.queries is not None:
            entry["reference"] = part.queries_of
        if part.prompts is not None:
            entry["prompts"] = part.prompts_of
        if part.fragments is not None:
            entry["layout"] = part.fragments.layout
            entry["arrival"] = part.fragments.last_arrival_us
            entry["counters"] = part.fragments.counters
        listed.append(entry)
    meta = {
        "source": frame.source,
        "watermark": frame.watermark_us if whole else None,
        "idle": frame.idle,
        "tick": frame.tick_ms,
        "sources": frame.sources,
        "notices": [asdict(notice) for notice in frame.notices] if whole else [],
        "parts": listed,
    }
    return pack(meta, arrays)


def decode_frame(data: bytes, before_us: int) -> Frame:
    """Return the frame of a record; ``before_us`` is the watermark that stands where the record carries none.

    :raises PoisonError: when the record is damaged, malformed or of a newer schema.
    """
    meta, arrays = unpack(data)
    try:
        parts = tuple(_part(number, entry, arrays) for number, entry in enumerate(meta["parts"]))
        watermark = meta["watermark"]
        return Frame(
            source=str(meta["source"]),
            watermark_us=before_us if watermark is None else int(watermark),
            idle=bool(meta["idle"]),
            tick_ms=int(meta["tick"]),
            sources=tuple(str(name) for name in meta["sources"]),
            parts=parts,
            notices=tuple(_notice(said) for said in meta.get("notices", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise PoisonError(f"a frame is malformed: {error}", reason="corrupt") from error


def _notice(said: dict[str, Any]) -> Notice:
    return Notice(**{**said, "models": tuple(str(name) for name in said["models"])})


def _part(number: int, entry: dict[str, Any], arrays: Arrays) -> Observed:
    key = ModelKey(**entry["key"])
    tables = {
        letter: {name: arrays[f"{number}{letter}.{name}"] for name in names if name not in _LATER.get(letter, ())}
        for letter, names in _TABLES.items()
        if entry.get(letter)
    }
    for letter in tables.keys() & _LATER.keys():
        rows = len(tables[letter]["event_id"])
        for name, value in _LATER[letter].items():
            tables[letter][name] = arrays.get(f"{number}{letter}.{name}", np.full(rows, value))
    for columns in tables.values():
        if len({len(column) for column in columns.values()}) != 1:
            raise ValueError("columns of one table differ in length")
    fragments = None
    if "f" in tables:
        if tables["f"]["stats"].ndim != 2:
            raise ValueError("stats is not a table")
        fragments = Fragments(
            key,
            str(entry["layout"]),
            last_arrival_us=int(entry["arrival"]),
            counters={str(name): int(number) for name, number in entry["counters"].items()},
            **tables["f"],
        )
    predictions = Predictions(**tables["p"]) if "p" in tables else None
    labels = LabelRows(**tables["l"]) if "l" in tables else None
    queries = _queries(tables["q"]) if "q" in tables else None
    prompts = prints_of(tables["t"]) if "t" in tables else None
    queries_of, prompts_of = str(entry.get("reference", "")), str(entry.get("prompts", ""))
    return Observed(key, fragments, predictions, labels, queries, queries_of, prompts, prompts_of)


def _queries(columns: Arrays) -> Queries:
    found = of_columns(columns)
    for column in (found.sketch, found.blocks, found.off):
        if column.ndim != 2 or column.shape[1] != WIDTH:
            raise ValueError("a query has the wrong width")
    if found.parts.ndim != 2 or found.parts.shape[1] != PARTS:
        raise ValueError("a query has the wrong parts")
    if found.lanes.ndim != 2 or found.lanes.shape[1] != len(OWN_LANES):
        raise ValueError("a query has the wrong lanes")
    return found
