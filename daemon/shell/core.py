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
class Gap:
    """Something that a shard should have had and never will: an input of the step that begins after it.

    ``truncated``: the log no longer holds ``wanted`` to ``first`` (retention passed us); ``recreated``: the topic was
    made anew, and reading goes on at ``first``; ``unread``: what a recovery should have read again is gone, the state
    lacks it; ``state``: a chunk of the snapshot (``topic`` is its name) could not be used.
    """

    kind: str
    topic: str
    partition: int
    wanted: int = 0
    first: int = 0


def told(gap: Gap) -> str:
    """Return one sentence for a person."""
    place = f"{gap.topic}-{gap.partition}"
    lost = f"offsets {gap.wanted} to {gap.first - 1}"
    if gap.kind == "state":
        return f"a part of the snapshot could not be used ({gap.topic}): what it knew is learnt anew"
    if gap.kind == "recreated":
        return f"{place} was made anew: offset {gap.wanted} was expected, reading goes on at {gap.first}"
    if gap.kind == "unread":
        return f"{place}: {lost} were gone before a recovery could read them again: the state lacks them"
    return f"{place}: {lost} were gone before they were read: what they said is not counted"


@dataclass(frozen=True, slots=True)
class StepInput:
    """All that one step of one shard may depend on."""

    batches: tuple[Batch, ...] = ()
    control: tuple[Record, ...] = ()  # records of the control topic that take effect in this step, in order
    tick: Tick | None = None
    gaps: tuple[Gap, ...] = ()


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
