"""`regate apply -f`: put models and policies on the bus, where they take effect at a journalled offset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from regate.daemon.apply import apply_documents
from regate.daemon.cli.connection import SettingsFile, connect
from regate.daemon.control import read_documents
from regate.detectors.profile import Profile


def apply(
    files: Annotated[
        list[Path], typer.Option("--file", "-f", help="Model, policy (YAML) or profile file; or a folder of YAML.")
    ],
    settings: SettingsFile = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka, host:port[,host:port].")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Apply configuration: what is unchanged on the bus is left alone."""
    profiles = [Profile.from_bytes(path.read_bytes()) for path in files if path.suffix == ".profile"]
    documents = read_documents([path for path in files if path.suffix != ".profile"])
    link = connect(settings, bootstrap_servers)
    changed = apply_documents(link.bus, link.topics, documents, profiles)
    if as_json:
        typer.echo(json.dumps({"applied": changed}))
    else:
        typer.echo("applied: " + ", ".join(changed) if changed else "nothing to do: the bus already says the same")
