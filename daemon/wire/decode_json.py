"""JSON records of one model to parts: every record decoded by one compiled layout, then columns at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from regate.config.model import ModelConfig
from regate.config.settings import Limits
from regate.daemon.wire.columnar import check_numbers, class_text, merge_categories, to_times, truth
from regate.daemon.wire.columns import Parts, kept, read_as_text
from regate.daemon.wire.hashing import hash_clients, hash_texts
from regate.daemon.wire.mapping import NONE, Gathered, Layout, join
from regate.daemon.wire.reasons import Bad, Reason
from regate.detectors.columns import BoolArray, Categorical, Column, FloatArray, IntArray, Numeric

# Classes that scores may name without being declared; more would let a few records widen every slice.
MAX_SCORED = 64
# Rows of one chunk stay in the processor's cache from decoding to columns: 1.4 times as fast as 20,000 at once.
CHUNK = 1024
_PLAIN_ENCODER = msgspec.json.Encoder()
_PLAIN = msgspec.json.Decoder()
_REFUSALS = (msgspec.MsgspecError, ValueError, RecursionError, OverflowError)


@dataclass(slots=True)
class JsonBatch:
    """What the fast path made of the records of one model, and which positions it could not take."""

    positions: list[int] = field(default_factory=list)  # of the decoded rows, in arrival order
    gathered: Gathered = field(default_factory=Gathered)
    failed: dict[int, str] = field(default_factory=dict)  # position -> what the decoder said


def decode_each(decode: Callable[[bytes], Any], values: Sequence[bytes]) -> tuple[list[Any], dict[int, str]]:
    """Return the decoded rows and, by position, what was said of those that are none.

    One C loop a run of good records: `list.extend` keeps what it had taken when an item raises.
    """
    rows: list[Any] = []
    failed: dict[int, str] = {}
    left = iter(values)
    while True:
        try:
            rows.extend(map(decode, left))
        except _REFUSALS as error:
            failed[len(rows) + len(failed)] = str(error)
        else:
            return rows, failed


def decode_batch(values: Sequence[bytes], layout: Layout, limits: Limits) -> JsonBatch:
    """Decode records by a layout; those with duplicate keys or too many fields fail as well."""
    batch = JsonBatch()
    pieces: list[Gathered] = []
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        rows, failed = decode_each(layout.decoder.decode, part)
        positions = [p for p in range(len(part)) if p not in failed] if failed else range(len(part))
        good = [part[p] for p in positions] if failed else part
        colons = _colons(good)
        gathered = layout.gather(rows, colons) if rows else Gathered()
        doubtful = _doubtful(good, colons, gathered, limits) if rows else {}
        if doubtful:
            failed |= {positions[row]: said for row, said in doubtful.items()}
            positions = [p for row, p in enumerate(positions) if row not in doubtful]
            rows = [value for row, value in enumerate(rows) if row not in doubtful]
            gathered = layout.gather(rows) if rows else Gathered()
        if rows:
            pieces.append(gathered)
        batch.positions += [start + p for p in positions] if failed else range(start, start + len(part))
        batch.failed |= {start + p: said for p, said in failed.items()}
    if pieces:
        batch.gathered = join(pieces)
    return batch


def _colons(values: Sequence[bytes]) -> int | None:
    """Return how many colons stand in the bytes, None when one may be written as an escape."""
    joined = b"".join(values)
    if b"\\" in joined and (b"\\u003a" in joined or b"\\u003A" in joined):
        return None
    return int(np.count_nonzero(np.frombuffer(joined, np.uint8) == ord(":")))


def _doubtful(values: Sequence[bytes], colons: int | None, gathered: Gathered, limits: Limits) -> dict[int, str]:
    """Return the rows that name a key twice, or too many keys.

    A colon stands after each key and inside texts, nowhere else. The decoded values account for some; when the bytes
    hold exactly as many, no key can have stood twice, in any record. Else each record is re-encoded, which drops
    duplicates, and its colons are counted again. A colon that is written as an escape would hide one: it is doubted.
    """
    if colons == gathered.keys + gathered.colons:
        return {}
    found: dict[int, str] = {}
    for row, value in enumerate(values):
        try:
            data = _PLAIN.decode(value)
        except _REFUSALS as error:
            found[row] = str(error)
            continue
        count = value.count(b":")
        if colons is None and b"\\u003" in value.lower():
            found[row] = ESCAPED
        elif _PLAIN_ENCODER.encode(data).count(b":") != count:
            found[row] = "an object names a key twice"
        elif count > limits.features and _too_wide(data, limits):
            found[row] = TOO_WIDE
    return found


ESCAPED = "a colon is written as an escape"
TOO_WIDE = "an object has more members than limits.features"


def _too_wide(data: Any, limits: Limits) -> bool:
    if not isinstance(data, dict):
        return False
    return len(data) > limits.features or any(_too_wide(value, limits) for value in data.values())


def parts_of(gathered: Gathered, n: int, config: ModelConfig, *, envelope: bool, labels: bool, salt: int) -> Parts:
    """Return the parts of ``n`` decoded rows."""
    return _Builder(gathered, n, config, envelope=envelope, labels=labels, salt=salt).build()


class _Builder:
    def __init__(
        self, gathered: Gathered, n: int, config: ModelConfig, *, envelope: bool, labels: bool, salt: int
    ) -> None:
        self._given = gathered
        self._config = config
        self._envelope = envelope
        self._labels = labels
        self._salt = salt
        self._parts = Parts(n)

    def build(self) -> Parts:
        parts = self._parts
        self._identity()
        if self._labels:
            parts.label = self._outcome("label")
            self._require("label", _missing(parts.label))
        else:
            self._features()
            self._cohorts()
            parts.latency_ms = self._numbers("latency_ms", "latency_ms")
            if self._sent("error"):
                parts.error = truth(self._encoded("error"))
        parts.prediction = self._outcome("prediction")
        self._scores()
        return parts

    def _sent(self, name: str) -> bool:
        kinds = self._given.kinds.get(name)
        return kinds is not None and kinds[NONE] < self._parts.n

    def _require(self, name: str, missing: BoolArray) -> None:
        if missing.any():
            self._parts.bad.append(Bad(missing, Reason.MISSING_FIELD, name, f"{name} is missing"))

    def _merged(self, name: str, attribute: str) -> tuple[Sequence[Any], set[type]]:
        """Return a column with the CloudEvent's attribute where the event itself says nothing."""
        column = self._given.columns[name]
        if not self._envelope or not self._given.kinds[name][NONE]:
            return column, set(self._given.kinds[name])
        other = self._given.columns[f"ce:{attribute}"]
        merged = [b if a is None else a for a, b in zip(column, other, strict=True)]
        return merged, set(self._given.kinds[name]) | set(self._given.kinds[f"ce:{attribute}"])

    def _identity(self) -> None:
        parts = self._parts
        ids = self._given.columns["event_id"]
        kinds = set(self._given.kinds["event_id"])
        if not self._labels:
            ids, kinds = self._merged("event_id", "id")
        parts.event_id = hash_texts(as_texts(ids, kinds))
        if NONE in kinds:
            self._require("event_id", np.fromiter((value is None for value in ids), np.bool_, parts.n))
        times, kinds = self._merged("event_time", "time")
        parts.event_time_us, parts.has_time, wrong = times_of(times, kinds)
        if wrong.any():
            parts.bad.append(Bad(wrong, Reason.BAD_TIME, "event_time", "event_time is no time"))
        if self._config.privacy.get("client") != "drop":
            self._client()

    def _client(self) -> None:
        """Hash who asked; of labels who sent them, which a CloudEvent's source says where the label does not."""
        column, kinds = self._given.columns.get("client", ()), set(self._given.kinds.get("client", ()))
        if self._labels and self._envelope:
            column, kinds = self._merged("client", "source")
        if kinds - {NONE}:
            self._parts.client = hash_clients(pa.array(as_texts(column, kinds), pa.large_string()), self._salt)

    def _features(self) -> None:
        mapping = self._config.mapping
        path = f"data.{mapping.inputs}" if self._envelope and not mapping.inputs.startswith("data.") else mapping.inputs
        absent = self._given.absent.get(path)
        if absent is not None:
            payload = self._given.columns.get("payload")
            lacking = np.array(absent) & np.array([True if payload is None else p is None for p in payload or absent])
            self._require("inputs", lacking)
        for name, feature in self._config.features.items():
            column: Column | None = None
            if feature.type == "numeric":
                values = self._numbers(f"in:{name}", name)
                column = None if values is None else Numeric(values)
            elif feature.type in {"categorical", "boolean"}:
                column = self._encoded(f"in:{name}", hashed=feature.privacy == "hash")
            elif read_as_text(feature):
                self._parts.texts[name] = column = self._encoded(f"in:{name}")
            if feature.required and column is not None:
                self._require(name, _missing(column))
            if feature.type == "text":
                continue
            if column is not None and kept(feature):
                self._parts.features[name] = column

    def _cohorts(self) -> None:
        for name in self._config.cohorts:
            privacy = self._config.privacy.get(name, "keep")
            place = next((p for p in (f"co:{name}", f"in:{name}") if p in self._given.columns), None)
            if place is not None and privacy != "drop":
                self._parts.cohorts[name] = self._encoded(place, hashed=privacy == "hash")

    def _encoded(self, place: str, *, hashed: bool = False) -> Categorical:
        return encode(self._given.columns[place], self._given.kinds[place], hashed=hashed)

    def _numbers(self, place: str, name: str) -> FloatArray | None:
        values = self._given.numbers.get(place)
        if values is not None:
            self._parts.bad += check_numbers(values, self._config.features.get(name), name)
        return values

    def _outcome(self, name: str) -> Column | None:
        if self._config.output.type == "regression":
            values = self._numbers(name, name)
            return (
                None if values is None or (name == "prediction" and bool(np.isnan(values).all())) else Numeric(values)
            )
        return self._encoded(name) if self._sent(name) or name == "label" else None

    def _scores(self) -> None:
        if not self._sent("scores"):
            return
        column, kinds = self._given.columns["scores"], self._given.kinds["scores"]
        if kinds[float] or kinds[int]:
            single = [None if type(value) is dict else value for value in column] if kinds[dict] else column
            self._parts.scores[""] = np.array(single, np.float64)
        if kinds[dict]:
            rows: list[dict[str, Any]] = [value if type(value) is dict else {} for value in column]
            classes = list(dict.fromkeys(name for row in rows for name in row))
            declared = self._config.output.classes
            classes = [name for name in classes if name in declared] if declared else classes[:MAX_SCORED]
            for name in classes:
                self._parts.scores[name] = np.array([row.get(name) for row in rows], np.float64)
        for name, values in self._parts.scores.items():
            self._parts.bad += check_numbers(values, None, f"score_{name}" if name else "score")


