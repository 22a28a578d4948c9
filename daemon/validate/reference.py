"""Reference rows: what the suite draws from before a version has served anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from regate.config.canonical import digest_bytes
from regate.config.errors import ConfigError
from regate.config.model import ModelConfig
from regate.daemon.files import read_table
from regate.daemon.validate.columns import outcome, rows_of_slice
from regate.scenarios.rows import Rows


def rows_of_file(path: Path, config: ModelConfig) -> Rows:
    """Return the rows of a telemetry file as a scenario takes them, with the labels that it has."""
    table = read_table(path, config)
    rows = rows_of_slice(replace(table.whole, error=None), config, "reference")
    label = table.labels()
    return rows if label is None else replace(rows, label=outcome(label, config))


def reference_rows(config: ModelConfig) -> Rows | None:
    """Return the rows that the configuration names, or None when it names none.

    :raises ConfigError: when the file is missing, or is not the one that was meant.
    """
    named = config.reference
    if named is None:
        return None
    path = Path(named.uri.removeprefix("file://"))
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"reference rows {path}: {error.strerror}", hint="check `reference.uri`") from error
    if digest_bytes(data) != named.digest:
        raise ConfigError(
            f"reference rows {path} are not {named.digest}", hint="apply the configuration again with their new digest"
        )
    return rows_of_file(path, config)
