"""Streams that never change: generated processes, and circular block bootstraps of a recorded stream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from benchmarks.calibration.loop import rows_of
from scipy.signal import lfilter

from regate.config.model import Detection, Feature, ModelConfig
from regate.detectors.columns import Categorical, Column, FloatArray, IntArray, Numeric, Slice

HOUR_US = 3_600_000_000
# Rows of the seasonal day, hour by hour two blocks long.
HOUR_ROWS = 128
DAY_ROWS = 24 * HOUR_ROWS


@dataclass(frozen=True)
class Null:
    """A reference and continuations in which nothing changes. ``references``: None for as many as asked for."""

    name: str
    reference: Callable[[np.random.Generator, int], Slice]
    continuation: Callable[[np.random.Generator, Slice, int], Slice]
    strata: str = "none"
    references: int | None = None


Make = Callable[[np.random.Generator, int], dict[str, Column]]


def config_of(rows: Slice, strata: str = "none") -> ModelConfig:
    """Return a configuration that watches every column."""
    return ModelConfig(
        model="benchmark",
        features={
            name: Feature(type="numeric" if isinstance(column, Numeric) else "categorical")
            for name, column in rows.features.items()
        },
        detection=Detection(strata=strata),  # type: ignore[arg-type]
    )


def autoregressive(rng: np.random.Generator, n: int, rho: float) -> FloatArray:
    """Return n values of a stationary AR(1) with unit variance."""
    noise = rng.standard_normal(n + 4000)
    return np.asarray(lfilter([np.sqrt(1 - rho * rho)], [1.0, -rho], noise)[4000:])


def _garch(rng: np.random.Generator, n: int, alpha: float, beta: float) -> FloatArray:
    """Return a GARCH(1,1) with unit variance: volatility clusters over some 1 / (1 - alpha - beta) events."""
    shocks = rng.standard_normal(n + 1000)
    values, variance = np.empty(n + 1000), 1.0
    for index, shock in enumerate(shocks):
        values[index] = shock * np.sqrt(variance)
        variance = 1.0 - alpha - beta + alpha * values[index] ** 2 + beta * variance
    return values[1000:]


def _zipf(rng: np.random.Generator, n: int, categories: int = 200) -> Categorical:
    weight = 1.0 / np.arange(1, categories + 1)
    codes = rng.choice(categories, size=n, p=weight / weight.sum()).astype(np.int32)
    return Categorical(codes, tuple(f"c{index}" for index in range(categories)))


def _seasonal(rng: np.random.Generator, n: int, day: int) -> dict[str, Column]:
    return {"x": Numeric(np.sin(2 * np.pi * np.arange(n) / day) + 0.5 * rng.standard_normal(n))}


def _several(rng: np.random.Generator, n: int) -> dict[str, Column]:
    gaps = rng.standard_normal(n)
    gaps[rng.random(n) < 0.02] = np.nan
    return {
        **{f"x{index}": Numeric(rng.standard_normal(n)) for index in range(6)},
        "gaps": Numeric(gaps),
        "count": Numeric(rng.poisson(2.0, n).astype(float)),
        "flag": Categorical((rng.random(n) < 0.1).astype(np.int32), ("false", "true")),
        "kind": _zipf(rng, n, 8),
    }


def _regimes(rng: np.random.Generator, n: int) -> dict[str, Column]:
    """A stream as people record them: a day, slow noise, a level that jumps, a lively and a sticky category."""
    at = np.arange(n)
    day = np.sin(2 * np.pi * at / 1152)
    level = rng.standard_normal(n // 500 + 2)[np.cumsum(rng.random(n) < 1 / 700) % (n // 500 + 2)]
    sticky = np.cumsum(rng.random(n) < 1 / 20) % 5
    return {
        "daily": Numeric(day + 0.5 * rng.standard_normal(n)),
        "slow": Numeric(autoregressive(rng, n, 0.97)),
        "jumps": Numeric(0.5 * level + rng.standard_normal(n)),
        "bursts": Numeric(rng.standard_normal(n) * np.exp(0.4 * autoregressive(rng, n, 0.98))),
        "plain": Numeric(rng.standard_normal(n)),
        "flag": Categorical((rng.random(n) < 0.2 + 0.1 * day).astype(np.int32), ("false", "true")),
        "sticky": Categorical(sticky.astype(np.int32), tuple("abcde")),
        "kind": _zipf(rng, n, 20),
    }


def _generated(name: str, make: Make, strata: str = "none") -> Null:
    def reference(rng: np.random.Generator, n: int) -> Slice:
        return _timed(rows_of(make(rng, n), n), 0)

    def continuation(rng: np.random.Generator, before: Slice, n: int) -> Slice:
        # The day goes on where the reference ended.
        first = before.n % DAY_ROWS
        whole = make(rng, n + first)
        features = {key: _part(column, slice(first, None)) for key, column in whole.items()}
        return _timed(rows_of(features, n), before.n)

    return Null(name, reference, continuation, strata)


def _timed(rows: Slice, first: int) -> Slice:
    return replace(rows, event_time_us=(np.arange(rows.n, dtype=np.int64) + first) * (HOUR_US // HOUR_ROWS))


def _part(column: Column, rows: slice | IntArray) -> Column:
    if isinstance(column, Numeric):
        return Numeric(column.values[rows])
    return Categorical(column.codes[rows], column.categories)


def resampled(rng: np.random.Generator, source: Slice, rows: int, length: int, first: int = 0) -> Slice:
    """Return a circular block bootstrap of the rows of ``source`` from ``first`` on."""
    size = source.n - first
    starts = rng.integers(size, size=-(-rows // length))
    at = first + ((starts[:, None] + np.arange(length)) % size).reshape(-1)[:rows]
    return rows_of({name: _part(column, at) for name, column in source.features.items()}, rows)


def bootstraps(
    source: Callable[[np.random.Generator, int], Slice], name: str, references: int | None = None
) -> list[Null]:
    """Return the nulls of one stream: short and long segments, of the whole reference and of its second half."""

    def continuation(rng: np.random.Generator, before: Slice, n: int, *, late: bool, short: bool) -> Slice:
        first = before.n // 2 if late else 0
        length = 256 if short else max(1024, (before.n - first) // 8)
        return resampled(rng, before, n, length, first)

    return [
        Null(
            f"{name} {'late' if late else 'whole'} {'256' if short else '1/8'}",
            source,
            partial(continuation, late=late, short=short),
            references=references,
        )
        for late in (False, True)
        for short in (True, False)
    ]


def from_file(path: Path) -> Callable[[np.random.Generator, int], Slice]:
    """Return the first 40 % of a recorded stream, at most 50,000 rows, whatever is asked for."""
    table = pq.read_table(path)
    known = {"event_id", "event_time", "label", "prediction", "score"}
    n = min(int(table.num_rows * 0.4), 50_000)
    features: dict[str, Column] = {}
    for name in table.column_names:
        if name in known:
            continue
        kind = str(table.schema.field(name).type)
        if kind in {"string", "large_string", "bool"}:
            text = np.array([str(value) for value in table[name].slice(0, n).to_pylist()])
            categories, codes = np.unique(text, return_inverse=True)
            features[name] = Categorical(codes.astype(np.int32), tuple(str(value) for value in categories))
        else:
            features[name] = Numeric(table[name].slice(0, n).to_numpy().astype(np.float64))
    whole = rows_of(features, n)
    return lambda _rng, _rows: whole


NULLS: dict[str, Null] = {
    null.name: null
    for null in (
        _generated("normal", lambda rng, n: {"x": Numeric(rng.standard_normal(n))}),
        _generated("ar5", lambda rng, n: {"x": Numeric(autoregressive(rng, n, 0.5))}),
        _generated("garch", lambda rng, n: {"x": Numeric(_garch(rng, n, 0.1, 0.85))}),
        _generated("garch_long", lambda rng, n: {"x": Numeric(_garch(rng, n, 0.08, 0.9))}),
        _generated("heavy", lambda rng, n: {"x": Numeric(rng.standard_t(3, n))}),
        # Five-minute data without strata; a busier model whose day is known.
        _generated("seasonal", lambda rng, n: _seasonal(rng, n, 288)),
        _generated("seasonal_hour", lambda rng, n: _seasonal(rng, n, DAY_ROWS), "hour"),
        _generated("zipf", lambda rng, n: {"x": _zipf(rng, n)}),
        _generated("several", _several),
        *bootstraps(lambda rng, n: rows_of(_regimes(rng, n), n), "regimes"),
    )
}
