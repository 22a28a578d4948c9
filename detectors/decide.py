"""Decide: frames of all sources in, closed cells to charts, findings out. One state a shard, per model version inside.

Cells close when the smallest watermark over the sources has passed them; what a closed sequence of
cells decides depends on the events alone, not on slices, ticks or sharding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from regate.config.model import Detection, ModelConfig
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.watch import AttackWatch
from regate.detectors.cells import CELL_US, Joiner, layout_digest
from regate.detectors.clocks import Clock, EventClock
from regate.detectors.columns import ModelKey
from regate.detectors.decide_model import Model
from regate.detectors.finding import Finding
from regate.detectors.frames import Frame
from regate.detectors.gaps import longest_gap_us
from regate.detectors.label_join import Join
from regate.detectors.maturing import Maturing
from regate.detectors.notices import Notices
from regate.detectors.observe import NO_TIME
from regate.detectors.outcomes import sample_shift
from regate.detectors.profile import Profile
from regate.detectors.prompts.watch import PromptWatch
from regate.detectors.silence import Silence, expected_gap_ms
from regate.detectors.watch import Watch

FOREVER = 1 << 62  # a limit that every cell has passed
UNWATCHED = "the profile in force does not watch for it any more"


@dataclass(slots=True)
class Source:
    """What one observe shard has proven."""

    watermark_us: int = NO_TIME
    idle: bool = False


@dataclass(slots=True)
class Shard:
    """State of one decide shard."""

    sources: dict[str, Source] = field(default_factory=dict)
    models: dict[ModelKey, Model] = field(default_factory=dict)
    open_cell: int = NO_TIME  # cells before it are closed
    silence: Silence = field(default_factory=Silence)
    notices: Notices = field(default_factory=Notices)

    def configure(self, key: ModelKey, profile: Profile | None, config: ModelConfig | None) -> list[Finding]:
        """Put a profile in force. Charts whose digest is unchanged keep their state, open incidents survive.

        :return: the ends of attack incidents that nobody watches any more.
        """
        model = self.models.setdefault(key, Model())
        before = model.watch
        if profile is None:
            if before is not None:
                self.models[key] = Model(counters=model.counters, learned=model.learned)
            return _given_up(model, self._closed_us)
        if before is not None and before.profile.digest == profile.digest:
            return []
        clock: Clock = EventClock(profile.budget_period_us, profile.events_per_second, block_events=profile.block_rows)
        if before is not None:
            clock = before.clock
            if isinstance(clock, EventClock):
                clock.period_us, clock.events_per_second = profile.budget_period_us, profile.events_per_second
                clock.block_events = profile.block_rows
        return place(model, Watch(profile, clock), config, self._closed_us)

    @property
    def _closed_us(self) -> int:
        """Return the time up to which everything is decided; 0 before the first watermark."""
        return max(self.open_cell, 0) * CELL_US

    def bound(self, key: ModelKey, config: ModelConfig | None) -> None:
        """Put the memory limits of a changed configuration in force."""
        join = self.models[key].join
        if join is not None:
            join.capacity = _capacity(config)

    def take(self, frame: Frame) -> None:
        """Take one frame. Cells close in `close`, when all frames of the step are in."""
        for name in frame.sources:  # a partition that has said nothing yet must hold the cells open
            self.sources.setdefault(name, Source())
        source = self.sources.setdefault(frame.source, Source())
        for part in frame.parts:
            self.models.setdefault(part.key, Model()).take(part, self.open_cell)
            if part.fragments is not None:
                self.silence.heard(part.key, frame.source, part.fragments.last_arrival_us // 1000)
        source.watermark_us = max(source.watermark_us, frame.watermark_us)
        source.idle = frame.idle
        self.notices.waiting.extend(frame.notices)
        self.silence.alive(frame.source, frame.tick_ms)

    def watermark_us(self) -> int:
        """Return the smallest watermark over the sources that move; `FOREVER` when all are proven empty."""
        moving = [source.watermark_us for source in self.sources.values() if not source.idle]
        return min(moving, default=FOREVER)

    def close(self, watermark_us: int | None = None) -> list[Finding]:
        """Close the cells that end at or before the watermark, over all models; return what they decide."""
        watermark_us = self.watermark_us() if watermark_us is None else watermark_us
        if watermark_us == FOREVER:
            limit = max((model.last() + 1 for model in self.models.values()), default=self.open_cell)
        else:
            limit = watermark_us // CELL_US
        if limit <= self.open_cell:
            return []
        self.open_cell = limit
        return [finding for _, model in _by_name(self.models) for finding in model.close(limit)]

    def tick(self, now_ms: int, configs: dict[ModelKey, ModelConfig]) -> list[Finding]:
        """Take wall time; return what became silent or came back."""
        expected = {}
        for key, model in self.models.items():
            config, rhythm = configs.get(key), self.silence.models.get(key)
            gap = 0
            if model.watch is not None and rhythm is not None:
                profile = model.watch.profile
                since_us = min(rhythm.last_ms, now_ms) * 1000
                gap = longest_gap_us(profile.gaps_us, since_us, now_ms * 1000, profile.layout.time_zone)
            expected[key] = expected_gap_ms(gap, None if config is None else config.detection.silence_after_seconds)
        keys = sorted(self.models, key=str)
        told = self.notices.check(now_ms, keys, self.silence.ticks)
        return told + self.silence.check(now_ms, expected)


def place(model: Model, watch: Watch, config: ModelConfig | None, closed_us: int = 0) -> list[Finding]:
    """Put charts in force for a model; what the old ones and the new ones share goes on.

    :param closed_us: the time up to which everything is decided.
    :return: the ends of attack incidents that nobody watches any more.
    """
    layout = layout_digest(watch.profile.layout)
    before = model.watch
    if before is not None:
        inherit(watch, before)
    if layout != model.layout:
        model.joiner = Joiner()  # integers of two layouts do not add up
    if layout != model.layout or model.maturing is None:
        model.maturing = Maturing(watch.profile.layout)
    model.joiner.cells, model.joiner.events = watch.clock.block_cells(), watch.profile.block_rows
    model.layout, model.watch = layout, watch
    ended = _place_attack(model, watch.profile, closed_us) + _place_prompts(model, watch.profile, closed_us)
    capacity = _capacity(config)
    if model.join is None:
        model.join = Join(capacity, sample_shift(capacity, watch.profile.events_per_second))
    model.join.capacity = capacity
    return ended


def _place_attack(model: Model, profile: Profile, closed_us: int) -> list[Finding]:
    """Put attack lanes in force. Client memory is made of a reference's own sketches: another one starts anew."""
    reference, before = profile.attack, model.attack
    if before is not None and reference is not None and before.memory.reference.digest == reference.digest:
        before.profile_digest = profile.digest
        return []
    if before is not None:
        model.count("other_profile_queries", sum(one.n for one in before.waiting))
    if reference is None:
        model.attack = None
        return [] if before is None else before.given_up(closed_us, UNWATCHED)
    model.attack = AttackWatch(profile.key, profile.digest, Memory(reference))
    if before is not None:
        model.attack.succeed(before)
    return []


