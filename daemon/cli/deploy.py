"""`regate deploy`: announce a version; its gate holds until the suite passed on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regate.config.canonical import digest_bytes
from regate.config.errors import ConfigError
from regate.daemon.cli.connection import SettingsFile, connect
from regate.daemon.cli.gate import Bootstrap, Json, ScopeName, Signers, send, wait_for
from regate.daemon.states import read_states, scope_name
from regate.scenarios.contracts import TargetSpec


def target_of(path: Path, name: str, version: str) -> TargetSpec:
    """Return an artefact on this machine with the digest of its bytes."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    return TargetSpec(uri=str(path.resolve()), digest=digest_bytes(data), name=name, version=version)


def deploy(
    scope: ScopeName,
    target: Annotated[Path, typer.Option(help="The model artefact (ONNX).")],
    version: Annotated[str, typer.Option(help="Its version.")],
    baseline: Annotated[Path | None, typer.Option(help="What a roll-back would name (ONNX).")] = None,
    baseline_version: Annotated[str, typer.Option(help="Version of the baseline.")] = "",
    actor: Annotated[str, typer.Option(help="Who deploys.")] = "",
    approved_by: Signers = None,
    wait: Annotated[float, typer.Option(help="Wait so many seconds for the verdict; 0 returns at once.")] = 0.0,
    settings: SettingsFile = None,
    bootstrap_servers: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Announce a version before it takes traffic: the suite runs first, the scope holds until it passes."""
    name = scope_name(scope)
    if baseline is not None and not baseline_version:
        raise ConfigError("a baseline needs its version", hint="add --baseline-version")
    model = name.split("/")[1]
    wanted = target_of(target, model, version)
    fallback = target_of(baseline, model, baseline_version) if baseline else None
    link = connect(settings, bootstrap_servers)
    before = read_states(link.bus, link.topics, name).get(name)
    send(
        link,
        name,
        as_json=as_json,
        kind="deploy",
        model_version=version,
        target=wanted,
        baseline=fallback,
        actor=actor,
        approvals=tuple(approved_by or ()),
    )
    if wait:
        _, answer = wait_for(link, name, wait, version, before.seq if before else 0)
        typer.echo(f"{name}: {answer.text}", err=as_json)
        raise typer.Exit(answer.code)
