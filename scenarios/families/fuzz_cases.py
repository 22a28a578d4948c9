"""The inputs of the fuzzing family: typical rows with one value made hostile, from the feature schema."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regate.config.model import Feature
from regate.scenarios.population import categories, numeric_range, typical
from regate.scenarios.subject import Subject

KINDS = ("boundary", "beyond", "missing", "type", "unicode")
SHARES = {"boundary": 0.35, "beyond": 0.2, "missing": 0.15, "type": 0.15, "unicode": 0.15}
LONG = 10_000  # characters: far over any category, far under the size limit of an event
UNICODE = (
    "\N{GRINNING FACE}",
    "na\N{COMBINING DIAERESIS}ive",
    "\N{RIGHT-TO-LEFT OVERRIDE}abc",
    "\N{ZERO WIDTH SPACE}",
    "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}",
    "\N{FULLWIDTH DIGIT ONE}\N{FULLWIDTH DIGIT TWO}",
    "\x00",
    "\N{CJK UNIFIED IDEOGRAPH-4E2D}\N{CJK UNIFIED IDEOGRAPH-6587}",
    "a" * LONG,
    "'; --",
    "\N{REPLACEMENT CHARACTER}",
)


def cases(
    subject: Subject, random: np.random.Generator, n: int
) -> tuple[dict[str, npt.NDArray[np.object_]], npt.NDArray[np.object_]]:
    """Return ``n`` rows as object columns, and the kind of each row.

    Every kind goes round the features, and for each feature round its values, so that all are visited.
    """
    base = typical(subject, random, n)
    columns = {name: column.astype(object) for name, column in base.items()}
    counts = {kind: int(n * SHARES[kind]) for kind in KINDS}
    counts["boundary"] += n - sum(counts.values())
    kinds = np.array([kind for kind in KINDS for _ in range(counts[kind])], dtype=object)
    names = list(subject.config.features)
    turn = {(kind, name): 0 for kind in KINDS for name in names}
    row = 0
    for kind in KINDS:
        able = [name for name in names if values(kind, name, subject)]
        for i in range(counts[kind]):
            if not able:  # no feature has a value of this kind: the row stays typical, which is valid
                kinds[row] = "boundary"
            else:
                name = able[i % len(able)]
                choice = values(kind, name, subject)
                columns[name][row] = choice[turn[kind, name] % len(choice)]
                turn[kind, name] += 1
            row += 1
    return columns, kinds


def values(kind: str, name: str, subject: Subject) -> tuple[Any, ...]:
    """Return the values of one kind for one feature; empty where the kind has no meaning for it."""
    feature = subject.config.features[name]
    if kind == "missing":
        return () if feature.required else (None,)
    if kind == "unicode":
        return UNICODE if feature.type in {"categorical", "text"} else UNICODE[:7]
    if kind == "type":
        return _wrong_types(feature)
    if feature.type != "numeric":
        known = categories(name, feature, subject)
        unseen = ("", "unseen-category", known[0].upper() + "?")
        return known if kind == "boundary" else () if feature.type == "boolean" else unseen
    low, high = numeric_range(name, feature, subject)
    span = (high - low) or 1.0
    if kind == "boundary":
        inner = (
            float(np.nextafter(np.float32(low), np.float32(high))),
            float(np.nextafter(np.float32(high), np.float32(low))),
        )
        return (low, high, (low + high) / 2, *(value for value in (*inner, 0.0) if low <= value <= high))
    reach = (1e-6, 0.1, 10.0, 1e6)
    return (*(low - span * k for k in reach), *(high + span * k for k in reach), 1e30, -1e30, 1e300, 5e-324)


def _wrong_types(feature: Feature) -> tuple[Any, ...]:
    if feature.type == "numeric":
        return ("abc", "1.5", True, "")
    if feature.type == "boolean":
        return ("yes", 7, 0.5)
    return (3.5, True, 12)
