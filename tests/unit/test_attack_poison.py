"""Poisoned labels are found by their source; drift that all sources see, and sources that differ a little, are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.attacks.traffic import benign, table
from tests.attack_traffic import KEY, config_of, lively, rows_of

from regate.config.model import ModelConfig, Output
from regate.detectors import decide_state
from regate.detectors.arrays import pack, unpack
from regate.detectors.attack import poison
from regate.detectors.attack.habits import labels_of
from regate.detectors.attack.poison import ALL, CLASS, COHORT, FLIP, LabelReference, Poison
from regate.detectors.attack.sign import Sign
from regate.detectors.build import build_profile
from regate.detectors.classes import class_hash
from regate.detectors.columns import Categorical, FloatArray, HashArray, IntArray, Labels, Numeric, Slice
from regate.detectors.decide import FOREVER, Shard
from regate.detectors.finding import Finding
from regate.detectors.frames import Frame, decode_frame, encode_frames
from regate.detectors.marks import Outcomes, OutcomeShape, marks
from regate.detectors.observe import NO_TIME, Partition, Watched, observe, watched
from regate.detectors.profile import Profile

SHAPE = OutcomeShape("binary", "1", ("0", "1"), (("region", ("east", "west")),))
NO, YES = class_hash("0"), class_hash("1")
NONE = np.zeros(0, dtype=np.uint64)


def outcomes_of(label: IntArray, score: FloatArray, region: IntArray | None = None) -> Outcomes:
    """Return outcomes of labels 0 or 1 and scores of class 1."""
    classes = np.array([NO, YES], dtype=np.uint64)
    made = (score >= 0.5).astype(np.int64)
    n = len(label)
    codes = np.zeros(n, dtype=np.int32) if region is None else region.astype(np.int32)
    mark = marks(n, score, {"region": Categorical(codes, ("east", "west"))}, SHAPE, np.zeros(n, dtype=np.int64))
    wrong = (made != label).astype(np.int64)
    return Outcomes(wrong, classes[made], classes[label], mark, shape=SHAPE)


def world(seed: int, n: int, wrong: float = 0.3) -> tuple[IntArray, FloatArray]:
    """Return honest labels and scores: an unsure prediction is wrong more often, a sure one seldom."""
    rng = np.random.default_rng((21, seed))
    score = rng.beta(0.7, 0.7, n)
    off = rng.random(n) < wrong * (1.0 - np.abs(2.0 * score - 1.0)) ** 2
    return np.where(off, score < 0.5, score >= 0.5).astype(np.int64), score


@pytest.fixture(scope="module")
def reference() -> LabelReference:
    label, score = world(1, 6_000)
    clients = np.random.default_rng(1).integers(1, 200, 6_000).astype(np.uint64)
    return labels_of(outcomes_of(label, score), clients, None)


def poisoned(
    seed: int, n: int, share: float, *, evil: int = 7, of: int = 20, target: int | None = None
) -> tuple[IntArray, FloatArray, HashArray]:
    """Return labels of twenty sources, one of which turns a share of its labels over (to one class)."""
    label, score = world(seed, n)
    rng = np.random.default_rng((22, seed))
    source = rng.integers(1, of + 1, n).astype(np.uint64)
    turned = (source == evil) & (rng.random(n) < share)
    label = np.where(turned, 1 - label if target is None else target, label)
    return label, score, source


def told(
    one: Poison, label: IntArray, score: FloatArray, source: HashArray, cell: int = 50, region: IntArray | None = None
) -> list[Sign]:
    found = []
    for at, start in enumerate(range(0, len(label), cell)):
        own = slice(start, start + cell)
        part = outcomes_of(label[own], score[own], None if region is None else region[own])
        found += one.take(part, source[own], NONE, at)
    return found


def found_after(signs: list[Sign], source: HashArray, evil: int = 7, cell: int = 50) -> int:
    """Return how many labels of the evil source came until its first sign."""
    return int((source[: (signs[0].time_us + 1) * cell] == evil).sum())


@pytest.mark.parametrize(("share", "most"), [(1.0, 45), (0.5, 120), (0.2, 600)])
def test_a_source_that_turns_labels_over_is_found(reference: LabelReference, share: float, most: int) -> None:
    needed = []
    for seed in range(5):
        label, score, source = poisoned(seed, 14_000, share)
        signs = told(Poison(reference), label, score, source)
        assert {sign.subject for sign in signs} == {f"source:{7:016x}"}
        assert signs[0].lane == "labels"
        needed.append(found_after(signs, source))
    assert np.median(needed) <= most, needed


def test_honest_sources_give_nothing(reference: LabelReference) -> None:
    for seed in range(5):
        label, score, source = poisoned(100 + seed, 20_000, 0.0)
        assert told(Poison(reference), label, score, source) == []


def test_sources_that_differ_a_little_give_nothing(reference: LabelReference) -> None:
    rng = np.random.default_rng(23)
    label, score, source = poisoned(200, 40_000, 0.0, of=4)
    off = rng.random(40_000) < 0.055 * (source == 2)  # three times what the others deny, less than the bound
    assert told(Poison(reference), np.where(off, 1 - label, label), score, source) == []
    off = rng.random(40_000) < 0.3 * (source == 2)
    assert told(Poison(reference), np.where(off, 1 - label, label), score, source) != []


def test_what_is_long_ago_is_forgotten_by_source_as_by_all(reference: LabelReference) -> None:
    label, score, source = poisoned(201, 16_000, 0.0, of=2)
    one = Poison(reference)
    assert told(one, label, score, source) == []
    assert one.totals[ALL, 0][2] >= 3
    assert one.alone < 200
    labels = {sender: one.entries[sender, ALL, 0][poison.LABELS] for sender in (1, 2)}
    assert sum(labels.values()) < 2 * poison.LATELY


def test_drift_that_all_sources_see_gives_nothing_and_a_poisoner_within_it_is_found(reference: LabelReference) -> None:
    label, score, source = poisoned(300, 20_000, 0.0)
    rng = np.random.default_rng(24)
    ramp = np.clip((np.arange(20_000) - 3_000) / 6_000, 0, 1) * 0.15
    off = rng.random(20_000) < ramp
    drifted = np.where(off, 1 - label, label)
    assert told(Poison(reference), drifted, score, source) == []
    evil = np.where((source == 7) & (np.arange(20_000) > 15_000), (score < 0.5).astype(np.int64), drifted)
    signs = told(Poison(reference), evil, score, source)
    assert {sign.subject for sign in signs} == {f"source:{7:016x}"}


def test_one_source_alone_cannot_be_told_from_drift(reference: LabelReference) -> None:
    label, score, source = poisoned(1, 4_000, 1.0, evil=1, of=1)
    one = Poison(reference)
    assert told(one, label, score, source) == []
    assert one.alone == 4_000


def test_labels_without_a_source_are_counted(reference: LabelReference) -> None:
    label, score, source = poisoned(1, 1_000, 1.0)
    one = Poison(reference)
    assert told(one, label, score, source * np.uint64(0)) == []
    assert (one.unnamed, len(one.entries)) == (1_000, 0)


def test_labels_that_deny_unsure_predictions_are_none(reference: LabelReference) -> None:
    label, score, source = poisoned(1, 8_000, 0.0)
    unsure = np.abs(2.0 * score - 1.0) < reference.margin - 0.01
    turned = np.where((source == 7) & unsure, 1 - label, label)
    assert told(Poison(reference), turned, score, source) == []


def test_one_class_and_one_cohort_are_bet_on_apart(reference: LabelReference) -> None:
    """A few labels hidden among many right ones are found sooner where they are all of one class or cohort."""
    rng = np.random.default_rng(25)
    label, score, source = poisoned(400, 40_000, 0.0)
    region = (rng.random(40_000) < 0.05).astype(np.int64)
    evil = (source == 7) & (region == 1) & (rng.random(40_000) < 0.7)
    turned = np.where(evil, 1 - label, label)
    one = Poison(reference)
    signs = told(one, turned, score, source, region=region)
    assert "of one cohort" in signs[0].said
    positive = rng.random(40_000) < 0.1
    score = np.where(positive, 0.97, 0.03)
    label = positive.astype(np.int64)
    one_class = np.where((source == 7) & (rng.random(40_000) < 0.06), 1, label)
    assert told(Poison(reference), label, score, source) == []
    (first, *_) = told(Poison(reference), one_class, score, source)
    assert first.subject == f"source:{7:016x}"
    assert "of one class" in first.said


def test_labels_that_contradict_earlier_ones_are_found_by_source(reference: LabelReference) -> None:
    label, score, source = poisoned(500, 6_000, 0.0)
    one, found = Poison(reference), []
    rng = np.random.default_rng(26)
    for cell, start in enumerate(range(0, 6_000, 50)):
        own = slice(start, start + 50)
        honest = rng.choice(20, 1).astype(np.uint64) + np.uint64(1) if cell % 10 == 0 else NONE
        against = np.r_[honest, np.full(2, 7, dtype=np.uint64)] if cell > 60 else honest
        found += one.take(outcomes_of(label[own], score[own]), source[own], against, cell)
    assert {(sign.lane, sign.subject) for sign in found} == {("flips", f"source:{7:016x}")}
    assert found[0].time_us <= 75
    assert "contradict an earlier label" in found[0].said


def test_memory_is_bounded_and_a_source_with_evidence_stays(reference: LabelReference) -> None:
    one = Poison(reference, capacity=200)
    label, score, source = poisoned(600, 6_000, 1.0)
    told(one, label[:300], score[:300], source[:300])
    assert max(one.entries[7, ALL, 0][poison.LOW : poison.HIGH + 1]) > 0
    flood = np.arange(1_000, 1_200).repeat(30).astype(np.uint64)  # each gives more labels than he did
    told(one, *world(601, 6_000), flood)
    assert len(one.entries) <= 200
    assert one.dropped > 0
    assert (7, ALL, 0) in one.entries
    assert len(one.totals) <= poison.GROUPS


def test_findings_do_not_depend_on_restarts(reference: LabelReference) -> None:
    label, score, source = poisoned(2, 6_000, 0.5)
    source = source * np.uint64(0x9E3779B97F4A7C15)
    whole = told(Poison(reference), label, score, source)
    assert whole
    for cut in (50, 400, 3_000):
        first = Poison(reference)
        before = told(first, label[:cut], score[:cut], source[:cut])
        again = Poison(reference)
        again.restore(*unpack(pack(*first.state())))
        assert again.entries == first.entries
        assert again.totals == first.totals
        after = told(again, label[cut:], score[cut:], source[cut:])
        moved = [replace(sign, time_us=sign.time_us + cut // 50) for sign in after]
        assert [(s.time_us, s.subject, s.level) for s in before + moved] == [
            (s.time_us, s.subject, s.level) for s in whole
        ]


def test_without_labels_or_scores_the_reference_says_what_it_can() -> None:
    assert labels_of(None, None, None).reason
    label, score = world(1, 2_000)
    bare = replace(outcomes_of(label, score), mark=None)
    made = labels_of(bare, None, np.arange(2_000) % 100 == 0)
    assert (made.reason, made.margin) == ("", 0.0)
    shares = {(lane, group): share for lane, group, share in made.shares}
    assert shares[ALL, 0] == pytest.approx(float(bare.wrong.mean()), abs=1e-3)
    assert {lane for lane, _ in shares} == {ALL, CLASS, FLIP}
    assert shares[FLIP, 0] == pytest.approx(0.01)
    assert {lane for lane, _, _ in labels_of(outcomes_of(label, score), None, None).shares} == {
        ALL,
        CLASS,
        COHORT,
        FLIP,
    }


def test_one_poisoner_in_the_reference_does_not_set_the_bound() -> None:
    label, score = world(1, 6_000)
    client = np.random.default_rng(1).integers(1, 300, 6_000).astype(np.uint64)
    turned = np.where(client == 5, (score < 0.5).astype(np.int64), label)
    plain, spoiled = (labels_of(outcomes_of(one, score), client, None).shares[0] for one in (label, turned))
    assert plain[:2] == spoiled[:2] == (ALL, 0)
    assert spoiled[2] <= plain[2] + 1e-3


# In the daemon's cores: telemetry, late labels of several desks, any partitions, slices and restarts.

POPULATION = table(3)
DESKS = 8


def stream(seed: int, clients: int = 120) -> tuple[Slice, Numeric]:
    rows = lively(rows_of(benign(POPULATION, clients, 30, seed)), seed)
    rng = np.random.default_rng((27, seed))
    score = rows.scores[""]
    off = rng.random(rows.n) < 0.2 * (1.0 - np.abs(2.0 * score - 1.0)) ** 2
    return rows, Numeric(np.where(off, score < 0.5, score >= 0.5).astype(np.float64))


def config() -> ModelConfig:
    return config_of(stream(1)[0]).model_copy(
        update={"output": Output(type="binary", classes=("0", "1"), positive="1")}
    )


@pytest.fixture(scope="module")
def profile() -> Profile:
    rows, label = stream(1)
    return build_profile(config(), KEY, rows, label, calibrate_seconds=0, events_per_second=10.0)


def with_labels(evil: int = 3, flips: bool = False) -> tuple[Slice, Labels]:
    rows, label = stream(2)
    rng = np.random.default_rng(28)
    desk = rng.integers(1, DESKS + 1, rows.n).astype(np.uint64)
    later = rows.event_time_us + 3_000_000
    turned = np.where(desk == evil, 1.0 - (rows.scores[""] >= 0.5), label.values)
    said = Labels(KEY, rows.n, rows.event_id, later, later + 50_000, Numeric(turned if not flips else label.values))
    said = replace(said, source=desk)
    if not flips:
        return rows, said
    pick = np.flatnonzero(rng.random(rows.n) < 0.2)
    more = Labels(
        KEY,
        len(pick),
        rows.event_id[pick],
        later[pick] + 5_000_000,
        later[pick] + 5_050_000,
        Numeric(1.0 - label.values[pick]),
        source=np.full(len(pick), evil, dtype=np.uint64),
    )
    order = np.argsort(np.r_[said.event_time_us, more.event_time_us], kind="stable")
    assert isinstance(said.label, Numeric)
    assert isinstance(more.label, Numeric)
    assert said.source is not None
    assert more.source is not None
    return rows, Labels(
        KEY,
        len(order),
        np.r_[said.event_id, more.event_id][order],
        np.r_[said.event_time_us, more.event_time_us][order],
        np.r_[said.arrival_us, more.arrival_us][order],
        Numeric(np.r_[said.label.values, more.label.values][order]),
        source=np.r_[said.source, more.source][order],
    )


def some(rows: Labels, keep: IntArray) -> Labels:
    assert isinstance(rows.label, Numeric)
    assert rows.source is not None
    return Labels(
        KEY,
        len(keep),
        rows.event_id[keep],
        rows.event_time_us[keep],
        rows.arrival_us[keep],
        Numeric(rows.label.values[keep]),
        source=rows.source[keep],
    )


def run(profile: Profile, rows: Slice, labels: Labels, partitions: int, cuts: int, restart: int = -1) -> list[Finding]:
    """Return the attack findings of the daemon's cores."""
    models = {KEY: watched(config(), profile)}
    names = tuple(f"{kind}-{number}" for kind in ("telemetry", "labels") for number in range(partitions))
    lanes = {name: Partition() for name in names}
    shard = Shard()
    shard.configure(KEY, profile, config())
    found: list[Finding] = []
    edges = np.linspace(rows.event_time_us[0], labels.event_time_us[-1] + 1, cuts + 1).astype(np.int64)
    for number, (low, high) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
        for name, state in lanes.items():
            kind, _, lane = name.partition("-")
            table_of: Slice | Labels = rows if kind == "telemetry" else labels
            times = table_of.event_time_us
            at = np.flatnonzero((times >= low) & (times < high) & (np.arange(table_of.n) % partitions == int(lane)))
            if not at.size:
                continue
            if isinstance(table_of, Slice):
                mask = np.zeros(table_of.n, dtype=np.bool_)
                mask[at] = True
                part: Slice | Labels = table_of.some(mask)
            else:
                part = some(table_of, at)
            seen = tuple(observe(state, [part], models, Watched()))
            for record in encode_frames(Frame(name, state.watermark_us, parts=seen, sources=names)):
                shard.take(decode_frame(record, NO_TIME))
        found += shard.close()
        if number == restart:
            shard, refused = decide_state.load(decide_state.dump(shard), {str(KEY): profile}, {KEY: config()})
            assert refused == []
    return [one for one in found + shard.close(FOREVER - 1) if one.detector in {"attack/labels", "attack/flips"}]


