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
    catalog: Annotated[
        list[Path] | None, typer.Option(help="A folder of scenarios and suites: every suite must be one that can run.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check settings, models, policies and catalogs; exit 78 with file, line and key of every problem."""
    folders = list(catalog or [])
    if settings is not None:
        folders += load(Settings, settings).catalogs
    documents = read_documents(paths or [])
    suites = _suites(folders) if folders else []
    named = [
        f"{document.kind} {getattr(document, 'model', None) or getattr(document, 'name', '')}" for document in documents
    ]
    named += [f"suite {name}" for name in suites]
    if as_json:
        typer.echo(json.dumps({"ok": True, "documents": named}))
    else:
        typer.echo("ok: " + (", ".join(named) or "settings only"))


def _suites(folders: list[Path]) -> list[str]:
    """Return the suites of the shipped catalog and of folders, each resolved to its scenarios."""
    from regate.scenarios.catalog.loading import load_catalog

    library = load_catalog(folders)
    for name in library.suites:
        library.suite(name)
    return sorted(library.suites)
