"""Parts of a batch to slices, one a model version and deployment, and to the refusals of its bad rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from regate.config.model import ModelConfig
from regate.daemon.bus.port import Record
from regate.daemon.bus.records import times_of
from regate.daemon.wire.columns import Parts
from regate.daemon.wire.reasons import Bad, Reason, Refusal
from regate.detectors.columns import (
    BoolArray,
    Categorical,
    Column,
    FloatArray,
    HashArray,
    IntArray,
    Labels,
    ModelKey,
    Numeric,
    Slice,
)

# What regate.config.model.Name allows: an id with a slash or a line feed would forge a scope or a log line.
_NAME = re.compile(r"[^\s/@\x00-\x1f][^/@\x00-\x1f]{0,199}\Z")
# Row numbers kept with a refusal: enough to look at, bounded whatever the batch holds.
MAX_ROWS_NAMED = 16


@dataclass(slots=True)
class Decoded:
    """What a batch of records held: slices (or labels) in arrival order a key, and what was refused."""

    slices: list[Slice] = field(default_factory=list)
    labels: list[Labels] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one model with where each came from."""

    parts: Parts
    config: ModelConfig
    keys: Sequence[ModelKey]
    key_of: IntArray  # row -> index into keys
    records: Sequence[Record]
    record_of: IntArray  # row -> index into records
    row_of: IntArray | None  # row -> row number within its Arrow record; None when each record is one row


def assemble(batch: Batch, known: set[ModelKey], most: int, *, labels: bool, into: Decoded) -> None:
    """Add a batch to the result.

    :param known: keys already met on the partition; new ones are added until there are ``most``.
    """
    parts = batch.parts
    for code, key in enumerate(batch.keys):
        rows = np.asarray(batch.key_of == code, np.bool_)
        wrong = next(
            (name for name in (key.tenant, key.model, key.version, key.deployment) if not _NAME.match(name)), None
        )
        if wrong is not None:
            said = "tenant, model, model_version and deployment are names without slash, at-sign or control characters"
            parts.bad.append(Bad(rows, Reason.INVALID, "model", said))
        elif key not in known and len(known) >= most:
            said = f"more models, versions and deployments on this partition than limits.models {most}"
            parts.bad.append(Bad(rows, Reason.TOO_MANY_MODELS, "model", said))
        else:
            known.add(key)
    good = parts.good()
    if not good.all():
        into.refused += _refusals(batch, good)
    arrival = (times_of(batch.records) * 1000)[batch.record_of]
    for code, key in enumerate(batch.keys):
        rows = good & (batch.key_of == code)
        count = int(np.count_nonzero(rows))
        if not count:
            continue
        take = None if count == parts.n else np.flatnonzero(rows)
        if labels:
            into.labels.append(_labels(parts, key, count, take, arrival, batch.config))
        else:
            into.slices.append(_slice(parts, key, count, take, arrival))


def _refusals(batch: Batch, good: BoolArray) -> list[Refusal]:
    """Return one refusal a record and reason: each bad row is counted once, under the first field that refused it."""
    model = f"{batch.config.tenant}/{batch.config.model}"
    left = ~good
    found: list[tuple[int, Refusal]] = []
    for bad in batch.parts.bad:
        rows = np.flatnonzero(bad.rows & left)
        left[rows] = False
        owners = batch.record_of[rows]
        for owner in np.unique(owners).tolist():
            mine = rows[owners == owner] if batch.row_of is not None else rows[:0]
            numbers = () if batch.row_of is None else tuple(batch.row_of[mine[:MAX_ROWS_NAMED]].tolist())
            refusal = Refusal(
                record=batch.records[owner],
                reason=bad.reason,
                message=bad.message,
                count=1 if batch.row_of is None else len(mine),
                rows=numbers,
                model=model,
                field=bad.field,
            )
            found.append((owner, refusal))
    return [refusal for _, refusal in sorted(found, key=lambda pair: pair[0])]


def _times(parts: Parts, arrival: IntArray) -> IntArray:
    """Return event times; an event without one takes its record's timestamp."""
    if parts.event_time_us is None or parts.has_time is None:
        return arrival
    return parts.event_time_us if parts.has_time.all() else np.where(parts.has_time, parts.event_time_us, arrival)


def _slice(parts: Parts, key: ModelKey, n: int, take: IntArray | None, arrival: IntArray) -> Slice:
    return Slice(
        key=key,
        n=n,
        event_id=_hashes(parts.event_id, take),
        event_time_us=_cut(_times(parts, arrival), take),
        arrival_us=_cut(arrival, take),
        features={name: _column(column, take) for name, column in parts.features.items()},
        prediction=None if parts.prediction is None else _column(parts.prediction, take),
        scores={name: _floats(values, take) for name, values in parts.scores.items()},
        latency_ms=None if parts.latency_ms is None else _floats(parts.latency_ms, take),
        error=None if parts.error is None else (parts.error if take is None else parts.error[take]),
        client=None if parts.client is None else _hashes(parts.client, take),
        cohorts={
            name: Categorical(c.codes if take is None else c.codes[take], c.categories)
            for name, c in parts.cohorts.items()
        },
        texts={
            name: Categorical(c.codes if take is None else c.codes[take], c.categories)
            for name, c in parts.texts.items()
        },
    )


def _labels(
    parts: Parts, key: ModelKey, n: int, take: IntArray | None, arrival: IntArray, config: ModelConfig
) -> Labels:
    assert parts.label is not None
    score = parts.scores.get("", parts.scores.get(config.output.positive))
    return Labels(
        key=key,
        n=n,
        event_id=_hashes(parts.event_id, take),
        event_time_us=_cut(_times(parts, arrival), take),
        arrival_us=_cut(arrival, take),
        label=_column(parts.label, take),
        prediction=None if parts.prediction is None else _column(parts.prediction, take),
        score=None if score is None else _floats(score, take),
        source=None if parts.client is None else _hashes(parts.client, take),
    )


def _column(column: Column, take: IntArray | None) -> Column:
    if take is None:
        return column
    if isinstance(column, Numeric):
        return Numeric(column.values[take])
    return Categorical(column.codes[take], column.categories)


def _cut(values: IntArray, take: IntArray | None) -> IntArray:
    return values if take is None else np.asarray(values[take], np.int64)


def _floats(values: FloatArray, take: IntArray | None) -> FloatArray:
    return values if take is None else np.asarray(values[take], np.float64)


def _hashes(values: HashArray | None, take: IntArray | None) -> HashArray:
    assert values is not None
    return values if take is None else np.asarray(values[take], np.uint64)
