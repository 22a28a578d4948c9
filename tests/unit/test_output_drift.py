"""Output drift: which charts a model's answers get, that no two of them say the same, and what each of them finds."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from regate.config.model import Detection, Feature, ModelConfig, Output
from regate.detectors.build import build_profile
from regate.detectors.cells import BLOCK_EVENTS, Block
from regate.detectors.clocks import RowClock, row_cells
from regate.detectors.columns import Categorical, Column, ModelKey, Numeric, Slice
from regate.detectors.decide import Shard
from regate.detectors.finding import Finding
from regate.detectors.frames import Frame
from regate.detectors.observe import Partition, Watched, observe, watched
from regate.detectors.profile import Profile
from regate.detectors.watch import Watch

KEY = ModelKey("default", "answers", "1", "production")
AT, ROWS, REFERENCE = 3_200, 6_400, 12_000


def config_of(kind: str) -> ModelConfig:
    return ModelConfig(
        model="answers",
        features={"x": Feature(type="numeric")},
        output=Output(type=kind, positive="1"),  # type: ignore[arg-type]
        detection=Detection(families={"data_quality": 0}),
    )


def answers(n: int, seed: int, prediction: Column | None, scores: dict[str, np.ndarray]) -> Slice:
    """Return events whose one feature has nothing to do with the answers."""
    index = np.arange(n, dtype=np.int64)
    x = np.random.default_rng((seed, 9)).standard_normal(n)
    times = 1_750_000_000_000_000 + index * 100_000
    return Slice(
        KEY, n, (index + 1).astype(np.uint64), times, times, {"x": Numeric(x)}, prediction=prediction, scores=scores
    )


def probabilities(n: int, seed: int, classes: int = 3, sharp: float = 1.0, towards: int = -1) -> np.ndarray:
    """Return ``float64[classes, n]``; ``sharp`` says how sure the model is, ``towards`` which class it favours more."""
    logits = sharp * np.random.default_rng(seed).normal(0, 1.5, (classes, n))
    if towards >= 0:
        logits[towards] += 0.7
    e = np.exp(logits)
    return np.asarray(e / e.sum(axis=0))


NAMES = ("a", "b", "c", "d")


def chosen(p: np.ndarray) -> Categorical:
    return Categorical(p.argmax(axis=0).astype(np.int32), NAMES[: len(p)])


def multiclass(n: int, seed: int, p: np.ndarray | None = None) -> Slice:
    p = probabilities(n, seed) if p is None else p
    return answers(n, seed, chosen(p), dict(zip(NAMES, p, strict=False)))


def profile_of(kind: str, rows: Slice) -> Profile:
    return build_profile(config_of(kind), KEY, rows, budget_events=1e6, calibrate_seconds=5)


@lru_cache(maxsize=1)
def three_classes() -> Profile:
    return profile_of("multiclass", multiclass(REFERENCE, 1))


def names_of(profile: Profile) -> set[str]:
    return {chart.name.removeprefix("output_drift/") for chart in profile.charts if chart.family == "output_drift"}


def found(profile: Profile, rows: Slice) -> list[Finding]:
    group = np.arange(rows.n) // BLOCK_EVENTS
    stats = profile.accumulate(rows, group, int(group[-1]) + 1)
    cells = row_cells(np.arange(len(stats)) * BLOCK_EVENTS).tolist()
    blocks = [Block(0, cell, cell, row, 0) for cell, row in zip(cells, stats, strict=True)]
    return [one for one in Watch(profile, RowClock(1e6, rows.n)).take(blocks) if one.type == "finding"]


def test_of_two_scores_that_sum_up_to_one_only_one_is_watched_and_entropy_is_not_beside_the_margin() -> None:
    p = probabilities(REFERENCE, 1, 2)
    binary = answers(REFERENCE, 1, Categorical(p.argmax(axis=0).astype(np.int32), ("0", "1")), {"0": p[0], "1": p[1]})
    names = names_of(profile_of("binary", binary))
    rates = {name for name in names if name.startswith("class/=")}
    assert len(rates) == 1  # of two classes one says what the other would
    assert names - rates == {
        "class/unseen",
        "class/missing",
        "score/1/mean",
        "score/1/scale",
        "score/1/missing",
        "margin/mean",
        "margin/scale",
        "score/1|0/mean",
        "score/1|1/mean",
    }
    unlike = answers(REFERENCE, 1, None, {"0": p[0], "1": np.random.default_rng(2).random(REFERENCE)})
    assert {"score/0/mean", "score/1/mean"} <= names_of(profile_of("binary", unlike))


def test_a_single_score_without_a_name_is_the_score() -> None:
    p = probabilities(REFERENCE, 1, 2)
    names = names_of(profile_of("binary", answers(REFERENCE, 1, None, {"": p[1]})))
    assert {"score/mean", "score/scale", "margin/mean", "score|0/mean", "score|1/mean"} <= names


def test_several_classes_have_their_scores_and_each_its_own_within_it() -> None:
    names = names_of(three_classes())
    within = {name for name in names if "|" in name}
    assert within == {"score/a|a/mean", "score/b|b/mean", "score/c|c/mean"}
    assert {"class/=a", "class/=b", "class/=c", "entropy/mean", "margin/mean", "score/a/mean"} <= names


@pytest.mark.parametrize("kind", ["multiclass", "regression"])
def test_the_family_weighs_one(kind: str) -> None:
    rows = multiclass(REFERENCE, 1)
    if kind == "regression":
        rows = answers(REFERENCE, 1, Numeric(np.random.default_rng(1).standard_normal(REFERENCE)), {})
    weights = [chart.weight for chart in profile_of(kind, rows).charts if chart.family == "output_drift"]
    assert 0.85 <= sum(weights) <= 1.0 + 1e-9


def late(p: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.concatenate([p[:, :AT], other[:, AT:]], axis=1)


def test_other_answers_are_found_as_output_drift() -> None:
    profile = three_classes()
    p = probabilities(ROWS, 3)
    assert found(profile, multiclass(ROWS, 3)) == []
    (first,) = found(profile, multiclass(ROWS, 3, late(p, probabilities(ROWS, 3, towards=1))))
    assert (first.family, first.kind) == ("output_drift", "change")
    assert first.subject in {"class", "score/b"}
    assert AT <= first.detected_us < AT + 400
    (first,) = found(profile, multiclass(ROWS, 3, late(p, probabilities(ROWS, 3, sharp=0.6))))
    assert first.family == "output_drift"
    assert {carrier.subject for carrier in first.carriers} & {"margin", "entropy"}
    assert AT <= first.detected_us < AT + 400


def test_answers_nearer_to_the_boundary_within_one_class_are_found_though_classes_stay() -> None:
    """Half of the way to .5 for those that are selected; who is selected stays."""
    p = probabilities(REFERENCE, 1, 2)[1]
    made = Categorical((p >= 0.5).astype(np.int32), ("0", "1"))
    profile = profile_of("binary", answers(REFERENCE, 1, made, {"1": p}))
    q = probabilities(ROWS, 4, 2)[1]
    nearer = np.where((np.arange(ROWS) >= AT) & (q >= 0.5), 0.5 + 0.5 * (q - 0.5), q)
    same = Categorical((q >= 0.5).astype(np.int32), ("0", "1"))
    (first,) = found(profile, answers(ROWS, 4, same, {"1": nearer}))
    assert first.family == "output_drift"
    assert "output_drift/score/1|1/mean" in {carrier.chart for carrier in first.carriers}
    assert not any(carrier.subject == "class" for carrier in first.carriers)
    assert AT <= first.detected_us < AT + 400


def test_a_class_that_the_reference_lacks_and_answers_that_say_nothing_are_found() -> None:
    profile = three_classes()
    rows = multiclass(ROWS, 5)
    assert isinstance(rows.prediction, Categorical)
    hit = (np.random.default_rng(6).random(ROWS) < 0.05) & (np.arange(ROWS) >= AT)
    new = Categorical(np.where(hit, 3, rows.prediction.codes).astype(np.int32), ("a", "b", "c", "new"))
    gone = Categorical(np.where(hit, -1, rows.prediction.codes).astype(np.int32), ("a", "b", "c"))
    for column, statistic, kind in ((new, "unseen", "change"), (gone, "missing", "data_quality")):
        (first,) = found(profile, answers(ROWS, 5, column, rows.scores))
        assert (first.family, first.subject, first.kind) == ("output_drift", "class", kind)
        assert first.carriers[0].statistic == statistic
        assert AT <= first.detected_us < AT + 400


def test_predictions_of_a_regression_that_move_or_spread_are_found() -> None:
    y = np.random.default_rng(1).standard_normal(REFERENCE)
    profile = profile_of("regression", answers(REFERENCE, 1, Numeric(y), {}))
    for move in (lambda late: late + 0.6, lambda late: late * 1.6):
        z = np.random.default_rng(7).standard_normal(ROWS)
        z[AT:] = move(z[AT:])
        (first,) = found(profile, answers(ROWS, 7, Numeric(z), {}))
        assert (first.family, first.subject) == ("output_drift", "prediction")
        assert AT <= first.detected_us < AT + 400


def test_one_version_s_answers_are_never_compared_with_another_s() -> None:
    """Version 2 answers otherwise by design; only its own profile may say what is normal for it."""
    profile = three_classes()
    config, shard, partition = config_of("multiclass"), Shard(), Partition()
    shard.configure(KEY, profile, config)
    other = ModelKey(KEY.tenant, KEY.model, "2", KEY.deployment)
    rows = replace(multiclass(ROWS, 3, probabilities(ROWS, 3, towards=1)), key=other)
    parts = tuple(observe(partition, [rows], {KEY: watched(config, profile)}, Watched()))
    shard.take(Frame("telemetry-0", partition.watermark_us, parts=parts))
    assert shard.close() == []
    assert shard.models[other].watch is None
    watch = shard.models[KEY].watch
    assert watch is not None
    assert watch.events == 0
