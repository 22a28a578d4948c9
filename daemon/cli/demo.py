"""`regate demo`: the main job on a real Kafka, in about two minutes."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from regate.config.errors import ConfigError

MARK = ".regate-demo"  # only a folder with this file is emptied


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Any telemetry file with a `label` column; default: generated loan applications."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=5.0, help="How long the stream lasts.")] = 50.0,
    speed: Annotated[float | None, typer.Option(min=1e-9, help="Divide the spacing of event times by this.")] = None,
    steady: Annotated[bool, typer.Option("--steady", help="Nothing changes: more of the first part.")] = False,
    folder: Annotated[
        Path, typer.Option(help="Where models, broker data and artefacts go; an earlier demo's is emptied.")
    ] = Path(".regate/demo"),
    bootstrap_servers: Annotated[str | None, typer.Option(help="Use this Kafka instead of an embedded one.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of data and model.")] = 7,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end.")] = False,
) -> None:
    """Serve a model on a real Kafka, let the world change, and watch the gate."""
    from rich.console import Console

    from regate.daemon.demo.play import play

    console = Console(stderr=as_json, highlight=False)
    started = time.monotonic()
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise ConfigError(f"{folder} is not empty and no earlier demo made it", hint="give another --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    account = play(
        data,
        folder,
        console,
        seconds=seconds,
        speed=speed,
        bootstrap_servers=bootstrap_servers,
        steady=steady,
        seed=seed,
    )
    took = time.monotonic() - started
    console.print(f"The demo took {took:.0f} s.")
    if as_json:
        told = {
            "seconds": round(took, 1),
            "findings": [finding.model_dump(mode="json") for finding in account.findings],
            "runs": [run.model_dump(mode="json", exclude={"checks"}) for run in account.runs],
            "decisions": [decision.model_dump(mode="json") for decision in account.decisions],
        }
        typer.echo(json.dumps(told))
