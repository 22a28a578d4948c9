"""Load: open loop at fixed arrival times and three rates; latency counts from the *intended* start.

A closed loop waits for the slow answer before it asks again and so leaves out exactly the requests that would
have been slow (coordinated omission; Tene 2013). Here request i is due at ``start + i / rate`` whatever the
target does, and a late start counts as latency.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from regate.config.model import Strict
from regate.scenarios.intervals import exact, quantile, wilson, z_of
from regate.scenarios.population import typical
from regate.scenarios.record import Bound, Record
from regate.scenarios.stream import largest_deviation
from regate.scenarios.subject import (
    Answers,
    Drive,
    Family,
    Judgement,
    Measured,
    Plan,
    Step,
    Subject,
    judged,
    outcome_of,
)
from regate.scenarios.targets.base import Features, Responses, take

Check = Literal["latency_ms", "errors", "memory_mb", "growth_mb"]
MB = 1024.0 * 1024.0
SAME = 1e-5  # an answer under load must be the answer at rest, up to the order of float32 sums


class Parameters(Strict):
    """The load profile."""

    rates: tuple[float, float, float]  # requests a second, rising
    requests: int = Field(default=150, ge=80)  # a rate; with fewer the 95 % quantile has no upper limit
    pool: int = Field(default=32, ge=1)  # distinct requests
    quantile: float = Field(default=0.95, gt=0.5, lt=1)
    patience_seconds: float = Field(default=5.0, gt=0)  # after the last arrival; what is not answered then is an error
    rounds: int = Field(default=2, ge=1)  # a rate whose interval straddles the bound is driven again

    @model_validator(mode="after")
    def _rising(self) -> Parameters:
        if list(self.rates) != sorted(set(self.rates)) or self.rates[0] <= 0:
            raise ValueError("rates must be positive and rising")
        return self


class LoadRecord(Record):
    """A scenario of this family."""

    family: Literal["load"]
    parameters: Parameters
    expected: dict[Check, Bound]

    @model_validator(mode="after")
    def _complete(self) -> LoadRecord:
        if set(self.expected) != {"latency_ms", "errors", "memory_mb", "growth_mb"}:
            raise ValueError("expected must bound exactly ['errors', 'growth_mb', 'latency_ms', 'memory_mb']")
        return self


def plan(record: LoadRecord, subject: Subject) -> Plan:
    """Return the pool of requests, answered one by one at rest."""
    return Plan((Step("pool", typical(subject, subject.random(record, "pool"), record.parameters.pool), each=True),))


def measure(record: LoadRecord, plan_: Plan, answers: Answers, drive: Drive) -> Measured:
    """Drive every rate, again where the interval straddles the bound and the budget allows."""
    pool, rest = plan_.steps[0].features, answers["pool"]
    bound, asked = record.expected["latency_ms"], record.parameters
    stages: list[dict[str, Any]] = []
    for rate in asked.rates:
        latencies: npt.NDArray[np.float64] = np.empty(0)
        failed = rounds = 0
        while rounds < asked.rounds:
            more, bad = open_loop(pool, rest, rate, asked, drive)
            latencies, failed, rounds = np.concatenate([latencies, more]), failed + bad, rounds + 1
            seen = quantile(latencies, asked.quantile, z_of(bound.confidence))
            unsure = outcome_of(bound, seen, len(latencies)) == "inconclusive"
            if not unsure or drive.left() < 3 * asked.requests / rate + asked.patience_seconds:
                break
        stages.append({"rate": rate, "latencies": latencies, "failed": failed, "health": drive.health()})
    return {"stages": stages}


def open_loop(
    pool: Features, rest: Responses, rate: float, asked: Parameters, drive: Drive
) -> tuple[npt.NDArray[np.float64], int]:
    """Send at the fixed times; return latencies in ms from the intended start (inf: never answered) and failures.

    A failure is a request that was not answered, was refused, or was answered differently than at rest.
    """
    n, size = asked.requests, rest.n
    requests = [take(pool, slice(i, i + 1)) for i in range(size)]
    due = drive.now() + 0.01 + np.arange(n) / rate
    latencies, failed = np.full(n, np.inf), 0
    sent: dict[int, int] = {}
    following = done = 0
    while done < n and drive.now() < due[-1] + asked.patience_seconds and drive.left() > 0:
        while following < n and due[following] <= drive.now():
            sent[drive.send(requests[following % size])] = following
            following += 1
        wait = due[following] - drive.now() if following < n else 0.1
        got = drive.receive(max(0.0, min(wait, 0.1)))
        if got is None:
            continue
        seq, arrived, answer = got
        if seq not in sent:  # a late answer of the rate before; it was counted as failed there
            continue
        i = sent.pop(seq)
        done += 1
        latencies[i] = (arrived - due[i]) * 1000.0
        failed += largest_deviation(answer, take_responses(rest, i % size)) > SAME or not answer.answered.all()
    return latencies, failed + n - done


def take_responses(responses: Responses, i: int) -> Responses:
    """Return the answer of one row."""
    return Responses(responses.labels[i : i + 1], responses.scores[i : i + 1], responses.refused[i : i + 1])


def judge(record: LoadRecord, _plan: Plan, _answers: Answers, measured: Measured) -> Sequence[Judgement]:
    """Return latency and errors for each rate, and peak memory and growth over the whole."""
    found = []
    stages, expected = measured["stages"], record.expected
    for stage in stages:
        latencies, rate = stage["latencies"], f"{stage['rate']:g}"
        n, bound = len(latencies), expected["latency_ms"]
        seen = quantile(latencies, record.parameters.quantile, z_of(bound.confidence))
        text = f"{record.parameters.quantile:g} quantile at {rate}/s, from the intended start"
        found.append(judged(f"latency_ms:{rate}", bound, seen, n, text, key="latency_ms", measured=True))
        errors = wilson(stage["failed"], n, z_of(expected["errors"].confidence))
        text = f"{stage['failed']} of {n} at {rate}/s unanswered, refused or answered differently than at rest"
        found.append(judged(f"errors:{rate}", expected["errors"], errors, n, text, key="errors", measured=True))
    peak = max(stage["health"].get("peak_bytes", float("nan")) for stage in stages) / MB
    resident = [stage["health"].get("resident_bytes", float("nan")) / MB for stage in stages]
    text = "peak resident memory of the target"
    found.append(judged("memory_mb", expected["memory_mb"], exact(peak), len(stages), text, measured=True))
    text = "resident memory after the last rate less after the first"
    growth = exact(resident[-1] - resident[0])
    found.append(judged("growth_mb", expected["growth_mb"], growth, len(stages), text, measured=True))
    return found


FAMILY = Family("load", LoadRecord, plan, judge, measure)
