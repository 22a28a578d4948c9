"""Somebody sends text in code, known or not: which decoders open a payload of some length that reads like language."""

from __future__ import annotations

from regate.detectors.prompts.decoders import DECODERS
from regate.detectors.prompts.language import READS, letters, score
from regate.detectors.prompts.normal import LONGEST

# Shorter ones occur in documentation, and by chance.
LEAST_LETTERS = 48
# In prose nearly nine of ten characters are letters or spaces; in JSON, code and addresses far fewer.
_PROSE = 0.8
# So much of a payload's letters must be of many kinds: "aaaa" and test patterns read like anything.
_LEAST_KINDS = 12


def encoded(text: str) -> tuple[str, ...]:
    """Return the names of decoders that open a payload which reads like English; code within code by both names."""
    text = text[:LONGEST]
    found: list[str] = []
    for outer in DECODERS:
        once = outer.opened(text)
        if once is None or not once.payload:
            continue
        if _speaks(once.payload):
            found.append(outer.name)
        elif outer.deep and len(letters(once.payload)) >= LEAST_LETTERS:
            found += [f"{outer.name}, {inner.name}" for inner in DECODERS if _opens(inner.opened(once.payload))]
    return tuple(found)


def _opens(found: object) -> bool:
    payload = getattr(found, "payload", "")
    return bool(payload) and _speaks(payload)


def _speaks(payload: str) -> bool:
    codes = letters(payload)
    if len(codes) < LEAST_LETTERS or score(codes) < READS or len(set(codes.tolist())) < _LEAST_KINDS:
        return False
    return (len(codes) + payload.count(" ")) >= _PROSE * len(payload)
