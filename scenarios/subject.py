"""What a family works with: the subject of a run, the plan of its inputs, and its judgements. All plain values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from regate.config.model import ModelConfig
from regate.scenarios.contracts import Outcome
from regate.scenarios.intervals import Interval
from regate.scenarios.record import Bound, Record
from regate.scenarios.rows import Rows
from regate.scenarios.seeds import generator
from regate.scenarios.targets.base import Features, Responses, score_order


@dataclass(frozen=True, slots=True)
class Heard:
    """What attack lanes said of the queries of one client whom they had not known."""

    row: int | None  # of the query at which they raised a finding; None: they raised none
    lanes: tuple[tuple[str, float], ...] = ()  # which said most there, -ln p


class Lanes(Protocol):
    """The attack lanes of the model's profile. They stand outside of scenarios; whoever starts a run hands them in."""

    @property
    def off(self) -> str:
        """Return why there are none; empty when there are."""

    def hear(self, asked: Rows) -> Heard:
        """Return what they say when one fresh client asks these rows in their order, answered as they are."""


@dataclass(frozen=True, slots=True)
class NoLanes:
    """Where no profile was handed in."""

    off: str = "no profile with attack lanes was given"

    def hear(self, _asked: Rows) -> Heard:
        """Return that nobody listened."""
        return Heard(None)


NOBODY = NoLanes()


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """The model under validation, without the model: its configuration, data and seed."""

    config: ModelConfig
    rows: Rows | None
    seed: int
    role: Literal["candidate", "serving", "baseline"] = "serving"
    has_baseline: bool = False
    wants_window: bool = False  # the version has traffic, so a missing window is a gap, not a fact
    window_events: int = 2000  # the last of the rows that are the production window
    lanes: Lanes = NOBODY
    frozen: Mapping[str, Rows] = field(default_factory=dict)  # rows beside records, by digest

    def random(self, record: Record, *path: str) -> np.random.Generator:
        """Return the generator of one path of one scenario."""
        return generator(self.seed, record.id, str(record.seed), *path)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One batch of inputs for one target. ``each``: row by row, so that a bad row refuses only itself."""

    name: str
    features: Features
    each: bool = False
    on: Literal["target", "baseline"] = "target"


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """The inputs of a scenario, and what judging needs to remember about them."""

    steps: tuple[Step, ...] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    blocked: tuple[Outcome, str] | None = None  # why there is nothing to run: skipped or inconclusive, and the reason


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outcome of one check, before it is given the identity of its scenario."""

    name: str
    bound_key: str
    outcome: Outcome
    interval: Interval
    bound: Bound
    n: int
    message: str
    measured: bool = False  # depends on the machine's time or memory: not part of the run digest


Answers = Mapping[str, Responses]
Measured = dict[str, Any]
Judge = Callable[[Any, Plan, Answers, Measured], Sequence[Judgement]]


class Drive(Protocol):
    """What `measure` of a family may use: open-loop sending, and the clock of the run."""

    def send(self, features: Features) -> int:
        """Queue a batch; return its sequence number."""

    def receive(self, seconds: float) -> tuple[int, float, Responses] | None:
        """Return sequence number, arrival time (clock seconds) and answer; None when none came in time."""

    def health(self) -> dict[str, Any]:
        """Return the target's own figures."""

    def now(self) -> float:
        """Return monotonic seconds."""

    def left(self) -> float:
        """Return what is left of the scenario's budget, in seconds."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family: its record type and its pure functions. ``measure`` is there where time itself is the result."""

    name: str
    record: type[Record]
    plan: Callable[[Any, Subject], Plan]
    judge: Judge
    measure: Callable[[Any, Plan, Answers, Drive], Measured] | None = None
    called: str = ""  # in ids of scenarios; the name itself by default


def judged(
    name: str,
    bound: Bound,
    interval: Interval,
    n: int,
    message: str,
    *,
    key: str = "",
    measured: bool = False,
) -> Judgement:
    """Decide one check by its interval: fail only past the bound, inconclusive when it straddles or n is too small."""
    return Judgement(name, key or name, outcome_of(bound, interval, n), interval, bound, n, message, measured)


def outcome_of(bound: Bound, interval: Interval, n: int) -> Outcome:
    """Return pass, fail or inconclusive."""
    if n < bound.min_n or math.isnan(interval.value):
        return "inconclusive"
    if bound.comparator == "<=":
        good, bad = interval.high <= bound.bound, interval.low > bound.bound
    else:
        good, bad = interval.low >= bound.bound, interval.high < bound.bound
    return "pass" if good else "fail" if bad else "inconclusive"


def positive_score(responses: Responses, config: ModelConfig) -> npt.NDArray[np.float64]:
    """Return one score a row: of the positive class, the regression value, or the largest; NaN without scores."""
    scores = responses.scores
    if scores.shape[1] == 0:
        return np.full(responses.n, np.nan)
    if config.output.type == "binary" and scores.shape[1] == 2:
        names = score_order(config.output.classes)
        return scores[:, names.index(config.output.positive) if config.output.positive in names else 1]
    return scores[:, 0] if scores.shape[1] == 1 else scores.max(axis=1)


def predictions(responses: Responses, config: ModelConfig) -> npt.NDArray[Any]:
    """Return the predictions: class names, or values for regression (NaN where refused)."""
    return positive_score(responses, config) if config.output.type == "regression" else responses.labels
