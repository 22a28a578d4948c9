"""`regate version`."""

from __future__ import annotations

import json
import platform
from typing import Annotated

import typer

from regate.daemon import build


def version(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Print the version and the digest of the code that runs."""
    told = {"version": build.version(), "build": build.build_digest(), "python": platform.python_version()}
    if as_json:
        typer.echo(json.dumps(told))
    else:
        typer.echo(f"regate {told['version']} ({told['build'][:19]}), Python {told['python']}")
