"""Inputs as one matrix: numbers as they are, categories by their frequency in the reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regate.detectors.columns import Categorical, Column, FloatArray, Numeric, Slice

PatternArray = npt.NDArray[np.uint32]

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
        return np.ascontiguousarray(stacked(self.columns(rows)))

    def columns(self, rows: Slice) -> list[FloatArray]:
        """Return the columns of `matrix`, their values not yet limited."""
        found: list[FloatArray] = []
        for name, known in zip(self.names, self.categories, strict=True):
            column = rows.features.get(name)
            if isinstance(column, Numeric) and not known:
                found.append(column.values)
            elif isinstance(column, Categorical):
                place = {category: float(number) for number, category in enumerate(known)}
                codes = np.array([place.get(text, float(len(known))) for text in column.categories] + [np.nan])
                found.append(codes[column.codes])
            else:
                found.append(np.full(rows.n, np.nan))
        return found


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


def stacked(columns: list[FloatArray], part: slice = slice(None)) -> FloatArray:
    """Return some rows of `Inputs.matrix`, column by column in memory.

    Sums over features, and arithmetic with one number a feature, run along columns several times as fast as along
    rows of a few dozen. Everything made of inputs gives equal results in either order.
    """
    # One call for all of them: a small slice of many features would spend its time between calls.
    x = np.concatenate([column[part] for column in columns], dtype=np.float64).reshape(len(columns), -1).T
    if not within(x, LARGEST):
        np.clip(x, -LARGEST, LARGEST, out=x)
    return x


def within(x: FloatArray, largest: float) -> bool:
    """Tell whether all values are known and no larger: to ask costs a small part of `np.clip` or `np.nan_to_num`."""
    return not x.size or bool(x.max() <= largest and x.min() >= -largest)


def scaled(x: FloatArray, centre: FloatArray, scale: FloatArray) -> FloatArray:
    """Return ``(x - centre) / scale``, 0 where a value is missing."""
    z: FloatArray = x - centre
    z /= scale
    if not bool(np.isfinite(z.max(initial=0.0))):  # NaN is the maximum wherever there is one
        np.copyto(z, 0.0, where=np.isnan(z))
    return z


def bits_of(x: FloatArray) -> PatternArray:
    """Return the patterns of values, without the bits that printing and reading lose; every NaN is the same."""
    single = x.astype(np.float32)
    single += np.float32(0)  # -0 is 0
    missing = np.isnan(single)
    if bool(missing.any()):
        np.copyto(single, np.float32("nan"), where=missing)
    pattern = single.view(np.uint32)  # at most that of -inf: the sum does not wrap round
    pattern += np.uint32(_ROUND)
    pattern >>= np.uint32(_SHIFT)
    return pattern


def mixed(bits: PatternArray) -> np.ndarray:
    """Return 64-bit hashes of patterns, each with its feature's number (``uint64[n, features]``)."""
    feature = (np.arange(bits.shape[1], dtype=np.uint64) + np.uint64(1)) * _MIX
    word = bits.astype(np.uint64)
    word *= np.uint64(0xD6E8FEB86659FD93)
    word ^= feature
    return scrambled(word)


def scrambled(x: np.ndarray) -> np.ndarray:
    """Return a 64-bit finaliser (Stafford, variant 13) of each number."""
    # Written into one array: each one more is one more to bring into the cache.
    word = x >> np.uint64(30)
    word ^= x
    word *= np.uint64(0xBF58476D1CE4E5B9)
    shifted = word >> np.uint64(27)
    word ^= shifted
    word *= np.uint64(0x94D049BB133111EB)
    np.right_shift(word, np.uint64(31), out=shifted)
    word ^= shifted
    return np.asarray(word)
