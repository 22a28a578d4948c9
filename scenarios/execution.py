"""One scenario on one target: plan, send, measure, replay, judge; and the children that this needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from regate.config.errors import PoisonError, RegateError, RetryableError
from regate.config.model import ModelConfig
from regate.scenarios.contracts import RunRequest, TargetSpec
from regate.scenarios.families.registry import FAMILIES
from regate.scenarios.intervals import exact
from regate.scenarios.population import typical
from regate.scenarios.record import Record
from regate.scenarios.result import ScenarioRun, without_answer
from regate.scenarios.sandbox.client import OpenTarget, SandboxedTarget
from regate.scenarios.sandbox.process import START_SECONDS, Limits, TargetError
from regate.scenarios.stream import Exchange, inputs_digest, largest_deviation, replay
from regate.scenarios.subject import Answers, Judgement, Plan, Step, Subject, judged
from regate.scenarios.suite import STEADY, all_bounds, steady_bound
from regate.scenarios.targets.base import Responses

MB = 1024 * 1024
SUMMARY = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "max_ms": 1.0}


@dataclass(frozen=True, slots=True)
class Budget:
    """A deadline on the monotonic clock, handed down."""

    until: float

    def left(self) -> float:
        """Return the seconds left; 0 when it is spent."""
        return max(0.0, self.until - time.monotonic())

    def within(self, seconds: float) -> Budget:
        """Return the earlier of this deadline and one in ``seconds``."""
        return Budget(min(self.until, time.monotonic() + seconds))


class Targets:
    """The children of a run: opened when first needed, opened anew after a failure, closed together."""

    def __init__(
        self,
        request: RunRequest,
        config: ModelConfig,
        opener: OpenTarget,
        cancelled: Callable[[], bool],
        whole: Budget,
    ) -> None:
        self._specs: dict[str, TargetSpec | None] = {"target": request.target, "baseline": request.baseline}
        self._config, self._opener, self._cancelled, self._whole = config, opener, cancelled, whole
        self._memory: dict[str, int] = {}
        self._open: dict[str, SandboxedTarget] = {}
        self._descriptions: dict[str, dict[str, Any]] = {}

    @property
    def description(self) -> dict[str, Any]:
        """Return what the target said of itself; empty when it never opened."""
        return self._descriptions.get("target", {})

    @property
    def baseline_description(self) -> dict[str, Any] | None:
        """Return what the baseline said of itself; None when there was no need for it."""
        return self._descriptions.get("baseline")

    def get(self, which: str, record: Record, budget: Budget) -> SandboxedTarget:
        """Return an open target whose calls may take what is left of the budget.

        :raises TargetError: when it does not start, or its bytes are not those asked for (reason digest).
        """
        spec = self._specs[which]
        if spec is None:
            raise TargetError(f"the request names no {which}", reason="target")
        if which in self._open and self._memory[which] != record.abort.memory_mb:
            self._open.pop(which).close()  # limits are set once, when a child starts
        if which not in self._open:
            # The caller's deadlines end a call; the child's own wall clock is for a caller that is gone.
            limits = Limits(
                record.abort.memory_mb * MB,
                wall_seconds=self._whole.left() + 30.0,
                start_seconds=min(START_SECONDS, max(0.05, budget.left())),
            )
            opened = self._opener(spec, self._config, limits, self._cancelled)
            self._open[which], self._memory[which] = opened, record.abort.memory_mb
            opened.reply_seconds = max(0.05, budget.left())
            described = opened.describe()
            self._descriptions[which] = described
            if described.get("digest") != spec.digest:
                raise TargetError(
                    f"the {which} at {spec.uri} is {described.get('digest')}, asked for was {spec.digest}",
                    reason="digest",
                    hint="deploy the artefact that was asked for, or ask for the one that is there",
                )
        self._open[which].reply_seconds = max(0.05, budget.left())
        return self._open[which]

    def close(self) -> None:
        """End all children."""
        for target in self._open.values():
            target.close()
        self._open.clear()


@dataclass(frozen=True, slots=True)
class TargetDrive:
    """The open target as a family's `measure` sees it."""

    target: SandboxedTarget
    budget: Budget

    def send(self, features: Any) -> int:
        """Queue a batch."""
        return self.target.send(features)

    def receive(self, seconds: float) -> tuple[int, float, Responses] | None:
        """Return the next answer, None when none came in time."""
        return self.target.receive(seconds)

    def health(self) -> dict[str, Any]:
        """Return the target's own figures."""
        return self.target.health()

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def left(self) -> float:
        """Return what is left of the budget."""
        return self.budget.left()


