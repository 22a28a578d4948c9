"""`regate profile build|show`: describe "normal", and read what can be promised with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table as RichTable

from regate.config.errors import ConfigError
from regate.config.loading import load
from regate.config.model import ModelConfig
from regate.daemon.cli.connection import SettingsFile
from regate.daemon.cli.progress import progress_bars

if TYPE_CHECKING:
    from regate.detectors.profile import Profile

app = typer.Typer(no_args_is_help=True, help="Build and show reference profiles.")

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("build")
def build(
    source: Annotated[str, typer.Argument(help="A file (Parquet, Arrow, CSV, JSON-lines), or a topic.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the profile; apply takes *.profile.")],
    config: Annotated[Path | None, typer.Option(help="Model configuration; a topic needs one.")] = None,
    reference_rows: Annotated[int | None, typer.Option(help="Only the first rows of a file.", min=1)] = None,
    since: Annotated[str | None, typer.Option(help="Topic: from this time on, ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Topic: up to this time, ISO 8601; default now.")] = None,
    labels_topic: Annotated[str | None, typer.Option(help="Topic: late labels, for the error chart.")] = None,
    events_per_second: Annotated[float | None, typer.Option(help="Traffic to calibrate for.", min=1e-9)] = None,
    budget_events: Annotated[float | None, typer.Option(help="Or: events with one nominal false alarm.", min=1)] = None,
    calibrate_seconds: Annotated[
        float | None, typer.Option(help="Work limit of the calibration; 0 keeps the ceiling.", min=0.0)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the calibration.")] = 0,
    training_data: Annotated[
        Path | None, typer.Option(help="Rows that the model was trained on; only a salted filter of them is kept.")
    ] = None,
    accepts: Annotated[
        list[str] | None, typer.Option(help="Topic: incident whose rows are the new normal; others are left out.")
    ] = None,
    settings: SettingsFile = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka, host:port[,host:port].")] = None,
    as_json: AsJson = False,
) -> None:
    """Build the profile of one model from a file of normal telemetry, or from a topic."""
    from regate.daemon.profiles import Request, from_file, from_topic

    request = Request(events_per_second, budget_events, calibrate_seconds, seed, training_data)
    model = None if config is None else load(ModelConfig, config)
    with progress_bars() as report:
        if Path(source).is_file():
            profile = from_file(Path(source), model, reference_rows, request, report)
        elif model is None:
            raise ConfigError(
                f"{source} is no file here, and a topic needs a model configuration",
                hint="regate init --from " + source + ", then --config",
            )
        else:
            from regate.daemon.cli.connection import connect
            from regate.daemon.control import key_of
            from regate.daemon.incidents import quarantined, read_stories

            link = connect(settings, bootstrap_servers)
            profile = from_topic(
                link.bus,
                source,
                labels_topic,
                model,
                since,
                until,
                link.settings.limits,
                request,
                report,
                quarantined(read_stories(link.bus, link.topics), key_of(model), frozenset(accepts or [])),
            )
    out.write_bytes(profile.to_bytes())
    _say(profile, as_json, f"wrote {out}; put it on the bus with: regate apply -f {out}")


@app.command("show")
def show(file: Annotated[Path, typer.Argument(help="A profile file.")], as_json: AsJson = False) -> None:
    """Show what a profile watches: margins, dependence, thresholds, and what it would find."""
    from regate.daemon.profiles import read_profile

    _say(read_profile(file), as_json, "")


@app.command("accept")
def accept(
    incident: Annotated[str, typer.Argument(help="Id of an open incident: regate status, or the findings topic.")],
    *,
    actor: Annotated[str, typer.Option(help="Who decides this.")],
    reason: Annotated[str, typer.Option(help="Why the change is normal from now on.")],
    ticket: Annotated[str, typer.Option(help="Where it was discussed.")] = "",
    profile: Annotated[
        Path | None, typer.Option(help="The new normal, put in force with it; without one the charts start over.")
    ] = None,
    settings: SettingsFile = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Kafka, host:port[,host:port].")] = None,
    as_json: AsJson = False,
) -> None:
    """Accept a change as the new normal: its incident ends, and the suite must still pass before the gate opens."""
    from regate.daemon.apply import accept_change
    from regate.daemon.cli.connection import connect
    from regate.daemon.incidents import find, read_stories
    from regate.detectors.profile import Profile

    made = None if profile is None else Profile.from_bytes(profile.read_bytes())
    link = connect(settings, bootstrap_servers)
    story = find(read_stories(link.bus, link.topics), incident)
    if made is not None and made.key != story.key:
        raise ConfigError(
            f"{profile} describes {made.key}, the incident is of {story.key}", hint="regate profile build"
        )
    accept_change(link.bus, link.topics, story, made, actor=actor, reason=reason, ticket=ticket)
    if as_json:
        typer.echo(json.dumps({"accepted": incident, "model": str(story.key), "profile": made and made.digest}))
    else:
        typer.echo(f"accepted {incident} ({story.finding.subject} of {story.key}); regate status shows the next run")


def _say(profile: Profile, as_json: bool, last: str) -> None:
    if as_json:
        typer.echo(json.dumps(described(profile), ensure_ascii=False, allow_nan=False))
        return
    console = Console()
    table = RichTable("chart", "tau", "margin", "smallest effect", "expected delay (events)", title=str(profile.key))
    for chart in profile.charts:
        if chart.watchable:
            delays = ", ".join(f"{effect:.3g}: {events:.0f}" for effect, events in chart.delays)
            table.add_row(
                chart.name.replace("[", r"\["),
                f"{chart.tau:.3g}",
                f"{chart.margin:.3g}",
                f"{chart.minimal_effect:.3g} {chart.unit}",
                delays,
            )
    console.print(table)
    calibration = profile.calibration
    for traffic, log_h in zip(calibration.log10_traffic, calibration.log10_threshold, strict=True):
        console.print(
            f"threshold at {10**traffic:.4g} events a period: {10**log_h:.3g} (the ceiling is 1)", highlight=False
        )
    for chart in profile.unwatchable:
        console.print(f"not watched: {chart.name}: {chart.reason}", markup=False, highlight=False)
    for one in profile.river:
        verdict = "within its budget" if one.rate <= one.allowed else "trusted, beyond it" if one.trusted else "advice"
        console.print(
            f"river: {one.detector} on {one.chart}: at most {one.rate:.3g} false alarms a block, "
            f"allowed {one.allowed:.3g}: {verdict}",
            markup=False,
            highlight=False,
        )
    for name in profile.dropped:
        console.print(f"dropped, beyond max_charts: {name}", markup=False, highlight=False)
    for note in (*profile.notes, calibration.note, *(f"tau widened: {name}" for name in calibration.widened)):
        if note:
            console.print(f"note: {note}", markup=False, highlight=False)
    console.print(f"{profile.rows} reference rows · {profile.digest}", highlight=False)
    if last:
        console.print(last, markup=False, highlight=False)


def described(profile: Profile) -> dict[str, Any]:
    """Return what ``show --json`` prints."""
    calibration = profile.calibration
    return {
        "digest": profile.digest,
        "key": str(profile.key),
        "rows": profile.rows,
        "strata": profile.strata,
        "events_per_period": profile.budget_events,
        "thresholds": [
            {"events_per_period": round(10**traffic, 6), "log10_threshold": log_h, "log10_ceiling": 0.0}
            for traffic, log_h in zip(calibration.log10_traffic, calibration.log10_threshold, strict=True)
        ],
        "calibration": {
            "blocks_simulated": calibration.block_updates,
            "capped": calibration.capped,
            "widened": list(calibration.widened),
            "note": calibration.note,
        },
        "charts": [
            {
                "name": chart.name,
                "kind": chart.kind,
                "unit": chart.unit,
                "tau": chart.tau,
                "margin": chart.margin,
                "rows": chart.rows,
                "watchable": chart.watchable,
                "reason": chart.reason,
                "minimal_effect": chart.minimal_effect if chart.watchable else None,
                "delays": [{"effect": effect, "events": events} for effect, events in chart.delays],
                "digest": chart.digest,
            }
            for chart in profile.charts
        ],
        "river": [
            {
                "detector": one.detector,
                "chart": one.chart,
                "false_alarms_a_block": one.rate,
                "allowed_a_block": one.allowed,
                "counts": one.counts,
            }
            for one in profile.river
        ],
        "dropped": list(profile.dropped),
        "notes": list(profile.notes),
    }
