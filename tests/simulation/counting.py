"""The smallest core that can be wrong: it counts and sums what it reads, per key, and says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from regate.daemon.bus.port import OutRecord
from regate.daemon.shell.core import Output, StepInput


class CountingCore:
    """Reads ``telemetry``; for each record writes the running count and sum of its shard to ``findings``."""

    name = "observe"
    inputs = ("telemetry",)

    def initial(self, shard: str) -> dict[str, Any]:
        return {"shard": shard, "count": 0, "total": 0, "ticks": 0, "control": 0, "gaps": 0}

    def step(self, state: dict[str, Any], given: StepInput) -> list[Output]:
        outputs: list[Output] = []
        state["control"] += len(given.control)
        if given.tick is not None:
            state["ticks"] += 1
        for gap in given.gaps:
            said = {"shard": state["shard"], "gap": [gap.kind, gap.wanted, gap.first]}
            state["gaps"] += 1
            outputs.append(OutRecord("findings", json.dumps(said).encode(), partition=0))
        for batch in given.batches:
            for record in batch.records:
                state["count"] += 1
                state["total"] += int(record.value or b"0")
                said = {"shard": state["shard"], "count": state["count"], "total": state["total"]}
                outputs.append(OutRecord("findings", json.dumps(said).encode(), partition=batch.partition % 2))
        return outputs

    def dump(self, state: dict[str, Any]) -> dict[str, bytes]:
        return {
            "count": json.dumps([state["count"], state["total"]]).encode(),
            "rest": json.dumps([state["ticks"], state["control"], state["gaps"]]).encode(),
        }

    def load(self, shard: str, chunks: Mapping[str, bytes]) -> dict[str, Any]:
        state = self.initial(shard)
        if "count" in chunks:
            state["count"], state["total"] = json.loads(chunks["count"])
        if "rest" in chunks:
            state["ticks"], state["control"], state["gaps"] = json.loads(chunks["rest"])
        return state