def run_scenario(record: Record, subject: Subject, targets: Targets, whole: Budget) -> ScenarioRun:
    """Run one scenario; whatever goes wrong with the target becomes outcome ``error`` of all its checks."""
    run = ScenarioRun(record)
    begun = time.monotonic()
    budget = whole.within(record.abort.seconds)
    try:
        if budget.left() <= 0:
            raise TargetError("the budget of the run was spent before this scenario", reason="budget")
        run.judgements = _judgements(run, subject, targets, budget)
    except RegateError as error:
        targets.close()
        reason = str(getattr(error, "reason", "")) or "config"
        if reason == "stopped":
            raise RetryableError("the run was cancelled", hint="it is attempted again") from error
        run.failure = reason
        run.judgements = without_answer(all_bounds(record), "error", error.message)
        # Half a stream depends on when the target failed: it is no part of what must be equal.
        run.exchanges = []
    run.measured["seconds"] = round(time.monotonic() - begun, 3)
    return run


def _judgements(run: ScenarioRun, subject: Subject, targets: Targets, budget: Budget) -> list[Judgement]:
    record, family = run.record, FAMILIES[run.record.family]
    plan: Plan = family.plan(record, subject)
    if inputs_digest(plan.steps) != inputs_digest(family.plan(record, subject).steps):
        raise PoisonError("the seed gave other inputs the second time", reason="nondeterministic")
    if plan.blocked is not None:
        return without_answer(record.bounds, *plan.blocked)
    target = targets.get("target", record, budget)
    target.reset()
    probes = Step("probes", typical(subject, subject.random(record, "probes"), record.steady_state.probes))
    before, state = target.predict(probes.features), target.state_digest()
    answers = _exchange(run, plan, targets, budget)
    measured: dict[str, Any] = {}
    if family.measure is not None:
        measured = family.measure(record, plan, answers, TargetDrive(target, budget))
        run.measured |= summary(measured)
    target = targets.get("target", record, budget)
    after = target.predict(probes.features)
    same_state = target.state_digest() == state
    _replayed(run, target)
    found = list(family.judge(record, plan, answers, measured))
    moved = largest_deviation(before, after) if same_state else float("inf")
    steady = "probes before and after the scenario" if same_state else "the target's state digest changed"
    # JSON has no infinity, and a label that flipped is as far as a probability can go.
    found.append(judged(STEADY, steady_bound(record), exact(min(moved, 1.0)), before.n, steady))
    return found


def _exchange(run: ScenarioRun, plan: Plan, targets: Targets, budget: Budget) -> Answers:
    answers: dict[str, Responses] = {}
    for step in plan.steps:
        responses = targets.get(step.on, run.record, budget).predict(step.features, each=step.each)
        if responses.n != len(next(iter(step.features.values()))):
            raise TargetError(f"{responses.n} answers in step {step.name}, one a row was due", reason="protocol")
        answers[step.name] = responses
        run.exchanges.append(Exchange(run.record.id, step, responses))
    return answers


def _replayed(run: ScenarioRun, target: SandboxedTarget) -> None:
    """Send the recorded stream to the reset target: a run that differs under its own seed proves nothing.

    :raises PoisonError: reason nondeterministic.
    """
    target.reset()
    if different := replay(run.exchanges, target):
        steps = ", ".join(different[:5])
        raise PoisonError(
            f"the recorded inputs were answered differently the second time: {steps}", reason="nondeterministic"
        )


def summary(measured: dict[str, Any]) -> dict[str, Any]:
    """Return measured quantities as short plain data; an unanswered request has no latency."""
    rates = {}
    for stage in measured.get("stages", ()):
        known = stage["latencies"][np.isfinite(stage["latencies"])]
        entry = {name: round(float(np.quantile(known, q)), 3) for name, q in SUMMARY.items()} if len(known) else {}
        rates[f"{stage['rate']:g}"] = {"n": len(stage["latencies"]), "failed": int(stage["failed"]), **entry}
    return {"rates": rates} if rates else {}
