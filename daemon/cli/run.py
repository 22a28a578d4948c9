"""`regate run`: the daemon."""

from __future__ import annotations

import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from regate.daemon import log
from regate.daemon.cli.connection import SettingsFile, connect


class Role(StrEnum):
    """What this process does; several processes share the work by consumer group."""

    ALL = "all"
    WATCH = "watch"
    GATE = "gate"
    VALIDATE = "validate"


def run(
    role: Annotated[Role, typer.Option(help="Which roles this process runs.")] = Role.ALL,
    files: Annotated[
        list[Path] | None, typer.Option("--file", "-f", help="Models and policies to apply at start.")
    ] = None,
    settings: SettingsFile = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka, host:port[,host:port].")] = None,
    instance: Annotated[str | None, typer.Option(help="Identity of this process, unique and stable.")] = None,
    for_people: Annotated[bool, typer.Option("--pretty", help="Coloured lines instead of JSON.")] = False,
) -> None:
    """Watch telemetry, re-validate, publish gate events: until SIGTERM.

    Exits 76 when another process took this identity (do not restart), 75 when a step hung or the
    bus stayed away (restart), 78 on a wrong setting.
    """
    # Told to leave before there is anything to finish.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from regate.daemon.apply import apply_documents
    from regate.daemon.control import read_documents
    from regate.daemon.process import Process, stop_on_signals

    documents = read_documents(files or [])
    link = connect(settings, bootstrap_servers)
    log.configure(link.settings.log_level, for_people=for_people)
    chosen = link.settings if instance is None else link.settings.model_copy(update={"instance": instance})
    if documents:
        apply_documents(link.bus, link.topics, documents)
    process = Process(link.bus, link.topics, chosen, {role.value})
    stop_on_signals(process)
    process.run()
