"""Inputs as one matrix: numbers as they are, categories by their frequency in the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from regate.detectors.columns import Categorical, Column, FloatArray, IntArray, Numeric, Slice

# float32 patterns are compared without their last bits: what a client sends as text is read back a little off.
_ROUND, _SHIFT = 32, 6
# Beyond this nothing is told apart: squares must stay finite.
LARGEST = 1e30
_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Which features make the matrix, and what their categories become; a numeric feature has none."""

    names: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]

    def matrix(self, rows: Slice) -> FloatArray:
        """Return ``float64[n, features]``; missing is NaN, an unknown category one more than the last known."""
        out = np.full((rows.n, len(self.names)), np.nan)
        for at, (name, known) in enumerate(zip(self.names, self.categories, strict=True)):
            column = rows.features.get(name)
            if isinstance(column, Numeric) and not known:
                out[:, at] = np.clip(column.values, -LARGEST, LARGEST)
            elif isinstance(column, Categorical):
                place = {category: float(number) for number, category in enumerate(known)}
                codes = np.array([place.get(text, float(len(known))) for text in column.categories] + [np.nan])
                out[:, at] = codes[column.codes]
        return out


def inputs_of(features: Mapping[str, Column], watched: tuple[str, ...]) -> Inputs:
    """Return the inputs of a reference: categories by falling frequency, equal ones by name."""
    names, categories = [], []
    for name in watched:
        column = features.get(name)
        if column is None or _absent(column):
            continue
        known: tuple[str, ...] = ()
        if isinstance(column, Categorical):
            count = np.bincount(column.codes[column.codes >= 0], minlength=len(column.categories))
            order = sorted(range(len(count)), key=lambda code: (-count[code], column.categories[code]))
            known = tuple(column.categories[code] for code in order)
        names.append(name)
        categories.append(known)
    return Inputs(tuple(names), tuple(categories))


def _absent(column: Column) -> bool:
    missing = column.codes < 0 if isinstance(column, Categorical) else np.isnan(column.values)
    return bool(missing.all())


def bits_of(x: FloatArray) -> IntArray:
    """Return the patterns of values, without the bits that printing and reading lose; every NaN is the same."""
    single = np.where(np.isnan(x), np.float32("nan"), x.astype(np.float32)) + np.float32(0)  # -0 is 0
    pattern = single.astype(np.float32).view(np.uint32).astype(np.int64)
    return (pattern + _ROUND) >> _SHIFT


def mixed(bits: IntArray) -> np.ndarray:
    """Return 64-bit hashes of patterns, each with its feature's number (``uint64[n, features]``)."""
    feature = (np.arange(bits.shape[1], dtype=np.uint64) + np.uint64(1)) * _MIX
    return scrambled(bits.astype(np.uint64) * np.uint64(0xD6E8FEB86659FD93) ^ feature)


def scrambled(x: np.ndarray) -> np.ndarray:
    """Return a 64-bit finaliser (Stafford, variant 13) of each number."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))
