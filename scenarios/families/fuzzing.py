"""Input fuzzing: boundary, out-of-range, missing, wrongly typed and unicode inputs, and metamorphic relations.

A valid input must be answered; any input may be refused or answered, but an answer must be finite, a probability
and a declared class, and a value of the wrong type must be refused. Relations compare answers with answers, so
they need no labels. Source of the method: metamorphic testing (Chen, Cheung, Yiu 1998).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from regate.config.model import ModelConfig, Strict
from regate.scenarios.families.fuzz_cases import KINDS, cases
from regate.scenarios.intervals import exact
from regate.scenarios.population import numeric_range, typical
from regate.scenarios.record import Bound, Record
from regate.scenarios.subject import (
    Answers,
    Family,
    Judgement,
    Measured,
    Plan,
    Step,
    Subject,
    judged,
    positive_score,
)
from regate.scenarios.targets.base import Features, Responses, take

SUM_TOLERANCE = 1e-3  # probabilities are float32 sums


class Batch(Strict):
    """The answer for a row must not depend on its neighbours."""

    kind: Literal["permutation", "batch_of_one", "duplicates"]
    tolerance: float = Field(default=1e-5, ge=0)  # kernels sum float32 in another order for another batch size


class Noise(Strict):
    """A change far below the precision of the inputs must not change the answer."""

    kind: Literal["noise"]
    relative: float = Field(default=1e-7, gt=0)
    tolerance: float = Field(default=1e-3, ge=0)


class Insensitive(Strict):
    """These features, exchanged between rows, must not matter."""

    kind: Literal["insensitive"]
    features: tuple[str, ...] = Field(min_length=1)
    tolerance: float = Field(default=1e-6, ge=0)


class Monotone(Strict):
    """More of this feature must not move the score the other way."""

    kind: Literal["monotone"]
    feature: str
    direction: Literal["increasing", "decreasing"]
    step_ratio: float = Field(default=0.1, gt=0)  # of the feature's range
    tolerance: float = Field(default=1e-6, ge=0)


Relation = Annotated[Batch | Noise | Insensitive | Monotone, Field(discriminator="kind")]
Check = Literal[
    "answers_valid",
    "finite_outputs",
    "wrong_types_refused",
    "permutation",
    "batch_of_one",
    "duplicates",
    "noise",
    "insensitive",
    "monotone",
]


class Parameters(Strict):
    """How many cases, and which relations."""

    cases: int = Field(default=240, ge=200)
    rows: int = Field(default=64, ge=8)
    relations: tuple[Relation, ...] = Field(min_length=3)


class FuzzingRecord(Record):
    """A scenario of this family."""

    family: Literal["fuzzing"]
    parameters: Parameters
    expected: dict[Check, Bound]

    @model_validator(mode="after")
    def _complete(self) -> FuzzingRecord:
        wanted = {
            "answers_valid",
            "finite_outputs",
            "wrong_types_refused",
            *(r.kind for r in self.parameters.relations),
        }
        if wanted != set(self.expected):
            raise ValueError(f"expected must bound exactly {sorted(wanted)}")
        if len({relation.kind for relation in self.parameters.relations}) != len(self.parameters.relations):
            raise ValueError("each kind of relation stands once in a scenario; write a second scenario")
        return self


def plan(record: FuzzingRecord, subject: Subject) -> Plan:
    """Return the cases row by row, the base rows, and one batch a relation."""
    batch, kinds = cases(subject, subject.random(record, "cases"), record.parameters.cases)
    base = typical(subject, subject.random(record, "base"), record.parameters.rows)
    steps = [Step("cases", batch, each=True), Step("base", base)]
    notes: dict[str, Any] = {"kinds": kinds, "config": subject.config}
    for relation in record.parameters.relations:
        random = subject.random(record, "relation", relation.kind)
        features, index = transformed(relation, base, subject, random)
        steps.append(Step(f"relation:{relation.kind}", features, each=relation.kind == "batch_of_one"))
        notes[relation.kind] = index
    return Plan(tuple(steps), notes)


def transformed(
    relation: Batch | Noise | Insensitive | Monotone, base: Features, subject: Subject, random: np.random.Generator
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.int64]]:
    """Return the transformed batch and, for each of its rows, the base row that it is compared with."""
    n = len(next(iter(base.values())))
    order = np.arange(n)
    if relation.kind == "permutation":
        order = random.permutation(n)
    elif relation.kind == "duplicates":
        order = np.concatenate([order, order])
    batch = take(base, order)
    if isinstance(relation, Noise):
        for name, column in batch.items():
            if column.dtype == np.float64:
                batch[name] = column * (1.0 + relation.relative * random.uniform(-1, 1, n))
    elif isinstance(relation, Insensitive):
        for name in relation.features:
            batch[name] = batch[name][random.permutation(n)]
    elif isinstance(relation, Monotone):
        low, high = numeric_range(relation.feature, subject.config.features[relation.feature], subject)
        raised = batch[relation.feature] + relation.step_ratio * (high - low)
        batch[relation.feature] = np.minimum(raised, np.maximum(high, batch[relation.feature]))
    return batch, order


def judge(record: FuzzingRecord, plan_: Plan, answers: Answers, _measured: Measured) -> Sequence[Judgement]:
    """Return one judgement a check; all are exact statements about the inputs that were tried."""
    config: ModelConfig = plan_.notes["config"]
    kinds: npt.NDArray[np.object_] = plan_.notes["kinds"]
    tried = answers["cases"]
    broken = improper(tried, config)
    valid = kinds == "boundary"
    wrong_type = kinds == "type"
    counted = ", ".join(f"{(kinds == kind).sum()} {kind}" for kind in KINDS)
    found = [
        _count(
            record, "answers_valid", valid & (broken | ~tried.answered), valid, "valid inputs without a proper answer"
        ),
        _count(record, "finite_outputs", broken, tried.answered, f"improper answers; inputs: {counted}"),
        _count(record, "wrong_types_refused", wrong_type & tried.answered, wrong_type, "wrong types answered"),
    ]
    for relation in record.parameters.relations:
        index: npt.NDArray[np.int64] = plan_.notes[relation.kind]
        violated = _VIOLATED[type(relation)](
            relation, answers["base"], answers[f"relation:{relation.kind}"], index, config
        )
        found.append(_count(record, relation.kind, violated, np.ones(len(index), bool), "rows break the relation"))
    return found


def improper(responses: Responses, config: ModelConfig) -> npt.NDArray[np.bool_]:
    """Return which answers are no proper answers: non-finite, no probabilities, or not a declared class."""
    scores = responses.scores
    bad = ~np.isfinite(scores).all(axis=1)
    if config.output.type != "regression":
        if scores.shape[1]:
            with np.errstate(invalid="ignore"):
                bad |= (scores < -SUM_TOLERANCE).any(axis=1) | (scores > 1 + SUM_TOLERANCE).any(axis=1)
                bad |= np.abs(scores.sum(axis=1) - 1.0) > SUM_TOLERANCE
        bad |= np.array([label is None for label in responses.labels], dtype=bool)
        if config.output.classes:
            bad |= np.array([label not in config.output.classes for label in responses.labels], dtype=bool)
    return bad & responses.answered


def _same(
    relation: Batch | Noise | Insensitive,
    base: Responses,
    changed: Responses,
    index: npt.NDArray[np.int64],
    _config: ModelConfig,
) -> npt.NDArray[np.bool_]:
    """Return which rows got another answer. A flipped label on the very boundary (scores agree) is noise."""
    if base.scores.shape[1] != changed.scores.shape[1]:
        return np.ones(len(index), dtype=bool)
    if base.scores.shape[1] == 0:
        moved = base.labels[index] != changed.labels
    else:
        with np.errstate(invalid="ignore"):
            moved = ~(np.abs(base.scores[index] - changed.scores).max(axis=1) <= relation.tolerance)
    return np.asarray(moved | ~base.answered[index] | ~changed.answered, dtype=bool)


def _monotone(
    relation: Monotone, base: Responses, changed: Responses, index: npt.NDArray[np.int64], config: ModelConfig
) -> npt.NDArray[np.bool_]:
    gain = positive_score(changed, config) - positive_score(base, config)[index]
    gain = gain if relation.direction == "increasing" else -gain
    return np.asarray(~(gain >= -relation.tolerance), dtype=bool)


_VIOLATED: dict[type, Callable[[Any, Responses, Responses, npt.NDArray[np.int64], ModelConfig], Any]] = {
    Batch: _same,
    Noise: _same,
    Insensitive: _same,
    Monotone: _monotone,
}


def _count(
    record: FuzzingRecord, name: str, violated: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_], what: str
) -> Judgement:
    n, bad = int(among.sum()), int(violated.sum())
    return judged(name, record.bounds[name], exact(bad / n if n else float("nan")), n, f"{bad} of {n} {what}")


FAMILY = Family("fuzzing", FuzzingRecord, plan, judge)
