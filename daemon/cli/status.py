"""`regate status`: every scope, worst first."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from regate.config.policy import rank
from regate.daemon.cli.connection import SettingsFile, connect
from regate.daemon.cli.gate import Bootstrap, Json, because, now_ms
from regate.daemon.gate.events import GateState
from regate.daemon.states import judge, read_states, scope_name


def order(state: GateState) -> tuple[bool, int, str]:
    """Return the sort key: enforced before shadow, worst verdict first, then by name."""
    name = f"{state.scope.tenant}/{state.scope.model}/{state.scope.deployment}"
    return state.mode == "shadow", -rank(state.verdict), name


def row(name: str, state: GateState, now: int) -> dict[str, object]:
    """Return what is shown of one scope."""
    answer = judge(state, now)
    return {
        "scope": name,
        "version": state.scope.model_version,
        "mode": state.mode,
        "verdict": state.verdict,
        "effective_verdict": state.effective_verdict,
        "exit_code": answer.code,
        "message": answer.text,
        "because": because(state, answer),
        "seq": state.seq,
        "valid_until": state.valid_until,
        "incidents": state.incidents_open,
        "remedy": state.remedy.stage if state.remedy else "",
        "pending": state.pending.running or ", ".join(state.pending.queued),
        "decision": state.decision_id,
    }


def status(
    scope: Annotated[str, typer.Argument(metavar="[SCOPE]", help="One scope; all when left out.")] = "",
    settings: SettingsFile = None,
    bootstrap_servers: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Show the effective state of every gate, worst first."""
    link = connect(settings, bootstrap_servers)
    found = read_states(link.bus, link.topics, scope_name(scope) if scope else None)
    now = now_ms()
    rows = [row(name, state, now) for name, state in sorted(found.items(), key=lambda item: order(item[1]))]
    if as_json:
        typer.echo(json.dumps({"scopes": rows}))
        return
    if not rows:
        about = f" about {scope_name(scope)}" if scope else ""
        typer.echo(f"no gate has spoken{about} yet (regate apply -f MODEL.yaml, regate run)")
        return
    for item in rows:
        shown = f"{item['verdict']} (shadow)" if item["mode"] == "shadow" else str(item["effective_verdict"])
        version = f" {item['version']}" if item["version"] else ""
        typer.echo(f"{item['scope']}{version}: {shown}")
        typer.echo(f"  {item['message']}")
        for line in item["because"]:  # type: ignore[attr-defined]
            typer.echo(f"    {line}")
        # Not a table: its cells would cut the id that `regate replay` needs.
        remedy = f" · roll-back {item['remedy']}" if item["remedy"] else ""
        runs = f" · runs: {item['pending']}" if item["pending"] else ""
        typer.echo(f"  {item['incidents']} open incidents{remedy}{runs} · decision {item['decision']}")
