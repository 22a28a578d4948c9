"""Where reference rows come from: a file, or a stretch of the telemetry and label topics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import numpy as np

from regate.config.errors import ConfigError
from regate.config.model import ModelConfig
from regate.config.settings import Limits
from regate.daemon.bus.port import Bus, Reader, Record, TopicPartition
from regate.daemon.files.table import read_table, training_rows
from regate.daemon.incidents import Story
from regate.daemon.wire.decode import Decoder
from regate.detectors.build import build_profile
from regate.detectors.columns import (
    MISSING_CODE,
    BoolArray,
    Categorical,
    Column,
    FloatArray,
    HashArray,
    IntArray,
    Labels,
    Numeric,
    Slice,
    cut_column,
)
from regate.detectors.labelled import Delivery, usual_delay
from regate.detectors.profile import Profile

Progress = Callable[[str, float], None]

# Records read from the bus at once: bounds memory while decoding.
CHUNK = 20_000
MINUTE_US = 60_000_000


@dataclass(frozen=True, slots=True)
class Request:
    """How a profile is asked for."""

    events_per_second: float | None
    budget_events: float | None
    calibrate_seconds: float | None
    seed: int
    trained: Path | None = None


def from_file(path: Path, config: ModelConfig | None, rows: int | None, request: Request, tell: Progress) -> Profile:
    """Build a profile from the first ``rows`` rows of a file (default all)."""
    table = read_table(path, config)
    reference = table.slice(0, table.rows if rows is None else rows)
    labels = table.labels()
    cut = None if labels is None else cut_column(labels, slice(0, reference.n))
    rate = request.events_per_second
    if rate is None and request.budget_events is None and table.event_time_us() is not None:
        rate = table.config.detection.events_per_second or measured_rate(reference.event_time_us)
    return _build(table.config, reference, cut, replace(request, events_per_second=rate), tell)


def from_topic(
    bus: Bus,
    topic: str,
    labels_topic: str | None,
    config: ModelConfig,
    since: str | None,
    until: str | None,
    limits: Limits,
    request: Request,
    tell: Progress,
    quarantine: Mapping[str, Story] | None = None,
) -> Profile:
    """Build a profile of ``config``'s model, version and deployment from a stretch of a topic.

    :param quarantine: incidents whose rows are left out; the profile's notes say how many.

    :raises ConfigError: when the topic is not there or holds no event of the model in that time.
    """
    events = events_of_topic(bus, topic, config, since, until, limits, tell)
    labels: list[Labels] = []
    if labels_topic is not None:
        decoder = Decoder({(config.tenant, config.model): config}, limits)
        for records in _records(bus, labels_topic, since, None, tell):
            labels += decoder.decode_labels(records).labels
    reference, notes = _clean(events, quarantine or {})
    rate = request.events_per_second or config.detection.events_per_second
    if rate is None and request.budget_events is None:
        rate = measured_rate(reference.event_time_us)
    own = [part for part in labels if _is_of(part.key, config, any_version=True)]
    outcome, delivery = outcome_column(reference, own, config)
    profile = _build(config, reference, outcome, replace(request, events_per_second=rate), tell, delivery)
    return replace(profile, notes=(*profile.notes, *notes))


def events_of_topic(
    bus: Bus, topic: str, config: ModelConfig, since: str | None, until: str | None, limits: Limits, tell: Progress
) -> Slice:
    """Return the events of ``config``'s model, version and deployment in a stretch of a topic, by event time.

    :raises ConfigError: when the topic is not there or holds no such event.
    """
    decoder = Decoder({(config.tenant, config.model): config}, limits)
    events: list[Slice] = []
    for records in _records(bus, topic, since, until, tell):
        events += [part for part in decoder.decode(records).slices if _is_of(part.key, config)]
    if not events:
        raise ConfigError(
            f"{topic} holds no event of {config.tenant}/{config.model} version {config.version} in that time",
            hint="regate status shows what arrives; widen --since and --until",
        )
    return joined(events)


def _clean(rows: Slice, quarantine: Mapping[str, Story]) -> tuple[Slice, list[str]]:
    """Return the rows outside of incidents, and what was left out: a change must not become normal by waiting."""
    notes = []
    inside = np.zeros(rows.n, dtype=np.bool_)
    for name, story in quarantine.items():
        own = story.covers(rows.event_time_us)
        inside |= own
        if own.any():
            notes.append(
                f"{int(own.sum())} rows of incident {name} ({story.finding.subject}) left out: --accepts {name}"
            )
    return rows.some(~inside) if notes else rows, notes


def _build(
    config: ModelConfig,
    rows: Slice,
    labels: Column | None,
    request: Request,
    tell: Progress,
    delivery: Delivery | None = None,
) -> Profile:
    return build_profile(
        config,
        rows.key,
        rows,
        labels,
        delivery=delivery,
        budget_events=request.budget_events,
        events_per_second=request.events_per_second,
        calibrate_seconds=request.calibrate_seconds,
        seed=request.seed,
        trained=None if request.trained is None else training_rows(request.trained, config),
        progress=tell,
    )


def read_profile(path: Path) -> Profile:
    """Return the profile in a file.

    :raises ConfigError: when it cannot be read or is none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="regate profile build") from error
    return Profile.from_bytes(data)


