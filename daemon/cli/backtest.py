"""`regate backtest`: what regate would have found in a file, by the daemon's own cores."""

from __future__ import annotations

import json
import resource
import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as RichTable

from regate.config.loading import load
from regate.config.model import ModelConfig
from regate.daemon.cli.progress import progress_bars

if TYPE_CHECKING:
    from regate.daemon.backtest import Backtest


class Clock(StrEnum):
    """What time is to the charts."""

    ROWS = "rows"
    EVENT = "event"


class OnFinding(StrEnum):
    """What a finding does to the charts."""

    INCIDENT = "incident"
    RESTART = "restart"


def backtest(
    file: Annotated[Path, typer.Argument(help="Parquet, Arrow, CSV or JSON-lines.", show_default=False)],
    *,
    reference_rows: Annotated[int, typer.Option(help="The first rows, from which the profile is built.", min=1)],
    config: Annotated[Path | None, typer.Option(help="Model configuration; without it columns go by name.")] = None,
    budget_events: Annotated[
        float | None, typer.Option(help="Events with one nominal false alarm (by rows: 1000000).", min=1.0)
    ] = None,
    clock: Annotated[Clock, typer.Option(help="Count in rows, or in event time as the daemon does.")] = Clock.ROWS,
    on_finding: Annotated[
        OnFinding, typer.Option(help="Open an incident, or restart all charts (to count alarms).")
    ] = OnFinding.INCIDENT,
    label_delay: Annotated[int, typer.Option(help="Deliver each label so many rows late.", min=0)] = 0,
    events_per_second: Annotated[
        float | None, typer.Option(help="Traffic, for the threshold by event time.", min=1e-9)
    ] = None,
    calibrate_seconds: Annotated[
        float | None, typer.Option(help="Work limit of the calibration; 0 keeps the ceiling.", min=0.0)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the calibration.")] = 0,
    training_data: Annotated[
        Path | None, typer.Option(help="Rows that the model was trained on: who asks about them is found.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a finding, last a summary.")] = False,
) -> None:
    """Build a profile from the first rows of a file, watch the rest, print what was found."""
    from regate.daemon.backtest import Backtest, Options
    from regate.daemon.files.table import read_table

    started = time.perf_counter()
    table = read_table(file, None if config is None else load(ModelConfig, config))
    options = Options(
        reference_rows=reference_rows,
        clock=clock.value,
        budget_events=budget_events,
        on_finding=on_finding.value,
        label_delay=label_delay,
        events_per_second=events_per_second,
        calibrate_seconds=calibrate_seconds,
        seed=seed,
        trained=training_data,
    )
    run = Backtest(table, options)
    found: list[dict[str, Any]] = []
    with progress_bars() as report:
        run.build(report)
        watching = time.perf_counter()
        for finding in run.findings(report):
            found.append(finding)
            if as_json:
                sys.stdout.write(json.dumps(finding, ensure_ascii=False, allow_nan=False) + "\n")
    ended = time.perf_counter()
    summary = _summary(run, found, ended - started, ended - watching)
    if as_json:
        sys.stdout.write(json.dumps(summary, ensure_ascii=False, allow_nan=False) + "\n")
        sys.stdout.flush()
    else:
        _show(found, summary)


def _summary(run: Backtest, found: list[dict[str, Any]], seconds: float, watching: float) -> dict[str, Any]:
    profile, options = run.profile, run.options
    watched = run.table.rows - options.reference_rows
    counts = {"/".join(place): number for place, number in sorted(run.table.refused.items())}
    return {
        "type": "summary",
        "rows": run.table.rows,
        "findings": sum(finding["type"] == "finding" for finding in found),
        "seconds": round(seconds, 3),
        "rows_per_second": round(watched / max(watching, 1e-9)),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "reference_rows": options.reference_rows,
        "clock": options.clock,
        "seed": options.seed,
        "profile": profile.digest,
        "thresholds": dict(
            zip(
                [f"{10**traffic:.6g}" for traffic in profile.calibration.log10_traffic],
                profile.calibration.log10_threshold,
                strict=True,
            )
        ),
        "charts": sum(chart.watchable for chart in profile.charts),
        "unwatchable": [{"chart": chart.name, "reason": chart.reason} for chart in profile.unwatchable],
        "dropped": list(profile.dropped),
        "refused": counts,
        "counters": run.counters,
        "estimate": run.estimate,
        "fairness": run.fairness,
        "notes": [*run.notes, *profile.notes, *([profile.calibration.note] if profile.calibration.note else [])],
    }


def _show(found: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    console = Console()
    if found:
        table = RichTable("row", "since", "kind", "subject", "evidence", "threshold", "what", title="Findings")
        for one in found:
            kind = one["revision"] or one["kind"]
            table.add_row(
                str(one["row"]),
                str(one["first_row"]),
                kind,
                one["subject"],
                f"10^{one['evidence']:.1f}",
                f"10^{one['threshold']:.1f}",
                one["message"].replace("[", r"\["),
            )
        console.print(table)
    else:
        console.print("No finding.")
    console.print(
        f"{summary['rows']} rows, {summary['reference_rows']} of them reference · {summary['findings']} findings · "
        f"{summary['charts']} charts · {summary['rows_per_second']} rows/s · {summary['seconds']} s · "
        f"{summary['peak_rss_mb']} MB"
    )
    if summary["estimate"] and not summary["estimate"]["valid"]:
        console.print(
            f"the estimated error is not valid since row {summary['estimate']['since_row']}: "
            f"{summary['estimate']['reason']}"
        )
    for chart in summary["unwatchable"]:
        console.print(f"not watched: {chart['chart']}: {chart['reason']}", markup=False)
    for note in summary["notes"]:
        console.print(f"note: {note}", markup=False)
