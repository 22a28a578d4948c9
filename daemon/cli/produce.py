"""`regate produce`: send a file as live telemetry, its labels late."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from regate.config.errors import ConfigError
from regate.config.loading import load
from regate.config.model import ModelConfig
from regate.daemon.bus.port import Admin
from regate.daemon.cli.connection import SettingsFile, read_settings

ARROW_ROWS = 4000  # a record of some hundred kilobytes at ordinary widths


def produce(
    file: Annotated[Path, typer.Argument(help="Parquet, Arrow, CSV or JSON-lines file of telemetry.")],
    model: Annotated[str, typer.Option(help="Model name; default: the configuration's, or the file's stem.")] = "",
    config: Annotated[Path | None, typer.Option(help="Model configuration (YAML); default: inferred.")] = None,
    settings: SettingsFile = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka, host:port[,host:port].")] = None,
    topic: Annotated[str, typer.Option(help="Telemetry topic; default: the settings'.")] = "",
    labels_topic: Annotated[str, typer.Option(help="Label topic; default: the settings'.")] = "",
    form: Annotated[Literal["json", "arrow"], typer.Option("--format", help="Encoding of telemetry.")] = "json",
    speed: Annotated[
        float | None, typer.Option(min=1e-9, help="Divide the spacing of the file's event times by this.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=1e-9, help="Events a second, instead of the file's times.")] = None,
    key: Annotated[Literal["model", "client", "none"], typer.Option(help="Record key.")] = "model",
    label_delay_rows: Annotated[int, typer.Option(min=0, help="Send a label this many rows after its event.")] = 0,
    labels: Annotated[bool, typer.Option("--labels/--no-labels", help="Send labels where the file has them.")] = True,
    batch_rows: Annotated[int, typer.Option(min=0, help="Rows a batch; 0: by format.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Send a file as live telemetry: event times are shifted to now, labels come late.

    Without --speed or --rate it goes as fast as it can. JSON has the layout of the configuration's mapping.
    """
    if speed is not None and rate is not None:
        raise ConfigError("--speed and --rate exclude each other", hint="give one of them")
    if form == "arrow" and key == "client":
        raise ConfigError("an Arrow record holds many clients", hint="use --key model or --key none")
    from regate.daemon.bus.kafka import KafkaBus
    from regate.daemon.files import read_table
    from regate.daemon.wire.encode import plan_times
    from regate.daemon.wire.sending import Sending, Sent, send

    table = read_table(file, load(ModelConfig, config) if config is not None else None)
    if model:
        table.rename(model)
    given = read_settings(settings, bootstrap_servers)
    how = Sending(
        telemetry=topic or given.bus.telemetry_topic,
        labels=(labels_topic or given.bus.labels_topic) if labels else "",
        form=form,
        key=key,
        label_delay_rows=label_delay_rows,
        batch_rows=batch_rows or (ARROW_ROWS if form == "arrow" else 1000),
    )
    bus = KafkaBus(given.bus.bootstrap_servers)
    _check_topics(bus.admin(), [how.telemetry, *([how.labels] if how.labels and table.has_label else [])])
    writer = bus.writer()
    began = _now_us()
    started = time.monotonic()
    times = plan_times(table, began, speed=speed, rate=rate)
    with _bar(table.rows) as advance:
        sent: Sent = send(
            table,
            writer,
            how,
            times_us=times,
            run=f"{table.key.model}-{began:x}",
            now_us=_now_us,
            wait=time.sleep,
            progress=lambda state: advance(state.events),
        )
    writer.close(15.0)
    seconds = time.monotonic() - started
    if as_json:
        done = {"events": sent.events, "labels": sent.labels, "records": sent.records, "bytes": sent.bytes}
        typer.echo(json.dumps({**done, "seconds": round(seconds, 3), "model": str(table.key)}))
    else:
        typer.echo(f"sent {sent.events} events and {sent.labels} labels of {table.key} in {seconds:.1f} s")


def _now_us() -> int:
    return time.time_ns() // 1000


def _check_topics(admin: Admin, names: list[str]) -> None:
    try:
        absent = [name for name in names if not admin.partitions(name)]
    finally:
        admin.close()
    if absent:
        raise ConfigError(f"no topic {', '.join(absent)} on this Kafka", hint="regate topics create")


@contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
    """Show progress on a terminal's standard error, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task("sending", total=total)
        yield lambda done: progress.update(task, completed=done)