def measured_rate(event_time_us: IntArray) -> float | None:
    """Return events a second over the whole stretch, None when its times do not span any."""
    span = int(event_time_us.max() - event_time_us.min()) if event_time_us.size else 0
    return event_time_us.size / (span / 1e6) if span > 0 else None


def _is_of(key: object, config: ModelConfig, *, any_version: bool = False) -> bool:
    parts = (getattr(key, "tenant", None), getattr(key, "model", None), getattr(key, "deployment", None))
    same = parts == (config.tenant, config.model, config.deployment)
    return same and (any_version or getattr(key, "version", None) == config.version)


def _records(bus: Bus, topic: str, since: str | None, until: str | None, tell: Progress) -> Iterator[Sequence[Record]]:
    admin, reader = bus.admin(), bus.reader()
    try:
        count = admin.partitions(topic)
        if not count:
            raise ConfigError(f"there is neither a file nor a topic {topic}", hint="regate topics list")
        for number in range(count):
            partition = TopicPartition(topic, number)
            start, stop = _range(reader, partition, since, until)
            for first in range(start, stop, CHUNK):
                yield reader.read(partition, first, min(first + CHUNK, stop))
            tell("reading", (number + 1) / count)
    finally:
        admin.close()
        reader.close()


def _range(reader: Reader, partition: TopicPartition, since: str | None, until: str | None) -> tuple[int, int]:
    start = reader.beginning(partition) if since is None else reader.at_time(partition, milliseconds(since))
    stop = reader.end(partition) if until is None else reader.at_time(partition, milliseconds(until))
    return start, max(start, stop)


