"""The profile builder: from reference rows to tables, margins, charts and a calibrated threshold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from regate.config.errors import ConfigError
from regate.config.model import ModelConfig
from regate.detectors.accumulate import stratum_of
from regate.detectors.calibrate import calibrate
from regate.detectors.candidate import Candidate, Reference, points_of
from regate.detectors.columns import Categorical, Column, FloatArray, IntArray, ModelKey, Numeric, Slice
from regate.detectors.layout import (
    MAX_KEPT,
    MAX_LISTED,
    RARE_BELOW,
    CategoricalSpec,
    FeatureSpec,
    Layout,
    NumericSpec,
)
from regate.detectors.power import with_power
from regate.detectors.profile import Profile
from regate.detectors.ranktable import build_table
from regate.detectors.registry import candidates

Progress = Callable[[str, float], None]

DAY_US = 86_400_000_000
# Fewer rows than this cannot be halved and still show dependence over a block.
MIN_ROWS = 200
GAP_QUANTILE = 0.9999


def build_profile(
    config: ModelConfig,
    key: ModelKey,
    reference: Slice,
    wrong: IntArray | None = None,
    *,
    block_rows: int = 64,
    budget_events: float | None = None,
    events_per_second: float | None = None,
    calibrate_seconds: float | None = None,
    seed: int = 0,
    error_cutoff: float | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Build the profile of one model version from its reference rows, oldest first.

    :param wrong: realised error of each row: 1, 0, or -1 where no label is known.
    :param budget_events: events in which one false alarm is nominal; overrides the traffic that
        ``events_per_second`` (or else the configuration) and the budget period give.
    :param calibrate_seconds: bounds the simulation, as an amount of work, so that the result does not
        depend on the machine; 0 leaves the ceiling.
    :raises ConfigError: when there are too few rows, or nothing can be watched.
    """
    if reference.n < MIN_ROWS:
        raise ConfigError(
            f"{reference.n} reference rows, at least {MIN_ROWS} are needed", hint="take a longer reference"
        )
    tell = progress or _silent
    tell("tables", 0.0)
    sample = _reference(config, reference, wrong)
    tell("margins", 0.1)
    chosen, dropped = _chosen(candidates(sample), config.detection.max_charts)
    if not any(candidate.spec.watchable for candidate in chosen):
        reasons = "; ".join(f"{candidate.spec.name}: {candidate.spec.reason}" for candidate in chosen[:5])
        raise ConfigError(
            f"no chart can be watched with this reference ({reasons or 'no feature is watched'})",
            hint="take a longer reference, or other features: regate profile build --reference-rows",
        )
    period_us = int(config.detection.period_days * DAY_US / config.detection.false_alarms)
    rate = events_per_second if events_per_second is not None else config.detection.events_per_second
    traffic = budget_events if budget_events is not None else _per_period(rate, period_us)
    seconds = config.detection.calibrate_seconds if calibrate_seconds is None else calibrate_seconds
    chosen, calibration = calibrate(
        sample, chosen, traffic, block_rows=block_rows, seconds=seconds, seed=seed, progress=tell
    )
    profile = Profile(
        key=key,
        layout=sample.layout,
        charts=tuple(replace(candidate.spec, digest=candidate.digest) for candidate in chosen),
        points=points_of(chosen),
        calibration=calibration,
        budget_period_us=period_us,
        rows=reference.n,
        block_rows=block_rows,
        events_per_second=rate,
        budget_events=traffic,
        gap_us=_gap(reference.event_time_us),
        error_cutoff=error_cutoff,
        dropped=dropped,
        notes=_unwatched_features(config),
    )
    return with_power(profile)


def _silent(_stage: str, _share: float) -> None:
    return


def _per_period(events_per_second: float | None, period_us: int) -> float | None:
    return None if events_per_second is None else events_per_second * period_us / 1e6


def _reference(config: ModelConfig, rows: Slice, wrong: IntArray | None) -> Reference:
    stratum = stratum_of(rows.event_time_us, config.detection.strata, config.time_zone)
    empty = Layout((), config.detection.strata, config.time_zone)
    specs: list[FeatureSpec] = []
    first = 1
    for name, feature in config.features.items():
        if not feature.watch or feature.type in {"text", "vector"}:
            continue
        spec = _spec(name, feature.type, rows.features.get(name), stratum, empty.strata_count, first)
        specs.append(spec)
        first += spec.width
    layout = replace(empty, features=tuple(specs))
    weights = {name: feature.weight for name, feature in config.features.items()}
    return Reference(layout, rows, stratum, wrong, weights)


def _spec(name: str, kind: str, column: Column | None, stratum: np.ndarray, strata: int, first: int) -> FeatureSpec:
    if kind == "numeric":
        values: FloatArray = column.values if isinstance(column, Numeric) else np.full(stratum.size, np.nan)
        tables = tuple(build_table(values[stratum == which]) for which in range(strata))
        return NumericSpec(name, first, tables)
    if not isinstance(column, Categorical):
        return CategoricalSpec(name, first, (), ())
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.categories))
    # By count, then by name: the order must not depend on which category came first.
    order = sorted(range(counts.size), key=lambda code: (-counts[code], column.categories[code]))
    kept = [code for code in order[:MAX_KEPT] if counts[code] >= RARE_BELOW]
    rare = [code for code in order[len(kept) :] if counts[code] > 0]
    listed = rare if len(rare) <= MAX_LISTED else []
    return CategoricalSpec(
        name, first, tuple(column.categories[code] for code in kept), tuple(column.categories[code] for code in listed)
    )


def _chosen(found: list[Candidate], most: int) -> tuple[list[Candidate], tuple[str, ...]]:
    """Return the ``most`` heaviest charts in their own order, and the names of the others."""
    order = sorted(range(len(found)), key=lambda index: (-found[index].spec.weight, index))
    keep = set(order[:most])
    return (
        [candidate for index, candidate in enumerate(found) if index in keep],
        tuple(candidate.spec.name for index, candidate in enumerate(found) if index not in keep),
    )


def _gap(event_time_us: IntArray) -> int:
    if event_time_us.size < 2:
        return 0
    gaps = np.diff(np.sort(event_time_us))
    return int(np.quantile(gaps, GAP_QUANTILE, method="higher"))


def _unwatched_features(config: ModelConfig) -> tuple[str, ...]:
    return tuple(
        f"{name}: {'no chart for ' + feature.type if feature.watch else 'watch is off'}"
        for name, feature in config.features.items()
        if not feature.watch or feature.type in {"text", "vector"}
    )
