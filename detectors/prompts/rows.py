"""Print rows: what decide takes of texts, a row a reading and more where it has many anchors. Made by observe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from regate.detectors.columns import BoolArray, HashArray, IntArray, Slice
from regate.detectors.prompts.decoders import DECODERS
from regate.detectors.prompts.minhash import SLOTS, ByteArray
from regate.detectors.prompts.prints import (
    ANCHORS,
    DISGUISE,
    LEAST_SHINGLES,
    PLAIN,
    AnchorArray,
    Print,
    Reading,
    print_of,
)

CodeArray = npt.NDArray[np.uint16]

_NAMES = [decoder.name for decoder in DECODERS]
_SIDE = len(_NAMES) + 1
_DISGUISE_CODE = _SIDE * _SIDE
# Of a row that holds more anchors of the reading before it, and nothing else.
_MORE = 0xFFFF


def code_of(coat: str) -> int:
    """Return the number of a decoder, of two of them, of plain text (0) or of a disguise.

    >>> [name_of(code_of(name)) for name in ("plain", "hex", "base64, rot13", "disguise")]
    ['plain', 'hex', 'base64, rot13', 'disguise']
    """
    if coat in {"", PLAIN}:
        return 0
    if coat == DISGUISE:
        return _DISGUISE_CODE
    outer, _, inner = coat.partition(", ")
    return _NAMES.index(outer) + 1 + _SIDE * (_NAMES.index(inner) + 1 if inner else 0)


def name_of(code: int) -> str:
    """Return what `code_of` was given; a number of no meaning (of a newer bank) is told as one."""
    if code == 0:
        return PLAIN
    if code == _DISGUISE_CODE:
        return DISGUISE
    inner, outer = divmod(code, _SIDE)
    if not 0 < outer < _SIDE or inner >= _SIDE:
        return f"decoder {code}"
    return _NAMES[outer - 1] + (f", {_NAMES[inner - 1]}" if inner else "")


@dataclass(frozen=True, slots=True)
class Prints:
    """Readings of texts of one model, those of one event together. All arrays have ``n`` rows."""

    event_id: HashArray
    time_us: IntArray
    client: HashArray  # 0: without an id
    place: ByteArray  # which watched feature
    number: ByteArray  # of the row within its text; 0 is the text as it is
    decoder: CodeArray
    coat: CodeArray  # of the text, by the canary; 0: none
    length: IntArray  # characters
    digest: HashArray
    shingles: IntArray
    held: ByteArray  # anchors
    signature: ByteArray  # [n, 64]
    anchors: AnchorArray  # [n, 64]

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return len(self.time_us)

    def some(self, rows: IntArray | slice | BoolArray) -> Prints:
        """Return some of the rows."""
        return Prints(*(getattr(self, item.name)[rows] for item in fields(self)))

    def reading(self, row: int, stop: int = 0) -> Reading:
        """Return the reading of a row and of those behind it that hold more of its anchors, before ``stop``."""
        anchors = self.anchors[row, : self.held[row]]
        if stop > row + 1:
            anchors = np.concatenate([self.anchors[at, : self.held[at]] for at in range(row, stop)])
        name = name_of(int(self.decoder[row]))
        return Reading(name, int(self.digest[row]), int(self.shingles[row]), self.signature[row], anchors)

    def readings(self, first: int, stop: int) -> list[int]:
        """Return the rows at which the readings of a text begin."""
        begins = self.decoder[first:stop] != _MORE
        begins[0] = True
        return (first + np.flatnonzero(begins)).tolist()

    def text(self, first: int, stop: int) -> Print:
        """Return the print whose readings stand from a row to another."""
        coat, starts = int(self.coat[first]), self.readings(first, stop)
        readings = tuple(self.reading(row, end) for row, end in zip(starts, [*starts[1:], stop], strict=True))
        return Print(readings, name_of(coat) if coat else "", int(self.length[first]))


def of_columns(columns: Mapping[str, np.ndarray]) -> Prints:
    """Return the rows of stored columns.

    :raises ValueError: when they have not the shapes of prints.
    """
    found = Prints(**columns)
    n = found.n
    for item in fields(Prints):
        wide = {"signature": (n, SLOTS), "anchors": (n, ANCHORS)}.get(item.name, (n,))
        array = getattr(found, item.name)
        if array.shape != wide or array.dtype != _DTYPES[item.name]:
            raise ValueError(f"a print has the wrong {item.name}")
    if bool((found.held > ANCHORS).any()) or bool(((found.shingles >= LEAST_SHINGLES) & (found.held < 1)).any()):
        raise ValueError("a print has too many anchors, or none")
    return found


def ordered(prints: Prints) -> Prints:
    """Return prints by (event time, event id, feature, reading); what came twice for one place is there once."""
    order = np.lexsort((prints.number, prints.place, prints.event_id, prints.time_us))
    found = prints.some(order)
    places = (found.time_us, found.event_id, found.place, found.number)
    again = np.logical_and.reduce([column[1:] == column[:-1] for column in places])
    return found.some(np.r_[True, ~again]) if bool(again.any()) else found


def joined(parts: Sequence[Prints]) -> Prints:
    """Return all rows of some parts (at least one)."""
    return Prints(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Prints)))


def texts_of(prints: Prints) -> list[tuple[int, int]]:
    """Return the first row of each text and the one after its last."""
    if not prints.n:
        return []
    columns = (prints.time_us, prints.event_id, prints.place)
    new = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    starts = np.flatnonzero(np.r_[True, new | (prints.number[1:] == 0)]).tolist()
    return list(zip(starts, [*starts[1:], prints.n], strict=True))


def made(rows: Slice, names: Sequence[str], salt: int) -> Prints | None:
    """Return the prints of a slice's texts; each distinct text is read once. None where there is none.

    :param names: watched features of type text, in the order of the configuration.
    """
    found: list[tuple[int, int, Print]] = []
    for place, name in enumerate(names):
        column = rows.texts.get(name)
        if column is None:
            continue
        known: dict[int, Print] = {}
        for row, code in enumerate(column.codes.tolist()):
            if code >= 0:
                if code not in known:
                    known[code] = print_of(column.categories[code], salt)
                found.append((row, place, known[code]))
    return table(rows, found) if found else None


def table(rows: Slice, found: Iterable[tuple[int, int, Print]]) -> Prints:
    """Return prints as rows, each with the row of a slice and the place of the feature that it is of."""
    whose: list[tuple[int, int, int, Print, Reading, int]] = []
    for row, place, one in found:
        parts = [(own, start) for own in one.readings for start in range(0, max(len(own.anchors), 1), ANCHORS)]
        whose += [(row, place, number, one, own, start) for number, (own, start) in enumerate(parts)]
    n = len(whose)
    at = np.fromiter((row for row, *_ in whose), np.int64, n)
    anchors, held = np.zeros((n, ANCHORS), dtype=np.uint32), np.zeros(n, dtype=np.uint8)
    for line, (*_, own, start) in enumerate(whose):
        some = own.anchors[start : start + ANCHORS]
        anchors[line, : len(some)], held[line] = some, len(some)
    nobody = np.zeros(n, dtype=np.uint64)
    return Prints(
        event_id=rows.event_id[at],
        time_us=rows.event_time_us[at],
        client=nobody if rows.client is None else rows.client[at],
        place=np.fromiter((place for _, place, *_ in whose), np.uint8, n),
        number=np.fromiter((number for _, _, number, *_ in whose), np.uint8, n),
        decoder=np.fromiter((_MORE if start else code_of(own.decoder) for *_, own, start in whose), np.uint16, n),
        coat=np.fromiter((code_of(one.coat) for *_, one, _, _ in whose), np.uint16, n),
        length=np.fromiter((one.length for *_, one, _, _ in whose), np.int64, n),
        digest=np.fromiter((own.digest for *_, own, _ in whose), np.uint64, n),
        shingles=np.fromiter((own.shingles for *_, own, _ in whose), np.int64, n),
        held=held,
        signature=np.array([own.signature for *_, own, _ in whose], dtype=np.uint8).reshape(n, SLOTS),
        anchors=anchors,
    )


_DTYPES: dict[str, type[np.generic]] = {
    "event_id": np.uint64,
    "time_us": np.int64,
    "client": np.uint64,
    "place": np.uint8,
    "number": np.uint8,
    "decoder": np.uint16,
    "coat": np.uint16,
    "length": np.int64,
    "digest": np.uint64,
    "shingles": np.int64,
    "held": np.uint8,
    "signature": np.uint8,
    "anchors": np.uint32,
}
