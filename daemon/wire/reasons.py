"""Why a record or a row is refused: stable codes, for dead letters, counters and policies."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from regate.daemon.bus.port import Record
from regate.detectors.columns import BoolArray


class Reason(StrEnum):
    """A stable code; the words may change, the codes do not."""

    EMPTY = "empty"  # a tombstone or no bytes
    TOO_LARGE = "too_large"  # more bytes than limits.record_bytes
    TOO_DEEP = "too_deep"  # more nesting than limits.depth
    TOO_MANY_FIELDS = "too_many_fields"  # more features, cohorts or classes than the limits
    TOO_MANY_MODELS = "too_many_models"  # a new model beyond limits.models on this partition
    TOO_MANY_ROWS = "too_many_rows"  # an Arrow stream that claims more rows than its bytes can hold
    NOT_UTF8 = "not_utf8"  # invalid UTF-8, or half of a surrogate pair
    NOT_JSON = "not_json"
    NOT_ARROW = "not_arrow"
    COMPRESSED = "compressed"  # Arrow body compression: its size is not bounded by the record's
    DUPLICATE_KEY = "duplicate_key"  # an object that names a key twice
    UNKNOWN_SCHEMA = "unknown_schema"  # another or a newer type, dataschema or schema_version
    MISSING_FIELD = "missing_field"  # a required field is absent or null
    WRONG_TYPE = "wrong_type"  # bool where a number is declared, text where a number is, and so on
    NON_FINITE = "non_finite"  # NaN, infinity, or a literal beyond what a float holds
    OUT_OF_RANGE = "out_of_range"  # outside the declared range
    BAD_TIME = "bad_time"  # an event time that is no time
    INVALID = "invalid"  # any other breach of the contract


@dataclass(frozen=True, slots=True)
class Refusal:
    """One record, or ``count`` rows of an Arrow record, that no detector sees."""

    record: Record
    reason: str  # a `Reason`, or what else a role says of an input that it cannot use
    message: str
    count: int = 1
    rows: tuple[int, ...] = ()  # first row numbers of an Arrow record; empty: all of the record
    model: str = ""  # tenant/model where it could be read
    field: str = ""


@dataclass(frozen=True, slots=True)
class Bad:
    """Rows of a batch of columns that one field makes unusable."""

    rows: BoolArray
    reason: Reason
    field: str
    message: str
