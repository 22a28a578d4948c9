"""`regate kafka`: the embedded broker, a real Apache Kafka that pip alone brought."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from regate.daemon.bus.broker import Broker, BrokerStatus

app = typer.Typer(help="Run the embedded Kafka broker.", no_args_is_help=True)

# Where the daemon's default settings look for it: 127.0.0.1:19092.
DEFAULT_PORT = 19092
DataDir = Annotated[Path, typer.Option("--data-dir", help="Durable folder of the broker.")]
Port = Annotated[int, typer.Option("--port", help="Port on 127.0.0.1; 0 takes the last one, or a free one.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_DATA_DIR = Path(".regate/kafka")


def _tell(status: BrokerStatus, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(status)))
    elif status.running:
        typer.echo(f"running on {status.bootstrap}, pid {status.pid}, data in {status.data_dir}, log {status.log}")
    else:
        named = "" if Path(status.data_dir) == DEFAULT_DATA_DIR.resolve() else f" --data-dir {status.data_dir}"
        typer.echo(f"not running, data in {status.data_dir}; start it with: regate kafka up{named}")


@app.command()
def up(data_dir: DataDir = DEFAULT_DATA_DIR, port: Port = DEFAULT_PORT, as_json: Json = False) -> None:
    """Start the broker and leave it running. The first start fetches 42 MB."""
    broker = Broker(data_dir, port, owned=False)
    if not broker.status().running:
        with Console(stderr=True).status("starting Kafka (the first start fetches 42 MB)"):
            broker.start()
    _tell(broker.status(), as_json)


@app.command()
def down(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """Stop the broker: in order, by force after 15 s. Its data stays."""
    broker = Broker(data_dir, owned=False)
    broker.stop()
    _tell(broker.status(), as_json)


@app.command()
def status(data_dir: DataDir = DEFAULT_DATA_DIR, as_json: Json = False) -> None:
    """Say whether the broker runs. Exit 1 when it does not."""
    found = Broker(data_dir, owned=False).status()
    _tell(found, as_json)
    raise typer.Exit(0 if found.running else 1)
