"""`regate topics`: every topic with its settings, from one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from regate.config.loading import load
from regate.config.settings import Settings
from regate.daemon.bus.port import Admin
from regate.daemon.bus.topics import Topics

app = typer.Typer(help="Create, list and check the topics.", no_args_is_help=True)

SettingsFile = Annotated[Path | None, typer.Option("--settings", help="Settings of the daemon (YAML).")]
Bootstrap = Annotated[str | None, typer.Option("--bootstrap-servers", help="Instead of the settings' own.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _open(path: Path | None, bootstrap_servers: str | None) -> tuple[Admin, Topics]:
    """Return the administration client and the names."""
    from regate.daemon.bus.kafka import KafkaBus

    settings = (Settings() if path is None else load(Settings, path)).bus
    return KafkaBus(bootstrap_servers or settings.bootstrap_servers).admin(), Topics(settings)


@app.command()
def create(
    settings: SettingsFile = None,
    bootstrap_servers: Bootstrap = None,
    telemetry_partitions: Annotated[int, typer.Option(min=1, help="If telemetry is not there yet.")] = 6,
    label_partitions: Annotated[int, typer.Option(min=1, help="If labels is not there yet.")] = 3,
    as_json: Json = False,
) -> None:
    """Create what is missing and grow regate's own topics; existing telemetry and label topics stay as they are."""
    from regate.daemon.bus.provision import provision, refuse_compacted_inputs

    admin, topics = _open(settings, bootstrap_servers)
    try:
        refuse_compacted_inputs(admin, topics)
        done = provision(admin, topics, telemetry_partitions, label_partitions)
    finally:
        admin.close()
    if as_json:
        typer.echo(json.dumps({"created": done.created, "grown": dict(done.grown)}))
        return
    for name in done.created:
        typer.echo(f"created {name}")
    for name, partitions in done.grown:
        typer.echo(f"grew {name} to {partitions} partitions")
    if not done.created and not done.grown:
        typer.echo("all topics are there")


@app.command("list")
def list_topics(settings: SettingsFile = None, bootstrap_servers: Bootstrap = None, as_json: Json = False) -> None:
    """List the topics of the table, and what the cluster has of them."""
    from regate.daemon.bus.provision import actual_specs

    admin, topics = _open(settings, bootstrap_servers)
    try:
        rows = [
            {
                "topic": spec.name,
                "logical": topics.logical(spec.name),
                "partitions": admin.partitions(spec.name),
                "settings": dict(spec.config),
            }
            for spec in actual_specs(admin, topics)
        ]
    finally:
        admin.close()
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("topic", "partitions", "settings")
    for row in rows:
        text = " ".join(f"{name}={value}" for name, value in dict(row["settings"]).items())  # type: ignore[call-overload]
        table.add_row(str(row["topic"]), str(row["partitions"] or "missing"), text)
    Console().print(table)


@app.command()
def check(settings: SettingsFile = None, bootstrap_servers: Bootstrap = None, as_json: Json = False) -> None:
    """Compare the cluster with the table. Exit 1 when they differ."""
    from regate.daemon.bus.provision import differences

    admin, topics = _open(settings, bootstrap_servers)
    try:
        found = differences(admin, topics)
    finally:
        admin.close()
    if as_json:
        typer.echo(json.dumps([difference._asdict() for difference in found]))
    else:
        for difference in found:
            typer.echo(
                f"{difference.topic}: {difference.setting} is {difference.found}, expected {difference.expected}"
            )
        if not found:
            typer.echo("all topics are as the table says")
    raise typer.Exit(1 if found else 0)
