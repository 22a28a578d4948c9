"""A sandboxed target as a `Target`: every call goes over the channel, under the budget of the run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from regate.config.model import ModelConfig
from regate.scenarios.contracts import TargetSpec
from regate.scenarios.sandbox.frames import FrameError, pack_features, unpack_responses
from regate.scenarios.sandbox.process import Ending, Limits, Sandbox, TargetError
from regate.scenarios.targets.base import Features, Responses


class SandboxedTarget:
    """A target in its child process.

    :param reply_seconds: how long one call may take; the caller lowers it to what is left of its budget.
    """

    def __init__(
        self,
        command: Sequence[str],
        limits: Limits,
        *,
        reply_seconds: float = 20.0,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._sandbox = Sandbox(command, limits, cancelled=cancelled)
        self.reply_seconds = reply_seconds
        self._sandbox.wait_ready()

    @property
    def pid(self) -> int:
        """Return the supervisor's process id."""
        return self._sandbox.pid

    def describe(self) -> dict[str, Any]:
        """Return what the target says it is."""
        return self._mapping("describe", "description")

    def predict(self, features: Features, *, each: bool = False) -> Responses:
        """Answer a batch.

        :raises TargetError: when the child does not give a proper answer in time.
        """
        message = {"op": "predict", "features": pack_features(features), "each": each}
        return self._responses(self._sandbox.request(message, self.reply_seconds))

    def send(self, features: Features) -> int:
        """Queue a batch without waiting for its answer (open-loop load); return its sequence number."""
        return self._sandbox.send({"op": "predict", "features": pack_features(features), "each": False})

    def receive(self, seconds: float) -> tuple[int, float, Responses] | None:
        """Return sequence number, arrival (monotonic seconds) and answer of the next reply, None on time-out."""
        reply = self._sandbox.receive(seconds)
        return None if reply is None else (int(reply["seq"]), time.monotonic(), self._responses(reply))

    def health(self) -> dict[str, Any]:
        """Return the target's own figures."""
        return self._mapping("health", "health")

    def reset(self) -> None:
        """Return to the state after loading."""
        self._sandbox.request({"op": "reset"}, self.reply_seconds)

    def state_digest(self) -> str:
        """Return the digest of the target's state."""
        return str(self._sandbox.request({"op": "state_digest"}, self.reply_seconds).get("state_digest", ""))

    def close(self) -> Ending:
        """End the child."""
        return self._sandbox.close()

    def _mapping(self, operation: str, key: str) -> dict[str, Any]:
        value = self._sandbox.request({"op": operation}, self.reply_seconds).get(key)
        return value if isinstance(value, dict) else {}

    def _responses(self, reply: dict[str, Any]) -> Responses:
        try:
            return unpack_responses(reply.get("responses") or {})
        except FrameError as error:
            self._sandbox.close()
            raise TargetError(f"target failed (protocol): {error}", reason="protocol") from error


class OpenTarget(Protocol):
    """Opens the target of a run; the runner's only way to a child process."""

    def __call__(
        self, spec: TargetSpec, config: ModelConfig, limits: Limits, cancelled: Callable[[], bool]
    ) -> SandboxedTarget:
        """Return a started target.

        :raises TargetError: when it does not start.
        """


def onnx_command(path: str, config: ModelConfig) -> list[str]:
    """Return the child's command line for one ONNX file under one configuration."""
    options = {
        "path": path,
        "features": [[name, feature.type] for name, feature in config.features.items()],
        "classes": list(config.output.classes),
        "positive": config.output.positive,
        "output": config.output.type,
    }
    return [sys.executable, "-P", "-s", "-m", "regate.scenarios.sandbox.child", "{fd}", json.dumps(options)]


def open_onnx(spec: TargetSpec, config: ModelConfig, limits: Limits, cancelled: Callable[[], bool]) -> SandboxedTarget:
    """Start an ONNX target; its bytes are hashed in the child, before they are parsed."""
    path = str(Path(spec.uri.removeprefix("file://")).resolve())  # the child's working directory is /
    return SandboxedTarget(onnx_command(path, config), limits, cancelled=cancelled)
