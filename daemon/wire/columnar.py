"""Arrow columns to numpy columns, checked against what is declared."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from regate.config.model import Feature
from regate.daemon.wire.hashing import hash_texts
from regate.daemon.wire.reasons import Bad, Reason
from regate.detectors.columns import MISSING_CODE, BoolArray, Categorical, CodeArray, FloatArray, IntArray

# The square of a larger number, or the sum of a few, leaves float64: it would blind any variance for ever.
MAX_MAGNITUDE = 1e150
# Epoch numbers are told apart by size: these bounds keep years 1970 to 5138 unambiguous.
_SECONDS, _MILLIS, _MICROS = 1e11, 1e14, 1e17
# 0001-01-01 and 9999-12-31: what datetime, and so every report, can show.
TIME_MIN_US, TIME_MAX_US = -62_135_596_800_000_000, 253_402_300_799_999_999


class WrongTypeError(TypeError):
    """A whole column has a type that its field cannot have."""


def class_text(value: object) -> str | None:
    """Return the one text of a class or category, whichever type carried it; None is missing.

    >>> [class_text(v) for v in (1, 1.0, True, "1", 2.5, None)]
    ['1', '1', 'true', '1', '2.5', None]
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)
    return str(value)


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def to_floats(array: pa.Array) -> FloatArray:
    """Return a numeric column as float64, nulls as NaN.

    :raises WrongTypeError: for booleans, texts and nested values.
    """
    array = _plain(array)
    kind = array.type
    if pa.types.is_null(kind):
        return np.full(len(array), np.nan)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise WrongTypeError(f"expected numbers, got {kind}")
    if not pa.types.is_float64(kind):
        array = array.cast(pa.float64(), safe=False)
    if array.null_count:
        array = array.fill_null(math.nan)
    return np.asarray(array.to_numpy(zero_copy_only=False), np.float64)


