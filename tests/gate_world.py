"""A gate shard driven by typed inputs, with a clock in seconds. Nothing is mocked: this is the core."""

from __future__ import annotations

from typing import Any

from regate.config.canonical import canonical_json, digest_bytes
from regate.config.model import Baseline, Feature, ModelConfig, Target, Validation
from regate.config.policy import Policy
from regate.daemon.gate.events import Build, GateDecision, GateState, Ignored
from regate.daemon.gate.state import Scope, Shard
from regate.daemon.gate.step import Decided, Emitted, advance
from regate.daemon.gate.turn import Given, Removed, TickSeen
from regate.daemon.wire.internal import Ack, Clock, Command, Control, Heartbeat
from regate.detectors.finding import Finding
from regate.scenarios.contracts import Check, RunRequest, RunResult, TargetSpec

BUILD = Build(version="0.1.0", digest="sha256:" + "0" * 64)
SCOPE = "default/loan/production"
START_MS = 1_700_000_000_000


def sha(text: str) -> str:
    return digest_bytes(text.encode())


def target(version: str) -> TargetSpec:
    return TargetSpec(uri=f"{version}.onnx", digest=sha(version), name="loan", version=version)


def model_config(version: str | None = "1", baseline: str | None = "0", **changes: Any) -> ModelConfig:
    return ModelConfig(
        model="loan",
        version=version or "1",
        features={"income": Feature(type="numeric")},
        target=Target(uri=f"{version}.onnx", digest=sha(version)) if version else None,
        baseline=Baseline(name="old", version=baseline, target=Target(uri="b.onnx", digest=sha(baseline)))
        if baseline
        else None,
        validation=Validation(budget_seconds=10),
        **changes,
    )


def control_of(document: ModelConfig | Policy) -> Control:
    data = canonical_json(document.model_dump(mode="json"))
    name = f"{document.tenant}/{document.model}" if isinstance(document, ModelConfig) else document.name
    kind = "model" if isinstance(document, ModelConfig) else "policy"
    return Control(kind=kind, name=name, digest=digest_bytes(data), document=data.decode())


def check(outcome: str = "pass", *, critical: bool = False, name: str = "scn-x-0001/bound") -> Check:
    return Check(
        id=name,
        scenario=name.split("/", maxsplit=1)[0],
        scenario_version="1.0.0",
        scenario_digest=sha(name),
        family="fuzzing",
        critical=critical,
        outcome=outcome,  # type: ignore[arg-type]
        observed="0.5",
        threshold="0.4",
        comparator="<=",
        n=200,
    )


def finding(kind: str = "change", number: int = 1, **changes: Any) -> Finding:
    identity = sha(f"finding-{kind}-{number}")
    values: dict[str, Any] = {
        "id": identity,
        "incident": identity,
        "tenant": "default",
        "model": "loan",
        "model_version": "1",
        "deployment": "production",
        "family": "feature_drift",
        "kind": kind,
        "detector": "numeric",
        "subject": "income",
        "severity": 0.5 if kind == "change" else 0.4,
        "evidence": "4.1",
        "threshold": "1.2",
        "effect": "0.8",
        "unit": "sigma",
        "onset_us": 1,
        "detected_us": 2,
        "cell": 1,
        "events": 1000,
    }
    return Finding(**(values | changes))


def revision_of(first: Finding, kind: str) -> Finding:
    return first.model_copy(update={"type": "revision", "id": sha(first.id + kind), "revision": kind})


def result_for(request: RunRequest, outcome: str = "pass", checks: tuple[Check, ...] | None = None) -> RunResult:
    checks = (check(outcome),) if checks is None else checks
    return RunResult(
        request_id=request.id,
        run_id=f"run-{request.id}",
        scope=request.scope,
        model_version=request.model_version,
        role=request.role,
        target_digest=request.target.digest,
        suite="default",
        suite_version="1.0.0",
        suite_digest=sha("suite"),
        seed=request.seed,
        outcome=outcome,  # type: ignore[arg-type]
        checks=checks,
        passed=sum(item.outcome == "pass" for item in checks),
        digest=sha(request.id),
    )


