"""`regate patterns`: attacks that were seen, so that they are known when they come back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from regate.config.errors import ConfigError
from regate.daemon.cli.connection import SettingsFile, connect
from regate.daemon.cli.gate import Bootstrap, Json
from regate.daemon.cli.patterns_freeze import freeze
from regate.daemon.patterns import (
    Held,
    described,
    exported,
    held,
    held_prompts,
    imported,
    key_of_text,
    prompt_records,
    prompts_of,
    put,
    put_prompts,
    take_back,
)

app = typer.Typer(no_args_is_help=True, help="Patterns of attacks: kept, listed, taken out and in, made scenarios of.")
app.command("freeze")(freeze)
Name = Annotated[str, typer.Argument(metavar="PATTERN", help="Its id, or enough of its beginning.")]
Model = Annotated[str, typer.Option("--model", help="tenant/model; all when left out.")]


@app.command("list")
def list_(
    model: Model = "", settings: SettingsFile = None, bootstrap_servers: Bootstrap = None, as_json: Json = False
) -> None:
    """List the patterns that shards compare queries with, the latest seen first."""
    found = _held(settings, bootstrap_servers, model)
    if as_json:
        typer.echo(json.dumps({"patterns": [described(one) for one in found]}))
        return
    table = Table("pattern", "model", "last seen", "times", "clients", "queries", "like", "lanes")
    for one in found:
        said = described(one)
        cells = (said["id"], said["model"], said["last_seen"], str(said["seen"]), str(said["clients"]))
        table.add_row(*cells, str(said["queries"]), said["like"], ", ".join(said["lanes"]))
    Console().print(table if found else "no attack has left a pattern")
    link = connect(settings, bootstrap_servers)
    for name, count in held_prompts(link.bus, link.topics).items():
        owner, _, part = name.partition("#")
        Console().print(f"{owner}: {count} known prompts of {part.rpartition('/')[0]}", highlight=False, markup=False)


@app.command("show")
def show(name: Name, settings: SettingsFile = None, bootstrap_servers: Bootstrap = None, as_json: Json = False) -> None:
    """Show one pattern: when and under how many clients it was seen, its incidents, its scenario."""
    said = described(_ones(_held(settings, bootstrap_servers, ""), name)[0])
    if as_json:
        typer.echo(json.dumps(said))
        return
    for field, value in said.items():
        text = ", ".join(value) if isinstance(value, list) else value
        Console().print(f"{field.replace('_', ' ')}: {text}", highlight=False, markup=False)


@app.command("export")
def export(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write; must not exist.")],
    model: Model = "",
    settings: SettingsFile = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Write patterns to a file for others: sketches, hashes and histograms; no raw value and no client id."""
    if path.exists():
        raise ConfigError(f"{path} is there already", hint="name another file")
    found = _held(settings, bootstrap_servers, model)
    path.write_text(exported(found), encoding="utf-8")
    typer.echo(f"{len(found)} patterns written to {path}")


@app.command("import")
def import_(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="What `regate patterns export` wrote.")],
    onto: Annotated[str, typer.Option("--for", help="tenant/model/deployment@version, else as the file says.")] = "",
    settings: SettingsFile = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Make patterns of a file known to all shards.

    The queries of a pattern are compared by their hashes where features are the same, by nearness only where the
    profile is too; the manner of its tool always.
    """
    found = imported(path, key_of_text(onto) if onto else None)
    link = connect(settings, bootstrap_servers)
    put(link.bus, link.topics, found)
    typer.echo(f"{len(found)} patterns imported")


@app.command("import-prompts")
def import_prompts(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines (or .gz) with id and text.")],
    model: Annotated[str, typer.Option("--model", help="tenant/model that shall know them.")],
    name: Annotated[str, typer.Option("--name", help="Of the set; one of before under this name gives way.")] = "known",
    settings: SettingsFile = None,
    bootstrap_servers: Bootstrap = None,
) -> None:
    """Make known prompts (jailbreaks, say) known to a model: in any coat, they are findings of kind recurrence.

    Only hashes go on the bus, no text.
    """
    tenant, _, bare = model.rpartition("/")
    records = prompt_records(tenant or "default", bare, name, found := prompts_of(path))
    link = connect(settings, bootstrap_servers)
    put_prompts(link.bus, link.topics, records)
    typer.echo(f"{len(found)} prompts imported as {name}")


@app.command("forget")
def forget(name: Name, settings: SettingsFile = None, bootstrap_servers: Bootstrap = None) -> None:
    """Take a pattern back: nothing is compared with it any more."""
    link = connect(settings, bootstrap_servers)
    for one in _ones(held(link.bus, link.topics), name):
        take_back(link.bus, link.topics, one)
        typer.echo(f"{one.pattern.id} of {one.key} is forgotten")


def _held(settings: Path | None, bootstrap_servers: str | None, model: str) -> list[Held]:
    link = connect(settings, bootstrap_servers)
    wanted = model if "/" in model or not model else f"default/{model}"
    return [one for one in held(link.bus, link.topics) if not wanted or one.key.placement == wanted]


def _ones(found: list[Held], name: str) -> list[Held]:
    """Return the one pattern that a name begins, as it stands for each version of its model, the latest seen first."""
    those = [one for one in found if one.pattern.id.startswith(name)]
    different = {(one.key.scope, one.pattern.id) for one in those}
    if len(different) != 1:
        how = "no pattern begins" if not those else f"{len(different)} patterns begin"
        raise ConfigError(f"{how} with {name!r}", hint="regate patterns list")
    return those
