"""Every bound passes on an honest model and fails on one broken in just that way. Real models, real children."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import models
from tests.suites import HOSTILE_SPEC, KeptStore, by_name, hostile, outcomes, run

from regate.config.model import Feature
from regate.scenarios.catalog.loading import load_catalog
from regate.scenarios.contracts import TargetSpec
from regate.scenarios.families.fuzzing import FuzzingRecord
from regate.scenarios.sandbox.client import open_onnx
from regate.scenarios.sandbox.process import Limits
from regate.scenarios.stream import decode_stream

FUZZING, FAIRNESS, LOAD, WINDOW = (
    "scn-fuzzing-0001",
    "scn-fairness-0001",
    "scn-load-0001",
    "scn-production_window-0001",
)
QUICK = {"parameters": {"rates": [50, 100, 200], "requests": 100, "rounds": 1, "patience_seconds": 2}}
WITH_WINDOW: dict[str, Any] = {"window": {"events": 2000}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def honest(folder: Path) -> TargetSpec:
    return models.train(folder / "honest.onnx")


@pytest.fixture(scope="module")
def inverted(folder: Path) -> TargetSpec:
    return models.train(folder / "inverted.onnx", flip=True)


@pytest.fixture(scope="module")
def unfair(folder: Path) -> TargetSpec:
    return models.train(folder / "unfair.onnx", kind="tree", bias="west")


# --- fuzzing ------------------------------------------------------------------------------------------------------


def test_an_honest_model_passes_fuzzing_with_more_than_200_inputs(honest: TargetSpec) -> None:
    result = run(honest, FUZZING)
    assert set(outcomes(result).values()) == {"pass"}
    assert len(result.checks) == 8
    counted = by_name(result)["finite_outputs"].message
    assert all(kind in counted for kind in ("boundary", "beyond", "missing", "type", "unicode"))


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (models.undefined_for_the_young, "answers_valid"),
        (models.plain, "finite_outputs"),
        (models.order_dependent, "permutation"),
        (models.order_dependent, "duplicates"),
        (models.batch_dependent, "batch_of_one"),
        (models.chaotic, "noise"),
    ],
)
def test_a_broken_model_fails_the_bound_of_its_flaw(
    broken: Callable[[Path], TargetSpec], check: str, tmp_path: Path
) -> None:
    result = run(broken(tmp_path / "broken.onnx"), FUZZING)
    assert outcomes(result)[check] == "fail", by_name(result)[check].message
    assert result.outcome == "fail"


def test_the_plain_graph_is_broken_in_nothing_but_missing_values(tmp_path: Path) -> None:
    found = outcomes(run(models.plain(tmp_path / "m"), FUZZING))
    assert [name for name, outcome in found.items() if outcome != "pass"] == ["finite_outputs"]


def test_a_target_that_answers_wrong_types_fails() -> None:
    result = run(HOSTILE_SPEC, FUZZING, open_target=hostile("none"))
    assert outcomes(result) == dict.fromkeys(outcomes(result), "pass") | {"wrong_types_refused": "fail"}


RELATIONS = {
    "insensitive": ({"kind": "insensitive", "features": ["region"]}, {"kind": "insensitive", "features": ["age"]}),
    "monotone": (
        {"kind": "monotone", "feature": "income", "direction": "increasing"},
        {"kind": "monotone", "feature": "income", "direction": "decreasing"},
    ),
}


@pytest.mark.parametrize("relation", sorted(RELATIONS))
def test_declared_relations_hold_and_are_seen_broken(relation: str, tmp_path: Path) -> None:
    target = models.plain(tmp_path / "m")
    shipped = load_catalog().records[FUZZING].content
    for declared, outcome in zip(RELATIONS[relation], ("pass", "fail"), strict=True):
        content = dict(shipped)
        relations = [{"kind": "permutation"}, {"kind": "batch_of_one"}, declared]
        content["parameters"] = {**shipped["parameters"], "relations": relations}
        with pytest.raises(ValueError, match="must bound exactly"):  # what is declared must be bounded
            FuzzingRecord.model_validate(content)
        bounds = {name: bound for name, bound in shipped["expected"].items() if name not in {"duplicates", "noise"}}
        content["expected"] = {**bounds, relation: {"comparator": "<=", "bound": 0}}
        assert outcomes(run(target, FUZZING, record=FuzzingRecord.model_validate(content)))[relation] == outcome


# --- fairness -----------------------------------------------------------------------------------------------------


def test_a_fair_model_passes_two_attributes_and_their_intersection(honest: TargetSpec) -> None:
    result = run(honest, FAIRNESS, rows=models.rows(6000))
    assert set(outcomes(result).values()) == {"pass"}
    assert {name for name in outcomes(result) if ":" in name} == {
        "difference:region",
        "ratio:region",
        "difference:owner",
        "ratio:owner",
        "difference_intersection:region*owner",
        "ratio_intersection:region*owner",
    }
    assert all(check.n >= 900 for name, check in by_name(result).items() if ":" in name)


def test_every_group_is_asked_at_least_a_thousand_times(honest: TargetSpec) -> None:

    store = KeptStore()
    run(honest, FAIRNESS, rows=models.rows(1500), store=store)
    (stream,) = [data for name, data in store.kept.items() if name.startswith("stream-")]
    sizes = {exchange.step.name: exchange.responses.n for exchange in decode_stream(stream)}
    assert len(sizes) == 3 + 2 + 6
    assert min(sizes.values()) >= 1000


def test_an_unfair_model_fails_difference_and_ratio(unfair: TargetSpec) -> None:
    found = outcomes(run(unfair, FAIRNESS, rows=models.rows(6000)))
    assert (found["difference:region"], found["ratio:region"]) == ("fail", "fail")
    assert (found["difference:owner"], found["ratio:owner"]) == ("pass", "pass")


def test_unfairness_to_an_intersection_alone_is_found(folder: Path) -> None:
    target = models.train(folder / "corner.onnx", kind="tree", bias="west*owner")
    result = run(target, FAIRNESS, rows=models.rows(6000))
    found = outcomes(result)
    assert found["difference_intersection:region*owner"] == "fail"
    assert found["ratio_intersection:region*owner"] == "fail"
    assert "west*true" in by_name(result)["ratio_intersection:region*owner"].message


def test_without_rows_the_population_is_generated_from_the_schema(unfair: TargetSpec, honest: TargetSpec) -> None:
    assert outcomes(run(unfair, FAIRNESS))["ratio:region"] == "fail"
    assert outcomes(run(honest, FAIRNESS))["ratio:region"] == "pass"


def test_too_few_real_rows_are_inconclusive_however_many_are_generated(unfair: TargetSpec) -> None:
    found = by_name(run(unfair, FAIRNESS, rows=models.rows(120)))
    assert found["ratio:region"].outcome == "inconclusive"
    assert found["ratio:region"].n < 100


def test_without_cohorts_fairness_is_skipped_and_nothing_is_decided(honest: TargetSpec) -> None:
    result = run(honest, FAIRNESS, config=models.config(cohorts=()))
    assert set(outcomes(result).values()) == {"skipped"}
    assert result.outcome == "inconclusive"


def test_a_model_can_have_its_own_bound(unfair: TargetSpec) -> None:
    own = {"bounds": {f"{FAIRNESS}/ratio": 0.0, f"{FAIRNESS}/difference": 1.0}}
    found = outcomes(run(unfair, FAIRNESS, rows=models.rows(6000), config=models.config(validation=own)))
    assert (found["difference:region"], found["ratio:region"]) == ("pass", "pass")


# --- load ---------------------------------------------------------------------------------------------------------


def test_load_at_three_rates_passes_on_an_honest_model(honest: TargetSpec) -> None:
    result = run(honest, LOAD, changes=QUICK)
    found = outcomes(result)
    assert set(found) >= {f"{name}:{rate}" for name in ("latency_ms", "errors") for rate in (50, 100, 200)}
    decided = {name: outcome for name, outcome in found.items() if not name.startswith("errors")}
    assert set(decided.values()) == {"pass"}, by_name(result)
    assert all(by_name(result)[f"errors:{rate}"].observed == "0" for rate in (50, 100, 200))
    assert set(result.measured[LOAD]["rates"]) == {"50", "100", "200"}


def test_latency_counts_from_the_intended_start(tmp_path: Path) -> None:
    """One request takes a tenth of the bound; asked in a closed loop it would pass. Open loop, the queue grows."""
    spec = models.slow(tmp_path / "slow.onnx", 5_000)
    alone = open_onnx(spec, models.config(), Limits(), lambda: False)
    one = models.rows(1).features
    took = []
    for _ in range(10):
        began = time.monotonic()
        alone.predict(one)
        took.append(time.monotonic() - began)
    alone.close()
    bound = 1000 * 10 * float(np.median(took))
    rate = 4 / float(np.median(took))  # four times what one thread can do
    changes = {
        "parameters": {**QUICK["parameters"], "rates": [rate / 4, rate / 2, rate], "patience_seconds": 20},
        "expected": {"latency_ms": {"comparator": "<=", "bound": bound, "unit": "ms"}},
    }
    found = by_name(run(spec, LOAD, changes=changes))
    fast = found[f"latency_ms:{rate:g}"]
    assert fast.outcome == "fail", fast
    assert float(fast.observed) > bound
    assert fast.measured


def test_unanswered_requests_are_errors(tmp_path: Path) -> None:
    changes = {"parameters": {**QUICK["parameters"], "rates": [400, 800, 1600], "patience_seconds": 0.05}}
    found = outcomes(run(models.slow(tmp_path / "slow.onnx", 6_000), LOAD, changes=changes))
    assert found["errors:1600"] == "fail"


def test_memory_over_the_bound_fails(tmp_path: Path) -> None:
    # The peak shows at the first request: high rates and no patience spare the wait for the rest.
    few = {"rates": [400, 800, 1600], "requests": 80, "patience_seconds": 0.2, "pool": 2}
    bound = {"memory_mb": {"comparator": "<=", "bound": 150, "unit": "MB"}}
    changes = {"abort": {"memory_mb": 1024}, "parameters": {**QUICK["parameters"], **few}, "expected": bound}
    found = by_name(run(models.hungry(tmp_path / "hungry.onnx", 16_000_000), LOAD, changes=changes))
    assert found["memory_mb"].outcome == "fail", found["memory_mb"]


def test_growing_memory_fails() -> None:
    changes = {"abort": {"memory_mb": 1024, "seconds": 60}, **QUICK}
    found = by_name(run(HOSTILE_SPEC, LOAD, open_target=hostile("leak"), changes=changes))
    assert found["growth_mb"].outcome == "fail", found["growth_mb"]


# --- production window --------------------------------------------------------------------------------------------


def test_an_honest_model_passes_on_its_window(honest: TargetSpec, folder: Path) -> None:
    baseline = models.train(folder / "baseline.onnx", kind="tree")
    result = run(honest, WINDOW, rows=models.rows(), baseline=baseline, **WITH_WINDOW)
    assert set(outcomes(result).values()) == {"pass"}
    assert result.window_digest == models.rows().digest()


def test_a_model_that_is_worse_than_guessing_fails(inverted: TargetSpec, honest: TargetSpec) -> None:
    result = run(inverted, WINDOW, rows=models.rows(), baseline=honest, **WITH_WINDOW)
    found = outcomes(result)
    wrong = ("agreement_baseline", "agreement_served", "accuracy", "skill")
    assert {found[name] for name in wrong} == {"fail"}
    assert by_name(result)["skill"].critical


def test_shifted_scores_fail(honest: TargetSpec, tmp_path: Path) -> None:
    target = models.constant(tmp_path / "constant.onnx", 0.95)
    assert outcomes(run(target, WINDOW, rows=models.rows(), baseline=honest, **WITH_WINDOW))["score_shift"] == "fail"


def test_refusing_what_was_served_fails(tmp_path: Path) -> None:
    target = models.whole_ages_only(tmp_path / "whole.onnx")
    found = outcomes(run(target, WINDOW, rows=models.rows(), **WITH_WINDOW))
    assert found["refusals"] == "fail"
    assert found["agreement_baseline"] == "skipped"


def test_too_few_labels_are_inconclusive(honest: TargetSpec) -> None:
    result = run(honest, WINDOW, rows=models.rows(labelled=0.03), **WITH_WINDOW)
    found = by_name(result)
    assert (found["accuracy"].outcome, found["skill"].outcome) == ("inconclusive", "inconclusive")
    assert 0 < found["accuracy"].n < 100
    assert result.outcome == "inconclusive"


def test_no_traffic_is_skipped_and_a_missing_window_is_inconclusive(honest: TargetSpec) -> None:
    assert set(outcomes(run(honest, WINDOW)).values()) == {"skipped"}
    assert set(outcomes(run(honest, WINDOW, **WITH_WINDOW)).values()) == {"inconclusive"}


def test_a_candidate_need_not_answer_as_the_one_in_service(inverted: TargetSpec) -> None:
    result = run(inverted, WINDOW, rows=models.rows(), role="candidate", **WITH_WINDOW)
    assert outcomes(result)["agreement_served"] == "skipped"


def test_the_window_is_the_last_events(honest: TargetSpec) -> None:
    result = run(honest, WINDOW, rows=models.rows(2000), window={"events": 500})
    assert by_name(result)["refusals"].n == 500


# --- input conventions --------------------------------------------------------------------------------------------


def test_one_matrix_input_takes_the_features_in_the_order_of_the_configuration(tmp_path: Path) -> None:
    config = models.config(features={"a": Feature(type="numeric"), "b": Feature(type="numeric")}, cohorts=())
    target = open_onnx(models.matrix(tmp_path / "m"), config, Limits(), lambda: False)
    answer = target.predict({"b": np.array([0.0, 9.0]), "a": np.array([5.0, 0.0])})
    target.close()
    assert answer.labels.tolist() == ["1", "0"]


def test_a_model_that_wants_other_columns_is_an_error_that_names_them(honest: TargetSpec) -> None:
    config = models.config(features={"income": Feature(type="numeric")}, cohorts=())
    result = run(honest, FUZZING, config=config)
    assert set(outcomes(result).values()) == {"error"}
    assert "age" in result.checks[0].message
