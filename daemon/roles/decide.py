"""The decide role: frames of all observe shards in, findings out, with the blocks behind each as an artefact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from regate.config.errors import PoisonError
from regate.daemon.bus.placement import partition_of
from regate.daemon.bus.port import OutRecord, Record
from regate.daemon.control import pattern_gone, pattern_record, scope_of_pattern
from regate.daemon.roles import standing as standings
from regate.daemon.roles.standing import Standing
from regate.daemon.shell.core import Artefact, Gap, Output, StepInput, told
from regate.daemon.wire.cloudevents import decode_event, encode_event
from regate.daemon.wire.dead_letters import dead_letter
from regate.daemon.wire.internal import Acceptance, Control
from regate.daemon.wire.reasons import Refusal
from regate.detectors import decide_state
from regate.detectors.arrays import pack, unpack
from regate.detectors.columns import ModelKey
from regate.detectors.decide import Shard
from regate.detectors.finding import Finding
from regate.detectors.frames import decode_frame
from regate.detectors.notices import Notice
from regate.detectors.observe import NO_TIME
from regate.detectors.watch import Watch

# RFC 3339 has four digits for the year; a producer's clock may be anywhere.
LAST_MS = 253_402_300_799_000


@dataclass(slots=True)
class State:
    """One shard: the core's state, what control says, and what could not be used."""

    number: int
    core: Shard = field(default_factory=Shard)
    standing: Standing = field(default_factory=Standing)
    refused: dict[str, int] = field(default_factory=dict)  # by reason
    refused_chunks: list[str] = field(default_factory=list)