def _place_prompts(model: Model, profile: Profile, closed_us: int) -> list[Finding]:
    """Put prompts in force. What is known of texts is known under a salt: another one starts anew."""
    reference, before = profile.prompts, model.prompts
    if before is not None and reference is not None and before.reference.salt == reference.salt:
        before.revised(reference, profile.digest)
        return []
    model.prompts = None if reference is None else PromptWatch(profile.key, profile.digest, reference)
    return [] if before is None else before.given_up(closed_us, UNWATCHED)


def _given_up(model: Model, closed_us: int) -> list[Finding]:
    """Return the ends of what is open of attacks and prompts in a model whose profile was taken back."""
    watches = [one for one in (model.attack, model.prompts) if one is not None]
    return [finding for one in watches for finding in one.given_up(closed_us, "its profile was taken back")]


def _capacity(config: ModelConfig | None) -> int:
    return Detection().open_predictions if config is None else config.detection.open_predictions


def inherit(watch: Watch, before: Watch) -> None:
    """Carry over incidents, counts and the state of every chart whose digest is unchanged; the others start anew."""
    watch.incidents, watch.opened, watch.events = before.incidents, before.opened, before.events
    burning = {one.objective.name: one for one in before.burns}
    for burn in watch.burns:
        if old := burning.get(burn.objective.name):
            burn.take_over(old)
    rings = {one.spec.digest: one for one in before.advisers}
    for one in watch.advisers:
        if one.spec.digest in rings:
            one.restore(rings[one.spec.digest].ring, rings[one.spec.digest].alarms)
    kept = {chart.digest: index for index, chart in enumerate(before.bank.charts)}
    watch.adopt({digest: before.chart_state(index) for digest, index in kept.items()}, before.state.blocks)
    estimate = watch.examiner.chart
    if estimate is not None and watch.bank.charts[estimate].digest in kept:
        watch.validity = before.validity
    watch.refresh()


def _by_name(models: dict[ModelKey, Model]) -> Iterable[tuple[ModelKey, Model]]:
    return sorted(models.items(), key=lambda item: str(item[0]))
