"""The registry of patterns: what came before, looked up for every query by bands of its sketch and by its hashes.

Two sketches that are close share a cell in some band of four coordinates (locality-sensitive hashing: Indyk, Motwani
1998); what shares one is compared in full. How near is near is found out for each pattern on a sample of the
reference: benign queries must hit it less than once in a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from regate.detectors.attack.inputs import scrambled
from regate.detectors.attack.pattern import Pattern, merged, same
from regate.detectors.attack.queries import WIDTH, ByteArray, SketchArray
from regate.detectors.columns import FloatArray, HashArray, IntArray

MOST_PATTERNS = 256
BANDS, CELL = 4, 16  # bands of four coordinates, cells of 16 steps
MOST_RATE = 1e-3
# Steps: what a sensor's noise moves a query by. Farther off it is another query about the same input, of any tool.
MOST_RADIUS = 6.0
# Of the distance to the nearest query of the reference's sample.
SHRUNK = (0.5, 0.25, 0.125)
MOST_CANDIDATES = 16


@dataclass(frozen=True, slots=True)
class Sample:
    """Some queries of the reference, and which patterns can be compared with them."""

    sketch: SketchArray
    blocks: ByteArray
    space: str
    inputs: str
    tau: float


@dataclass(frozen=True, slots=True)
class Known:
    """A pattern with what the sample says of it."""

    pattern: Pattern
    kept: IntArray  # its queries that are no normal ones
    radius: FloatArray  # of each of them; 0: only its very hash counts
    rate: float  # of benign queries that hit it, at most about


@dataclass(slots=True)
class Registry:
    """Patterns of one model, and the index over them."""

    sample: Sample
    known: dict[str, Known] = field(default_factory=dict)
    evicted: int = 0
    gone: set[str] = field(default_factory=set)  # evicted ones that nobody was told of
    _keys: HashArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    _rows: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _sketch: SketchArray = field(default_factory=lambda: np.zeros((0, WIDTH), dtype=np.int8))
    _radius: FloatArray = field(default_factory=lambda: np.zeros(0))
    _owner: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _words: HashArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    _word_owner: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _word_print: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _print: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    _names: tuple[str, ...] = ()

    def learn(self, patterns: Iterable[Pattern]) -> list[Pattern]:
        """Take patterns, or what is new of those that are known; return those that changed."""
        changed = []
        for given in patterns:
            before = self.known.get(given.id)
            now = given if before is None else merged(before.pattern, given)
            if before is None or not same(before.pattern, now):
                self.known[now.id] = compared(now, self.sample)
                changed.append(now)
        while len(self.known) > MOST_PATTERNS:
            oldest = min(self.known.values(), key=lambda one: (one.pattern.last_us, one.pattern.id)).pattern.id
            del self.known[oldest]
            self.gone.add(oldest)
            self.evicted += 1
        if changed:
            self._index()
        return changed

    def put(self, pattern: Pattern, prints: bool) -> None:
        """Replace a pattern by a later state of it.

        :param prints: whether its queries changed.
        """
        known = self.known[pattern.id]
        self.known[pattern.id] = compared(pattern, self.sample) if prints else replace(known, pattern=pattern)
        if prints:
            self._index()

    def forget(self, name: str) -> bool:
        """Drop a pattern; return whether it was there."""
        gone = self.known.pop(name, None) is not None
        if gone:
            self._index()
        return gone

    def hits(self, sketch: SketchArray, blocks: ByteArray) -> list[tuple[int, str, int]]:
        """Return (row, pattern id, which of its queries) of what a pattern knows, by row; the nearest for each row."""
        if not self._names or not len(sketch):
            return []
        found: dict[int, tuple[int, int]] = {}
        word = _words(blocks)
        place = np.searchsorted(self._words, word)
        there = np.flatnonzero(place < len(self._words))
        there = there[self._words[place[there]] == word[there]]
        for row in there.tolist():
            found[row] = int(self._word_owner[place[row]]), int(self._word_print[place[row]])
        if len(self._keys):
            found = {**self._near(sketch, word), **found}
        return [(row, self._names[owner], which) for row, (owner, which) in sorted(found.items())]

    def _near(self, sketch: SketchArray, word: HashArray) -> dict[int, tuple[int, int]]:
        keys = _cells(sketch)
        left = np.searchsorted(self._keys, keys.ravel()).reshape(keys.shape)
        row, band = np.nonzero(self._keys[np.minimum(left, len(self._keys) - 1)] == keys)
        if not row.size:
            return {}
        first = left[row, band]
        count = np.minimum(np.searchsorted(self._keys, keys[row, band], side="right") - first, MOST_CANDIDATES)
        asked = np.repeat(row, count)
        within = np.arange(len(asked)) - np.repeat(np.cumsum(count) - count, count)
        known = self._rows[np.repeat(first, count) + within]
        apart = self._sketch[known].astype(np.int32) - sketch[asked].astype(np.int32)
        square = (apart * apart).sum(axis=1)
        close = np.flatnonzero(square <= self._radius[known] ** 2)
        found: dict[int, tuple[int, int]] = {}
        for one in np.unique(asked[close]).tolist():
            mine = close[asked[close] == one]
            # Steps below what a sketch tells apart leave equal ones: the hash says which of them was meant.
            ties = np.unique(known[mine[square[mine] == square[mine].min()]])
            chosen = int(ties[int(word[one]) % len(ties)])
            found[one] = int(self._owner[chosen]), int(self._print[chosen])
        return found

    def _index(self) -> None:
        names = tuple(sorted(self.known))
        sketches, radii, owners, prints, words, word_owners, word_prints = [], [], [], [], [], [], []
        for number, name in enumerate(names):
            one = self.known[name]
            if one.pattern.inputs == self.sample.inputs:
                words.append(_words(one.pattern.blocks[one.kept]))
                word_owners.append(np.full(len(one.kept), number))
                word_prints.append(one.kept)
            wide = one.radius > 0
            sketches.append(one.pattern.sketch[one.kept][wide])
            radii.append(one.radius[wide])
            owners.append(np.full(int(wide.sum()), number))
            prints.append(one.kept[wide])
        self._names = names
        none: IntArray = np.zeros(0, dtype=np.int64)
        self._words = np.concatenate([np.zeros(0, dtype=np.uint64), *words])
        self._word_owner = np.concatenate([none, *word_owners])
        order = np.argsort(self._words, kind="stable")
        self._words, self._word_owner = self._words[order], self._word_owner[order]
        self._word_print = np.concatenate([none, *word_prints])[order]
        self._sketch = np.concatenate([np.zeros((0, WIDTH), dtype=np.int8), *sketches])
        self._radius = np.concatenate([np.zeros(0), *radii])
        self._owner, self._print = np.concatenate([none, *owners]), np.concatenate([none, *prints])
        keys = _cells(self._sketch)
        rows = np.repeat(np.arange(len(keys)), keys.shape[1])
        order = np.argsort(keys.ravel(), kind="stable")
        self._keys, self._rows = keys.ravel()[order], rows[order]


def compared(pattern: Pattern, sample: Sample) -> Known:
    """Return a pattern with the radius of each of its queries, and how often benign ones hit it."""
    if pattern.inputs != sample.inputs or not len(pattern.blocks):
        return Known(pattern, np.zeros(0, dtype=np.int64), np.zeros(0), 1.0)
    usual = np.isin(_words(pattern.blocks), _words(sample.blocks))
    kept = np.flatnonzero(~usual)
    # One half of the sample says how near is near, the other how often that happens by chance.
    learn, check = sample.sketch[::2], sample.sketch[1::2]
    none = Known(pattern, kept, np.zeros(len(kept)), 0.5 / (len(check) + 1.0))
    if pattern.space != sample.space or not len(kept) or len(check) < 1:
        return none
    own = pattern.sketch[kept]
    nearest = _apart(own, learn).min(axis=1)
    far = _apart(own, check)
    for share in SHRUNK:
        radius = np.minimum(share * nearest, min(sample.tau, MOST_RADIUS))
        hit = int((far <= radius[:, None]).any(axis=0).sum())
        if hit / len(check) <= MOST_RATE:
            return Known(pattern, kept, np.where(radius >= 1.0, radius, 0.0), (hit + 0.5) / (len(check) + 1.0))
    return none


def _apart(left: SketchArray, right: SketchArray) -> FloatArray:
    """Return the distances of all pairs; sums of products of small whole numbers are exact in any order."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2.0 * (a @ b.T)
    return np.asarray(np.sqrt(np.maximum(square, 0.0)))


def _words(blocks: ByteArray) -> HashArray:
    halves = np.ascontiguousarray(blocks).view(np.uint64).reshape(len(blocks), 2)
    return np.asarray(scrambled(halves[:, 0]) ^ halves[:, 1])


def _cells(sketch: SketchArray) -> HashArray:
    """Return ``uint64[n, bands * 2]``: the cell of each band, and of the same band half a cell further."""
    place = sketch.astype(np.int64) + 128
    found = np.empty((len(sketch), 2 * BANDS), dtype=np.uint64)
    for shift in (0, 1):
        cell = (place + shift * CELL // 2) // CELL
        for band in range(BANDS):
            total = np.full(len(sketch), 2 * band + shift + 1, dtype=np.uint64)
            for coordinate in range(band, WIDTH, BANDS):
                total = scrambled(total * np.uint64(64) + cell[:, coordinate].astype(np.uint64))
            found[:, 2 * band + shift] = total
    return found
