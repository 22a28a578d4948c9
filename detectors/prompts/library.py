"""Known texts in bounded memory: which of them a text is, nearly is, or holds, in whatever code."""

# ruff: noqa: A001, A002 - texts have an id

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from regate.config.errors import PoisonError
from regate.detectors.arrays import Arrays
from regate.detectors.prompts.decoders import readings
from regate.detectors.prompts.minhash import SLOTS, ByteArray, bands, similarity
from regate.detectors.prompts.normal import LONGEST, normalised, skeleton
from regate.detectors.prompts.prints import LEAST_SHINGLES, PLAIN, Print, Reading, reading

CAPACITY = 4_096
# A share of shingles in common that unrelated texts do not reach: long English texts share .1 to .2.
NEAR = 0.5
# Whoever holds a text holds its anchors. Of a known text the first of them are kept.
ANCHORS = 32
CONTAINED = 0.25
# So many characters in common at least, whatever the share: a phrase is not a prompt.
_LEAST_COMMON = 30
_CERTAIN = 0.9
_MOST_CANDIDATES = 16
_MOST_OTHERS = 4
# Prompts from one template share keys; the newest of them are enough to be found by one.
_MOST_A_KEY = 64
FORMAT = 1
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Match:
    """A known text in another."""

    id: str
    similarity: float  # share of shingles in common, or the share of the known text that was found
    decoder: str  # "plain", or the decoders that opened it
    contained: bool  # whether it was found as a part
    also: tuple[str, ...] = ()  # other known texts that are alike or held, the best first


@dataclass(frozen=True, slots=True)
class _Entry:
    digest: int
    shingles: int
    signature: ByteArray | None
    anchors: tuple[int, ...]
    bands: tuple[int, ...]


