"""The estimate speaks where it holds, and is suspended, with the reason, where it does not."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from tests.gate_world import World
from tests.scored_streams import BINARY, KEY, REGRESSION, Rows, binary, joined, labels_of, profile_of, regression
from tests.telemetry_streams import Pipeline, alone, pick

from regate.detectors import decide_state
from regate.detectors.columns import Categorical
from regate.detectors.finding import Finding
from regate.detectors.profile import Profile
from regate.detectors.validity import MOST_OUTSIDE, Validity

STEADY = 6_400


@pytest.fixture(scope="module")
def profile() -> Profile:
    return profile_of(BINARY, binary(20_000, 1), events_per_second=10.0)


def story(rows: Rows, profile: Profile, *, labelled: bool = True, after: int = 5) -> tuple[list[Finding], Pipeline]:
    config = BINARY if rows.events.scores else REGRESSION
    run = alone(rows.events, labels_of(rows, after) if labelled else None, profile, config)
    return run.findings, run


def state_of(run: Pipeline) -> Validity:
    watch = run.shard.models[KEY].watch
    assert watch is not None
    return watch.validity


def said(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.subject, finding.revision) for finding in findings]


def row_of(rows: Rows, time_us: int) -> int:
    return int(np.searchsorted(rows.events.event_time_us, time_us))


def far_out(n: int, seed: int) -> Rows:
    """Inputs that the reference never had, about which the model is very sure, and wrong half of the time."""
    rows = binary(n, seed, shift=8.0, spread=0.3)
    coin = np.random.default_rng(seed).random(n) < 0.5
    return replace(rows, label=replace(rows.label, values=coin.astype(np.float64)))


def test_nothing_changes_nothing_is_said(profile: Profile) -> None:
    findings, run = story(joined(binary(30_000, 2)), profile)
    assert findings == []
    assert state_of(run).valid


def test_uncertain_inputs_raise_a_suspicion_without_any_label(profile: Profile) -> None:
    rows = joined(binary(STEADY, 3), binary(STEADY, 4, spread=0.35))
    findings, run = story(rows, profile, labelled=False)
    assert state_of(run).valid
    estimate = [one for one in findings if "performance/estimated_error/mean" in {c.chart for c in one.carriers}]
    watch = run.shard.models[KEY].watch
    assert watch is not None
    carried = {name for incident in watch.incidents for name in incident.charts}
    assert estimate or "performance/estimated_error/mean" in carried
    assert {one.kind for one in findings} == {"change"}
    assert all(0.25 < one.severity < 0.5 for one in findings)  # by the estimated loss, about ten points


def test_a_shift_without_estimated_loss_is_less_severe_than_one_with(profile: Profile) -> None:
    harmless, _ = story(joined(binary(STEADY, 5), binary(STEADY, 6, shift=0.3)), profile, labelled=False)
    harmful, _ = story(joined(binary(STEADY, 5), binary(STEADY, 6, spread=0.35)), profile, labelled=False)
    assert harmless[0].severity < harmful[0].severity < 0.5


def test_rows_outside_the_support_suspend_the_estimate(profile: Profile) -> None:
    rows = joined(binary(STEADY, 7), far_out(STEADY, 8))
    findings, run = story(rows, profile)
    notes = [one for one in findings if one.revision == "not_valid"]
    assert [one.message for one in notes if "outside" in one.message]
    first = notes[0]
    assert (first.type, first.family, first.subject, first.kind) == (
        "revision",
        "performance",
        "estimated_error",
        "change",
    )
    assert "(outside)" in first.message
    assert float(first.evidence) >= float(first.threshold)
    assert float(first.effect) > MOST_OUTSIDE
    assert STEADY <= row_of(rows, first.detected_us) < STEADY + 200
    assert STEADY - 64 <= row_of(rows, first.onset_us) < STEADY + 200
    assert [one for one in findings if one.kind == "harm"], "labels show what the estimate hides"
    change = next(one for one in findings if one.type == "finding" and one.kind == "change")
    assert change.severity == 0.5, "not the small loss that the estimate sees there"
    assert not [one for one in findings if one.subject == "estimated_error" and one.type == "finding"]
    assert state_of(run).outside


def test_what_is_suspended_raises_nothing(profile: Profile) -> None:
    """Scores are as unsure as can be, of applicants from a city that the reference never had."""
    doubtful = binary(STEADY, 20, spread=0.35)
    whole = joined(binary(STEADY, 21), doubtful)
    known = whole.events.features["city"]
    assert isinstance(known, Categorical)
    codes = known.codes.copy()
    codes[STEADY:] = 3
    both = {**whole.events.features, "city": Categorical(codes, ("a", "b", "c", "elsewhere"))}
    calm = replace(profile, charts=tuple(_only_performance(one) for one in profile.charts))
    findings, _ = story(replace(whole, events=replace(whole.events, features=both)), calm, labelled=False)
    assert said(findings) == [("estimated_error", "not_valid")]
    found, _ = story(whole, calm, labelled=False)
    assert said(found) == [("estimated_error", "")], "inside the support it does"


def test_labels_that_contradict_suspend_it_inside_the_support(profile: Profile) -> None:
    rows = joined(binary(STEADY, 9), binary(STEADY, 10, twist=-0.2))
    findings, run = story(rows, profile)
    (note,) = [one for one in findings if one.revision == "not_valid"]
    assert "(contradicted)" in note.message
    assert float(note.evidence) >= float(note.threshold) > 4
    assert float(note.effect) > 0.1
    assert STEADY < row_of(rows, note.detected_us) < STEADY + 600
    assert state_of(run).reason == "contradicted"
    assert ("harm", "") in {(one.kind, one.revision) for one in findings}


def test_it_speaks_again_when_rows_come_back_and_labels_agree(profile: Profile) -> None:
    for bad in (far_out(2_000, 12), binary(2_000, 12, twist=-0.2)):
        rows = joined(binary(STEADY, 11), bad, binary(STEADY, 13))
        findings, run = story(rows, profile)
        assert [one.revision for one in findings if one.revision in {"not_valid", "valid"}][-1] == "valid"
        assert state_of(run).valid


def test_a_suspicion_is_withdrawn_when_labels_contradict_it(profile: Profile) -> None:
    """Inputs become uncertain, by the scores; outcomes are as certain as ever."""
    doubtful = binary(STEADY, 15, spread=0.35)
    sure = replace(doubtful, label=doubtful.events.prediction)  # type: ignore[arg-type]
    calm = replace(profile, charts=tuple(_only_performance(one) for one in profile.charts))
    findings, run = story(joined(binary(STEADY, 14), sure), calm, after=200)
    revisions = said(findings)
    assert ("estimated_error", "") in revisions
    assert ("estimated_error", "not_valid") in revisions
    assert revisions.index(("estimated_error", "")) < revisions.index(("estimated_error", "withdrawn"))
    assert state_of(run).contradicted


def _only_performance(chart: object) -> object:
    quiet = chart.family != "performance"  # type: ignore[attr-defined]
    return replace(chart, watchable=False, weight=0.0, digest="off") if quiet else chart  # type: ignore[type-var]


def test_the_error_of_a_regression_is_suspended_too() -> None:
    profile = profile_of(REGRESSION, regression(20_000, 16), events_per_second=10.0)
    steady = regression(STEADY, 17)
    for bad, reason in ((regression(STEADY, 18, shift=9.0), "outside"), (regression(STEADY, 18, noise=2.0), "contra")):
        findings, run = story(joined(steady, bad), profile)
        assert [one for one in findings if one.revision == "not_valid" and reason in one.message]
        assert not state_of(run).valid


def test_notes_ask_nothing_of_a_gate(profile: Profile) -> None:
    findings, _ = story(joined(binary(STEADY, 7), far_out(STEADY, 8)), profile)
    note = next(one for one in findings if one.revision == "not_valid")
    world = World()
    world.approve()
    before = (world.scope.verdict, world.scope.incidents, len(world.requests))
    world.feed("finding", note)
    assert (world.scope.verdict, world.scope.incidents, len(world.requests)) == before
    assert world.ignored == ["note"]


def test_what_is_known_survives_a_snapshot(profile: Profile) -> None:
    rows = joined(binary(STEADY, 7), far_out(STEADY, 8))
    whole, undisturbed = story(rows, profile)
    run = Pipeline(("telemetry-0", "labels-0"), (profile,), BINARY)
    labels = labels_of(rows)
    for part in np.array_split(np.arange(rows.events.n), 20):
        run.feed("telemetry-0", pick(rows.events, part))
        run.feed("labels-0", pick(labels, part))
        chunks = decide_state.dump(run.shard)
        run.shard, refused = decide_state.load(chunks, {str(KEY): profile}, {KEY: BINARY})
        assert refused == []
        assert decide_state.dump(run.shard) == chunks
    run.end()
    assert run.said() == [one.model_dump_json().encode() for one in whole]
    assert asdict(state_of(run)) == asdict(state_of(undisturbed))


def test_a_snapshot_of_before_has_a_valid_estimate(profile: Profile) -> None:
    _, run = story(joined(binary(1_000, 19)), profile)
    chunks = decide_state.dump(run.shard)
    name = f"model/{KEY}/model"
    meta, arrays = decide_state.unpack(chunks[name])
    del meta["watch"]["validity"]
    shard, refused = decide_state.load(
        {**chunks, name: decide_state.pack(meta, arrays)}, {str(KEY): profile}, {KEY: BINARY}
    )
    assert refused == []
    watch = shard.models[KEY].watch
    assert watch is not None
    assert watch.validity == Validity()
