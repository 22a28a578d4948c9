"""Attack replay without a target: what is decided from what lanes say and answers are, and which records load."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests import models

from regate.config.errors import ConfigError
from regate.config.model import Feature, ModelConfig, Output
from regate.scenarios.catalog.frozen import file_name, write_rows
from regate.scenarios.catalog.loading import load_catalog, load_record
from regate.scenarios.families.attack_replay import AttackReplayRecord, answered, distinct, judge, plan
from regate.scenarios.rows import Rows
from regate.scenarios.subject import NOBODY, Answers, Heard, Judgement, Lanes, Subject
from regate.scenarios.targets.base import Responses

QUERIES = 6
CONFIG = ModelConfig(
    model="loan",
    features={"a": Feature(type="numeric"), "b": Feature(type="categorical")},
    output=Output(type="binary", classes=("0", "1")),
)


def frozen() -> Rows:
    """Six queries, the third a retry of the second; the class flips at the fourth."""
    return Rows(
        {
            "a": np.array([0.0, 1.0, 1.0, 2.0, 3.0, 4.0]),
            "b": np.array(["x", None, None, "x", "y", "y"], dtype=object),
        },
        np.array(["0", "0", "0", "1", "0", "1"], dtype=object),
        {"": np.array([0.1, 0.2, 0.2, 0.9, 0.4, 0.8])},
    )


def record_of(rows: Rows, **changes: Any) -> AttackReplayRecord:
    digest = rows.digest()
    content: dict[str, Any] = {
        "id": f"scn-attack-{digest[7:15]}",
        "version": "1.0.0",
        "status": "queued",
        "title": "t",
        "objective": "o",
        "authors": ["a"],
        "created": "2026-11-27",
        "family": "attack_replay",
        "taxonomy": {"atlas": ["AML.T0043.001"]},
        "failure_mode": "attack_unseen",
        "level": "component",
        "method": "recorded",
        "parameters": {"queries": digest},
        "provenance": {
            "model": "default/loan/production@1",
            "profile": "sha256:" + "1" * 64,
            "view": "client",
            "lanes": {"step": 4.5},
            "asked": 9,
        },
        "detect_within_n": 5,
        "expected": {
            "detected_within": {"comparator": "<=", "bound": 5, "critical": True, "unit": "queries"},
            "agreement": {"comparator": ">=", "bound": 0.95},
        },
        "assumptions": ["s"],
        "corrective_actions": ["c"],
    }
    return AttackReplayRecord.model_validate({**content, **changes})


@dataclass
class Ears:
    """Lanes that say what a test wants, and remember what they heard."""

    heard: Heard
    off: str = ""
    asked: list[Rows] = field(default_factory=list)

    def hear(self, asked: Rows) -> Heard:
        self.asked.append(asked)
        return self.heard


def answers_of(labels: list[str | None]) -> Answers:
    p = np.array([0.9 if label == "1" else 0.1 for label in labels])
    refused = np.array([None if label else "no" for label in labels], dtype=object)
    return {"asked": Responses(np.array(labels, dtype=object), np.stack([1 - p, p], axis=1), refused)}


def judged(
    lanes: Lanes, answers: list[str | None] | None = None, rows: Rows | None = None, config: ModelConfig = CONFIG
) -> dict[str, Judgement]:
    rows = rows or frozen()
    record = record_of(rows)
    planned = plan(record, Subject(config, None, 0, lanes=lanes, frozen={rows.digest(): rows}))
    assert planned.blocked is None
    assert rows.prediction is not None
    given = answers_of(answers or rows.prediction.tolist()) if planned.steps else {}
    return {found.name: found for found in judge(record, planned, given, {})}


def test_a_finding_in_time_passes_and_retries_do_not_count() -> None:
    found = judged(Ears(Heard(5, (("step", 4.5), ("flip", 0.0)))))
    assert (found["detected_within"].outcome, found["detected_within"].interval.value) == ("pass", 5.0)
    assert found["detected_within"].message == "found at distinct query 5 of 5: step 4.5"
    assert found["agreement"].outcome == "pass"
    assert "6 of 6" in found["agreement"].message
    assert "still flips" in found["agreement"].message


def test_a_finding_too_late_or_never_fails() -> None:
    rows = frozen()
    late = record_of(rows).model_copy(
        update={"expected": {**record_of(rows).bounds, "detected_within": record_of(rows).bounds["detected_within"]}}
    )
    bound = late.bounds["detected_within"].model_copy(update={"bound": 4})
    late = late.model_copy(update={"expected": {**late.bounds, "detected_within": bound}})
    planned = plan(late, Subject(CONFIG, None, 0, lanes=Ears(Heard(5)), frozen={rows.digest(): rows}))
    assert judge(late, planned, answers_of(["0"] * 6), {})[0].outcome == "fail"
    never = judged(Ears(Heard(None)))["detected_within"]
    assert never.outcome == "fail"
    assert (never.interval.low, never.interval.value) == (6.0, math.inf)
    assert "no finding in 5 distinct queries" in never.message


def test_a_miss_of_fewer_queries_than_a_models_own_bound_is_undecided() -> None:
    rows = frozen()
    record = record_of(rows)
    bound = record.bounds["detected_within"].model_copy(update={"bound": 50})
    lenient = record.model_copy(update={"expected": {**record.bounds, "detected_within": bound}})
    planned = plan(lenient, Subject(CONFIG, None, 0, lanes=Ears(Heard(None)), frozen={rows.digest(): rows}))
    assert judge(lenient, planned, answers_of(["0"] * 6), {})[0].outcome == "inconclusive"


def test_without_lanes_nothing_passes_and_the_reason_is_told() -> None:
    rows = frozen()
    planned = plan(record_of(rows), Subject(CONFIG, None, 0, frozen={rows.digest(): rows}))
    assert planned.blocked == ("inconclusive", f"nobody listens: {NOBODY.off}")
    assert planned.steps == ()


def test_queries_that_are_not_there_are_an_error() -> None:
    with pytest.raises(ConfigError, match="not in the catalog"):
        plan(record_of(frozen()), Subject(CONFIG, None, 0, lanes=Ears(Heard(0))))


def test_the_lanes_hear_the_answers_of_now_in_the_form_of_then() -> None:
    ears = Ears(Heard(5))
    judged(ears, ["1"] * QUERIES)
    heard = ears.asked[0]
    assert heard.prediction is not None
    assert heard.prediction.tolist() == ["1"] * QUERIES
    assert heard.scores[""].tolist() == [0.9] * QUERIES
    mute = answered(replace(frozen(), scores={}, prediction=None), answers_of(["1"] * QUERIES)["asked"], CONFIG)
    assert (mute.scores, mute.prediction) == ({}, None)
    both = {"0": np.full(QUERIES, 0.5), "1": np.full(QUERIES, 0.5)}
    named = answered(replace(frozen(), scores=both), answers_of(["1"] * QUERIES)["asked"], CONFIG)
    assert {name: values[0].round(6) for name, values in named.scores.items()} == {"0": 0.1, "1": 0.9}


@pytest.mark.parametrize(
    ("answers", "outcome", "said"),
    [
        (["0", "0", "0", "1", "1", "1"], "warn", "5 of 6 answers are those of then; the end point still flips"),
        (["0", "0", "0", "1", "0", "0"], "warn", "no longer works on this target"),
        (["0", "0", "0", "1", "0", None], "warn", "no longer works on this target"),
        (["1", "1", "1", "0", "1", "0"], "warn", "0 of 6 answers are those of then; the end point still flips"),
    ],
)
def test_an_attack_that_no_longer_works_is_told_and_never_fails(
    answers: list[str | None], outcome: str, said: str
) -> None:
    found = judged(Ears(Heard(5)), answers)["agreement"]
    assert found.outcome == outcome
    assert said in found.message


def test_a_mended_end_point_warns_however_many_answers_agree() -> None:
    rows = Rows({"a": np.arange(100.0), "b": np.full(100, "x", dtype=object)}, np.array(["0"] * 99 + ["1"], object))
    found = judged(Ears(Heard(5)), ["0"] * 100, rows)["agreement"]
    assert (found.outcome, found.interval.value) == ("warn", 0.99)


def test_where_inputs_are_private_the_target_is_not_asked_and_the_lanes_hear_then() -> None:
    config = CONFIG.model_copy(
        update={"features": {**CONFIG.features, "b": Feature(type="categorical", privacy="hash")}}
    )
    ears = Ears(Heard(5))
    found = judged(ears, config=config)
    assert (found["detected_within"].outcome, found["agreement"].outcome) == ("pass", "skipped")
    assert "private" in found["agreement"].message
    assert ears.asked[0].digest() == frozen().digest()


def test_distinct_queries() -> None:
    rows = frozen()
    assert [distinct(rows.features, n) for n in range(1, QUERIES + 1)] == [1, 2, 2, 3, 4, 5]


def test_a_regression_is_compared_by_its_spread() -> None:
    config = models.config(features={"a": Feature(type="numeric")}, cohorts=(), output=Output(type="regression"))
    rows = Rows({"a": np.arange(5.0)}, np.array([0.0, 1.0, 2.0, 3.0, 4.0]))
    record = record_of(rows)
    planned = plan(record, Subject(config, None, 0, lanes=Ears(Heard(4)), frozen={rows.digest(): rows}))
    for off, hits in ((0.1, 5), (0.5, 4)):
        value = np.array([0.0, 1.0, 2.0, 3.0, 4.0 + off])[:, None]
        none = np.full(5, None, dtype=object)
        found = judge(record, planned, {"asked": Responses(none, value, none)}, {})[1]
        assert f"{hits} of 5" in found.message
        assert found.outcome == ("pass" if hits == 5 else "warn")


# --- records ------------------------------------------------------------------------------------------------------


def kept(folder: Path, rows: Rows, **changes: Any) -> Path:
    record = record_of(rows, **changes)
    write_rows(folder, rows)
    path = folder / f"{record.id}.yaml"
    path.write_text(yaml.safe_dump(record.model_dump(mode="json")))
    return path


def suite(folder: Path, name: str) -> None:
    (folder / "suite-mine.yaml").write_text(
        f"name: mine\nversion: 1.0.0\ntitle: t\nscenarios:\n  - {{id: {name}, version: 1.0.0}}\n"
    )


def test_a_queued_record_loads_and_no_suite_may_name_it(tmp_path: Path) -> None:
    path = kept(tmp_path, frozen())
    library = load_catalog([tmp_path])
    assert library.records[path.stem].status == "queued"
    assert library.frozen[frozen().digest()].digest() == frozen().digest()
    suite(tmp_path, path.stem)
    with pytest.raises(ConfigError, match=f"suite mine names {path.stem}, which is only queued") as caught:
        load_catalog([tmp_path])
    assert "suite-mine.yaml" in caught.value.message
    assert "status: active" in caught.value.hint
    other = replace(library, suites={"mine": load_suite_of(path.stem)})
    with pytest.raises(ConfigError, match="only queued"):
        other.suite("mine")
    path.write_text(path.read_text().replace("status: queued", "status: active"))
    assert [record.id for record in load_catalog([tmp_path]).suite("mine")[1]] == [path.stem]


def load_suite_of(name: str) -> Any:
    from regate.scenarios.record import Suite

    return Suite.model_validate(
        {"name": "mine", "version": "1.0.0", "title": "t", "scenarios": [{"id": name, "version": "1.0.0"}]}
    )


def test_a_status_changes_the_address_and_no_status_keeps_it() -> None:
    queued = record_of(frozen())
    active = record_of(frozen(), status="active")
    assert queued.digest != active.digest
    assert "status" not in active.content


@pytest.mark.parametrize("damage", ["missing", "other", "cut", "garbage"])
def test_rows_that_are_not_those_of_the_record_are_refused(tmp_path: Path, damage: str) -> None:
    kept(tmp_path, frozen())
    path = tmp_path / file_name(frozen().digest())
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        path.write_bytes(frozen().pick(np.arange(3)).to_arrow())
    else:
        path.write_bytes(path.read_bytes()[:300] if damage == "cut" else b"ARROW1 and nothing")
    with pytest.raises(ConfigError, match=r"rows") as caught:
        load_catalog([tmp_path])
    assert path.name in caught.value.message


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"detect_within_n": 7}, "must be <= detect_within_n"),
        ({"expected": {"detected_within": {"comparator": "<=", "bound": 5}}}, "must bound exactly"),
        ({"parameters": {"queries": "sha256:beef"}}, "pattern"),
        ({"id": "scn-attack-12345"}, "pattern"),
    ],
)
def test_a_wrong_record_is_refused(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        record_of(frozen(), **changes)


def test_the_file_is_named_after_the_id(tmp_path: Path) -> None:
    path = kept(tmp_path, frozen())
    other = path.rename(tmp_path / "scn-attack-00000000.yaml")
    with pytest.raises(ConfigError, match=r"must name its family \(attack\) and its file"):
        load_record(other)
