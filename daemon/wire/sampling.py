"""The newest events of a topic as columns, whatever their layout: what `init` looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from regate.config.errors import ConfigError, FatalError
from regate.config.settings import Limits
from regate.daemon.bus.port import Bus, Record, TopicPartition
from regate.daemon.wire.columnar import class_text
from regate.daemon.wire.decode_arrow import group_streams
from regate.daemon.wire.guess import NAMES
from regate.daemon.wire.limits import screen, screen_texts

ARROW_MARK = b"\xff\xff\xff\xff"


def newest(bus: Bus, topic: str, count: int) -> list[Record]:
    """Return about ``count`` of the newest records of a topic, partition by partition.

    :raises ConfigError: when the topic does not exist or holds nothing.
    """
    admin = bus.admin()
    partitions = admin.partitions(topic)
    admin.close()
    if not partitions:
        raise ConfigError(f"{topic} is neither a file nor a topic", hint="check the path, or regate topics list")
    reader = bus.reader()
    records: list[Record] = []
    share = -(-count // partitions)
    for number in range(partitions):
        place = TopicPartition(topic, number)
        end = reader.end(place)
        start = max(reader.beginning(place), end - share)
        try:
            records += reader.read(place, start, end) if end > start else []
        except FatalError as error:  # retention took the start between two requests
            raise ConfigError(f"{topic} loses records while it is read", hint="try again") from error
    reader.close()
    if not records:
        raise ConfigError(f"the topic {topic} is empty", hint="regate produce FILE")
    return records


def columns_of(records: Sequence[Record], limits: Limits) -> dict[str, pa.Array]:
    """Return the flattened columns of JSON events (the data of CloudEvents), or of Arrow streams of one schema.

    :raises ConfigError: when no record is readable.
    """
    texts: list[bytes] = []
    streams: list[bytes] = []
    for record in records:
        if screen(record, limits) is None and record.value is not None:
            (streams if record.value[:4] == ARROW_MARK else texts).append(record.value)
    bad = screen_texts(texts, limits).refused
    rows = [row for place, value in enumerate(texts) if place not in bad and (row := _event(value)) is not None]
    if rows:
        return _columns(rows)
    groups, _ = group_streams(streams, limits)
    if not groups:
        raise ConfigError("no record of the sample is a JSON object or an Arrow stream", hint="look at the topic")
    return max(groups, key=lambda group: group.n).columns


def one_model(columns: Mapping[str, pa.Array], model: str) -> tuple[dict[str, pa.Array], str]:
    """Return the rows of one model (the named one, else the most frequent) and its name; all where none is said."""
    path = next((path for word in NAMES["model"] for path in columns if path.rpartition(".")[2].lower() == word), "")
    if not path:
        return dict(columns), model
    names = [class_text(value) for value in columns[path].to_pylist()]
    counts = Counter(name for name in names if name)
    if not counts:
        return dict(columns), model
    if model and model not in counts:
        raise ConfigError(f"no event of the sample names the model {model!r}", hint=f"seen: {', '.join(counts)[:200]}")
    chosen = model or counts.most_common(1)[0][0]
    mask = pa.array([name == chosen for name in names])
    return {name: pc.filter(array, mask) for name, array in columns.items()}, chosen


def _event(value: bytes) -> dict[str, Any] | None:
    try:
        event = msgspec.json.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if isinstance(event, dict) and "specversion" in event and isinstance(event.get("data"), dict):
        event = event["data"]
    return _flat(event, "", {}) if isinstance(event, dict) else None


def _flat(event: dict[str, Any], prefix: str, into: dict[str, Any]) -> dict[str, Any]:
    for name, value in event.items():
        if isinstance(value, dict):
            _flat(value, f"{prefix}{name}.", into)
        else:
            into[prefix + name] = value
    return into


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, OverflowError):  # mixed types: a category, if it is anything
            texts = [None if isinstance(value, list) else class_text(value) for value in values]
            columns[name] = pa.array(texts, pa.string())
    return columns