class World:
    """One shard, its time, and everything that it said."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.shard = Shard(0)
        self.seconds = 0.0
        self.said: list[Emitted] = []
        self.watching = True
        self.lag_ms = 0
        self.carrying: tuple[str, ...] = ()  # versions that have traffic now
        self.versions: dict[str, int] = {}
        self.count = 0
        self.feed("tick", TickSeen(now_ms=self.now_ms))
        if policy is not None:
            self.feed("control", control_of(policy))

    @property
    def now_ms(self) -> int:
        return START_MS + round(self.seconds * 1000)

    def feed(self, kind: str, data: Any) -> list[Emitted]:
        self.count += 1
        out = advance(self.shard, Given(kind, f"{kind}-0@{self.count}", data), BUILD)  # type: ignore[arg-type]
        self.said.extend(out)
        return out

    def beat(self, *models: str) -> None:
        self.versions |= {f"{SCOPE}@{version}": self.now_ms for version in self.carrying}
        self.feed(
            "heartbeat",
            Heartbeat(
                source="telemetry-0",
                now_ms=self.now_ms,
                position=10,
                end=10,
                lag_ms=self.lag_ms,
                watermark_us=0,
                models=models or ("default/loan",),
                versions=dict(self.versions),
            ),
        )

    def after(self, seconds: float, *, step: float = 5.0, traffic: bool = True) -> list[Emitted]:
        """Let time pass, with a heartbeat before each tick while watch lives and the model has traffic."""
        start, end = len(self.said), self.seconds + seconds
        while self.seconds < end:
            self.seconds = min(self.seconds + step, end)
            if self.watching and traffic:
                self.beat()
            self.feed("tick", TickSeen(now_ms=self.now_ms))
        return self.said[start:]

    def configure(self, config: ModelConfig | None = None) -> None:
        self.feed("control", control_of(config or model_config()))

    def unconfigure(self) -> None:
        self.feed("control-removed", Removed(key="model/default/loan"))

    def answer(
        self, outcome: str = "pass", checks: tuple[Check, ...] | None = None, role: str | None = None
    ) -> RunRequest:
        """Answer the run in flight (letting time pass until there is one)."""
        for _ in range(200):
            running = self.scope.running
            if running is not None:
                if role is not None and running.request.role != role:
                    self.feed("run-result", result_for(running.request))
                    continue
                self.feed("run-result", result_for(running.request, outcome, checks))
                return running.request
            self.after(5.0)
        raise AssertionError("no run was asked for")

    def settle(self, seconds: float = 400.0, outcome: str = "pass") -> None:
        """Answer whatever is asked for during a while."""
        end = self.seconds + seconds
        while self.seconds < end:
            if self.scope.running is not None:
                self.feed("run-result", result_for(self.scope.running.request, outcome))
            self.after(5.0)

    def approve(self) -> None:
        """Bring the scope, and its baseline, to approve."""
        self.configure()
        self.settle(120.0)
        assert self.scope.verdict == "approve", self.last

    def command(self, kind: str, **fields: Any) -> list[Emitted]:
        self.count += 1
        values = {"id": f"command-{self.count}", "tenant": "default", "model": "loan", "deployment": "production"}
        return self.feed("command", Command(kind=kind, **(values | fields)))  # type: ignore[arg-type]

    def clock(self, job: str = "revalidate") -> list[Emitted]:
        return self.feed("clock", Clock(job=job, due_ms=self.now_ms))  # type: ignore[arg-type]

    def ack(self, decision: GateDecision, state: str = "applied") -> list[Emitted]:
        return self.feed("ack", Ack(decision_id=decision.id, scope=SCOPE, seq=decision.seq, state=state))  # type: ignore[arg-type]

    @property
    def scope(self) -> Scope:
        return self.shard.scopes[SCOPE]

    @property
    def decisions(self) -> list[GateDecision]:
        return [item.decision for item in self.said if isinstance(item, Decided)]

    @property
    def last(self) -> GateDecision:
        return self.decisions[-1]

    @property
    def requests(self) -> list[RunRequest]:
        return [item for item in self.said if isinstance(item, RunRequest)]

    @property
    def state(self) -> GateState:
        return [item for item in self.said if isinstance(item, GateState)][-1]

    @property
    def ignored(self) -> list[str]:
        return [item.reason for item in self.said if isinstance(item, Ignored)]


def codes(decision: GateDecision) -> set[str]:
    return {reason.code for reason in decision.reasons}
