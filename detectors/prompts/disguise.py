"""Somebody hides letters: unseen characters within words, look-alikes of other alphabets, letters of fancy blocks."""

from __future__ import annotations

import re

from regate.detectors.prompts.normal import LONGEST
from regate.detectors.prompts.tables import CONFUSABLES, UNSEEN

# A formula has a few Greek letters beside Latin ones, and a name may carry a stray mark.
LEAST = 6
# So many of a text's words at least, in twenty.
_OF_TWENTY = 1
# Letters of blocks that Unicode decomposes to Latin ones: a headline in full width has fewer.
_LEAST_FANCY = 32

# Soft hyphens are typesetting. Joiners belong to words of other alphabets: only between Latin letters do they hide.
_WITHIN = re.compile(f"(?<=[A-Za-z])[{UNSEEN}]+(?=[A-Za-z])".replace("\u00ad", ""))
_STACKED = re.compile("[\u0300-\u036f\u20d0-\u20ff]{3,}")
# Below Greek stand letters of Latin alphabets themselves: ø, ß, ð. Flags and squares are pictures more than letters.
_ALIKE = "".join(re.escape(chr(code)) for code in sorted(CONFUSABLES) if 0x370 <= code < 0x10000)
_MIXED = re.compile(f"[A-Za-z][{_ALIKE}]|[{_ALIKE}][A-Za-z]")
_FANCY = re.compile("[\uff21-\uff3a\uff41-\uff5a\U0001d400-\U0001d7ff\u24b6-\u24e9\u1d2c-\u1d6a\u1d00-\u1d2b]")


def disguised(text: str) -> bool:
    """Return whether letters of a text are made to look otherwise than they read, more than chance and style would.

    >>> disguised("Déjà vu: a naïve façade, 5 μm wide")
    False
    """
    if text.isascii():
        return False
    text = text[:LONGEST]
    worn = sum(1 for _ in _WITHIN.finditer(text)) + sum(1 for _ in _STACKED.finditer(text))
    worn += sum(1 for _ in _MIXED.finditer(text))
    if worn >= LEAST and worn * 20 >= _OF_TWENTY * (text.count(" ") + 1):
        return True
    return sum(1 for _ in _FANCY.finditer(text)) >= _LEAST_FANCY
