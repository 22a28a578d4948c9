"""The stage: a broker, the topics, and the daemon as a process of its own, as a user would run it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from regate.config.errors import FatalError
from regate.config.settings import Settings
from regate.daemon.apply import apply_documents
from regate.daemon.bus.broker import Broker
from regate.daemon.bus.kafka import KafkaBus
from regate.daemon.bus.topics import Topics
from regate.daemon.demo.served import Served

STOP_SECONDS = 20.0
TELEMETRY_PARTITIONS, LABEL_PARTITIONS = 3, 2  # several, because that is what users have


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs, and where to look."""

    settings: Settings
    settings_file: Path
    bus: KafkaBus
    topics: Topics
    log: Path


@contextmanager
def stage(folder: Path, bootstrap_servers: str | None) -> Iterator[Stage]:
    """Start a broker (unless one is named) and create the topics; stop the broker at the end."""
    broker = None
    if bootstrap_servers is None:
        broker = Broker(folder / "kafka")
        bootstrap_servers = broker.start()
    try:
        # Names of this run: a broker that stays may hold earlier demos.
        prefix = f"demo-{int(time.time())}"
        settings = Settings.model_validate(
            {
                "bus": {
                    "bootstrap_servers": bootstrap_servers,
                    "prefix": prefix,
                    "telemetry_topic": f"{prefix}.telemetry",
                    "labels_topic": f"{prefix}.labels",
                    "partitions": 2,
                },
                "artefacts": str((folder / "artefacts").resolve()),
                "instance": "demo",
            }
        )
        file = folder / "regate.yaml"
        file.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
        bus, topics = KafkaBus(bootstrap_servers), Topics(settings.bus)
        admin = bus.admin()
        admin.create(topics.specs(TELEMETRY_PARTITIONS, LABEL_PARTITIONS))
        admin.close()
        yield Stage(settings, file, bus, topics, folder / "daemon.log")
        bus.close()
    finally:
        if broker is not None:
            broker.stop()


@contextmanager
def daemon(at: Stage, served: Served) -> Iterator[subprocess.Popen[bytes]]:
    """Apply configuration and profile, run `regate run`, and end it with SIGTERM.

    :raises FatalError: when the daemon ends by itself.
    """
    apply_documents(at.bus, at.topics, [served.config], [served.profile])
    command = [sys.executable, "-m", "regate.daemon.cli.main", "run", "--settings", str(at.settings_file)]
    with at.log.open("wb") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)  # noqa: S603  (our own verb)
        try:
            yield process
            if process.poll() is not None:
                raise FatalError(f"the daemon ended with exit code {process.returncode}", hint=f"see {at.log}")
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
