"""Decoders of what people can read: Morse, spelling words, leetspeak, spaced letters, turned texts, algebra."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from regate.detectors.prompts.language import letters, score
from regate.detectors.prompts.opened import Opened, replaced
from regate.detectors.prompts.tables import LEET, LEET_PAIRS, MORSE, NATO

_MORSE = re.compile(r"[.\-\u2212\u2013\u2014\u00b7\u2022_/| \t\n]{30,}")
_DASHES = str.maketrans("\u2212\u2013\u2014_\u00b7\u2022|\t", "----../ ")
# A cheap look first: English in spelling words has nearly all of these.
_NATO_USUAL = ("echo", "tango", "oscar", "india", "november", "sierra", "hotel", "romeo")
_LEAST_USUAL = 5
_LEET_PAIR = re.compile("|".join(sorted(map(re.escape, LEET_PAIRS), key=len, reverse=True)))
_LEET = re.compile(r"[A-Za-z][0-9@$!|+]|[0-9@$|+(][A-Za-z]|[|/\\][-_)(=<>/\\]")
_MIXED = re.compile(r"[0-9][A-Za-z]")  # names end with numbers, words in leetspeak do not only
_WORD = re.compile(r"[^\s]+")
_LETTERED = re.compile(r"[A-Za-z]+")
_SPACED = re.compile(r"(?<!\w)\w(?:[^\w\n]{1,4}\w(?!\w)){11,}")
_BETWEEN = re.compile(r"[^\w\n]+")
_ALGEBRA = re.compile(r"(?m)^(\S) {0,2}= {0,2}[0-9]{1,4}[ *]{0,2}\1 {0,2}- {0,2}[0-9]{0,4}[ *]{0,2}\1 {0,2}$")
_LEAST_LEET = 8
_LEAST_WORDS = 12
# How much better, in bits a pair, a text must read backwards than forwards to count as turned.
_TURNED = 0.25
# Pairs of words that stand the other way round only in a text of turned words.
_AFTER = {"of": "the this that a our its", "in": "the this a order", "to": "the be do make a use", "for": "the a this"}
_AFTER |= {
    "will": "be not",
    "you": "are can will must should",
    "is": "a not the",
    "and": "the",
    "on": "the",
    "from": "the",
}
_PAIRS = {(first, then) for first, others in _AFTER.items() for then in others.split()}


def from_morse(text: str) -> Opened | None:
    """Open runs of dots and dashes; words are apart by a stroke, a line or wide space."""

    def opens(run: str) -> str | None:
        signs = re.sub(r" {2,}|\n+|/", " / ", run.translate(_DASHES)).split()
        known = [" " if sign == "/" else MORSE.get(sign) for sign in signs]
        found = [sign for sign in known if sign is not None]
        real = sum(sign != " " for sign in found)
        if real < _LEAST_WORDS or (len(known) - len(found)) * 5 > len(known):
            return None
        return re.sub(" {2,}", " ", " " + "".join(found) + " ")

    return replaced(_MORSE, opens, text)


def from_nato(text: str) -> Opened | None:
    """Open letters that are spelt as words (Alfa, Bravo, ...), if they are a third of the text's words."""
    spelt_out = text.casefold()
    if sum(word in spelt_out for word in _NATO_USUAL) < _LEAST_USUAL:
        return None
    words = text.split()
    stands = [NATO.get(word.casefold().strip(",.;:!?\"'()[]") or word, NATO.get(word.casefold())) for word in words]
    spelt = [letter for letter in stands if letter is not None]
    if len(spelt) < _LEAST_WORDS or len(spelt) * 3 < len(words):
        return None
    whole = [
        letter if letter is not None else word if len(word) == 1 else f" {word} "
        for word, letter in zip(words, stands, strict=True)
    ]
    return Opened("".join(whole), "".join(spelt))


def from_leet(text: str) -> Opened | None:
    """Open digits and signs that stand for letters; in code is what words with them say, if they are many."""
    if len(_LEET.findall(text)) < _LEAST_LEET:
        return None
    whole = _LEET_PAIR.sub(lambda pair: LEET_PAIRS[pair.group()], text).translate(LEET)
    words = [word for word in _WORD.findall(text) if any(map(str.isalnum, word))]
    mixed = [word for word in words if _MIXED.search(word)]
    payload = whole if len(mixed) * 3 >= len(words) and _varied(mixed) else ""
    return Opened(whole, payload)


def from_spaced(text: str) -> Opened | None:
    """Open letters that stand apart, one by one: the usual separator goes, any other is a space."""

    def opens(run: str) -> str:
        usual = Counter(_BETWEEN.findall(run)).most_common(1)[0][0]
        return _BETWEEN.sub(lambda gap: "" if gap.group() == usual else " ", run) + " "

    return replaced(_SPACED, opens, text)


def from_reversed(text: str) -> Opened | None:
    """Turn a text round that reads better backwards."""
    codes = letters(text)
    gain = score(codes[::-1]) - score(codes)
    return Opened(text[::-1], text[::-1]) if gain > _TURNED else None


def from_reversed_in_words(text: str) -> Opened | None:
    """Turn each word round, in a text that reads better backwards."""
    codes = letters(text)
    if score(codes[::-1]) - score(codes) <= _TURNED:
        return None
    whole = _WORD.sub(lambda word: word.group()[::-1], text)
    return Opened(whole, whole)


def from_reversed_words(text: str) -> Opened | None:
    """Turn the order of words round, unless common pairs of words stand as they should."""
    words = text.split()
    if len(words) < _LEAST_WORDS:
        return None
    following = Counter(pairwise(text.casefold().split()))
    right = sum(following[pair] for pair in _PAIRS)
    wrong = sum(following[pair[::-1]] for pair in _PAIRS)
    if right > wrong:
        return None
    whole = " ".join(words[::-1])
    return Opened(whole, whole if wrong >= 3 + 4 * right and wrong * 60 >= len(words) else "")


def from_algebra(text: str) -> Opened | None:
    """Open letters that are written as identities, one a line: ``h = 5h - 4h``."""
    found = replaced(_ALGEBRA, lambda line: line[0], text, least=_LEAST_WORDS)
    return None if found is None else found._replace(text=found.text.replace("\n", ""))


def _varied(words: list[str]) -> bool:
    """Return whether the letters of words with signs in them are many: identifiers repeat one another."""
    return len({run for word in words for run in _LETTERED.findall(word)}) >= _LEAST_LEET
