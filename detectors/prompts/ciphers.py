"""Decoders of letter ciphers: Caesar's 25 shifts, ROT47, Atbash (shifted or not), Vigenère with short keys.

What reads like no English is tried, line by line: an instruction in plain words may stand before the code.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from regate.detectors.columns import FloatArray, IntArray
from regate.detectors.prompts.language import FOREIGN, PAIRS, READS, SINGLE, cipher_scores, letters, reads, score
from regate.detectors.prompts.opened import Opened

_LEAST_LETTERS = 24
_LINE_LETTERS = 12
# Each letter of a key needs about a dozen of the text to be told from the other 25.
_LONGEST_KEY = 12
_LETTERS_A_KEY = 12
_LEAST_KEYED = 72
# A longer key fits any text better, by about so many bits in all for each letter of it.
_PRICE = 7.0
# Enough to find a key in; the rest is decoded with it.
_ENOUGH = 2_048
_SHIFT = np.arange(26)
_HALF_OF_ASCII = {33 + place: chr(33 + (place + 47) % 94) for place in range(94)}
# [shift, letter]: log likelihood of a letter of the code if the key there is ``shift``.
_FITS: FloatArray = SINGLE[(_SHIFT[None, :] - _SHIFT[:, None]) % 26]


def from_rot13(text: str) -> Opened | None:
    """Open a shift of 13."""
    return _shifted(text, [13])


def from_rot47(text: str) -> Opened | None:
    """Open a shift of 47 of all that ASCII prints."""
    if reads(letters(text)):
        return None
    plain = text.translate(_HALF_OF_ASCII)
    return Opened(plain, plain) if reads(letters(plain)) else None


def from_caesar(text: str) -> Opened | None:
    """Open the shift under which the text reads most like English, if it does."""
    return _shifted(text, [shift for shift in range(1, 26) if shift != 13])


def from_atbash(text: str) -> Opened | None:
    """Open the alphabet mirrored, and then shifted or not."""
    return _shifted(text, list(range(26, 52)))


def from_vigenere(text: str) -> Opened | None:
    """Open a Vigenère code: each letter of a short key is a shift of its own."""
    parts = _foreign(text)
    code = letters("".join(part for part, foreign in parts if foreign))
    head = code[:_ENOUGH]
    if len(code) < _LEAST_KEYED or float(cipher_scores(head).max()) > FOREIGN:
        return None
    key = _key(head)
    if key is None:
        return None
    plain = (code - np.resize(key, len(code))) % 26
    return _written(parts, plain)


def _shifted(text: str, choice: list[int]) -> Opened | None:
    parts = _foreign(text)
    code = letters("".join(part for part, foreign in parts if foreign))
    if len(code) < _LEAST_LETTERS:
        return None
    scores = cipher_scores(code)
    best = int(scores.argmax()) % scores.shape[1]
    if best not in choice:
        return None
    plain = (code - best) % 26 if best < 26 else (best - 26 - code) % 26
    return _written(parts, plain) if reads(plain) or reads(plain[::-1]) else None


@lru_cache(maxsize=4)  # each cipher asks for it
def _foreign(text: str) -> tuple[tuple[str, bool], ...]:
    """Return the lines of a text, with whether they read like no English; short lines go with the line before."""
    if score(letters(text)) >= READS:
        return ((text, False),)
    parts: list[tuple[str, bool]] = []
    for line in text.splitlines(keepends=True):
        codes = letters(line)
        plain = reads(codes) if len(codes) >= _LINE_LETTERS else None
        before = parts[-1][1] if parts else True
        parts.append((line, before if plain is None else not plain))
    return tuple(parts)


def _key(code: IntArray) -> IntArray | None:
    """Return the key under which letters read like English: of each length the likeliest, then mended by pairs."""
    best, found = 0.0, None  # of a wrong key letters are as likely as by chance
    for size in range(2, min(_LONGEST_KEY, len(code) // _LETTERS_A_KEY) + 1):
        count = np.bincount(np.arange(len(code)) % size * 26 + code, minlength=size * 26).reshape(size, 26)
        fits = count @ _FITS.T
        likely = float(fits.max(axis=1).sum()) - _PRICE * size
        if likely > best:
            best, found = likely, fits.argmax(axis=1)
    if found is None:
        return None
    key = _mended(code, found)
    return key if reads((code - np.resize(key, len(code))) % 26) else None


def _mended(code: IntArray, key: IntArray) -> IntArray:
    key = key.copy()
    size = len(key)
    for _ in range(2):
        for place in range(size):
            at = np.arange(place, len(code), size)
            plain = (code - np.resize(key, len(code))) % 26
            tried = (code[at, None] - _SHIFT) % 26  # [letters, shift]
            before, after = at > 0, at < len(code) - 1
            fits = PAIRS[plain[at[before] - 1][:, None], tried[before]].sum(axis=0)
            fits += PAIRS[tried[after], plain[at[after] + 1][:, None]].sum(axis=0)
            key[place] = int(fits.argmax())
    return key


def _written(parts: tuple[tuple[str, bool], ...], plain: IntArray) -> Opened:
    """Put plain letters in the places of those of the foreign parts."""
    signs = iter(bytes((plain + 97).astype(np.uint8)).decode("ascii"))
    whole, payload = [], []
    for part, foreign in parts:
        if not foreign:
            whole.append(part)
            continue
        own = "".join(next(signs) if "a" <= sign <= "z" or "A" <= sign <= "Z" else sign for sign in part)
        whole.append(own)
        payload.append(own)
    return Opened("".join(whole), "".join(payload))
