"""`regate patterns`: what attacks look like, and what is kept of them."""

from __future__ import annotations

import typer

from regate.daemon.cli.patterns_freeze import freeze

app = typer.Typer(no_args_is_help=True, help="Attack patterns: what is kept of an attack.")
app.command("freeze")(freeze)
