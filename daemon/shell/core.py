"""What a role is to the shell: a deterministic function of recorded inputs.

A core does no I/O, reads no clock, draws nothing unseeded and never logs. Everything that varies
enters through `StepInput`, and the shell journals exactly that, so a recovery or a replay re-steps
to the same state and the same outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from regate.daemon.bus.port import OutRecord, Record


class Batch(NamedTuple):
    """A contiguous range of one input partition: offsets ``first`` (inclusive) to ``next`` (exclusive)."""

    topic: str  # logical name, see regate.daemon.bus.topics
    partition: int
    first: int
    next: int
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Tick:
    """Wall time as an input, with the end offsets that tell an empty partition from a lagging one."""

    now_ms: int
    ends: Mapping[tuple[str, int], int] = field(default_factory=dict)  # (logical topic, partition) -> end offset


@dataclass(frozen=True, slots=True)
class StepInput:
    """All that one step of one shard may depend on."""

    batches: tuple[Batch, ...] = ()
    control: tuple[Record, ...] = ()  # records of the control topic that take effect in this step, in order
    tick: Tick | None = None


@dataclass(frozen=True, slots=True)
class Artefact:
    """Bytes for the artefact store, named by content; written before the transaction, harmless if orphaned."""

    name: str
    data: bytes


Output = OutRecord | Artefact


class RoleCore(Protocol):
    """One role. State is opaque to the shell, owned by one shard, and may be changed in place by `step`."""

    @property
    def name(self) -> str:
        """Return ``observe``, ``decide``, ``gate`` or ``validate``."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the logical names of the input topics, in the order in which a step takes them."""

    def initial(self, shard: str) -> Any:
        """Return the state of a shard that has seen nothing. ``shard`` is for example ``telemetry-3`` or ``3``."""

    def step(self, state: Any, given: StepInput) -> list[Output]:
        """Advance the state by one input; return the outputs in the order in which they are to be written."""

    def dump(self, state: Any) -> dict[str, bytes]:
        """Return the state as named chunks (< 900 kB each); equal states give equal bytes."""

    def load(self, shard: str, chunks: Mapping[str, bytes]) -> Any:
        """Return the state that `dump` wrote. A chunk that cannot be used is refused by name, the rest is kept."""
