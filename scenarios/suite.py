"""Bounds of a run: those of the records, with what the model's configuration sets instead."""

from __future__ import annotations

from collections.abc import Sequence

from regate.config.errors import ConfigError
from regate.config.model import ModelConfig
from regate.scenarios.record import Bound, Record

STEADY = "steady_state"


def with_bounds(records: Sequence[Record], config: ModelConfig) -> tuple[Record, ...]:
    """Return the records with ``validation.bounds`` of the model in force, keys ``<scenario id>/<check>``.

    :raises ConfigError: when a bound names a scenario of this suite and a check that it does not have.
    """
    wanted = dict(config.validation.bounds)
    known = {f"{record.id}/{check}" for record in records for check in record.bounds}
    ids = {record.id for record in records}
    if unknown := sorted(key for key in wanted if key not in known and key.split("/")[0] in ids):
        raise ConfigError(
            f"validation.bounds names {unknown[0]}, which no scenario checks",
            hint="run `regate validate --list` to see the checks",
        )
    return tuple(_bounded(record, wanted) for record in records)


def _bounded(record: Record, wanted: dict[str, float]) -> Record:
    changed = {
        check: bound.model_copy(update={"bound": wanted[f"{record.id}/{check}"]})
        for check, bound in record.bounds.items()
        if f"{record.id}/{check}" in wanted
    }
    return record.model_copy(update={"expected": {**record.bounds, **changed}}) if changed else record


def steady_bound(record: Record) -> Bound:
    """Return the bound of the probes before and after: the largest change of a score."""
    return Bound(comparator="<=", bound=record.steady_state.tolerance, unit="score")


def all_bounds(record: Record) -> dict[str, Bound]:
    """Return every check of a scenario by name, the steady state among them."""
    return {**record.bounds, STEADY: steady_bound(record)}
