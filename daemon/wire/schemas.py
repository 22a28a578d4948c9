"""JSON Schema 2020-12 of every contract, from its model: ``python -m regate.daemon.wire.schemas schemas``."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

from pydantic import BaseModel

from regate.config.errors import ConfigError

# File name -> model. Incoming contracts are schemas of what is accepted, outgoing ones of what is sent.
CONTRACTS: dict[str, str] = {
    "telemetry.v1": "regate.daemon.wire.telemetry:Telemetry",
    "label.v1": "regate.daemon.wire.label:Label",
    "finding.v1": "regate.detectors.finding:Finding",
    "run-request.v1": "regate.scenarios.contracts:RunRequest",
    "run-result.v1": "regate.scenarios.contracts:RunResult",
    "heartbeat.v1": "regate.daemon.wire.internal:Heartbeat",
    "command.v1": "regate.daemon.wire.internal:Command",
    "ack.v1": "regate.daemon.wire.internal:Ack",
    "gate-decision.v1": "regate.daemon.gate.events:GateDecision",
    "gate-state.v1": "regate.daemon.gate.events:GateState",
}


def schema_text(name: str) -> str:
    """Return the schema file of one contract."""
    module, _, attribute = CONTRACTS[name].partition(":")
    model: type[BaseModel] = getattr(import_module(module), attribute)
    incoming = name in {"telemetry.v1", "label.v1", "command.v1", "ack.v1"}
    schema = model.model_json_schema(mode="validation" if incoming else "serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"io.regate.{name}"}
    return json.dumps(head | schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> list[Path]:
    """Write all schemas into a folder; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in CONTRACTS:
        path = folder / f"{name}.json"
        path.write_text(schema_text(name), encoding="utf-8")
        written.append(path)
    return written


def main(arguments: list[str]) -> None:
    """Write the schemas into the folder named on the command line."""
    if len(arguments) != 1:
        raise ConfigError("name one folder", hint="python -m regate.daemon.wire.schemas schemas")
    for path in write_schemas(Path(arguments[0])):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
