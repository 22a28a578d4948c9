"""Settings of the daemon itself: where the bus is and how the shell runs. Read once, before anything starts."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from regate.config.model import Strict


class Bus(Strict):
    """Which Kafka, and the names on it."""

    bootstrap_servers: str = "127.0.0.1:19092"
    prefix: str = Field(default="regate", pattern=r"^[A-Za-z0-9._-]+$")  # of regate's own topics
    telemetry_topic: str = "telemetry"
    labels_topic: str = "labels"
    partitions: int = Field(default=6, ge=1, le=1000)  # of regate's own placed topics
    replication: int = Field(default=1, ge=1)
    session_seconds: float = Field(default=30.0, ge=1)  # a dead process's partitions are taken over after this


class Limits(Strict):
    """Checked before parsing."""

    record_bytes: int = Field(default=1_000_000, ge=1000)
    features: int = Field(default=2000, ge=1)
    cohorts: int = Field(default=64, ge=1)
    depth: int = Field(default=32, ge=2)
    models: int = Field(default=1000, ge=1)  # distinct models on one telemetry partition, overflow is refused


class Shell(Strict):
    """How a step is cut and how recovery is bounded."""

    step_seconds: float = Field(default=0.25, gt=0)  # a step takes what arrives in max(this, 4 x the last transaction)
    step_bytes: int = Field(default=64_000_000, ge=1_000_000)
    snapshot_seconds: float = Field(default=10.0, gt=0)  # recovery re-reads at most this much input
    watchdog_seconds: float = Field(default=25.0, gt=0)  # a step that takes longer ends the process
    stop_seconds: float = Field(default=15.0, gt=0)


class Schedule(Strict):
    """What APScheduler puts on the bus."""

    revalidate_seconds: float = Field(default=6 * 3600, gt=0)
    heartbeat_seconds: float = Field(default=5.0, gt=0)
    renew_seconds: float = Field(default=60.0, gt=0)  # how often renewal is attempted; the lease says when it is due


class Metrics(Strict):
    """Prometheus. Without a port nothing listens."""

    port: int | None = Field(default=None, ge=0, le=65_535)  # 0: any free one
    host: str = "127.0.0.1"
    interval_seconds: float = Field(default=15.0, gt=0)  # how old figures may be


class Settings(Strict):
    """One daemon process."""

    bus: Bus = Bus()
    limits: Limits = Limits()
    shell: Shell = Shell()
    schedule: Schedule = Schedule()
    metrics: Metrics = Metrics()
    instance: str = Field(default="regate-0", pattern=r"^[A-Za-z0-9._-]+$")  # static membership; unique per process
    artefacts: Path = Path(".regate/artefacts")
    catalogs: tuple[Path, ...] = ()  # folders of scenarios and suites beside the shipped ones; read for every run
    log_level: str = "info"

    @field_validator("log_level")
    @classmethod
    def _level(cls, value: str) -> str:
        if value not in {"debug", "info", "warning", "error"}:
            raise ValueError("use debug, info, warning or error")
        return value
