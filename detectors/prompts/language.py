"""How much letters read like English, by pairs of neighbours; and under which simple cipher they would."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from regate.detectors.columns import FloatArray, IntArray
from regate.detectors.prompts.tables import BIGRAMS, LETTERS

# Bits a pair of letters above chance. English prose has .9 to 1.3, other languages of Latin letters .2 to .7, ciphers
# and noise less than -.3.
READS = 0.7
FOREIGN = 0.35

_STEPS = "0123456789abcdefghijklmnopqrstuvwxyz"
PAIRS: FloatArray = np.array([[_STEPS.index(step) / 5.0 - 4.0 for step in row] for row in BIGRAMS.split()])
_FLAT = PAIRS.ravel()
SINGLE: FloatArray = np.log2(np.array(LETTERS) / sum(LETTERS) * 26.0)


def _under(places: IntArray) -> FloatArray:
    """Return the table of pairs for a text of which letter ``j`` stands for letter ``places[j]``."""
    return PAIRS[np.ix_(places, places)].ravel()


_ALPHABET = np.arange(26)
# Letter j of a text shifted by s is letter j - s; mirrored (Atbash) and shifted, s - j.
_SHIFTED: FloatArray = np.stack([_under((_ALPHABET - shift) % 26) for shift in range(26)])
_MIRRORED: FloatArray = np.stack([_under((shift - _ALPHABET) % 26) for shift in range(26)])
_CIPHERS: FloatArray = np.concatenate([_SHIFTED, _MIRRORED])


# Several decoders ask the same of one text, one after the other.
@lru_cache(maxsize=8)
def letters(text: str) -> IntArray:
    """Return the ASCII letters of a text as numbers 0 to 25, read only."""
    codes = (np.frombuffer(text.encode("ascii", "replace"), dtype=np.uint8) | 0x20) - 97
    found: IntArray = codes[codes < 26].astype(np.int64)
    found.setflags(write=False)
    return found


def score(codes: IntArray) -> float:
    """Return bits a pair of letters above chance; 0 for fewer than two letters."""
    return float(_FLAT[codes[:-1] * 26 + codes[1:]].sum()) / (len(codes) - 1) if len(codes) > 1 else 0.0


def reads(codes: IntArray) -> bool:
    """Return whether letters read like a language more than chance would have it, be they few or many."""
    return score(codes) >= FOREIGN + 2.0 / float(np.sqrt(max(len(codes), 1)))


def cipher_scores(codes: IntArray) -> FloatArray:
    """Return ``float64[2, 52]``: scores forwards and backwards; first of 26 shifts, then of 26 shifts of the mirror."""
    if len(codes) < 2:
        return np.zeros((2, 52))
    pairs = np.bincount(codes[:-1] * 26 + codes[1:], minlength=676).astype(np.float64)
    both = np.stack([pairs, pairs.reshape(26, 26).T.ravel()])
    return np.asarray(both @ _CIPHERS.T / pairs.sum())
