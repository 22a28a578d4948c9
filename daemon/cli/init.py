"""`regate init`: a commented model configuration from a sample of events."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from regate.config.canonical import digest_bytes
from regate.config.errors import ConfigError
from regate.daemon.cli.connection import SettingsFile, read_settings

FILES = {".parquet", ".arrow", ".feather", ".csv", ".json", ".jsonl", ".ndjson", ".gz"}
SAMPLE = 5000  # events: enough for types and categories, read in a second


def init(
    source: Annotated[str, typer.Option("--from", help="A file of events, or the name of a topic.")],
    model: Annotated[str, typer.Option(help="Model name; default: what the events say, or the file's stem.")] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: standard output.")
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="Events to look at.")] = SAMPLE,
    settings: SettingsFile = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka, host:port[,host:port].")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as one JSON object.")] = False,
) -> None:
    """Write a model configuration from what events look like: mapping, types, time zone, candidates."""
    if output is not None and output.exists() and not force:
        raise ConfigError(f"{output} is there already", hint="give another --output, or --force")
    from regate.daemon.wire.describe import to_yaml
    from regate.daemon.wire.guess import guess

    path = Path(source)
    if path.is_file():
        from regate.daemon.files.table import model_name, read_columns

        columns = read_columns(path)
        columns = {name: array.slice(0, max(sample, 1)) for name, array in columns.items()}
        found = guess(columns, model or model_name(path), events=False)
    elif path.suffix in FILES or path.parent != Path():
        raise ConfigError(f"no file {source}", hint="check the path; a topic is named by its name alone")
    else:
        from regate.daemon.bus.kafka import KafkaBus
        from regate.daemon.wire.sampling import columns_of, newest, one_model

        given = read_settings(settings, bootstrap_servers)
        records = newest(KafkaBus(given.bus.bootstrap_servers), source, sample)
        columns = columns_of(records, given.limits)
        columns, named = one_model(columns, model)
        found = guess(columns, named or model or source, events=True)
    text = to_yaml(found, source) + (_reference(path) if path.is_file() else "")
    if output is not None:
        output.write_text(text, encoding="utf-8")
    if as_json:
        document = found.config.model_dump(mode="json")
        typer.echo(json.dumps({"config": document, "cohorts": found.cohorts, "labels": found.labels}))
    elif output is None:
        sys.stdout.write(text)
    else:
        typer.echo(f"wrote {output}: {len(found.config.features)} features; next: regate check-config {output}")


def _reference(path: Path) -> str:
    """Return the optional part that names this file as reference rows, as a comment: only a person knows if it fits."""
    digest = digest_bytes(path.read_bytes())
    return (
        "# Rows of normal traffic, with labels where known: the suite draws from them before a version has traffic.\n"
        f"# reference:\n#   uri: {json.dumps(str(path.resolve()))}\n#   digest: {digest}\n"
    )