class DecideCore:
    """Decide as a role: see `regate.daemon.shell.core.RoleCore`.

    :param partitions: of regate's own placed topics; decides which models a shard owns.
    """

    name = "decide"
    # Fragments, join rows and watermarks come in one record, because only one record is in order by itself.
    inputs = ("cells",)

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions

    def initial(self, shard: str) -> State:
        """Return the state of a shard that has seen nothing."""
        return State(int(shard))

    def step(self, state: State, given: StepInput) -> list[Output]:
        """Take control, then frames; close what the watermarks allow; then the tick."""
        ended = self._configure(state, state.standing.take(given.control)) if given.control else []
        state.core.notices.waiting.extend(self._missed(state, gap) for gap in given.gaps)
        out: list[Output] = []
        for record in given.control:
            if (record.key or b"").startswith(b"acceptance/") and record.value is not None:
                out.extend(self._accept(state, record))
        for batch in given.batches:
            for record in batch.records:
                out.extend(self._take(state, record))
        findings = [*ended, *state.core.close()]
        if given.tick is not None:
            configs = {key: config for key in state.core.models if (config := state.standing.config(key))}
            findings.extend(state.core.tick(given.tick.now_ms, configs))
        for finding in findings:
            out.extend(self._emit(state, finding))
        return [*out, *self._tell(state)]

    def dump(self, state: State) -> dict[str, bytes]:
        """Return the state as named chunks."""
        return {
            **decide_state.dump(state.core),
            **state.standing.dump(),
            "role": pack({"refused": state.refused}, {}),
        }

    def load(self, shard: str, chunks: Mapping[str, bytes]) -> State:
        """Return the state that `dump` wrote; unusable chunks are named in ``refused_chunks``."""
        state = State(int(shard))
        state.standing, refused = standings.load(chunks)
        configs = {
            key: config
            for profile in state.standing.view.profiles.values()
            if (config := state.standing.config(key := profile.key))
        }
        own = {name: data for name, data in chunks.items() if name == "shard" or name.startswith(decide_state.PREFIX)}
        state.core, more = decide_state.load(own, state.standing.view.profiles, configs)
        state.refused_chunks = refused + more
        for key in state.core.models:  # what a lost chunk held stands in control, too
            self._patterns(state, key, lost_prompts=True)
        try:
            meta, _ = unpack(chunks.get("role", b""))
        except PoisonError:
            state.refused_chunks.append("role")
        else:
            state.refused = meta["refused"]
        return state

    def _configure(self, state: State, changed: set[str]) -> list[Finding]:
        """Put profiles and settings in force; a profile taken back sends its model back to learning."""
        ended: list[Finding] = []
        profiles = state.standing.view.profiles
        for name in sorted(changed):
            kind, _, owner = name.partition("/")
            if kind == "pattern":
                self._pattern(state, owner)
            if kind == "prompts":
                for key in [key for key in state.core.models if key.placement == owner.partition("#")[0]]:
                    self._prompts(state, key, owner)
            if kind == "model":
                for key in [key for key in state.core.models if key.placement == owner]:
                    state.core.bound(key, state.standing.config(key))
            if kind != "profile":
                continue
            profile = profiles.get(owner)
            if profile is not None:
                if partition_of(profile.key.placement, self._partitions) == state.number:
                    ended += state.core.configure(profile.key, profile, state.standing.config(profile.key))
                    self._patterns(state, profile.key)
                continue
            for key in [key for key in state.core.models if str(key) == owner]:
                ended += state.core.configure(key, None, None)
        return ended

    def _pattern(self, state: State, name: str) -> None:
        """Learn or forget a pattern in all versions of its model."""
        pattern = state.standing.view.patterns.get(name)
        for key, model in state.core.models.items():
            if model.attack is None or key.scope != scope_of_pattern(name):
                continue
            if pattern is not None:
                model.attack.recurrence.learn([pattern])
            else:
                model.attack.recurrence.forget(name.partition("#")[2])

    def _patterns(self, state: State, key: ModelKey, *, lost_prompts: bool = False) -> None:
        """Let a model that has a new profile, or comes back from a snapshot, know the patterns of its scope.

        :param lost_prompts: whether only those prompts are wanted that the snapshot had and has lost.
        """
        attack, prompts = state.core.models[key].attack, state.core.models[key].prompts
        if attack is not None:
            view = state.standing.view.patterns
            attack.recurrence.learn([view[name] for name in sorted(view) if scope_of_pattern(name) == key.scope])
        if prompts is None or (lost_prompts and not prompts.lost):
            return
        prompts.lost = False
        for name in sorted(state.standing.view.prompts):
            if name.partition("#")[0] == key.placement:
                self._prompts(state, key, name)

    def _prompts(self, state: State, key: ModelKey, name: str) -> None:
        """Learn known prompts, or forget those of a set that was taken back."""
        watch = state.core.models[key].prompts
        if watch is None:
            return
        known = state.standing.view.prompts.get(name)
        if known is None:
            watch.forget(name.partition("#")[2].partition("/")[0] + "/")
            return
        try:
            watch.learn_all(*known)
        except PoisonError:
            state.refused["prompts_invalid"] = state.refused.get("prompts_invalid", 0) + 1

    def _tell(self, state: State) -> list[Output]:
        """Return control records of the patterns that changed here, and of those that found no room any more."""
        out: list[Output] = []
        for key, model in sorted(state.core.models.items(), key=lambda one: str(one[0])):
            if model.attack is None:
                continue
            told, gone = model.attack.recurrence.told()
            out += [pattern_record(key, one, min(max(one.last_us // 1000, 0), LAST_MS)) for one in told]
            out += [pattern_gone(key, one) for one in gone]
        return out

    def _take(self, state: State, record: Record) -> list[Output]:
        try:
            frame = decode_frame(record.value or b"", NO_TIME)
        except PoisonError as error:
            return [self._refuse(state, record, error.reason, error.message)]
        mine = tuple(part for part in frame.parts if partition_of(part.key.placement, self._partitions) == state.number)
        refused: list[Output] = []
        if len(mine) < len(frame.parts):
            said = "a frame holds models that belong to another partition"
            refused.append(self._refuse(state, record, "misplaced", said))
        state.core.take(replace(frame, parts=mine))
        return refused

    def _missed(self, state: State, gap: Gap) -> Notice:
        """Return what is to be said of an own input that is gone, or of a chunk of the own snapshot."""
        if gap.kind != "state":
            return Notice("gap", f"{gap.topic}-{gap.partition}", told(gap))
        known = (key for key in state.core.models if gap.topic.startswith(f"{decide_state.PREFIX}{key}/"))
        about = tuple(key.placement for key in known)
        return Notice("lost_state", f"decide-{state.number}", told(gap), about)

    def _accept(self, state: State, record: Record) -> list[Output]:
        """Close an incident that a person accepted; every shard reads it, the model's own acts."""
        try:
            control = decode_event(record.value, "control", Control)
            said = Acceptance.model_validate_json(control.document)
        except (PoisonError, ValidationError) as error:
            return [self._refuse(state, record, "control_invalid", str(error)[:500])]
        key = ModelKey(said.tenant, said.model, said.model_version, said.deployment)
        if partition_of(key.placement, self._partitions) != state.number:
            return []
        model = state.core.models.get(key)
        words = f"accepted as the new normal by {said.actor}: {said.reason}"
        watch = None if model is None else model.watch
        finding = None if watch is None else watch.accept(said.incident, words)
        if finding is None:
            gone = f"incident {said.incident} of {key} is not open"
            return [self._refuse(state, record, "unknown_incident", gone)]
        return self._emit(state, finding)

    def _refuse(self, state: State, record: Record, reason: str, message: str) -> OutRecord:
        state.refused[reason] = state.refused.get(reason, 0) + 1
        return dead_letter(Refusal(record, reason, message), "dead-letters", state.number)

    def _emit(self, state: State, finding: Finding) -> list[Output]:
        out: list[Output] = []
        key = ModelKey(finding.tenant, finding.model, finding.model_version, finding.deployment)
        model = state.core.models.get(key)
        if finding.type == "finding" and finding.carriers and model is not None and model.watch is not None:
            out.append(_blocks(finding, model.watch))
        time_ms = min(max(finding.detected_us // 1000, 0), LAST_MS)
        value, headers = encode_event("finding", finding.id, finding.scope, time_ms, finding)
        out.append(OutRecord("findings", value, key.placement.encode(), headers, state.number))
        return out


def _blocks(finding: Finding, watch: Watch) -> Artefact:
    """Return the block statistics since the onset: what it takes to compute the finding again, with its profile."""
    opened = next((one for one in watch.incidents if one.finding.id == finding.id), None)
    first = 0 if opened is None else opened.onset_block
    meta = {"finding": finding.id, "profile": finding.profile_digest, "charts": [one.chart for one in finding.carriers]}
    return Artefact(f"blocks-{finding.id}", pack(meta, dict(watch.history.since(first))))
