"""The runner: one suite on one target, blocking, within a budget. Called in a worker's thread, never in a poll loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regate.config.canonical import content_id, digest_bytes
from regate.config.errors import RegateError, RetryableError
from regate.config.model import ModelConfig
from regate.scenarios.catalog.loading import Catalog, load_catalog
from regate.scenarios.contracts import Check, RunRequest, RunResult
from regate.scenarios.environment import capture, environment_digest
from regate.scenarios.execution import Budget, Targets, run_scenario
from regate.scenarios.record import Record
from regate.scenarios.result import ScenarioRun, check_of, counts, overall, run_digest, without_answer
from regate.scenarios.rows import Rows
from regate.scenarios.sandbox.client import OpenTarget, open_onnx
from regate.scenarios.stream import Store, encode_stream
from regate.scenarios.subject import NOBODY, Lanes, Subject
from regate.scenarios.suite import all_bounds, with_bounds

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run gets from its caller: where children come from, when to give up, whom to tell, who listens."""

    open_target: OpenTarget = open_onnx
    cancelled: Callable[[], bool] = lambda: False
    progress: Progress = lambda _done, _total, _what: None
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    lanes: Lanes = NOBODY


def run_suite(
    request: RunRequest,
    config: ModelConfig,
    rows: Rows | None,
    store: Store,
    *,
    budget_seconds: float,
    attempt: int = 1,
    catalog: Catalog | None = None,
    around: Surroundings = Surroundings(),
) -> RunResult:
    """Run a suite and return its result; targets that misbehave give outcome ``error``, never an exception.

    :param rows: the production window or reference rows; None before the version has traffic.
    :raises ConfigError: when the suite or a bound of the configuration does not exist.
    :raises RetryableError: when the caller cancelled it.
    """
    catalog = catalog or load_catalog()
    suite, plain = catalog.suite(request.suite)
    suite_digest = catalog.suite_digest(request.suite)
    records = with_bounds(plain, config)
    started, clock = around.now_ms(), time.monotonic()
    subject = Subject(
        config,
        rows,
        request.seed,
        request.role,
        has_baseline=request.baseline is not None,
        wants_window=request.window is not None,
        window_events=request.window.events if request.window is not None else config.validation.window_events,
        lanes=around.lanes,
        frozen=catalog.frozen,
    )
    if request.suite_digest and request.suite_digest != suite_digest:
        runs = _refused(records, f"the suite asked for is {request.suite_digest}, here is {suite_digest}")
        targets = None
    else:
        budget = Budget(clock + budget_seconds)
        targets = Targets(request, config, around.open_target, around.cancelled, budget)
        runs = _run_all(records, subject, targets, budget, around)
    environment = {} if targets is None else capture(targets.description, targets.baseline_description)
    checks = tuple(check_of(run.record, judgement) for run in runs for judgement in run.judgements)
    stream = encode_stream([exchange for run in runs for exchange in run.exchanges])
    stream_digest = digest_bytes(stream)
    store.put(f"stream-{stream_digest.removeprefix('sha256:')}.msgpack", stream)
    identity = {"suite": suite_digest, "seed": request.seed, "target": request.target.digest, "role": request.role}
    result = RunResult(
        request_id=request.id,
        run_id=content_id("run", request.id),
        scope=request.scope,
        model_version=request.model_version,
        role=request.role,
        target_digest=request.target.digest,
        suite=suite.name,
        suite_version=suite.version,
        suite_digest=suite_digest,
        seed=request.seed,
        attempt=attempt,
        outcome=overall(checks),
        checks=checks,
        digest=run_digest(identity, runs),
        environment=environment,
        environment_digest=environment_digest(environment),
        window_digest=rows.digest() if rows is not None else "",
        stream_digest=stream_digest,
        measured={run.record.id: run.measured for run in runs if run.measured},
        started_ms=started,
        finished_ms=around.now_ms(),
        seconds=f"{time.monotonic() - clock:.3f}",
        **counts(checks),
    )
    around.progress(len(records), len(records), "done")
    return result


def _run_all(
    records: Sequence[Record], subject: Subject, targets: Targets, budget: Budget, around: Surroundings
) -> list[ScenarioRun]:
    """Run the scenarios in order. One that fails leaves a fresh child for the next."""
    runs: list[ScenarioRun] = []
    try:
        for number, record in enumerate(records):
            if around.cancelled():
                raise RetryableError("the run was cancelled", hint="it is attempted again")
            around.progress(number, len(records), record.title)
            runs.append(run_scenario(record, subject, targets, budget))
    finally:
        targets.close()
    return runs


def _refused(records: Sequence[Record], message: str) -> list[ScenarioRun]:
    return [
        ScenarioRun(record, without_answer(all_bounds(record), "error", message), failure="suite") for record in records
    ]


def failed_result(request: RunRequest, *, attempt: int, reason: str, message: str, now_ms: int) -> RunResult:
    """Return the result of a request that no run could answer (expired, worker lost, no configuration)."""
    check = Check(
        id=f"run/{reason}",
        scenario="run",
        scenario_version="",
        scenario_digest="",
        family="run",
        outcome="error",
        message=message[:500],
        failure_mode="validation_unavailable",
    )
    return RunResult(
        request_id=request.id,
        run_id=content_id("run", request.id),
        scope=request.scope,
        model_version=request.model_version,
        role=request.role,
        target_digest=request.target.digest,
        suite=request.suite,
        suite_version="",
        suite_digest=request.suite_digest,
        seed=request.seed,
        attempt=attempt,
        outcome="error",
        checks=(check,),
        errored=1,
        started_ms=now_ms,
        finished_ms=now_ms,
    )


def reason_of(error: RegateError) -> str:
    """Return the stable reason code of an error."""
    return str(getattr(error, "reason", "") or type(error).__name__)
