"""Sending a table as a stream: due rows in batches, labels after their delay. Time and waiting are arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from regate.daemon.bus.port import Headers, OutRecord, Writer
from regate.daemon.files import Table
from regate.daemon.wire.decode import ARROW
from regate.daemon.wire.encode import EventEncoder
from regate.detectors.columns import IntArray

Form = Literal["json", "arrow"]
Key = Literal["model", "client", "none"]
# Below the default limit of a record (1 MB) with room for its frame.
RECORD_BYTES = 900_000
# The longest nap, so that a stop request and the progress bar are served.
NAP_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Sending:
    """How a table is sent."""

    telemetry: str  # topic names
    labels: str = ""  # empty: no labels
    form: Form = "json"
    key: Key = "model"
    label_delay_rows: int = 0
    batch_rows: int = 1000


@dataclass(slots=True)
class Sent:
    """What has been sent."""

    events: int = 0
    labels: int = 0
    records: int = 0
    bytes: int = 0


def send(
    table: Table,
    writer: Writer,
    how: Sending,
    *,
    times_us: IntArray | None,
    run: str = "",
    now_us: Callable[[], int],
    wait: Callable[[float], None],
    progress: Callable[[Sent], None] = lambda _: None,
) -> Sent:
    """Send all rows, each not before its time; then the labels that are still due.

    :param times_us: new event time of each row (`plan_times`); None sends at once, with the time of sending.
    :param run: names rows without an event id of their own.
    """
    encoder = EventEncoder(table, run)
    sent = Sent()
    due = None if times_us is None else np.maximum.accumulate(times_us)
    start = labelled = 0
    while start < table.rows:
        now = now_us()
        stop = min(start + how.batch_rows, table.rows)
        if due is not None and times_us is not None:
            stop = min(stop, int(np.searchsorted(due, now, side="right")))
            if stop <= start:
                wait(min((int(due[start]) - now) / 1e6, NAP_SECONDS))
                continue
            times: IntArray = times_us[start:stop]
        else:
            times = np.full(stop - start, now, np.int64)
        _events(encoder, writer, how, table, start, stop, times, sent)
        start = stop
        ripe = max(start - how.label_delay_rows, labelled)
        labelled = _labels(encoder, writer, how, table, labelled, ripe, now, sent)
        progress(sent)
    _labels(encoder, writer, how, table, labelled, table.rows, now_us(), sent)
    writer.flush()
    progress(sent)
    return sent


def _events(
    encoder: EventEncoder,
    writer: Writer,
    how: Sending,
    table: Table,
    start: int,
    stop: int,
    times: IntArray,
    sent: Sent,
) -> None:
    if how.form == "arrow":
        for part, value in _streams(encoder, start, stop, times):
            _write(writer, how.telemetry, value, _model_key(how, table), (("content-type", ARROW),), sent)
            sent.events += part
        return
    keys: Sequence[bytes | None] = [_model_key(how, table)] * (stop - start)
    if how.key == "client":
        keys = [client.encode() or None for client in encoder.clients(start, stop)]
    for key, value in zip(keys, encoder.json(start, stop, times), strict=True):
        _write(writer, how.telemetry, value, key, (), sent)
    sent.events += stop - start


def _streams(encoder: EventEncoder, start: int, stop: int, times: IntArray) -> list[tuple[int, bytes]]:
    """Return Arrow streams below the record limit, by halving what is too large."""
    value = encoder.arrow(start, stop, times)
    if len(value) <= RECORD_BYTES or stop - start == 1:
        return [(stop - start, value)]
    middle = (stop - start) // 2
    first = _streams(encoder, start, start + middle, times[:middle])
    return first + _streams(encoder, start + middle, stop, times[middle:])


def _labels(
    encoder: EventEncoder, writer: Writer, how: Sending, table: Table, start: int, stop: int, now: int, sent: Sent
) -> int:
    """Send the labels of rows ``start`` to ``stop``; return where to go on."""
    if not how.labels or not table.has_label or stop <= start:
        return start
    values = encoder.labels(start, stop, np.full(stop - start, now, np.int64))
    for value in values:
        _write(writer, how.labels, value, _model_key(how, table), (), sent)
    sent.labels += len(values)
    return stop


def _model_key(how: Sending, table: Table) -> bytes | None:
    return table.key.placement.encode() if how.key == "model" else None


def _write(writer: Writer, topic: str, value: bytes, key: bytes | None, headers: Headers, sent: Sent) -> None:
    writer.send(OutRecord(topic, value, key, headers))
    sent.records += 1
    sent.bytes += len(value)
