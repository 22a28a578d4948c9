"""The worker: a thread beside the validate loop that runs attempts and writes what it saw to the bus.

It shares nothing with the loop but the list of pending attempts that the loop offers after each commit. Whatever
happens in here ends as an observation; the loop never waits for it.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from regate.config.canonical import digest_bytes
from regate.config.errors import ConfigError, RegateError, RetryableError
from regate.config.model import ModelConfig
from regate.config.settings import Settings
from regate.daemon.bus.port import Bus, OutRecord
from regate.daemon.bus.topics import Topics
from regate.daemon.roles.validate import Pending, pending
from regate.daemon.shell.clock import Clock, SystemClock
from regate.daemon.validate.lanes import LaterLanes, lanes_in_force
from regate.daemon.validate.observation import KIND, Observation
from regate.daemon.validate.reference import reference_rows
from regate.daemon.validate.window import Collector
from regate.daemon.wire.cloudevents import encode_event
from regate.detectors.columns import ModelKey
from regate.scenarios.catalog.loading import load_catalog
from regate.scenarios.contracts import RunRequest, RunResult
from regate.scenarios.rows import Rows
from regate.scenarios.runner import Surroundings, failed_result, reason_of, run_suite
from regate.scenarios.sandbox.client import OpenTarget, open_onnx
from regate.scenarios.stream import Store

RETRY_SECONDS = 1.0  # a bus that is away is asked again at this pace
COHORT_FACTOR = 5  # intersections of cohorts need several times the rows of the window
MAX_ROWS = 20_000
FLUSH_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt on one shard."""

    shard: int
    due: Pending

    @property
    def key(self) -> tuple[str, int]:
        """Return what an attempt is told apart by."""
        return (self.due.request.id, self.due.attempt)


