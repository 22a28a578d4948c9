"""Which event ids were seen lately: exact, vectorised, and forgotten by whole spans of event time.

One set a span of event time; ids are only added, and a span is dropped whole
when the watermark has passed it, so that what is a duplicate depends on the events alone and not on
how they were cut into slices.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from regate.detectors.columns import BoolArray, HashArray, IntArray

# Fibonacci hashing: ids are hashes already, but a producer may choose weak ones.
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SMALLEST = 10  # log2 of the marks of a new span
_SPARSE = 8  # marks for each id at least: with fewer, too many ids need the exact look-up
# Ids of one snapshot chunk: 8 bytes each, under a record's default limit of 1 MB.
IDS_A_CHUNK = 100_000


class _Span:
    """A set of 64-bit keys: sorted runs that double in length, behind a bitmap that spares most look-ups."""

    def __init__(self) -> None:
        self.runs: list[HashArray] = []
        self.used = 0
        self._bits = _SMALLEST
        self._marked: BoolArray = np.zeros(1 << _SMALLEST, dtype=np.bool_)

    def keys(self) -> HashArray:
        return np.sort(np.concatenate(self.runs)) if self.runs else np.zeros(0, dtype=np.uint64)

    def add(self, keys: HashArray) -> BoolArray:
        """Add keys in order; return which of them were there before (the first of equals is new)."""
        ordered = np.sort(keys)
        if bool(np.any(ordered[1:] == ordered[:-1])):
            distinct, first = np.unique(keys, return_index=True)
            known = np.ones(len(keys), dtype=np.bool_)
            known[first] = self._add_distinct(distinct, distinct)
            return known
        return self._add_distinct(keys, ordered)

    def _add_distinct(self, keys: HashArray, ordered: HashArray) -> BoolArray:
        if (self.used + len(keys)) * _SPARSE > len(self._marked):
            self._widen(self.used + len(keys))
        place = self._place(keys)
        known = self._marked[place]
        asked = np.flatnonzero(known)
        if asked.size:
            known[asked] = self._holds(keys[asked])
            if bool(known.any()):
                ordered = np.sort(keys[~known])
        self._marked[place] = True
        self._push(ordered)
        return known

    def _place(self, keys: HashArray) -> IntArray:
        return ((keys * _MIX) >> np.uint64(64 - self._bits)).astype(np.int64)

    def _widen(self, wanted: int) -> None:
        self._bits = max(_SMALLEST, (wanted * _SPARSE * 2 - 1).bit_length())
        self._marked = np.zeros(1 << self._bits, dtype=np.bool_)
        for run in self.runs:
            self._marked[self._place(run)] = True

    def _holds(self, keys: HashArray) -> BoolArray:
        found = np.zeros(len(keys), dtype=np.bool_)
        for run in self.runs:
            at = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            found |= run[at] == keys
        return found

    def _push(self, ordered: HashArray) -> None:
        if not len(ordered):
            return
        self.used += len(ordered)
        self.runs.append(ordered)
        # Runs that double in length: each id is merged a logarithmic number of times. "stable" merges sorted runs.
        while len(self.runs) > 1 and len(self.runs[-2]) < 2 * len(self.runs[-1]):
            last = self.runs.pop()
            self.runs[-1] = np.sort(np.concatenate([self.runs[-1], last]), kind="stable")


class Seen:
    """Event ids by span of event time; ``width`` is the length of a span in cells."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._spans: dict[int, _Span] = {}

    def duplicates(self, event_id: HashArray, cell: IntArray) -> BoolArray:
        """Return which rows repeat an id of their span, in order of arrival, and remember the others."""
        spans = cell // self.width
        low = int(spans.min()) if len(spans) else 0
        if len(spans) == 0 or int(spans.max()) == low:
            return self._span(low).add(event_id) if len(spans) else np.zeros(0, dtype=np.bool_)
        repeated = np.zeros(len(event_id), dtype=np.bool_)
        order = np.argsort(spans, kind="stable")
        bounds = np.flatnonzero(np.diff(spans[order])) + 1
        for rows in np.split(order, bounds):
            repeated[rows] = self._span(int(spans[rows[0]])).add(event_id[rows])
        return repeated

    def forget(self, before: int) -> None:
        """Drop the spans that end at or before cell ``before``."""
        for span in [span for span in self._spans if (span + 1) * self.width <= before]:
            del self._spans[span]

    def chunks(self) -> dict[str, HashArray]:
        """Return all ids, sorted, as named arrays small enough for one record each."""
        found: dict[str, HashArray] = {}
        for span in sorted(self._spans):
            keys = self._spans[span].keys()
            for number, start in enumerate(range(0, len(keys), IDS_A_CHUNK)):
                found[f"{span}.{number}"] = keys[start : start + IDS_A_CHUNK]
        return found

    def restore(self, chunks: Mapping[str, HashArray]) -> None:
        """Take back what `chunks` gave."""
        for name, keys in chunks.items():
            self._span(int(name.partition(".")[0])).add(keys.astype(np.uint64))

    def _span(self, span: int) -> _Span:
        found = self._spans.get(span)
        if found is None:
            found = self._spans[span] = _Span()
        return found