@dataclass(slots=True)
class Library:
    """Known texts by id, at most ``capacity``: whoever was added or matched longest ago gives way.

    :param salt: of all hashes; a print made under another is never known here.
    """

    capacity: int = CAPACITY
    evicted: int = 0
    salt: int = 0
    _entries: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)
    _exact: dict[int, list[str]] = field(default_factory=dict)
    _by_band: dict[int, list[str]] = field(default_factory=dict)
    _by_anchor: dict[int, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, id: str) -> bool:
        return id in self._entries

    def ids(self) -> tuple[str, ...]:
        """Return all ids, the longest unused first."""
        return tuple(self._entries)

    def add(self, id: str, text: str) -> bool:
        """Take a text, in the place of one with the same id; return False for a text without letters or digits."""
        form = skeleton(normalised(text))
        self.remove(id)
        if not form:
            return False
        self.add_reading(id, reading(form, self.salt))
        return True

    def add_reading(self, id: str, known: Reading) -> None:
        """Take a text of which only hashes are known."""
        whole = known.shingles >= LEAST_SHINGLES
        self._put(
            id,
            known.digest,
            known.shingles,
            known.signature if whole else None,
            tuple(known.anchors[:ANCHORS].tolist()) if whole else (),
        )

    def _put(self, id: str, digest: int, shingles: int, own: ByteArray | None, anchors: tuple[int, ...]) -> None:
        self.remove(id)
        entry = _Entry(digest, shingles, own, anchors, () if own is None else tuple(bands(own)))
        while len(self._entries) >= self.capacity:
            self.remove(next(iter(self._entries)))
            self.evicted += 1
        self._entries[id] = entry
        self._exact.setdefault(entry.digest, []).append(id)
        for index, own_keys in ((self._by_band, entry.bands), (self._by_anchor, anchors)):
            for key in own_keys:
                known = index.setdefault(key, [])
                known.append(id)
                del known[:-_MOST_A_KEY]

    def remove(self, id: str) -> None:
        """Forget a text, if it is known."""
        entry = self._entries.pop(id, None)
        if entry is None:
            return
        _dropped(self._exact, entry.digest, id)
        for band in entry.bands:
            _dropped(self._by_band, band, id)
        for anchor in entry.anchors:
            _dropped(self._by_anchor, anchor, id)

    def match(self, text: str) -> Match | None:
        """Return the known text of which most is found in a text, as it is or in code: all readings, all anchors."""
        text = text[:LONGEST]
        best = self._known(self._read(text))
        if best is None or best[1].similarity < _CERTAIN:
            for decoder, found in readings(text):
                best = _better(best, self._known(self._read(found.text, decoder)))
                if best is not None and best[1].similarity >= _CERTAIN:
                    break
        return self._found(best)

    def match_print(self, made: Print) -> Match | None:
        """Return the same of a text's print. Of many readings and of a much longer text it holds a part."""
        return self.match_readings(made.readings)

    def match_readings(self, made: tuple[Reading, ...], *, used: bool = True) -> Match | None:
        """Return the known text of which most is found in readings of one text, the plain one first.

        :param used: whether what is found counts as used now.
        """
        best: tuple[float, Match] | None = None
        for one in made if self._entries else ():
            best = _better(best, self._known(one))
            if best is not None and best[1].similarity >= _CERTAIN:
                break
        return self._found(best, used=used)

    def _read(self, text: str, decoder: str = PLAIN) -> Reading:
        return reading(skeleton(normalised(text)), self.salt, decoder, most=None)

    def _found(self, best: tuple[float, Match] | None, *, used: bool = True) -> Match | None:
        if best is None:
            return None
        if used:
            self._entries.move_to_end(best[1].id)
        return best[1]

    def _known(self, made: Reading) -> tuple[float, Match] | None:
        """Return how well the best known text agrees, and the match."""
        exact = self._exact.get(made.digest)
        if exact is not None:
            others = tuple(exact[1 : 1 + _MOST_OTHERS])
            return float("inf"), Match(exact[0], 1.0, made.decoder, contained=False, also=others)
        if made.shingles < LEAST_SHINGLES:
            return None
        own = made.signature
        votes = Counter(known for key in bands(own) for known in self._by_band.get(key, ()))
        anchors = Counter(
            id for key in self._by_anchor.keys() & set(made.anchors.tolist()) for id in self._by_anchor[key]
        )
        both = votes + anchors
        # Of equal votes the lesser id: the same after a restart.
        ranked = sorted(both, key=lambda known: (-both[known], known))[:_MOST_CANDIDATES]
        compared = (self._compared(known, own, anchors[known], made.decoder) for known in ranked)
        found = sorted((one for one in compared if one is not None), key=lambda one: (-one[0], one[1].id))
        if not found:
            return None
        agreement, best = found[0]
        return agreement, replace(best, also=tuple(other.id for _, other in found[1 : 1 + _MOST_OTHERS]))

    def _compared(self, id: str, own: ByteArray, anchors: int, decoder: str) -> tuple[float, Match] | None:
        entry = self._entries[id]
        assert entry.signature is not None
        alike = similarity(own, entry.signature)
        share = anchors / len(entry.anchors)
        # Of prompts from one template the one that agrees by both measures is meant.
        agreement = alike + share
        if alike >= NEAR:
            return agreement, Match(id, alike, decoder, contained=False)
        if share >= CONTAINED and share * entry.shingles >= _LEAST_COMMON:
            return agreement, Match(id, max(alike, share), decoder, contained=True)
        return None

    def entries(self, start: int = 0, stop: int | None = None) -> tuple[dict[str, Any], Arrays]:
        """Return known texts, the longest unused first, as JSON and arrays; `restore` takes them back."""
        ids = list(self._entries)[start:stop]
        some = [self._entries[id] for id in ids]
        none = np.zeros(SLOTS, dtype=np.uint8)
        anchors = np.zeros((len(ids), ANCHORS), dtype=np.uint32)
        for row, entry in enumerate(some):
            anchors[row, : len(entry.anchors)] = entry.anchors
        own = [none if entry.signature is None else entry.signature for entry in some]
        return {"format": FORMAT, "salt": f"{self.salt:016x}", "ids": ids}, {
            "digest": np.array([entry.digest for entry in some], dtype=np.uint64),
            "shingles": np.array([entry.shingles for entry in some], dtype=np.int64),
            "signature": np.array(own, dtype=np.uint8).reshape(len(ids), SLOTS),
            "anchors": anchors,
            "held": np.array([len(entry.anchors) for entry in some], dtype=np.uint8),
        }

    def restore(self, said: dict[str, Any], arrays: Arrays) -> None:
        """Add what `entries` gave, in its order; a text of the same id gives way.

        :raises PoisonError: when it is of another format or salt, or damaged. Then nothing is added.
        """
        ids = said.get("ids")
        if said.get("format") != FORMAT or not isinstance(ids, list):
            raise PoisonError(f"no known texts of format {FORMAT}", reason="unknown_schema")
        if said.get("salt") != f"{self.salt:016x}":
            raise PoisonError("known texts of another model: their hashes have another salt", reason="invalid")
        shapes = {"digest": (), "shingles": (), "held": (), "signature": (SLOTS,), "anchors": (ANCHORS,)}
        for name, rest in shapes.items():
            array = arrays.get(name)
            if array is None or array.shape != (len(ids), *rest) or array.dtype.kind not in "ui":
                raise PoisonError(f"known texts: {name} has not one row a text", reason="invalid")
        held, many = arrays["held"], arrays["shingles"] >= LEAST_SHINGLES
        if (
            not all(isinstance(id, str) for id in ids)
            or bool((held > ANCHORS).any())
            or bool((many & (held < 1)).any())
        ):
            raise PoisonError("known texts: anchors or ids are damaged", reason="invalid")
        for row, id in enumerate(ids):
            own = arrays["signature"][row].astype(np.uint8) if many[row] else None
            anchors = tuple(arrays["anchors"][row, : held[row]].tolist()) if many[row] else ()
            self._put(id, int(arrays["digest"][row]), int(arrays["shingles"][row]), own, anchors)


def _better(best: tuple[float, Match] | None, other: tuple[float, Match] | None) -> tuple[float, Match] | None:
    return other if other is not None and (best is None or other[0] > best[0]) else best


def _dropped(index: dict[_Key, list[str]], key: _Key, id: str) -> None:
    known = index.get(key, [])
    if id in known:
        known.remove(id)
    if not known:
        index.pop(key, None)