class Worker:
    """Runs one attempt at a time, the most urgent first.

    :param life: names this life of this process; an attempt that another life started is lost.
    """

    def __init__(
        self,
        bus: Bus,
        topics: Topics,
        settings: Settings,
        store: Store,
        *,
        clock: Clock | None = None,
        life: str = "",
        open_target: OpenTarget = open_onnx,
    ) -> None:
        self.life = life or f"{settings.instance}/{uuid.uuid4()}"
        self._bus, self._topics, self._settings, self._store = bus, topics, settings, store
        self._clock, self._open_target = clock or SystemClock(), open_target
        self._log = structlog.get_logger().bind(role="validate", part="worker", instance=settings.instance)
        self._condition = threading.Condition()
        self._jobs: dict[tuple[str, int], Job] = {}
        self._settled: set[tuple[str, int]] = set()  # done here; the loop may still name them until it has read so
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="validate-worker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, deadline_seconds: float = 10.0) -> None:
        """Stop: the attempt in hand is cancelled, its child killed; the next life of the worker begins it again."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(deadline_seconds)

    def offer(self, states: Mapping[str, Any]) -> None:
        """Take the pending attempts of all shards of this process: the `on_commit` of the runner. Does not wait."""
        jobs = [Job(state.shard, due) for state in states.values() for due in pending(state)]
        with self._condition:
            self._jobs = {job.key: job for job in jobs}
            self._settled &= set(self._jobs)
            if set(self._jobs) - self._settled:
                self._condition.notify_all()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._serve(job)
            except RegateError as error:
                # Nothing was settled: the attempt is still pending and is taken up again.
                self._log.warning("attempt_delayed", request=job.key[0], error=error.message)
                self._pause()

    def _next(self) -> Job | None:
        with self._condition:
            while not self._stopping:
                open_jobs = [job for key, job in self._jobs.items() if key not in self._settled]
                if open_jobs:
                    return min(open_jobs, key=lambda job: (-job.due.request.priority, job.due.request.requested_ms))
                self._condition.wait(RETRY_SECONDS)
        return None

    def _pause(self) -> None:
        with self._condition:
            if not self._stopping:
                self._condition.wait(RETRY_SECONDS)

    def _serve(self, job: Job) -> None:
        request, attempt, worker, config = job.due
        log = self._log.bind(request=request.id, scope=request.scope, attempt=attempt)
        if worker and worker != self.life:
            log.warning("attempt_lost", worker=worker)
            self._report(job, "failed", reason="worker_gone", message=f"{worker} began it and is gone")
            return
        if config is None:
            message = f"no configuration of {request.tenant}/{request.model}"
            now = self._clock.now_ms()
            result = failed_result(request, attempt=attempt, reason="no_configuration", message=message, now_ms=now)
            self._report(job, "result", result=result)
            return
        if not worker:
            self._report(job, "started")
        log.info("attempt_started")
        try:
            result = self._attempt(job, config)
        except RetryableError:
            raise
        except RegateError as error:
            log.warning("attempt_failed", error=error.message, hint=error.hint)
            self._report(job, "failed", reason=reason_of(error), message=error.message)
        except Exception as error:
            # A fault of ours or of a scenario: kept as the attempt's failure, with its traceback in the log.
            log.exception("attempt_crashed")
            self._report(job, "failed", reason="crashed", message=f"{type(error).__name__}: {error}")
        else:
            log.info("attempt_done", outcome=result.outcome, seconds=result.seconds)
            self._report(job, "result", result=result)

    def _attempt(self, job: Job, config: ModelConfig) -> RunResult:
        request = job.due.request
        private = any(feature.privacy != "keep" for feature in config.features.values())
        store: Store = DigestOnly() if private else self._store
        rows = self._window(request, config)
        if rows is not None:
            store.put(f"rows-{rows.digest().removeprefix('sha256:')}.arrow", rows.to_arrow())
        left = (request.deadline_ms - self._clock.now_ms()) / 1000.0
        key = ModelKey(request.tenant, request.model, request.model_version, request.deployment)
        around = Surroundings(
            self._open_target,
            self._cancelled(job),
            now_ms=self._clock.now_ms,
            lanes=LaterLanes(lambda: lanes_in_force(self._bus, self._topics, key)),
        )
        return run_suite(
            request,
            config,
            rows,
            store,
            budget_seconds=max(0.0, min(config.validation.budget_seconds, left)),
            attempt=job.due.attempt,
            catalog=load_catalog(self._settings.catalogs),  # anew for each attempt: folders may have changed
            around=around,
        )

    def _window(self, request: RunRequest, config: ModelConfig) -> Rows | None:
        if request.window is None:
            return reference_rows(config)
        events = request.window.events
        if config.cohorts:
            events = max(events, min(events * COHORT_FACTOR, MAX_ROWS))
        reader, admin = self._bus.reader(), self._bus.admin()
        try:
            found = Collector(reader, admin, self._topics, self._settings.limits).collect(request, config, events)
        finally:
            reader.close()
            admin.close()
        return reference_rows(config) if found is None else found

    def _cancelled(self, job: Job) -> Callable[[], bool]:
        """Return what ends an attempt early: the process stops, the shard leaves, or the request was settled."""
        return lambda: self._stopping or job.key not in self._jobs

    def _report(
        self, job: Job, kind: str, *, result: RunResult | None = None, reason: str = "", message: str = ""
    ) -> None:
        """Write an observation; only then is the attempt settled.

        :raises RetryableError: when the bus did not take it.
        """
        request, now = job.due.request, self._clock.now_ms()
        seen = Observation.model_validate(
            {
                "kind": kind,
                "request_id": request.id,
                "scope": request.scope,
                "attempt": job.due.attempt,
                "worker": self.life,
                "at_ms": now,
                "result": result,
                "reason": reason,
                "message": message[:500],
            }
        )
        value, headers = encode_event(KIND, f"{request.id}/{job.due.attempt}/{kind}", request.scope, now, seen)
        writer = self._bus.writer()
        try:
            key = f"{request.tenant}/{request.model}".encode()
            writer.send(OutRecord(self._topics.name("observations"), value, key, headers, job.shard))
            writer.flush(FLUSH_SECONDS)
        finally:
            writer.close(1.0)
        if kind != "started":
            with self._condition:
                self._settled.add(job.key)


class DigestOnly:
    """The store of a model with private features: nothing is kept but the digest, until artefacts are encrypted."""

    def put(self, _name: str, data: bytes) -> str:
        """Return the digest; keep nothing."""
        return digest_bytes(data)

    def get(self, name: str) -> bytes:
        """Refuse: nothing was kept."""
        raise ConfigError(f"{name} was not kept: the model has private features", hint="its digest is in the result")