def to_categorical(array: pa.Array, *, hashed: bool = False) -> Categorical:
    """Return a column of texts, booleans or numbers as categories in order of first appearance, nulls as -1.

    :raises WrongTypeError: for nested and binary values and for times.
    """
    kind = array.type
    if pa.types.is_null(kind):
        return Categorical(np.full(len(array), MISSING_CODE, np.int32), ())
    if not pa.types.is_dictionary(kind):
        if not (_is_text(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise WrongTypeError(f"expected categories, got {kind}")
        array = array.dictionary_encode()
    codes = array.indices.cast(pa.int32()).fill_null(MISSING_CODE).to_numpy(zero_copy_only=False)
    texts = [class_text(value) for value in array.dictionary.to_pylist()]
    return merge_categories(np.asarray(codes, np.int32), texts, hashed=hashed)


def to_texts(array: pa.Array) -> Categorical:
    """Return a column of texts with each distinct one once, nulls as -1.

    :raises WrongTypeError: for anything but texts.
    """
    kind = array.type
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (_is_text(inner) or pa.types.is_null(inner)):
        raise WrongTypeError(f"expected texts, got {kind}")
    return to_categorical(array)


def merge_categories(codes: CodeArray, texts: list[str | None], *, hashed: bool = False) -> Categorical:
    """Return codes and categories with equal texts merged, missing ones as -1, and hashed where asked."""
    if hashed:
        marks = hash_texts([text or "" for text in texts])
        texts = [text if text is None else f"{int(mark):016x}" for text, mark in zip(texts, marks, strict=True)]
    place: dict[str, int] = {}
    table = [MISSING_CODE if text is None else place.setdefault(text, len(place)) for text in texts]
    if table == list(range(len(table))):
        return Categorical(codes, tuple(place))
    lookup = np.array([*table, MISSING_CODE], np.int32)  # code -1 finds the last entry
    return Categorical(lookup[codes], tuple(place))


def to_booleans(array: pa.Array) -> BoolArray:
    """Return a flag column (errors, timeouts): null is False, a text is True unless empty, "false" or "0".

    :raises WrongTypeError: for nested values and times.
    """
    return truth(to_categorical(array))


def truth(column: Categorical) -> BoolArray:
    """Return a column as flags: missing is False, a text is True unless empty, "false", "0" or "ok"."""
    flags = np.array([text not in {"", "0", "false", "False", "ok"} for text in column.categories] + [False])
    return np.asarray(flags[column.codes], np.bool_)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def epoch_us(values: FloatArray) -> IntArray:
    """Return epoch numbers in seconds, milli-, micro- or nanoseconds, told apart by size, as microseconds."""
    size = np.abs(values)
    unit = np.select([size < _SECONDS, size < _MILLIS, size < _MICROS], [1e6, 1e3, 1.0], 1e-3)
    return np.asarray(np.rint(values * unit), np.int64)


def parse_time(text: str) -> int:
    """Return one ISO 8601 time as microseconds since the epoch; without an offset it is UTC.

    :raises ValueError: when it is not a time.
    """
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    span = when - datetime(1970, 1, 1, tzinfo=UTC)
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds


def to_times(array: pa.Array) -> tuple[IntArray, BoolArray]:
    """Return event times in microseconds since the epoch (UTC where no zone is said) and which of them are usable.

    Unusable are nulls, texts that are no time, non-finite numbers and years outside 1 to 9999.

    :raises WrongTypeError: for nested values and booleans.
    """
    array = _plain(array)
    kind = array.type
    good = np.asarray(array.is_valid().to_numpy(zero_copy_only=False), np.bool_)
    if pa.types.is_null(kind):
        return np.zeros(len(array), np.int64), good
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        zone = kind.tz if pa.types.is_timestamp(kind) else None
        stamps = array.cast(pa.timestamp("us", tz=zone), safe=False)
        times = np.asarray(stamps.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), np.int64)
    elif _is_text(kind):
        times, parsed = _times_of_texts(array)
        good = good & parsed
    else:
        values = to_floats(array)
        good &= np.isfinite(values) & (np.abs(values) < 1e20)
        times = epoch_us(np.where(good, values, 0.0))
    good &= (times >= TIME_MIN_US) & (times <= TIME_MAX_US)
    return times, good


def _times_of_texts(array: pa.Array) -> tuple[IntArray, BoolArray]:
    try:  # Arrow parses a whole column of RFC 3339 times, which is what senders should write
        stamps = array.cast(pa.timestamp("us", tz="UTC"))
        times = stamps.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return np.asarray(times, np.int64), np.ones(len(array), np.bool_)
    except pa.ArrowInvalid:
        times, good = np.zeros(len(array), np.int64), np.ones(len(array), np.bool_)
    for row, text in enumerate(array.to_pylist()):
        try:
            times[row] = 0 if text is None else parse_time(text)
        except (ValueError, OverflowError):
            good[row] = False
    return times, good


def check_numbers(
    values: FloatArray, feature: Feature | None, field: str, missing: BoolArray | None = None
) -> list[Bad]:
    """Return the rows that no detector may see: non-finite, too large to square, or outside the declared range.

    :param values: numbers; NaN is missing where ``missing`` says so, and everywhere when it is None.
    """
    found: list[Bad] = []
    if not len(values):
        return found
    low, high = float(values.min()), float(values.max())  # NaN when any is
    least = -MAX_MAGNITUDE if feature is None or feature.minimum is None else feature.minimum
    most = MAX_MAGNITUDE if feature is None or feature.maximum is None else feature.maximum
    if max(least, -MAX_MAGNITUDE) <= low and high <= min(most, MAX_MAGNITUDE):
        return found
    size = np.abs(values)
    if missing is not None:
        nan = np.isnan(values) & ~missing
        if nan.any():
            found.append(Bad(nan, Reason.NON_FINITE, field, f"{field} is NaN; send null for a missing value"))
    if bool((size > MAX_MAGNITUDE).any()):
        found.append(Bad(size > MAX_MAGNITUDE, Reason.NON_FINITE, field, f"{field} is infinite or beyond 1e150"))
    if feature is None:
        return found
    if feature.minimum is not None and bool((values < feature.minimum).any()):
        below = (values < feature.minimum) & (size <= MAX_MAGNITUDE)
        found.append(Bad(below, Reason.OUT_OF_RANGE, field, f"{field} is below the declared minimum {feature.minimum}"))
    if feature.maximum is not None and bool((values > feature.maximum).any()):
        above = (values > feature.maximum) & (size <= MAX_MAGNITUDE)
        found.append(Bad(above, Reason.OUT_OF_RANGE, field, f"{field} is above the declared maximum {feature.maximum}"))
    return [bad for bad in found if bad.rows.any()]


def flatten(table: pa.Table) -> dict[str, pa.Array]:
    """Return one contiguous array a column; structs are opened, their fields named ``outer.inner``."""
    columns: dict[str, pa.Array] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        _open(name, _contiguous(column), columns)
    return columns


def _contiguous(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else combined.chunk(0)


def _open(name: str, array: pa.Array, columns: dict[str, pa.Array]) -> None:
    if not pa.types.is_struct(array.type):
        columns[name] = array
        return
    for field, child in zip(array.type, array.flatten(), strict=True):
        _open(f"{name}.{field.name}", child, columns)
