"""Arrow IPC records to tables: every stream is checked before and after it is read, then equal schemas are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from regate.config.settings import Limits
from regate.daemon.wire.columnar import flatten
from regate.daemon.wire.ipc import FramingError, framing
from regate.daemon.wire.reasons import Reason
from regate.detectors.columns import IntArray

Why = tuple[Reason, str]
SCHEMA_VERSION = b"regate.schema_version"  # key of the stream's metadata; absent means 1
# An event id of its own costs a row at least this: more rows than that are a length, not events.
BYTES_PER_ROW = 4
# Struct columns are opened field by field; deeper nesting is refused with limits.depth.
_ERRORS = (pa.ArrowException, FramingError, OSError, ValueError, KeyError, UnicodeDecodeError, OverflowError)


@dataclass(frozen=True, slots=True)
class ArrowGroup:
    """Streams of one schema as flattened columns, with the record and row that each row came from."""

    columns: dict[str, pa.Array]
    n: int
    record: IntArray  # position of the record in the batch
    row: IntArray  # row number within that record


def read_stream(value: bytes, limits: Limits, known: dict[bytes, Why | None]) -> tuple[bytes, pa.Table] | Why:
    """Return schema bytes and table of one record, or why it is refused.

    :param known: what was said of schemas seen before; senders repeat them.
    """
    try:
        frame = framing(value)
        if frame.compressed:
            return Reason.COMPRESSED, "compressed Arrow bodies are refused; use the producer's compression.type"
        reader = pa.ipc.open_stream(pa.BufferReader(value))
        if frame.schema not in known:
            known[frame.schema] = _schema_problem(reader.schema, limits)
        why = known[frame.schema]
        if why is not None:
            return why
        table = reader.read_all()
        # Columns of nulls, bits and dictionary codes cost next to nothing on the wire and much more as slices.
        if table.num_rows * BYTES_PER_ROW > len(value):
            return Reason.TOO_MANY_ROWS, f"{table.num_rows} rows in {len(value)} bytes"
        table.validate(full=True)
    except _ERRORS as error:
        return Reason.NOT_ARROW, f"not a readable Arrow stream: {str(error).splitlines()[0] if str(error) else error!r}"
    if table.num_rows == 0:
        return Reason.EMPTY, "an Arrow stream without rows"
    return frame.schema, table


def _schema_problem(schema: pa.Schema, limits: Limits) -> Why | None:
    version = (schema.metadata or {}).get(SCHEMA_VERSION, b"1")
    if version != b"1":
        return Reason.UNKNOWN_SCHEMA, "regate.schema_version is not 1; newer telemetry needs a newer regate"
    if len(set(schema.names)) < len(schema.names):
        return Reason.DUPLICATE_KEY, "a column name stands twice"
    leaves = 0
    for field in schema:
        count = _leaves(field.type, limits.depth)
        if count < 0:
            return Reason.TOO_DEEP, f"{field.name!r} is nested deeper than limits.depth {limits.depth}"
        leaves += count
    if leaves > limits.features + limits.cohorts + 64:
        return Reason.TOO_MANY_FIELDS, f"{leaves} columns are more than limits.features {limits.features}"
    return None


def _leaves(kind: pa.DataType, depth: int) -> int:
    if depth == 0:
        return -1
    if not pa.types.is_struct(kind):
        return 1
    counts = [_leaves(field.type, depth - 1) for field in kind]
    return -1 if -1 in counts else sum(counts)


def group_streams(values: Sequence[bytes], limits: Limits) -> tuple[list[ArrowGroup], dict[int, Why]]:
    """Return the tables of many records, those of one schema joined in order, and the records that are refused."""
    refused: dict[int, Why] = {}
    known: dict[bytes, Why | None] = {}
    groups: dict[bytes, list[tuple[int, pa.Table]]] = {}
    for position, value in enumerate(values):
        read = read_stream(value, limits, known)
        if isinstance(read[0], Reason):
            refused[position] = read
        else:
            groups.setdefault(read[0], []).append((position, read[1]))
    return [_join(members) for members in groups.values()], refused


def _join(members: list[tuple[int, pa.Table]]) -> ArrowGroup:
    sizes = [table.num_rows for _, table in members]
    joined = pa.concat_tables([table.replace_schema_metadata(None) for _, table in members])
    return ArrowGroup(
        columns=flatten(joined),
        n=joined.num_rows,
        record=np.repeat(np.array([position for position, _ in members], np.int64), sizes),
        row=np.concatenate([np.arange(size, dtype=np.int64) for size in sizes]),
    )
