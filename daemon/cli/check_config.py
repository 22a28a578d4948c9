"""`regate check-config`: everything that would be refused at start, before anything connects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from regate.config.loading import load
from regate.config.settings import Settings
from regate.daemon.control import read_documents


def check_config(
    paths: Annotated[list[Path] | None, typer.Argument(help="Model and policy YAML files, or folders of them.")] = None,
    settings: Annotated[Path | None, typer.Option(help="Settings of the daemon (YAML).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check settings, models and policies; exit 78 with file, line and key of every problem."""
    if settings is not None:
        load(Settings, settings)
    documents = read_documents(paths or [])
    named = [
        f"{document.kind} {getattr(document, 'model', None) or getattr(document, 'name', '')}" for document in documents
    ]
    if as_json:
        typer.echo(json.dumps({"ok": True, "documents": named}))
    else:
        typer.echo("ok: " + (", ".join(named) or "settings only"))
