"""River's detectors: found by name, honest about their false alarms, and the same after any restart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.telemetry_streams import CONFIG, KEY, START_US, shifted, telemetry, wronged

from regate.config.errors import ConfigError
from regate.config.model import Detection, ModelConfig, RiverDetector
from regate.detectors import decide_state
from regate.detectors.build import build_profile
from regate.detectors.cells import BLOCK_EVENTS, Block
from regate.detectors.clocks import EventClock
from regate.detectors.columns import Labels, Slice
from regate.detectors.decide import Shard
from regate.detectors.finding import Finding
from regate.detectors.outcomes import reference_outcomes
from regate.detectors.profile import Profile
from regate.detectors.river_adapter import RING, Adviser
from regate.detectors.watch import Watch

MEAN, ERROR = "feature_drift/income/mean", "performance/error/rate"
# Sensitive settings: what is asked here is that alarms come, not that they are right.
LISTENING = {
    "ADWIN": (MEAN, {"delta": 0.05, "clock": 1}),
    "KSWIN": (MEAN, {"alpha": 0.001}),
    "PageHinkley": (MEAN, {"threshold": 5.0}),
    "DDM": (ERROR, {}),
    "EDDM": (ERROR, {}),
    "FHDDM": (ERROR, {}),
    "HDDMA": (ERROR, {}),
    "HDDMW": (ERROR, {}),
    "HalfSpaceTrees": ("", {"window_size": 240}),
}


def configured(*asked: RiverDetector, **detection: object) -> ModelConfig:
    return CONFIG.model_copy(update={"detection": Detection(river=asked, **detection)})


def built(*asked: RiverDetector, rows: int = 8000) -> Profile:
    events, labels = telemetry(rows, seed=1, start_us=START_US - 10**9 * 3600)
    return build_profile(configured(*asked), KEY, events, labels.label, calibrate_seconds=0, events_per_second=50.0)


def blocks(profile: Profile, events: Slice, labels: Labels) -> list[Block]:
    group = np.arange(events.n) // BLOCK_EVENTS
    stats = profile.accumulate(events, group, int(group[-1]) + 1)
    outcomes, _ = reference_outcomes(events, labels.label, CONFIG.output)
    assert outcomes is not None
    strata = np.zeros(events.n, dtype=np.int16)
    stats = stats + profile.accumulate_outcomes(outcomes, strata, group, len(stats))
    return [Block(0, 2 * number, 2 * number + 1, row, 0) for number, row in enumerate(stats)]


def changed(rows: int, at: int, seed: int = 5) -> tuple[Slice, Labels]:
    events, labels = telemetry(rows, seed=seed)
    return wronged(shifted(events, at, by=1.0), at, 0.5), labels


def watch_of(profile: Profile) -> Watch:
    return Watch(profile, EventClock(profile.budget_period_us, 50.0))


@pytest.mark.parametrize("name", LISTENING)
def test_every_detector_hears_a_plain_change(name: str) -> None:
    chart, parameters = LISTENING[name]
    profile = built(RiverDetector(detector=name, chart=chart, parameters=parameters))  # type: ignore[arg-type]
    (spec,) = profile.river
    adviser = Adviser(spec)
    events, labels = changed(16_000, 8_000)
    heard = [number for number, block in enumerate(blocks(profile, events, labels)) if adviser.step(block.stats, 0)]
    assert any(number >= 8_000 // BLOCK_EVENTS for number in heard), heard
    assert adviser.alarms == len(heard)


@pytest.mark.parametrize("name", ["ADWIN", "KSWIN", "DDM", "HalfSpaceTrees"])
def test_a_restart_anywhere_changes_no_alarm(name: str) -> None:
    chart, parameters = LISTENING[name]
    (spec,) = built(RiverDetector(detector=name, chart=chart, parameters=parameters)).river  # type: ignore[arg-type]
    profile = built()
    rng = np.random.default_rng(11)
    print("seed 11")
    events, labels = changed(64 * (2 * RING + 300), 64 * 700)
    steps = blocks(profile, events, labels)
    whole, broken = Adviser(spec), Adviser(spec)
    for block in steps:
        if rng.random() < 0.01:
            ring, alarms = broken.ring, broken.alarms
            broken = Adviser(spec)
            broken.restore([tuple(value) for value in np.array(ring).tolist()], alarms)
        assert whole.step(block.stats, 0) == broken.step(block.stats, 0)
    assert whole.ring == broken.ring
    assert len(whole.ring) <= 2 * RING


def told(profile: Profile) -> list[Finding]:
    watch = watch_of(profile)
    events, labels = changed(16_000, 8_000)
    return watch.take(blocks(profile, events, labels))


def test_an_alarm_beyond_the_budget_is_advice_and_within_trust_a_finding() -> None:
    asked = RiverDetector(detector="PageHinkley", chart=MEAN, parameters={"threshold": 0.5, "min_instances": 5})
    profile = built(asked)
    (spec,) = profile.river
    assert spec.rate > spec.allowed
    assert not spec.counts
    advice = [finding for finding in told(profile) if finding.detector == "river_adapter"]
    assert advice
    assert {finding.type for finding in advice} == {"advice"}
    assert {finding.severity for finding in advice} == {0.0}
    trusted = told(built(asked.model_copy(update={"trusted": True})))
    first = next(finding for finding in trusted if finding.detector == "river_adapter")
    assert (first.type, first.subject) == ("finding", "income")
    assert "PageHinkley" in first.message


def test_state_survives_a_snapshot_without_pickle() -> None:
    profile = built(RiverDetector(detector="ADWIN", chart=MEAN))
    shard = Shard()
    shard.configure(KEY, profile, configured())
    watch = shard.models[KEY].watch
    assert watch is not None
    events, labels = changed(3_200, 3_200)
    watch.take(blocks(profile, events, labels))
    chunks = decide_state.dump(shard)
    again, refused = decide_state.load(chunks, {str(KEY): profile}, {KEY: configured()})
    assert refused == []
    assert decide_state.dump(again) == chunks
    other = again.models[KEY].watch
    assert other is not None
    assert other.advisers[0].ring == watch.advisers[0].ring
    # A new profile that leaves the detector alone keeps what it has heard.
    heavier = replace(profile, budget_period_us=profile.budget_period_us * 2)
    shard.configure(KEY, heavier, configured())
    kept = shard.models[KEY].watch
    assert kept is not None
    assert len(kept.advisers[0].ring) == 3_200 // BLOCK_EVENTS


def test_a_profile_brings_its_detectors_back() -> None:
    profile = built(RiverDetector(detector="HalfSpaceTrees", parameters={"n_trees": 5}))
    assert Profile.from_bytes(profile.to_bytes()).river == profile.river


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (RiverDetector(detector="ADWIN", chart="nowhere"), "cannot listen to 'nowhere'"),
        (RiverDetector(detector="DDM", chart=MEAN), "DDM cannot listen"),
        (RiverDetector(detector="ADWIN", chart=MEAN, parameters={"colour": 1.0}), "refuses its parameters"),
    ],
)
def test_what_cannot_listen_is_refused_with_what_could(asked: RiverDetector, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        built(asked)
