"""Somebody sends text in code, known or not: which decoders open a payload of some length that reads like language."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from regate.detectors.prompts.decoders import DECODERS, TURNS, Decoder, opened_in
from regate.detectors.prompts.language import READS, letters, score
from regate.detectors.prompts.normal import LONGEST
from regate.detectors.prompts.opened import Opened

# Shorter ones occur in documentation, and by chance.
LEAST_LETTERS = 48
# In prose nearly nine of ten characters are letters or spaces; in JSON, code and addresses far fewer.
_PROSE = 0.8
# Test patterns and empty pictures read like anything: letters must be of many kinds, none of them a quarter of all.
_LEAST_KINDS = 12
_COMMONEST = 0.25


def encoded(text: str, first: Iterable[tuple[Decoder, Opened]] | None = None) -> tuple[str, ...]:
    """Return the names of decoders that open a payload which reads like English; of code within code both names.

    :param first: what `opened_in` gave, where it is known.
    """
    first = opened_in(text[:LONGEST]) if first is None else first
    opened = [(decoder, found) for decoder, found in first if found.payload]
    once = tuple(decoder.name for decoder, found in opened if _speaks(found.payload))
    if once:
        return once
    return tuple(
        f"{outer.name}, {inner.name}"
        for outer, found in opened
        if outer not in TURNS and len(found.payload) >= LEAST_LETTERS
        for inner in DECODERS
        if (twice := inner.opened(found.payload)) is not None and _speaks(twice.payload)
    )


def _speaks(payload: str) -> bool:
    codes = letters(payload)
    if len(codes) < LEAST_LETTERS or len(codes) + payload.count(" ") < _PROSE * len(payload):
        return False
    counts = np.bincount(codes, minlength=26)
    varied = int((counts > 0).sum()) >= _LEAST_KINDS and int(counts.max()) <= _COMMONEST * len(codes)
    return varied and score(codes) >= READS
