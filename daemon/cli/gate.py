"""`regate gate`: ask a gate (exit 0 approve, 1 hold or worse, 2 error, 3 inconclusive), or speak to it."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from regate.config.canonical import content_id
from regate.config.errors import ConfigError, RegateError
from regate.daemon.cli.connection import Link, SettingsFile, connect
from regate.daemon.control import current
from regate.daemon.gate.events import GateState
from regate.daemon.states import Answer, judge, read_states, scope_name, send_command
from regate.daemon.wire.internal import Command

app = typer.Typer(help="Ask a gate, or speak to it.", no_args_is_help=True)
ScopeName = Annotated[str, typer.Argument(metavar="SCOPE", help="tenant/model/deployment, tenant/model or model.")]
Bootstrap = Annotated[str | None, typer.Option(help="Kafka, host:port[,host:port].")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Actor = Annotated[str, typer.Option(help="Who asks.")]
Reason = Annotated[str, typer.Option(help="Why.")]
Signers = Annotated[list[str] | None, typer.Option("--approved-by", help="A signer; repeat it (fail_safe needs two).")]
POLL_SECONDS = 0.5


def now_ms() -> int:
    """Return the caller's clock: a consumer of a lease checks it by its own."""
    return time.time_ns() // 1_000_000


def _report(name: str, state: GateState | None, answer: Answer, *, as_json: bool) -> None:
    if as_json:
        data = {
            "scope": name,
            "exit_code": answer.code,
            "message": answer.text,
            "state": state.model_dump(mode="json") if state else None,
        }
        typer.echo(json.dumps(data))
    else:
        typer.echo(f"{name}: {answer.text}")
        for line in because(state, answer):
            typer.echo(f"  {line}")


def because(state: GateState | None, answer: Answer) -> list[str]:
    """Return what stands behind an answer that is not an approval: the checks that decided, with their message."""
    if state is None or answer.code == 0:
        return []
    return [
        f"{reason.code} {reason.check_id} {reason.message}".rstrip()
        for reason in state.reasons
        if reason.check_id or reason.message
    ]


def _fail(error: RegateError) -> typer.Exit:
    typer.echo(f"error: {error.message}" + (f"\nnext: {error.hint}" if error.hint else ""), err=True)
    return typer.Exit(2)


@app.command("check")
def check(
    scope: ScopeName, settings: SettingsFile = None, bootstrap_servers: Bootstrap = None, as_json: Json = False
) -> None:
    """Say what the gate says now."""
    try:
        name = scope_name(scope)
        link = connect(settings, bootstrap_servers)
        state = read_states(link.bus, link.topics, name).get(name)
    except RegateError as error:
        raise _fail(error) from error
    answer = judge(state, now_ms())
    _report(name, state, answer, as_json=as_json)
    raise typer.Exit(answer.code)


@app.command("wait")
def wait(
    scope: ScopeName,
    timeout: Annotated[float, typer.Option(help="Seconds; then exit 3.")] = 600.0,
    version: Annotated[str, typer.Option(help="Wait for the verdict on this model version.")] = "",
    after_seq: Annotated[int, typer.Option(help="Wait for a decision after this sequence number.")] = 0,
    settings: SettingsFile = None,
    bootstrap_servers: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Wait until the gate approves or has nothing more under way."""
    try:
        name = scope_name(scope)
        state, answer = wait_for(connect(settings, bootstrap_servers), name, timeout, version, after_seq)
    except RegateError as error:
        raise _fail(error) from error
    _report(name, state, answer, as_json=as_json)
    raise typer.Exit(answer.code)


def wait_for(
    link: Link, name: str, timeout: float, version: str = "", after_seq: int = 0
) -> tuple[GateState | None, Answer]:
    """Return the state and answer once settled; an answer with code 3 at the timeout."""
    deadline = time.monotonic() + timeout
    while True:
        state = read_states(link.bus, link.topics, name).get(name)
        answer = judge(state, now_ms())
        speaks = state is not None and state.seq > after_seq and version in {"", state.scope.model_version}
        if speaks and (answer.code == 0 or answer.settled):
            return state, answer
        if time.monotonic() >= deadline:
            return state, Answer(3, f"not settled after {timeout:g} s; last: {answer.text}", settled=False)
        time.sleep(POLL_SECONDS)


def send(link: Link, scope: str, *, as_json: bool, **fields: object) -> None:
    """Send one command to a scope and say its id; ``fields`` are those of `Command`."""
    tenant, model, deployment = scope.split("/")
    _require_model(link, f"{tenant}/{model}")
    issued = now_ms()
    command_id = content_id("command", scope, issued, str(sorted(fields.items(), key=lambda item: item[0])))
    command = Command.model_validate(
        {
            "id": command_id,
            "tenant": tenant,
            "model": model,
            "deployment": deployment,
            "issued_ms": issued,
            **fields,
        }
    )
    send_command(link.bus, link.topics, command)
    typer.echo(
        json.dumps({"command": command_id, "scope": scope}) if as_json else f"{scope}: sent {command.kind} {command_id}"
    )


def _require_model(link: Link, name: str) -> None:
    """Refuse a model that no gate knows: the command would be put aside and nobody would answer."""
    reader = link.bus.reader()
    try:
        known = current(reader, link.topics).models
    finally:
        reader.close()
    if name not in known:
        raise ConfigError(
            f"no configuration of {name} is in effect; known: {', '.join(sorted(known)) or 'none'}",
            hint="regate apply -f MODEL.yaml",
        )


@app.command("revalidate")
def revalidate(
    scope: ScopeName, settings: SettingsFile = None, bootstrap_servers: Bootstrap = None, as_json: Json = False
) -> None:
    """Ask for a run of the suite now."""
    send(connect(settings, bootstrap_servers), scope_name(scope), as_json=as_json, kind="revalidate")


@app.command("requalify")
def requalify(
    scope: ScopeName,
    actor: Actor,
    reason: Reason,
    approved_by: Signers = None,
    settings: SettingsFile = None,
    bootstrap_servers: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Allow passed runs to lift roll_back or fail_safe."""
    send(
        connect(settings, bootstrap_servers),
        scope_name(scope),
        as_json=as_json,
        kind="requalify",
        actor=actor,
        reason=reason,
        approvals=tuple(approved_by or ()),
    )


@app.command("override")
def override(
    scope: ScopeName,
    verdict: Annotated[str, typer.Option(help="approve, hold, roll_back or fail_safe.")],
    actor: Actor,
    reason: Reason,
    ticket: Annotated[str, typer.Option(help="Where it is tracked.")],
    seconds: Annotated[float, typer.Option(help="How long; the policy caps it.")],
    approved_by: Signers = None,
    settings: SettingsFile = None,
    bootstrap_servers: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Set the verdict aside for a while; marked on every event until it ends."""
    if verdict not in {"approve", "hold", "roll_back", "fail_safe"}:
        raise ConfigError(f"{verdict!r} is no verdict", hint="approve, hold, roll_back or fail_safe")
    send(
        connect(settings, bootstrap_servers),
        scope_name(scope),
        as_json=as_json,
        kind="override",
        verdict=verdict,
        actor=actor,
        reason=reason,
        ticket=ticket,
        expires_ms=now_ms() + round(seconds * 1000),
        approvals=tuple(approved_by or ()),
    )
