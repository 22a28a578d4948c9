from __future__ import annotations

from tests.telemetry_streams import CONFIG, KEY, Pipeline, telemetry

from regate.detectors.columns import ModelKey
from regate.detectors.frames import Frame
from regate.detectors.silence import Silence

OTHER = ModelKey("default", "fraud", "1", "production")
GAP = {KEY: 40_000, OTHER: 40_000}


def ticking(silence: Silence, now_ms: int, *sources: str) -> None:
    for source in sources:
        silence.alive(source, now_ms)


def running(start_ms: int = 1_000_000) -> Silence:
    """Two models through two sources, watched for a while."""
    silence = Silence()
    for second in range(60):
        now_ms = start_ms + second * 1000
        ticking(silence, now_ms, "telemetry-0", "telemetry-1")
        silence.heard(KEY, "telemetry-0", now_ms)
        silence.heard(OTHER, "telemetry-1", now_ms)
        assert silence.check(now_ms, GAP) == []
    return silence


def test_r41_one_model_falls_silent_and_comes_back() -> None:
    silence = running()
    found = []
    for second in range(60, 140):
        now_ms = 1_000_000 + second * 1000
        ticking(silence, now_ms, "telemetry-0", "telemetry-1")
        silence.heard(OTHER, "telemetry-1", now_ms)
        found += silence.check(now_ms, GAP)
    (finding,) = found
    assert (finding.kind, finding.subject, finding.model) == ("silence", "model", "loan")
    assert finding.onset_us == 1_059_000_000
    assert finding.detected_us // 1_000_000 == 1_100  # within 2 x the expected gap
    assert "40 s" in finding.message
    silence.heard(KEY, "telemetry-0", 1_141_000)
    (back,) = silence.check(1_141_500, GAP)
    assert (back.type, back.revision, back.incident) == ("revision", "recovered", finding.id)


def test_one_source_is_told_apart_from_its_model() -> None:
    silence = running()
    found = []
    for second in range(60, 100):
        now_ms = 1_000_000 + second * 1000
        ticking(silence, now_ms, "telemetry-1")
        silence.heard(OTHER, "telemetry-1", now_ms)
        found += silence.check(now_ms, GAP)
    assert [(finding.subject, finding.model) for finding in found] == [("source telemetry-0", "loan")]


def test_blind_is_us() -> None:
    silence = running()
    found = []
    for second in range(60, 120):
        found += silence.check(1_000_000 + second * 1000, GAP)
    assert [(finding.subject, finding.model) for finding in found] == [("blind", "fraud"), ("blind", "loan")]
    assert min(finding.severity for finding in found) > 0.5
    ticking(silence, 1_121_000, "telemetry-0", "telemetry-1")
    silence.heard(KEY, "telemetry-0", 1_121_000)
    silence.heard(OTHER, "telemetry-1", 1_121_000)
    assert [finding.revision for finding in silence.check(1_121_500, GAP)] == ["recovered", "recovered"]


def test_our_own_absence_is_not_silence() -> None:
    silence = running()
    late = 1_000_000 + 86_400_000  # the daemon was down for a day; what came meanwhile is still to be read
    assert silence.check(late, GAP) == []
    ticking(silence, late + 500, "telemetry-0", "telemetry-1")
    assert silence.check(late + 1000, GAP) == []


def test_an_open_silence_does_not_end_with_our_own_absence() -> None:
    silence = running()
    for second in range(60, 120):
        ticking(silence, 1_000_000 + second * 1000, "telemetry-0", "telemetry-1")
        silence.check(1_000_000 + second * 1000, GAP)
    late = 1_000_000 + 86_400_000
    assert silence.check(late, GAP) == []
    assert all(rhythm.open is not None for rhythm in silence.models.values())


def test_the_gap_comes_from_the_configuration_or_the_profile() -> None:
    events, _ = telemetry(2000, seed=3)
    run = Pipeline(("telemetry-0",))
    run.feed("telemetry-0", events)
    last_ms = int(events.arrival_us[-1]) // 1000
    configured = CONFIG.model_copy(
        update={"detection": CONFIG.detection.model_copy(update={"silence_after_seconds": 120.0})}
    )
    found = []
    for second in range(200):
        run.shard.take(Frame("telemetry-0", 0, tick_ms=last_ms + second * 1000))
        found += run.shard.tick(last_ms + second * 1000, {KEY: configured})
    (finding,) = found
    assert finding.threshold == "120"
    assert finding.detected_us // 1000 == last_ms + 121_000