def _missing(column: Column | None) -> BoolArray:
    if isinstance(column, Numeric):
        return np.isnan(column.values)
    assert column is not None
    return np.asarray(column.codes < 0, np.bool_)


def encode(column: Sequence[Any], kinds: Counter[type], *, hashed: bool = False) -> Categorical:
    """Return plain values as categories in order of first appearance."""
    # True == 1 == 1.0 to a dictionary, so booleans among numbers are told apart by their type.
    mixed = kinds[bool] and (kinds[int] or kinds[float])
    values = [(type(value), value) for value in column] if mixed else column
    place = {value: code for code, value in enumerate(dict.fromkeys(values))}
    codes = np.fromiter(map(place.__getitem__, values), np.int32, len(values))
    texts = [class_text(value[1] if isinstance(value, tuple) else value) for value in place]
    return merge_categories(codes, texts, hashed=hashed)


def as_texts(values: Sequence[Any], kinds: set[type]) -> Sequence[str]:
    """Return identifiers as texts; a missing one is empty."""
    if kinds == {str}:
        return values
    return ["" if value is None else str(value) for value in values]


def times_of(values: Sequence[Any], kinds: set[type]) -> tuple[IntArray, BoolArray, BoolArray]:
    """Return times in microseconds since the epoch, which rows have one, and which hold something else."""
    n = len(values)
    given = kinds - {NONE}
    if not given:
        return np.zeros(n, np.int64), np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    if given == {str}:
        times, good = to_times(pa.array(values, pa.large_string()))
    elif str not in given:
        # An integer of any length parses; beyond 1e20 no unit makes it a time.
        floats = np.array([v if v is None or abs(v) < 1e20 else np.inf for v in values], np.float64)
        times, good = to_times(pa.array(floats, mask=np.isnan(floats)))
    else:
        times, good = np.zeros(n, np.int64), np.zeros(n, np.bool_)
        for texts in (True, False):
            rows = [row for row, value in enumerate(values) if value is not None and isinstance(value, str) == texts]
            part = times_of([values[row] for row in rows], {str if texts else float})
            times[rows], good[rows] = part[0], part[1]
    if NONE not in kinds:
        return times, good, ~good
    present = np.fromiter((value is not None for value in values), np.bool_, n)
    return times, good & present, present & ~good
