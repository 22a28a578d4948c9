"""Which parts make which role: the only place that knows all cores and the shell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from regate.config.errors import ConfigError
from regate.config.settings import Settings
from regate.daemon.artefacts import LocalStore
from regate.daemon.bus.port import Bus
from regate.daemon.bus.provision import provision, refuse_compacted_inputs
from regate.daemon.bus.topics import Topics
from regate.daemon.roles.decide import DecideCore
from regate.daemon.roles.gate import GateCore
from regate.daemon.roles.observe import ObserveCore
from regate.daemon.roles.validate import ValidateCore
from regate.daemon.shell.clock import Clock
from regate.daemon.shell.core import RoleCore
from regate.daemon.shell.runner import Runner
from regate.daemon.validate.worker import Worker

ROLES: dict[str, tuple[str, ...]] = {
    "all": ("observe", "decide", "gate", "validate"),
    "watch": ("observe", "decide"),
    "gate": ("gate",),
    "validate": ("validate",),
}


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Part:
    """One loop with what belongs to it."""

    runner: Runner
    start: Callable[[], None] = _nothing
    stop: Callable[[], None] = _nothing


def assemble(bus: Bus, topics: Topics, settings: Settings, roles: set[str], clock: Clock) -> list[Part]:
    """Return the loops of these roles.

    :raises ConfigError: when a role is unknown, or a topic is missing or cannot be used.
    """
    unknown = roles - set(ROLES)
    if unknown:
        raise ConfigError(f"unknown role {', '.join(sorted(unknown))}", hint=f"one of {', '.join(ROLES)}")
    placed, sources = _look(bus, topics)
    store = LocalStore(settings.artefacts)
    cores: dict[str, Callable[[], RoleCore]] = {
        "observe": lambda: ObserveCore(placed, settings.limits, sources),
        "decide": lambda: DecideCore(placed),
        "gate": lambda: GateCore(placed),
        "validate": ValidateCore,
    }
    parts = []
    for name in dict.fromkeys(name for role in sorted(roles) for name in ROLES[role]):
        if name == "validate":
            worker = Worker(bus, topics, settings, store, clock=clock)
            runner = Runner(bus, topics, cores[name](), settings, store, clock=clock, on_commit=worker.offer)
            parts.append(Part(runner, worker.start, worker.stop))
        else:
            prepare = (lambda: _grow(bus, topics)) if name == "observe" else None
            parts.append(Part(Runner(bus, topics, cores[name](), settings, store, clock=clock, prepare=prepare)))
    return parts


def _look(bus: Bus, topics: Topics) -> tuple[int, tuple[str, ...]]:
    """Return the number of placed partitions as the bus has it, and the names of all input partitions."""
    admin = bus.admin()
    try:
        refuse_compacted_inputs(admin, topics)
        placed = admin.partitions(topics.name("findings"))
        sources = tuple(
            f"{logical}-{number}"
            for logical in ("telemetry", "labels")
            for number in range(admin.partitions(topics.name(logical)))
        )
    finally:
        admin.close()
    if not placed:
        raise ConfigError(f"no topic {topics.name('findings')}", hint="regate topics create")
    return placed, sources


def _grow(bus: Bus, topics: Topics) -> None:
    """Let observe's journals follow the users' partition counts, before a new partition is read."""
    admin = bus.admin()
    try:
        provision(admin, topics)
    finally:
        admin.close()