def test_the_daemon_finds_a_poisoning_desk_over_partitions_slices_and_restarts(profile: Profile) -> None:
    rows, labels = with_labels()
    plain = run(profile, rows, labels, 1, 20)
    assert [one.subject for one in plain if one.type == "finding"] == [f"source:{3:016x}"]
    first = plain[0]
    assert (first.family, first.kind, first.unit, first.detector) == ("attack", "attack", "labels", "attack/labels")
    assert first.onset_us <= first.detected_us
    desk = labels.source == 3
    assert int((desk & (labels.event_time_us <= first.detected_us)).sum()) <= 40
    expected = [(one.id, one.type) for one in plain]
    assert [(one.id, one.type) for one in run(profile, rows, labels, 2, 20)] == expected
    assert [(one.id, one.type) for one in run(profile, rows, labels, 1, 7)] == expected
    assert [(one.id, one.type) for one in run(profile, rows, labels, 1, 20, restart=2)] == expected
    assert [(one.id, one.type) for one in run(profile, rows, labels, 1, 20, restart=10)] == expected


def test_the_daemon_finds_who_contradicts_and_nobody_among_honest_desks(profile: Profile) -> None:
    found = run(profile, *with_labels(flips=True), 2, 15)
    assert [(one.detector, one.subject) for one in found if one.type == "finding"] == [
        ("attack/flips", f"source:{3:016x}")
    ]
    assert run(profile, *with_labels(evil=0), 1, 15) == []
