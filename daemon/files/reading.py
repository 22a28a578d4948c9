"""Bytes of a file to one Arrow table, whatever the format; every failure is a ConfigError that names the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from regate.config.errors import ConfigError

# Blocks as large as this let Arrow see enough rows to choose the type of a column.
BLOCK_BYTES = 16_000_000


def read_arrow(path: Path) -> pa.Table:
    """Return the table in a Parquet, Arrow IPC (file or stream), CSV or JSON-lines file (also ``.gz``).

    :raises ConfigError: when the file is missing, unreadable, of another format, or empty.
    """
    if not path.is_file():
        raise ConfigError(f"cannot read {path}: no such file", hint="check the path")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in {".gz", ".bz2", ".zst"}]
    suffix = suffixes[-1] if suffixes else ""
    reader = _READERS.get(suffix)
    if reader is None:
        known = ", ".join(sorted(_READERS))
        raise ConfigError(f"{path}: unknown format {suffix or 'without extension'}", hint=f"use one of {known}")
    try:
        table = reader(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{path} is not readable as {suffix}: {text}", hint="check the format and the file"
        ) from error
    if table.num_rows == 0 or table.num_columns == 0:
        raise ConfigError(f"{path} has no rows", hint="give a file with telemetry events")
    twice = {name for name in table.column_names if table.column_names.count(name) > 1} if _repeats(table) else set()
    if twice:
        raise ConfigError(f"{path}: columns named twice: {', '.join(sorted(twice))}", hint="rename one of them")
    return table


def _repeats(table: pa.Table) -> bool:
    return len(set(table.column_names)) < len(table.column_names)


def _parquet(path: Path) -> pa.Table:
    import pyarrow.parquet as pq  # noqa: PLC0415  (a third of a second that other formats need not pay)

    return pq.read_table(path)


def _arrow(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        head = source.read(6)
        source.seek(0)
        reader = pa.ipc.open_file(source) if head == b"ARROW1" else pa.ipc.open_stream(source)
        return reader.read_all()


def _csv(path: Path) -> pa.Table:
    from pyarrow import csv  # noqa: PLC0415

    with pa.input_stream(str(path), compression="detect") as source:
        return csv.read_csv(
            source,
            read_options=csv.ReadOptions(block_size=BLOCK_BYTES),
            # An empty cell is missing, also in a column of texts.
            convert_options=csv.ConvertOptions(strings_can_be_null=True),
        )


def _json(path: Path) -> pa.Table:
    from pyarrow import json  # noqa: PLC0415

    with pa.input_stream(str(path), compression="detect") as source:
        return json.read_json(source, read_options=json.ReadOptions(block_size=BLOCK_BYTES))


_READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".parquet": _parquet,
    ".pq": _parquet,
    ".arrow": _arrow,
    ".arrows": _arrow,
    ".ipc": _arrow,
    ".feather": _arrow,
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _json,
    ".ndjson": _json,
}
