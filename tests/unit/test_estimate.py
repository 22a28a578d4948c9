"""The label-free estimate and calibration: right where they should be, fair under shifts, refused where empty."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.scored_streams import BINARY, REGRESSION, Rows, binary, profile_of, regression

from regate.detectors import calibration
from regate.detectors.calibration import EXCESS, RESIDUAL, VARIANCE, ResidualSpec
from regate.detectors.columns import Categorical, Numeric
from regate.detectors.estimate import SUM, LinearError, ScoredError
from regate.detectors.layout import ChartSpec
from regate.detectors.numerics import UNIT
from regate.detectors.outcomes import reference_outcomes
from regate.detectors.profile import Profile
from regate.detectors.ridge import additive
from regate.detectors.sections import PRESENT
from regate.detectors.support import OUTSIDE, SupportSpec
from regate.detectors.tilts import residual_points, rise_points
from regate.detectors.views import event_view

BLOCK = 64


@pytest.fixture(scope="module")
def scored() -> Profile:
    return profile_of(BINARY, binary(20_000, 1))


@pytest.fixture(scope="module")
def linear() -> Profile:
    return profile_of(REGRESSION, regression(20_000, 2))


def chart(profile: Profile, name: str) -> ChartSpec:
    return next(one for one in profile.charts if one.name == name)


def section(profile: Profile, kind: type) -> object:
    return next(one for one in (*profile.layout.sections, *profile.layout.outcome_sections) if isinstance(one, kind))


def estimated(profile: Profile, rows: Rows) -> np.ndarray:
    spec = section(profile, ScoredError | LinearError)
    view = event_view(rows.events, np.zeros(rows.events.n, dtype=np.int16))
    units, known = spec.errors(view)  # type: ignore[attr-defined]
    assert known.all()
    return units / UNIT


def blocks_of(profile: Profile, rows: Rows) -> np.ndarray:
    """Return telemetry and outcomes of blocks of 64."""
    group = np.arange(rows.events.n) // BLOCK
    found, _ = reference_outcomes(rows.events, rows.label, BINARY.output)
    assert found is not None
    strata = np.zeros(rows.events.n, dtype=np.int16)
    return profile.accumulate(rows.events, group, group[-1] + 1) + profile.accumulate_outcomes(
        replace(found, shape=profile.layout.shape), strata, group, group[-1] + 1
    )


def test_the_estimate_is_calibrated_whatever_the_score_was(scored: Profile) -> None:
    fresh = binary(20_000, 3)
    assert estimated(scored, fresh).mean() == pytest.approx(fresh.p_wrong.mean(), abs=0.01)
    assert np.abs(estimated(scored, fresh) - fresh.p_wrong).mean() < 0.02


@pytest.mark.parametrize(("shift", "spread"), [(0.5, 1.0), (0.0, 0.5), (-0.8, 0.7)])
def test_the_estimate_follows_inputs_that_move_inside_the_support(scored: Profile, shift: float, spread: float) -> None:
    moved = binary(20_000, 4, shift=shift, spread=spread)
    before = binary(20_000, 5)
    assert estimated(scored, moved).mean() == pytest.approx(moved.p_wrong.mean(), abs=0.015)
    assert abs(moved.p_wrong.mean() - before.p_wrong.mean()) > 0.015, "the shift changes something"


def test_the_suspicion_never_reaches_the_severity_of_harm(scored: Profile, linear: Profile) -> None:
    for profile in (scored, linear):
        spec = chart(profile, "performance/estimated_error/mean")
        assert spec.watchable, spec.reason
        assert spec.kind == "change"
        assert max(spec.severity, spec.most) < 0.5
        assert spec.title.startswith("harm suspected")


def test_weights_of_the_family_stay_near_two(scored: Profile) -> None:
    weights = [one.weight for one in scored.charts if one.family == "performance"]
    assert 1.5 < sum(weights) <= 2.2
    assert chart(scored, "performance/error/rate").weight == 1.0


def test_bets_on_a_rise_are_fair_on_the_reference_and_win_when_it_rises(scored: Profile) -> None:
    reference = estimated(scored, binary(20_000, 1))
    a, b = rise_points(reference, 1.0, 0.0)
    assert a.size >= 3
    won = np.exp2(a * UNIT * reference[:, None] + b).mean(axis=0)
    np.testing.assert_allclose(won, 1.0, rtol=1e-9)
    risen = estimated(scored, binary(20_000, 6, spread=0.5))
    assert (a * UNIT * risen.mean() + b).max() * BLOCK > 0.3


@pytest.mark.parametrize(("shift", "spread"), [(0.0, 1.0), (0.7, 1.0), (0.0, 0.4), (0.0, 1.6)])
@pytest.mark.parametrize("column", [RESIDUAL, EXCESS])
def test_calibration_bets_are_fair_however_the_scores_move(
    scored: Profile, shift: float, spread: float, column: int
) -> None:
    spec = section(scored, ResidualSpec)
    assert isinstance(spec, ResidualSpec)
    stats = blocks_of(scored, binary(128_000, 7, shift=shift, spread=spread))
    margin = chart(scored, "performance/calibration/confidence").margin
    a, b = residual_points(1.0, margin)
    s, n = (stats[:, spec.first + which].astype(np.float64) for which in (column, VARIANCE))
    # The largest bets have heavy tails: their mean says nothing yet after 2,000 blocks.
    won = np.exp2(s[:, None] * a + n[:, None] * b)[:, np.abs(a) * UNIT < 0.9]
    assert (won.mean(axis=0) < 1.05).all()


def test_calibration_bets_win_when_probabilities_do_not_hold(scored: Profile) -> None:
    spec = section(scored, ResidualSpec)
    assert isinstance(spec, ResidualSpec)
    stats = blocks_of(scored, binary(64_000, 8, twist=0.3))  # outcomes depend less on x than scores say
    margin = chart(scored, "performance/calibration/confidence").margin
    a, b = residual_points(1.0, margin)
    s, n = (stats[:, spec.first + which].astype(np.float64).mean() for which in (EXCESS, VARIANCE))
    assert (s * a + n * b).max() > 1.0, "bits a block"
    assert (s / n) > 0.5, "logits"


def test_residuals_sum_to_nothing_on_the_reference(scored: Profile) -> None:
    spec = section(scored, ResidualSpec)
    assert isinstance(spec, ResidualSpec)
    stats = blocks_of(scored, binary(20_000, 1)).sum(axis=0)
    for column in (RESIDUAL, EXCESS):
        assert abs(stats[spec.first + column]) < 0.005 * stats[spec.first + PRESENT] * UNIT


def test_the_error_of_a_regression_is_estimated_from_its_inputs(linear: Profile) -> None:
    spec = section(linear, LinearError)
    assert isinstance(spec, LinearError)
    assert spec.fit.explained > 0.1
    for shift in (0.0, 0.7):
        fresh = regression(20_000, 9, shift=shift)
        assert estimated(linear, fresh).mean() * spec.scale == pytest.approx(fresh.p_wrong.mean(), rel=0.08)


def test_an_error_that_grows_to_both_sides_is_learned_by_squares() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=20_000)
    model = additive([x], np.minimum(np.square(x) * rng.exponential(size=20_000), 16.0))
    at = np.array([-2.0, 0.0, 2.0])
    low, middle, high = (model.base + model.steps[0].at(at)) / UNIT
    assert low == pytest.approx(4.0, rel=0.15)
    assert high == pytest.approx(4.0, rel=0.15)
    assert abs(middle) < 0.2


def test_an_estimate_that_explains_nothing_is_not_watched() -> None:
    even = profile_of(REGRESSION, regression(20_000, 10, uneven=0.0))
    spec = chart(even, "performance/estimated_error/mean")
    assert not spec.watchable
    assert "explains" in spec.reason
    rows = binary(20_000, 11)
    blind = replace(rows, events=replace(rows.events, scores={"": np.random.default_rng(1).random(20_000)}))
    spec = chart(profile_of(BINARY, blind), "performance/estimated_error/mean")
    assert not spec.watchable
    assert "explains" in spec.reason


def test_without_labels_or_scores_there_is_no_estimate() -> None:
    rows = binary(4_000, 12)
    bare = replace(rows, events=replace(rows.events, scores={}))
    names = {one.name for one in profile_of(BINARY, bare).charts}
    assert "performance/error/rate" in names
    assert not {name for name in names if "estimated" in name or "calibration" in name or "log_loss" in name}
    unlabelled = replace(rows, label=Numeric(np.full(4_000, np.nan)))
    assert not [one for one in profile_of(BINARY, unlabelled).charts if one.family == "performance"]


def test_sums_are_integers_that_add_up(scored: Profile, linear: Profile) -> None:
    for profile, rows in ((scored, binary(5_000, 13)), (linear, regression(5_000, 13))):
        whole = profile.accumulate(rows.events, np.zeros(5_000, dtype=np.int64), 1)[0]
        rng = np.random.default_rng(2)
        scattered = profile.accumulate(rows.events, rng.integers(0, 9, 5_000), 9).sum(axis=0)
        assert scattered.tolist() == whole.tolist()
        spec = section(profile, ScoredError | LinearError)
        assert whole[spec.first + PRESENT] == 5_000  # type: ignore[attr-defined]
        assert whole[spec.first + SUM] == np.rint(estimated(profile, rows) * UNIT).sum()  # type: ignore[attr-defined]


def test_a_profile_brings_estimates_back(scored: Profile, linear: Profile) -> None:
    for profile, rows in ((scored, binary(2_000, 14)), (linear, regression(2_000, 14))):
        again = Profile.from_bytes(profile.to_bytes())
        assert again.to_bytes() == profile.to_bytes()
        assert estimated(again, rows).tolist() == estimated(profile, rows).tolist()


def test_missing_scores_are_counted_and_not_estimated(scored: Profile) -> None:
    rows = binary(1_000, 15)
    score = rows.events.scores[""].copy()
    score[:100] = np.nan
    stats = scored.accumulate(replace(rows.events, scores={"": score}), np.zeros(1_000, dtype=np.int64), 1)[0]
    spec = section(scored, ScoredError)
    assert isinstance(spec, ScoredError)
    assert stats[spec.first : spec.first + 2].tolist() == [900, 100]
    gone = scored.accumulate(replace(rows.events, scores={}), np.zeros(1_000, dtype=np.int64), 1)[0]
    assert gone[spec.first : spec.first + 3].tolist() == [0, 1_000, 0]


def test_rows_are_outside_by_any_input(scored: Profile) -> None:
    spec = section(scored, SupportSpec)
    assert isinstance(spec, SupportSpec)
    assert spec.crossed < 0.001
    rows = binary(1_000, 16).events
    x = rows.features["x"]
    assert isinstance(x, Numeric)
    values = np.clip(x.values, -3, 3)
    values[:50] = 9.0
    values[200:210] = np.nan  # never missing in the reference
    codes = np.zeros(1_000, dtype=np.int32)
    codes[40:100] = 1  # ten of them are outside by x as well
    features = {"x": Numeric(values), "city": Categorical(codes, ("a", "elsewhere"))}
    stats = scored.accumulate(replace(rows, features=features), np.zeros(1_000, dtype=np.int64), 1)[0]
    assert stats[spec.first : spec.first + 2].tolist() == [1_000, 110]
    assert stats[spec.first + OUTSIDE] == 110


def test_an_input_that_never_comes_back_says_nothing_about_the_support() -> None:
    rows = binary(4_000, 17)
    config = BINARY.model_copy(update={"features": {**BINARY.features, "day": BINARY.features["x"]}})
    features = {**rows.events.features, "day": Numeric(np.arange(4_000, dtype=np.float64))}
    spec = section(profile_of(config, replace(rows, events=replace(rows.events, features=features))), SupportSpec)
    assert isinstance(spec, SupportSpec)
    assert spec.numbers == ("x",)


def test_calibration_has_two_charts_for_two_classes_and_one_for_more(scored: Profile) -> None:
    names = [one.name for one in scored.charts if one.subject == "calibration"]
    assert names == ["performance/calibration/confidence", "performance/calibration/residual"]
    assert {chart(scored, name).kind for name in names} == {"change"}
    assert calibration.SEVERITY < 0.5
