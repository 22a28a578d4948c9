"""Known texts in bounded memory: which of them a text is, nearly is, or holds, in whatever code."""

# ruff: noqa: A001, A002 - texts have an id

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace
from typing import TypeVar

from regate.detectors.prompts.decoders import readings
from regate.detectors.prompts.minhash import ByteArray, bands, shingles, signature, similarity
from regate.detectors.prompts.normal import LONGEST, normalised, skeleton

CAPACITY = 4_096
# With fewer distinct shingles two texts are alike by chance: such a text is known by its exact form only.
LEAST_SHINGLES = 40
# A share of shingles in common that unrelated texts do not reach: long English texts share .1 to .2.
NEAR = 0.5
# Anchors: the runs of ten characters with the least hashes. Whoever holds a text holds its anchors.
ANCHORS = 32
ANCHOR = 10
_CONTAINED = 0.25
# So many characters in common at least, whatever the share: a phrase is not a prompt.
_LEAST_COMMON = 30
_CERTAIN = 0.9
_MOST_CANDIDATES = 16
_MOST_OTHERS = 4
# Prompts from one template share keys; the newest of them are enough to be found by one.
_MOST_A_KEY = 64
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
    digest: bytes
    shingles: int
    signature: ByteArray | None
    anchors: tuple[int, ...]
    bands: tuple[int, ...]


@dataclass(slots=True)
class Library:
    """Known texts by id, at most ``capacity``: whoever was added or matched longest ago gives way."""

    capacity: int = CAPACITY
    evicted: int = 0
    _entries: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)
    _exact: dict[bytes, list[str]] = field(default_factory=dict)
    _by_band: dict[int, list[str]] = field(default_factory=dict)
    _by_anchor: dict[int, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, id: str, text: str) -> bool:
        """Take a text, in the place of one with the same id; return False for a text without letters or digits."""
        letters = skeleton(normalised(text))
        self.remove(id)
        if not letters:
            return False
        hashes = shingles(letters)
        own: ByteArray | None = None
        anchors: tuple[int, ...] = ()
        keys: tuple[int, ...] = ()
        if len(hashes) >= LEAST_SHINGLES:
            own = signature(hashes)
            anchors = tuple(shingles(letters, ANCHOR)[:ANCHORS].tolist())
            keys = tuple(bands(own))
        entry = _Entry(_digest(letters), len(hashes), own, anchors, keys)
        while len(self._entries) >= self.capacity:
            self.remove(next(iter(self._entries)))
            self.evicted += 1
        self._entries[id] = entry
        self._exact.setdefault(entry.digest, []).append(id)
        for index, own_keys in ((self._by_band, keys), (self._by_anchor, anchors)):
            for key in own_keys:
                known = index.setdefault(key, [])
                known.append(id)
                del known[:-_MOST_A_KEY]
        return True

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
        """Return the known text of which most is found in a text, as it is or in code."""
        text = text[:LONGEST]
        best = self._known(text, "plain")
        if best is None or best[1].similarity < _CERTAIN:
            for decoder, found in readings(text):
                other = self._known(found.text, decoder)
                if other is not None and (best is None or other[0] > best[0]):
                    best = other
                    if best[1].similarity >= _CERTAIN:
                        break
        if best is None:
            return None
        self._entries.move_to_end(best[1].id)
        return best[1]

    def _known(self, text: str, decoder: str) -> tuple[float, Match] | None:
        """Return how well the best known text agrees, and the match."""
        letters = skeleton(normalised(text))
        exact = self._exact.get(_digest(letters))
        if exact is not None:
            others = tuple(exact[1 : 1 + _MOST_OTHERS])
            return float("inf"), Match(exact[0], 1.0, decoder, contained=False, also=others)
        hashes = shingles(letters)
        if len(hashes) < LEAST_SHINGLES:
            return None
        own = signature(hashes)
        votes = Counter(known for key in bands(own) for known in self._by_band.get(key, ()))
        anchors = Counter(
            id
            for key in self._by_anchor.keys() & set(shingles(letters, ANCHOR).tolist())
            for id in self._by_anchor[key]
        )
        compared = (
            self._compared(known, own, anchors[known], decoder)
            for known, _ in (votes + anchors).most_common(_MOST_CANDIDATES)
        )
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
        if share >= _CONTAINED and share * entry.shingles >= _LEAST_COMMON:
            return agreement, Match(id, max(alike, share), decoder, contained=True)
        return None


def _dropped(index: dict[_Key, list[str]], key: _Key, id: str) -> None:
    known = index.get(key, [])
    if id in known:
        known.remove(id)
    if not known:
        index.pop(key, None)


def _digest(letters: str) -> bytes:
    return hashlib.blake2b(letters.encode("utf-8", "surrogatepass"), digest_size=16).digest()
