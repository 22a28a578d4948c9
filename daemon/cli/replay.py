"""`regate replay DECISION`: compute a decision again from its capsule alone, and compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from regate.config.errors import ConfigError
from regate.daemon.artefacts import LocalStore
from regate.daemon.build import build_digest
from regate.daemon.cli.connection import SettingsFile, read_settings
from regate.daemon.gate import capsule
from regate.daemon.gate.events import GateDecision


def differences(old: GateDecision, new: GateDecision) -> list[str]:
    """Return the names of the fields that differ."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    return [name for name in before if before[name] != after[name]]


def replay(
    decision: Annotated[str, typer.Argument(metavar="DECISION", help="Id of a decision (regate status shows it).")],
    artefacts: Annotated[Path | None, typer.Option(help="Artefact folder; else from the settings.")] = None,
    what_if: Annotated[bool, typer.Option("--what-if", help="Also with another build than the one that decided.")] = (
        False
    ),
    settings: SettingsFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compute a decision again; exit 0 when it is equal, 1 when it is not."""
    store = LocalStore(artefacts or read_settings(settings).artefacts)
    data = store.get(capsule.name_of(decision))
    old = capsule.published(data)
    if old.build.digest != build_digest() and not what_if:
        raise ConfigError(
            f"the decision was made by build {old.build.digest} (regate {old.build.version}), this is another one",
            hint="install that build, or add --what-if",
        )
    new = capsule.replay(data)
    differing = differences(old, new)
    if as_json:
        told = {"decision": decision, "equal": not differing, "differs": differing, "recomputed": new.model_dump()}
        typer.echo(json.dumps(told))
    else:
        scope = f"{old.scope.tenant}/{old.scope.model}/{old.scope.deployment}"
        typer.echo(f"{scope} seq {old.seq}: {old.transition} to {old.verdict} at {old.decided_at}")
        for reason in old.reasons:
            typer.echo(f"  because {reason.code} {reason.check_id} {reason.message}".rstrip())
        typer.echo("recomputed: equal" if not differing else f"recomputed: differs in {', '.join(differing)}")
    raise typer.Exit(1 if differing else 0)
