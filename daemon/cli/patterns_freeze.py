"""`regate patterns freeze`: the queries of an attack incident become a scenario, queued for the catalog."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regate.config.errors import ConfigError
from regate.config.loading import load
from regate.config.model import ModelConfig
from regate.daemon.cli.connection import SettingsFile
from regate.daemon.cli.progress import progress_bars

if TYPE_CHECKING:
    from regate.daemon.freezing import Asked
    from regate.detectors.profile import Profile


def freeze(
    client: Annotated[str, typer.Option(help="Who asked: as the file calls it, or the 16 hex digits of a finding.")],
    profile: Annotated[Path, typer.Option(help="The profile whose lanes raised the finding.")],
    source: Annotated[
        str, typer.Option("--from", help="Telemetry: a file (Parquet, Arrow, CSV, JSON-lines), a topic.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the record and its rows; made if need be.")],
    config: Annotated[Path | None, typer.Option(help="Model configuration; a topic needs one.")] = None,
    onset: Annotated[
        str | None, typer.Option(help="From this row (of the file, from 0) or event time, ISO 8601.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Before this row or event time.")] = None,
    since: Annotated[str | None, typer.Option(help="Topic: read from this time on, ISO 8601.")] = None,
    incident: Annotated[str, typer.Option(help="Id of the incident, for the record.")] = "",
    actor: Annotated[str, typer.Option(help="Who freezes it: the author of the record.")] = "regate patterns freeze",
    settings: SettingsFile = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka, host:port[,host:port].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Freeze an attack: the shortest run of a client's queries that still alarms becomes a queued scenario.

    No suite may name it before somebody reviewed it and set `status: active`.
    """
    from regate.daemon.freezing import frozen, record_of, write
    from regate.daemon.profiles import read_profile

    given = read_profile(profile)
    model = None if config is None else load(ModelConfig, config)
    asked = _asked(source, model, given, since, settings, bootstrap_servers)
    found = frozen(asked.of(client).between(onset, until), given)
    record = record_of(found, incident=incident, author=actor, created=datetime.now(UTC).date())
    path = write(out, record, found.rows)
    if as_json:
        said = {"id": record.id, "record": str(path), "queries": found.rows.n, "asked": found.asked}
        typer.echo(json.dumps(said | {"detect_within_n": record.detect_within_n, "lanes": record.provenance.lanes}))
        return
    lanes = ", ".join(record.provenance.lanes)
    typer.echo(f"{found.rows.n} of {found.asked} queries raise the finding by themselves ({lanes})")
    typer.echo(f"wrote {path}, queued; review it, then set `status: active` and name it in a suite")


def _asked(
    source: str,
    model: ModelConfig | None,
    profile: Profile,
    since: str | None,
    settings: Path | None,
    bootstrap_servers: str | None,
) -> Asked:
    from regate.daemon.freezing import Asked

    key = profile.key
    if model is not None and (model.tenant, model.model) != (key.tenant, key.model):
        raise ConfigError(
            f"the profile describes {key}, the configuration {model.tenant}/{model.model}", hint="check --profile"
        )
    if Path(source).is_file():
        from regate.daemon.files.table import read_table

        table = read_table(Path(source), model)
        return Asked(table.whole, table.config, timed=table.event_time_us() is not None)
    if model is None:
        raise ConfigError(
            f"{source} is no file here, and a topic needs a model configuration", hint="check --from, or give --config"
        )
    from regate.daemon.cli.connection import connect
    from regate.daemon.profiles import events_of_topic

    link = connect(settings, bootstrap_servers)
    with progress_bars() as report:
        return Asked(events_of_topic(link.bus, source, model, since, None, link.settings.limits, report), model)
