"""What verbs that talk to a bus share: settings from a file, the bus and the topic names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from regate.config.errors import ConfigError
from regate.config.loading import load
from regate.config.settings import Settings
from regate.daemon.bus.port import Bus
from regate.daemon.bus.topics import Topics

SettingsFile = Annotated[Path | None, typer.Option("--settings", help="Settings of the daemon (YAML).")]
DEFAULT_SETTINGS = Path("regate.yaml")


@dataclass(frozen=True, slots=True)
class Link:
    """A connection to the bus, as the settings say."""

    settings: Settings
    bus: Bus
    topics: Topics


def read_settings(path: Path | None, bootstrap_servers: str | None = None) -> Settings:
    """Return the settings of a file (``regate.yaml`` here, if there is one and none is named), or the defaults."""
    if path is None and DEFAULT_SETTINGS.is_file():
        path = DEFAULT_SETTINGS
    settings = Settings() if path is None else load(Settings, path)
    if bootstrap_servers:
        settings = settings.model_copy(
            update={"bus": settings.bus.model_copy(update={"bootstrap_servers": bootstrap_servers})}
        )
    return settings


def connect(path: Path | None, bootstrap_servers: str | None = None) -> Link:
    """Return a connection.

    :raises ConfigError: when regate's topics are not there.
    """
    from regate.daemon.bus.kafka import KafkaBus
    from regate.daemon.bus.kafka_client import Timeouts

    settings = read_settings(path, bootstrap_servers)
    # Ten heartbeats a session: a few may be lost or late.
    session = settings.bus.session_seconds
    bus = KafkaBus(settings.bus.bootstrap_servers, timeouts=Timeouts(session=session, heartbeat=session / 10))
    topics = Topics(settings.bus)
    admin = bus.admin()
    try:
        if not admin.partitions(topics.name("control")):
            raise ConfigError(
                f"{settings.bus.bootstrap_servers} has no topic {topics.name('control')}",
                hint="regate topics create",
            )
    finally:
        admin.close()
    return Link(settings, bus, topics)
