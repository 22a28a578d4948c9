"""What a decoder found: the whole text with the code opened in its place, and what was in code alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple


class Opened(NamedTuple):
    """A text in which a decoder found something."""

    text: str
    payload: str


def replaced(pattern: re.Pattern[str], opens: Callable[[str], str | None], text: str, least: int = 1) -> Opened | None:
    """Open every place that a pattern finds; None if fewer than ``least`` of them hold anything."""
    payload: list[str] = []

    def one(found: re.Match[str]) -> str:
        got = opens(found.group())
        if got is None:
            return found.group()
        payload.append(got)
        return got

    whole = pattern.sub(one, text)
    return Opened(whole, "".join(payload)) if len(payload) >= least else None


def readable(data: bytes) -> str | None:
    """Return bytes as text if they are text: at most one in ten lost or not printable."""
    text = data.decode("utf-8", "ignore")
    printable = sum(map(str.isprintable, text)) + text.count("\n") + text.count("\t") + text.count("\r")
    lost = len(data) - len(text.encode("utf-8"))
    if not text or lost * 10 > len(data) or printable * 10 < len(text) * 9:
        return None
    return text
