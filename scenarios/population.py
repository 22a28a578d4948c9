"""Seeded populations: typical inputs from the configuration's schema and, where there are rows, from those."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regate.config.model import Feature
from regate.scenarios.subject import Subject
from regate.scenarios.targets.base import take

Column = npt.NDArray[Any]
LEAST_ROWS = 20  # fewer rows than this describe nobody; the schema alone is used then
WORDS = ("alpha", "bravo", "charlie", "delta", "echo")


def numeric_range(name: str, feature: Feature, subject: Subject) -> tuple[float, float]:
    """Return the declared range; where an end is not declared, the observed one; else -1 to 1."""
    low, high = feature.minimum, feature.maximum
    seen = None if subject.rows is None else subject.rows.features.get(name)
    known = seen[np.isfinite(seen)] if seen is not None and seen.dtype == np.float64 else np.empty(0)
    if low is None:
        low = float(known.min()) if len(known) else min(-1.0, (high or 0.0) - 1.0)
    if high is None:
        high = float(known.max()) if len(known) else max(1.0, low + 1.0)
    return low, max(high, low)


def categories(name: str, feature: Feature, subject: Subject) -> tuple[str, ...]:
    """Return the declared categories, else the observed ones (the 50 most frequent), else a few words."""
    if feature.type == "boolean":
        return ("false", "true")
    if feature.categories:
        return feature.categories
    seen = None if subject.rows is None else subject.rows.features.get(name)
    if seen is None or seen.dtype == np.float64:
        return WORDS
    values, counts = np.unique(np.array([v for v in seen if v is not None], dtype=str), return_counts=True)
    return tuple(str(v) for v in values[np.argsort(-counts, kind="stable")][:50]) or WORDS


def synthetic(subject: Subject, random: np.random.Generator, n: int) -> dict[str, Column]:
    """Return ``n`` rows drawn from the schema alone: uniform in range or category, features independent."""
    columns: dict[str, Column] = {}
    for name, feature in subject.config.features.items():
        if feature.type == "numeric":
            low, high = numeric_range(name, feature, subject)
            columns[name] = random.uniform(low, high, n)
        else:
            columns[name] = random.choice(np.array(categories(name, feature, subject), dtype=object), n)
    return columns


def typical(subject: Subject, random: np.random.Generator, n: int) -> dict[str, Column]:
    """Return ``n`` complete inputs that the model must answer: real rows where there are enough, else synthetic."""
    rows = subject.rows
    if rows is None or rows.n < LEAST_ROWS or any(name not in rows.features for name in subject.config.features):
        return synthetic(subject, random, n)
    wanted = {name: rows.features[name] for name in subject.config.features}
    whole = np.flatnonzero(~np.any([missing(column) for column in wanted.values()], axis=0))
    if len(whole) < LEAST_ROWS:
        return synthetic(subject, random, n)
    return take(wanted, random.choice(whole, n, replace=len(whole) < n))


def missing(column: Column) -> npt.NDArray[np.bool_]:
    """Return which values are missing."""
    if column.dtype == np.float64:
        return np.isnan(column)
    return np.array([value is None for value in column], dtype=np.bool_)


def smoothed(
    subject: Subject, index: npt.NDArray[np.int64], random: np.random.Generator, n: int, fixed: tuple[str, ...]
) -> dict[str, Column]:
    """Return ``n`` rows around those at ``index`` (smoothed bootstrap): numbers get a kernel, the rest is kept.

    The kernel is Silverman's with the standard deviation of the group; whole numbers stay whole, declared and
    observed ranges are kept, features in ``fixed`` are not moved.
    """
    assert subject.rows is not None
    drawn = take(
        {name: subject.rows.features[name] for name in subject.config.features if name in subject.rows.features},
        random.choice(index, n, replace=len(index) < n),
    )
    if len(index) >= n:
        return drawn
    for name, column in drawn.items():
        if column.dtype != np.float64 or name in fixed:
            continue
        source = subject.rows.features[name][index]
        known = source[np.isfinite(source)]
        if len(known) < 2:
            continue
        width = 0.9 * float(np.std(known)) * len(known) ** -0.2
        moved = column + random.normal(0.0, 1.0, n) * width
        if (known == np.round(known)).all():
            moved = np.round(moved)
        drawn[name] = np.clip(moved, known.min(), known.max())
    return drawn
