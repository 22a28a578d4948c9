"""Rows that stand beside a record, in a file named by their digest; every read is checked."""

from __future__ import annotations

from pathlib import Path

from regate.config.errors import ConfigError, PoisonError
from regate.scenarios.rows import Rows

# Rows of an incident are some dozens; what is larger is no frozen set, or was made to fill memory.
MAX_BYTES = 64_000_000


def file_name(digest: str) -> str:
    """Return the name of the file that holds rows.

    >>> file_name("sha256:0a1b")
    'rows-0a1b.arrow'
    """
    return f"rows-{digest.removeprefix('sha256:')}.arrow"


def write_rows(folder: Path, rows: Rows) -> Path:
    """Write rows into a folder; return the file. The same rows are the same file."""
    path = folder / file_name(rows.digest())
    path.write_bytes(rows.to_arrow())
    return path


def read_rows(folder: Path, digest: str) -> Rows:
    """Return the rows that a digest names.

    :raises ConfigError: when the file is missing, is none of ours, or holds other rows.
    """
    path = folder / file_name(digest)
    hint = "copy the file that `regate patterns freeze` wrote, beside its record"
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes", hint=hint)
        rows = Rows.from_arrow(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the frozen rows {path}: {error.strerror}", hint=hint) from error
    except (PoisonError, KeyError, ValueError) as error:
        raise ConfigError(f"{path} holds no frozen rows: {error}", hint=hint) from error
    if rows.digest() != digest:
        raise ConfigError(f"{path} holds other rows: {rows.digest()}", hint=hint)
    return rows
