"""The observe role: telemetry and labels of one partition in, frames, heartbeats and dead letters out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from regate.config.canonical import content_id
from regate.config.errors import PoisonError
from regate.config.settings import Limits
from regate.daemon.bus.placement import partition_of
from regate.daemon.bus.port import OutRecord
from regate.daemon.bus.records import times_of
from regate.daemon.control import key_of
from regate.daemon.roles import standing as standings
from regate.daemon.roles.standing import Standing
from regate.daemon.shell.core import Batch, Gap, Output, StepInput, Tick, told
from regate.daemon.wire.cloudevents import encode_event
from regate.daemon.wire.dead_letters import dead_letters
from regate.daemon.wire.decode import Decoder
from regate.daemon.wire.internal import Heartbeat
from regate.daemon.wire.reasons import Reason, Refusal
from regate.detectors.arrays import pack, unpack
from regate.detectors.breaker import Breaker
from regate.detectors.columns import Labels, ModelKey, Slice
from regate.detectors.frames import Frame, encode_frames
from regate.detectors.notices import Notice
from regate.detectors.observe import NO_TIME, Observed, Partition, Watched, observe, watched
from regate.detectors.observe_state import dump as dump_partition
from regate.detectors.observe_state import load as load_partition
from regate.detectors.refusals import Refused, observe_refused

# A partition proven empty for so long is left out of the minimum over watermarks.
IDLE_MS = 30_000
# A heartbeat names the models of the last hour: who proves a lease needs the partitions that a model uses.
MODELS_MS = 3_600_000
FRAME = (("content-type", b"application/x-regate-frame"),)
_UNKNOWN = -1
# What a refusal says of the data; every other reason is a breach of the schema.
FLAG_OF: dict[str, str] = {Reason.OUT_OF_RANGE: "out_of_range", Reason.NON_FINITE: "non_finite"}


@dataclass(slots=True)
class State:
    """One shard: its partition, what control says, and how far it has read."""

    shard: str
    partition: Partition = field(default_factory=Partition)
    standing: Standing = field(default_factory=Standing)
    position: int = _UNKNOWN  # next offset; unknown before the first batch
    end: int = 0  # as seen at the last tick
    newest_ms: int = 0  # timestamp of the newest record
    quiet_since_ms: int = 0  # tick since which the partition is proven empty; 0: it is not
    refused: dict[str, int] = field(default_factory=dict)  # by reason
    refused_chunks: list[str] = field(default_factory=list)
    breaker: Breaker = field(default_factory=Breaker)
    decoder: Decoder | None = None  # made of standing, not state
    models: dict[ModelKey, Watched] = field(default_factory=dict)  # made of standing, not state


class ObserveCore:
    """Observe as a role: see `regate.daemon.shell.core.RoleCore`.

    :param partitions: of regate's own placed topics.
    :param limits: checked before parsing.
    :param sources: names of all input partitions (``telemetry-0`` ...), or a function that returns them.
        Frames carry them: without them, cells could close before a slow partition has said its first word.
    """

    name = "observe"
    inputs = ("telemetry", "labels")

    def __init__(
        self,
        partitions: int,
        limits: Limits | None = None,
        sources: Sequence[str] | Callable[[], Sequence[str]] = (),
    ) -> None:
        self._partitions = partitions
        self._limits = limits or Limits()
        self._sources = sources

    def initial(self, shard: str) -> State:
        """Return the state of a shard that has seen nothing."""
        return State(shard)

    def step(self, state: State, given: StepInput) -> list[Output]:
        """Take control, then records, then the tick."""
        if given.control and state.standing.take(given.control):
            state.decoder = None
            state.models.clear()
        out: list[Output] = []
        parts: dict[int, list[Observed]] = {}
        for batch in given.batches:
            self._take(state, batch, parts, out)
        notices = [self._missed(state, gap) for gap in given.gaps]
        if given.tick is not None and (said := state.breaker.tick(given.tick.now_ms)):
            over = said == "closed"
            text = "most records are used again" if over else "nearly every record of the last minute was refused"
            notices.append(Notice("poison", state.shard, f"{state.shard}: {text}", self._carried(state), over))
        out.extend(self._frames(state, given.tick, parts, tuple(notices)))
        return out

    def _missed(self, state: State, gap: Gap) -> Notice:
        kind = "lost_state" if gap.kind == "state" else "gap"
        return Notice(kind, state.shard, told(gap), self._carried(state))

    def _carried(self, state: State) -> tuple[str, ...]:
        """Return the models that this partition ever carried; none known: everybody must hear of it."""
        return tuple(sorted(state.partition.last_seen_ms))

    def dump(self, state: State) -> dict[str, bytes]:
        """Return the state as named chunks."""
        meta = {
            "position": state.position,
            "end": state.end,
            "newest_ms": state.newest_ms,
            "quiet_since_ms": state.quiet_since_ms,
            "refused": state.refused,
            "breaker": asdict(state.breaker),
        }
        return {"shard": pack(meta, {}), **dump_partition(state.partition), **state.standing.dump()}

    def load(self, shard: str, chunks: Mapping[str, bytes]) -> State:
        """Return the state that `dump` wrote; unusable chunks are named in ``refused_chunks``."""
        state = State(shard)
        state.standing, refused = standings.load(chunks)
        state.partition, more = load_partition(chunks)
        state.refused_chunks = refused + more
        try:
            meta, _ = unpack(chunks.get("shard", b""))
        except PoisonError:
            state.refused_chunks.append("shard")
        else:
            state.breaker = Breaker(**meta.pop("breaker", {}))
            for name, value in meta.items():
                setattr(state, name, value)
        return state

    def _take(self, state: State, batch: Batch, parts: dict[int, list[Observed]], out: list[Output]) -> None:
        state.position = batch.next
        if not batch.records:
            return
        state.quiet_since_ms = 0
        newest_ms = int(times_of(batch.records).max())
        state.newest_ms = max(state.newest_ms, newest_ms)
        if state.decoder is None:
            state.decoder = Decoder(state.standing.decoding(), self._limits)
        known = state.partition.seen
        if batch.topic == "labels":
            decoded = state.decoder.decode_labels(batch.records, known)
        else:
            decoded = state.decoder.decode(batch.records, known)
        for refusal in decoded.refused:
            reason = str(refusal.reason)
            state.refused[reason] = state.refused.get(reason, 0) + refusal.count
        out.extend(dead_letters(decoded.refused, "dead-letters", batch.partition % self._partitions))
        rows: list[Slice | Labels] = [*decoded.slices, *decoded.labels]
        state.breaker.take(sum(piece.n for piece in rows), sum(refusal.count for refusal in decoded.refused))
        for piece in rows:
            self._watched(state, piece.key)
        for part in observe(state.partition, rows, state.models, Watched()):
            parts.setdefault(partition_of(part.key.placement, self._partitions), []).append(part)
        if batch.topic == "telemetry":
            for part in self._refused(state, decoded.refused):
                parts.setdefault(partition_of(part.key.placement, self._partitions), []).append(part)

    def _refused(self, state: State, refusals: Sequence[Refusal]) -> Iterator[Observed]:
        """Count refused events with the model that they named, when it is configured."""
        found: dict[tuple[str, str], list[Refusal]] = {}
        for refusal in refusals:
            if refusal.model in state.standing.view.models:
                found.setdefault((refusal.model, FLAG_OF.get(refusal.reason, "schema")), []).append(refusal)
        for (name, flag), own in sorted(found.items()):
            key = key_of(state.standing.view.models[name])
            self._watched(state, key)
            arrival = np.array([refusal.record.timestamp_ms for refusal in own], dtype=np.int64) * 1000
            count = np.array([refusal.count for refusal in own], dtype=np.int64)
            part = observe_refused(state.partition, Refused(key, arrival, count, flag), state.models[key])
            if part is not None:
                yield part

    def _watched(self, state: State, key: ModelKey) -> None:
        if key not in state.models:
            state.models[key] = watched(state.standing.config(key), state.standing.view.profiles.get(str(key)))

    def _frames(
        self, state: State, tick: Tick | None, parts: dict[int, list[Observed]], notices: tuple[Notice, ...]
    ) -> list[Output]:
        targets = sorted(parts) if tick is None and not notices else range(self._partitions)
        out: list[Output] = []
        idle = False if tick is None else self._idle(state, tick)
        for target in targets:
            frame = Frame(
                source=state.shard,
                watermark_us=state.partition.watermark_us,
                idle=idle,
                tick_ms=0 if tick is None else tick.now_ms,
                parts=tuple(parts.get(target, ())),
                sources=tuple(self._sources() if callable(self._sources) else self._sources),
                notices=notices,
            )
            key = state.shard.encode()
            out.extend(OutRecord("cells", value, key, FRAME, target) for value in encode_frames(frame))
        if tick is not None:
            out.extend(self._heartbeats(state, tick, idle=idle))
        return out

    def _idle(self, state: State, tick: Tick) -> bool:
        """Return whether the partition is proven empty for long enough, or has never held anything."""
        topic, _, number = state.shard.rpartition("-")
        end = tick.ends.get((topic, int(number)))
        if end is None:
            return False
        moved = state.position == _UNKNOWN and end != state.end
        state.end = end
        if state.position == _UNKNOWN and end == 0:
            return True
        if moved or (state.position != _UNKNOWN and state.position < end):
            state.quiet_since_ms = 0
            return False
        state.quiet_since_ms = state.quiet_since_ms or tick.now_ms
        return tick.now_ms - state.quiet_since_ms >= IDLE_MS

    def _heartbeats(self, state: State, tick: Tick, *, idle: bool) -> list[Output]:
        position = max(state.position, 0)
        if state.position == _UNKNOWN and state.quiet_since_ms:
            position = state.end  # nothing came although there is an end: retention has emptied the partition
        caught_up = position >= state.end
        seen, versions = state.partition.last_seen_ms, state.partition.versions_ms
        beat = Heartbeat(
            source=state.shard,
            now_ms=tick.now_ms,
            position=position,
            end=state.end,
            lag_ms=0 if caught_up or not state.newest_ms else max(0, tick.now_ms - state.newest_ms),
            watermark_us=max(state.partition.watermark_us, 0) if state.partition.watermark_us != NO_TIME else 0,
            idle=idle,
            models=tuple(sorted(name for name, at in seen.items() if tick.now_ms - at <= MODELS_MS)),
            versions={name: at for name, at in sorted(versions.items()) if tick.now_ms - at <= MODELS_MS},
        )
        event_id = content_id("heartbeat", state.shard, tick.now_ms)
        value, headers = encode_event("heartbeat", event_id, state.shard, tick.now_ms, beat)
        return [
            OutRecord("heartbeats", value, state.shard.encode(), headers, target) for target in range(self._partitions)
        ]
