"""What a validate worker saw: the records of the observations topic."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from regate.scenarios.contracts import RunResult

KIND = "observation"


class Observation(BaseModel):
    """One attempt started, gave a result, or failed without one."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["started", "result", "failed"]
    request_id: str
    scope: str
    attempt: int
    worker: str  # one life of one process; another life means that an attempt which was started is lost
    at_ms: int
    result: RunResult | None = None
    reason: str = ""
    message: str = ""
