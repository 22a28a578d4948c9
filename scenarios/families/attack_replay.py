"""Attack replay: the frozen queries of an incident, put to the target again, while the attack lanes listen.

The queries are the shortest run at which the lanes of one profile raised a finding (`regate patterns freeze`). They
are put to the target; the lanes of the model's profile of now hear them as those of one fresh client, with the target's
answers, and must raise a finding again. Beside that the answers are compared with those that were served then: where
the end point does not flip the class any more, the attack no longer works on this target, and that is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from regate.config.errors import ConfigError
from regate.config.model import ModelConfig, Strict
from regate.scenarios.families.production_window import known_values, spread
from regate.scenarios.intervals import Interval, exact
from regate.scenarios.record import Bound, Record
from regate.scenarios.rows import Rows
from regate.scenarios.subject import (
    Answers,
    Family,
    Heard,
    Judgement,
    Lanes,
    Measured,
    Plan,
    Step,
    Subject,
    judged,
    positive_score,
    predictions,
)
from regate.scenarios.targets.base import Features, Responses, score_order

Check = Literal["detected_within", "agreement"]
Sha256 = Field(pattern=r"^sha256:[0-9a-f]{64}$")
NOTHING = Interval(math.nan, math.nan, math.nan)


class Parameters(Strict):
    """What is put to the target, and how values of a regression are compared."""

    queries: str = Sha256  # content digest of the rows in rows-<digest>.arrow beside the record
    tolerance_ratio: float = Field(default=0.1, gt=0)  # of the interquartile range of the frozen values


class Provenance(Strict):
    """Where the queries come from. No client: who asked is no part of an attack."""

    incident: str = ""
    model: str  # tenant/model/deployment@version that was asked
    profile: str = Sha256  # whose lanes raised the finding
    view: str  # the memory in which it was seen: client, octant or region
    lanes: dict[str, float]  # -ln p of what said most at the query that crossed the bar
    asked: int = Field(ge=1)  # queries of the client before they were shrunk
    first: datetime | None = None  # of the frozen ones; None: the telemetry had no times
    last: datetime | None = None


class AttackReplayRecord(Record):
    """A scenario of this family."""

    family: Literal["attack_replay"]
    parameters: Parameters
    provenance: Provenance
    detect_within_n: int = Field(ge=1)  # distinct queries
    expected: dict[Check, Bound]

    @model_validator(mode="after")
    def _complete(self) -> AttackReplayRecord:
        if set(self.expected) != {"detected_within", "agreement"}:
            raise ValueError("expected must bound exactly ['agreement', 'detected_within']")
        within = self.expected["detected_within"]
        if (within.comparator, within.bound) != ("<=", self.detect_within_n):
            raise ValueError(f"expected.detected_within must be <= detect_within_n, {self.detect_within_n}")
        return self

    @property
    def frozen(self) -> str:
        """Return the digest of the queries."""
        return self.parameters.queries


def plan(record: AttackReplayRecord, subject: Subject) -> Plan:
    """Return the frozen queries for the target; inconclusive where no lanes listen.

    :raises ConfigError: when the queries are not there.
    """
    rows = subject.frozen.get(record.frozen)
    if rows is None:
        raise ConfigError(f"the frozen queries {record.frozen} are not in the catalog", hint="regate patterns freeze")
    if subject.lanes.off:
        return Plan(blocked=("inconclusive", f"nobody listens: {subject.lanes.off}"))
    config = subject.config
    notes = {"rows": rows, "config": config, "lanes": subject.lanes}
    # A hash is no input, and what a model lacks it cannot answer: the lanes then hear the answers of then.
    whole = all(name in rows.features and feature.privacy == "keep" for name, feature in config.features.items())
    wanted = {name: rows.features[name] for name in config.features if name in rows.features}
    return Plan((Step("asked", wanted),) if whole else (), notes)


def judge(record: AttackReplayRecord, plan_: Plan, answers: Answers, _measured: Measured) -> Sequence[Judgement]:
    """Return whether the lanes raised a finding in time, and whether the answers are those of then."""
    rows: Rows = plan_.notes["rows"]
    config: ModelConfig = plan_.notes["config"]
    lanes: Lanes = plan_.notes["lanes"]
    ours = answers.get("asked")
    heard = lanes.hear(rows if ours is None else answered(rows, ours, config))
    return [_detected(record, rows, heard), _agreement(record, rows, ours, config)]


def answered(rows: Rows, ours: Responses, config: ModelConfig) -> Rows:
    """Return the queries with the target's answers, in the form in which the frozen ones were served.

    Scores where there were none would be a lane that the reference never had.
    """
    given = rows.scores
    names = score_order(config.output.classes or (("0", "1") if config.output.type == "binary" else ()))
    if set(given) == {""}:
        given = {"": positive_score(ours, config)}
    elif given and set(given) <= set(names) and ours.scores.shape[1] == len(names):
        given = {name: ours.scores[:, names.index(name)] for name in given}
    return replace(rows, prediction=None if rows.prediction is None else predictions(ours, config), scores=given)


def distinct(features: Features, rows: int) -> int:
    """Return how many different queries the first ``rows`` are; every missing number is the same.

    >>> distinct({"a": np.array([1.0, np.nan, np.nan, 1.0, 2.0])}, 4)
    2
    """
    columns = []
    for values in features.values():
        plain = values[:rows].tolist()
        columns.append([None if isinstance(value, float) and math.isnan(value) else value for value in plain])
    return len(set(zip(*columns, strict=True)))


def _detected(record: AttackReplayRecord, rows: Rows, heard: Heard) -> Judgement:
    asked, bound = distinct(rows.features, rows.n), record.expected["detected_within"]
    if heard.row is None:
        # Whether one more query would have been enough is not known; that these were not, is.
        text = f"the lanes raise no finding in {asked} distinct queries"
        return judged("detected_within", bound, Interval(math.inf, asked + 1.0, math.inf), asked, text)
    at = distinct(rows.features, heard.row + 1)
    said = ", ".join(f"{lane} {value:.1f}" for lane, value in heard.lanes if value > 0)
    return judged("detected_within", bound, exact(at), asked, f"found at distinct query {at} of {asked}: {said}")


def _agreement(record: AttackReplayRecord, rows: Rows, ours: Responses | None, config: ModelConfig) -> Judgement:
    """Judge the share of equal answers. It warns and never fails: a model may answer otherwise since it was mended."""
    bound = record.expected["agreement"]
    if ours is None or rows.prediction is None:
        why = "the queries are frozen without their answers"
        if ours is None:
            why = "not all inputs of the model are frozen (private ones never are), so the target was not asked"
        return Judgement("agreement", "agreement", "skipped", NOTHING, bound, 0, why)
    now, then = predictions(ours, config), rows.prediction
    known = known_values(now) & known_values(then)
    if config.output.type == "regression":
        near = record.parameters.tolerance_ratio * spread(then[known_values(then)].astype(np.float64))
        equal = np.zeros(rows.n, dtype=np.bool_)
        equal[known] = np.abs(now[known] - then[known].astype(np.float64)) <= near
        works, told = True, "values, no class to flip"
    else:
        equal = known & np.asarray(now == then, dtype=np.bool_)
        works, told = _flips(now, then)
    n = int(known_values(then).sum())
    hits = int(equal[known_values(then)].sum())
    share = exact(hits / n) if n else NOTHING
    text = f"{hits} of {n} answers are those of then; {told}"
    found = judged("agreement", bound, share, n, text)
    return replace(found, outcome="warn") if found.outcome == "fail" or not works else found


def _flips(now: npt.NDArray[Any], then: npt.NDArray[Any]) -> tuple[bool, str]:
    """Return whether the attack still does to the target what it did, and how to say so.

    Its end point is the last query whose class then was not that of the first one.
    """
    ends = [at for at in range(len(then)) if then[at] is not None and then[at] != then[0]]
    if not ends or then[0] is None:
        return True, "the frozen queries end before a class flips"
    if now[0] is not None and now[ends[-1]] is not None and now[0] != now[ends[-1]]:
        return True, "the end point still flips the class"
    return False, "the end point does not flip the class any more: the attack no longer works on this target"


FAMILY = Family("attack_replay", AttackReplayRecord, plan, judge, called="attack")