def milliseconds(text: str) -> int:
    """Return a time in ISO 8601 as milliseconds since the epoch; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no time", hint="write 2026-01-31T12:00:00+00:00") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def joined(parts: Sequence[Slice]) -> Slice:
    """Return all events as one slice in order of event time; names that a part lacks are missing there."""
    names = sorted({name for part in parts for name in part.features})
    n = sum(part.n for part in parts)
    times = np.concatenate([part.event_time_us for part in parts])
    order = np.argsort(times, kind="stable")
    return Slice(
        key=parts[0].key,
        n=n,
        event_id=np.concatenate([part.event_id for part in parts])[order],
        event_time_us=times[order],
        arrival_us=np.concatenate([part.arrival_us for part in parts])[order],
        features={name: _stacked([(part.features.get(name), part.n) for part in parts], order) for name in names},
        prediction=_stacked([(part.prediction, part.n) for part in parts], order),
        scores={
            name: np.concatenate([part.scores.get(name, np.full(part.n, np.nan)) for part in parts])[order]
            for name in sorted({name for part in parts for name in part.scores})
        },
        latency_ms=_all([part.latency_ms for part in parts], order),
        error=_all([part.error for part in parts], order),
        client=_clients(parts, order),
        cohorts={
            name: column
            for name in sorted({name for part in parts for name in part.cohorts})
            if isinstance(column := _stacked([(part.cohorts.get(name), part.n) for part in parts], order), Categorical)
        },
        texts={
            name: column
            for name in sorted({name for part in parts for name in part.texts})
            if isinstance(column := _stacked([(part.texts.get(name), part.n) for part in parts], order), Categorical)
        },
    )


T = TypeVar("T", FloatArray, BoolArray, HashArray)


def _all(arrays: Sequence[T | None], order: IntArray) -> T | None:
    """Return arrays one behind the other, in ``order``; None when a part lacks its own."""
    known = [array for array in arrays if array is not None]
    return np.concatenate(known)[order] if len(known) == len(arrays) else None


def _clients(parts: Sequence[Slice], order: IntArray) -> HashArray | None:
    """Return who asked, 0 (nobody) in parts whose events all lack a client; None when all parts do."""
    if all(part.client is None for part in parts):
        return None
    own = [np.zeros(part.n, np.uint64) if part.client is None else part.client for part in parts]
    return np.concatenate(own)[order]


def _stacked(columns: Sequence[tuple[Column | None, int]], order: IntArray) -> Column:
    """Return columns one behind the other, in ``order``; a column that is not there is missing."""
    if any(isinstance(column, Numeric) for column, _ in columns):
        numbers: list[FloatArray] = [
            column.values if isinstance(column, Numeric) else np.full(n, np.nan) for column, n in columns
        ]
        return Numeric(np.concatenate(numbers)[order])
    place: dict[str, int] = {}
    codes = []
    for column, n in columns:
        if isinstance(column, Categorical):
            to_code = [place.setdefault(category, len(place)) for category in column.categories]
            codes.append(np.array([*to_code, MISSING_CODE], dtype=np.int32)[column.codes])
        else:
            codes.append(np.full(n, MISSING_CODE, dtype=np.int32))
    return Categorical(np.concatenate(codes)[order], tuple(place))


def outcome_column(rows: Slice, labels: Sequence[Labels], config: ModelConfig) -> tuple[Column | None, Delivery | None]:
    """Return the first label of each row by event id, and how labels came; nothing when no label is of these rows."""
    if not labels:
        return None, None
    ids = np.concatenate([part.event_id for part in labels])
    times = np.concatenate([part.event_time_us for part in labels])
    arrivals = np.concatenate([part.arrival_us for part in labels])
    column = _stacked([(part.label, part.n) for part in labels], np.arange(ids.size))
    by_time = np.argsort(times, kind="stable")
    known, first, which = np.unique(ids[by_time], return_index=True, return_inverse=True)
    at = np.minimum(np.searchsorted(known, rows.event_id), known.size - 1)
    found = known[at] == rows.event_id
    if not found.any():
        return None, None
    source = by_time[first[at]]
    values = _codes(column)[by_time]
    against = np.zeros(known.size, dtype=np.bool_)
    against[which[values != values[first][which]]] = True
    # As in observe: many producers stamp a label with the time of its prediction, and then its arrival counts.
    stale = (arrivals - times)[source] > config.detection.allowed_lateness_seconds * 1e6
    made = np.where(stale, rows.arrival_us, rows.event_time_us) // MINUTE_US
    age = np.maximum(np.where(stale, arrivals[source], times[source]) // MINUTE_US - made, 0)
    delivery = Delivery(np.where(found, age, np.nan), found & against[at])
    delay = usual_delay(delivery, config.detection.label_delay_seconds)
    last = int(max(times.max(), arrivals.max())) // MINUTE_US
    delivery = replace(delivery, mature=None if delay is None else made + delay <= last)
    if isinstance(column, Numeric):
        return Numeric(np.where(found, column.values[source], np.nan)), delivery
    codes = np.where(found, column.codes[source], MISSING_CODE).astype(np.int32)
    return Categorical(codes, column.categories), delivery


def _codes(column: Column) -> FloatArray:
    """Return labels as numbers that can be compared: a missing one equals a missing one."""
    if isinstance(column, Numeric):
        return np.where(np.isnan(column.values), np.inf, column.values)
    return column.codes.astype(np.float64)
