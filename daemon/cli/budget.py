"""`regate budget show`: what the false-alarm budget promised, and what was spent of it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from regate.config.errors import ConfigError
from regate.daemon.cli.connection import SettingsFile, connect
from regate.daemon.cli.gate import Bootstrap, Json, now_ms
from regate.detectors.budget import Budget

app = typer.Typer(no_args_is_help=True, help="The false-alarm budget: promised, spent, left.")


@app.command("show")
def show(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="tenant/model; all when left out.")] = "",
    settings: SettingsFile = None,
    bootstrap_servers: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Show, for each model version with a profile, realised against nominal false alarms, per chart."""
    from regate.daemon.budgets import Ledger

    link = connect(settings, bootstrap_servers)
    reader = link.bus.reader()
    try:
        ledger = Ledger.of(link.bus, reader, link.topics)
        budgets = {name: one for name, one in ledger.read(now_ms()).items() if _is_of(name, model)}
    finally:
        reader.close()
    if as_json:
        typer.echo(json.dumps({"models": [described(name, one) for name, one in budgets.items()]}))
        return
    if not budgets:
        raise ConfigError(
            f"no profile is in force{f' for {model}' if model else ''}", hint="regate profile build, then regate apply"
        )
    for name, one in budgets.items():
        _say(name, one)


def _is_of(name: str, model: str) -> bool:
    wanted = model if "/" in model or not model else f"default/{model}"
    return not wanted or name.startswith((f"{wanted}/", f"{wanted}@"))


def _say(name: str, budget: Budget) -> None:
    console = Console()
    console.print(
        f"{name}: {budget.spent} of {budget.allowed:g} false alarms a period spent "
        f"({budget.nominal:.3g} nominal by now), {budget.remaining_ratio:.0%} left; "
        f"{budget.found} findings, {budget.true} true, {budget.open} open",
        highlight=False,
        markup=False,
    )
    table = Table("chart", "share", "nominal", "led", "true")
    for chart in sorted(budget.charts, key=lambda one: (-one.led, -one.share, one.chart)):
        share = f"{chart.share:.2%}" if chart.watchable else "not watched"
        table.add_row(chart.chart.replace("[", r"\["), share, f"{chart.nominal:.3g}", str(chart.led), str(chart.true))
    console.print(table)


def described(name: str, budget: Budget) -> dict[str, Any]:
    """Return what ``show --json`` prints of one model version."""
    return {
        "model": name,
        "allowed": budget.allowed,
        "nominal": round(budget.nominal, 6),
        "spent": budget.spent,
        "found": budget.found,
        "true": budget.true,
        "open": budget.open,
        "remaining_ratio": round(budget.remaining_ratio, 6),
        "charts": [
            {
                "chart": chart.chart,
                "watchable": chart.watchable,
                "share": round(chart.share, 6),
                "nominal": round(chart.nominal, 6),
                "led": chart.led,
                "true": chart.true,
            }
            for chart in budget.charts
        ],
    }
