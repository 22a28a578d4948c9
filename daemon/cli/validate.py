"""`regate validate`: one suite on one model file, here and now, with an exit code for CI."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regate.config.errors import ConfigError

if TYPE_CHECKING:
    from regate.config.model import ModelConfig
    from regate.scenarios.catalog.loading import Catalog
    from regate.scenarios.contracts import RunRequest, RunResult
    from regate.scenarios.rows import Rows
    from regate.scenarios.subject import Lanes

EXIT = {"pass": 0, "warn": 0, "fail": 1, "error": 2, "inconclusive": 3, "skipped": 3}
COLOURS = {"pass": "green", "fail": "red", "error": "red", "inconclusive": "yellow", "warn": "yellow"}


def validate(
    target: Annotated[Path | None, typer.Option(help="The model: an ONNX file.")] = None,
    config: Annotated[Path | None, typer.Option(help="The model's configuration (YAML).")] = None,
    suite: Annotated[str, typer.Option(help="Which suite of the catalog.")] = "default",
    rows: Annotated[
        Path | None, typer.Option(help="Served requests (Parquet, Arrow, CSV, JSON lines) for window and cohorts.")
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="An ONNX file to agree with.")] = None,
    profile: Annotated[
        Path | None, typer.Option(help="The model's profile: its attack lanes listen to replayed attacks.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Root seed; the configuration's by default.")] = None,
    budget: Annotated[float | None, typer.Option(help="Seconds; the configuration's by default.")] = None,
    catalog: Annotated[list[Path] | None, typer.Option(help="A further folder of scenarios and suites.")] = None,
    artefacts: Annotated[Path | None, typer.Option(help="Keep rows and recorded stream in this folder.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List suites, scenarios and checks, and run nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Run a suite on a model file. Exit codes: 0 pass, 1 fail, 2 error, 3 inconclusive."""
    from regate.scenarios.catalog.loading import load_catalog

    library = load_catalog(catalog or [])
    if list_:
        _list(library, as_json=as_json)
        return
    if target is None or config is None:
        raise ConfigError("--target and --config are needed", hint="`regate init --from FILE` writes a configuration")
    model = _model(config)
    request = _request(model, target, baseline, suite, seed)
    seconds = budget or model.validation.budget_seconds
    result = _run(request, model, _rows(rows, model), library, artefacts, seconds, profile)
    if junit is not None:
        from regate.daemon.validate.junit import junit as document

        junit.write_bytes(document(result))
    if as_json:
        sys.stdout.write(result.model_dump_json(indent=2) + "\n")
    else:
        _print(result)
    raise typer.Exit(EXIT[result.outcome])


def _model(path: Path) -> ModelConfig:
    from regate.config.loading import load
    from regate.config.model import ModelConfig

    return load(ModelConfig, path)


def _request(model: ModelConfig, target: Path, baseline: Path | None, suite: str, seed: int | None) -> RunRequest:
    from regate.config.canonical import content_id, digest_bytes
    from regate.scenarios.contracts import RunRequest, TargetSpec

    def spec(path: Path) -> TargetSpec:
        try:
            return TargetSpec(uri=str(path), digest=digest_bytes(path.read_bytes()), name=path.stem)
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check the path") from error

    now = time.time_ns() // 1_000_000
    scope = f"{model.tenant}/{model.model}/{model.deployment}"
    ours = spec(target)
    root = model.validation.seed if seed is None else seed
    return RunRequest(
        id=content_id("cli", scope, ours.digest, suite, root, now),
        scope=scope,
        tenant=model.tenant,
        model=model.model,
        model_version=model.version,
        deployment=model.deployment,
        # Rows of a file were not necessarily served by this very artefact, so it is a candidate for them.
        role="candidate",
        target=ours,
        baseline=None if baseline is None else spec(baseline),
        suite=suite,
        seed=root,
        trigger_kind="manual",
        trigger_id="cli",
        requested_ms=now,
        deadline_ms=now + 86_400_000,
    )


def _rows(path: Path | None, model: ModelConfig) -> Rows | None:
    from dataclasses import replace

    from regate.daemon.validate.reference import reference_rows, rows_of_file

    if path is None:
        return reference_rows(model)
    return replace(rows_of_file(path, model), source="window")


def _run(
    request: RunRequest,
    model: ModelConfig,
    rows: Rows | None,
    library: Catalog,
    artefacts: Path | None,
    budget: float,
    profile: Path | None,
) -> RunResult:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from regate.daemon.artefacts import LocalStore
    from regate.daemon.validate.worker import DigestOnly
    from regate.scenarios.runner import Surroundings, run_suite
    from regate.scenarios.stream import Store
    from regate.scenarios.subject import NoLanes

    lanes: Lanes = NoLanes("no profile was given: --profile") if profile is None else _lanes(profile, model)

    store: Store = DigestOnly() if artefacts is None else LocalStore(artefacts)
    if rows is not None:
        store.put(f"rows-{rows.digest().removeprefix('sha256:')}.arrow", rows.to_arrow())
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def tell(done: int, total: int, what: str) -> None:
            progress.update(task, completed=done, total=total, description=what[:60])

        around = Surroundings(progress=tell, lanes=lanes)
        return run_suite(request, model, rows, store, budget_seconds=budget, catalog=library, around=around)


def _lanes(path: Path, model: ModelConfig) -> Lanes:
    from regate.daemon.profiles import read_profile
    from regate.daemon.validate.lanes import lanes_of

    profile = read_profile(path)
    if profile.key.placement != f"{model.tenant}/{model.model}":
        raise ConfigError(
            f"{path} describes {profile.key}, the configuration {model.tenant}/{model.model}", hint="check --profile"
        )
    return lanes_of(profile)


def _print(result: RunResult) -> None:
    from rich.console import Console
    from rich.table import Table

    from regate.daemon.validate.junit import described

    console = Console()
    table = Table("outcome", "check", "observed against bound", box=None, pad_edge=False)
    for check in result.checks:
        colour = COLOURS.get(check.outcome, "dim")
        table.add_row(f"[{colour}]{check.outcome}[/]", _plain(check.id), _plain(described(check)))
    console.print(table)
    console.print(
        f"\n[bold {COLOURS.get(result.outcome, 'dim')}]{result.outcome}[/]: suite {result.suite} "
        f"{result.suite_version} on {result.target_digest[:19]}…, seed {result.seed}, {result.passed} passed, "
        f"{result.failed} failed, {result.errored} errors, {result.inconclusive} inconclusive, "
        f"{result.skipped} skipped, {result.seconds} s"
    )
    console.print(f"run digest {result.digest}", highlight=False, soft_wrap=True)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _list(library: Catalog, *, as_json: bool) -> None:
    if as_json:
        import json

        found = {
            name: {
                "version": suite.version,
                "digest": library.suite_digest(name),
                "scenarios": [record.content | {"digest": record.digest} for record in library.suite(name)[1]],
            }
            for name, suite in library.suites.items()
        }
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return
    for name in sorted(library.suites):
        suite, records = library.suite(name)
        typer.echo(f"{name} {suite.version} — {suite.title}")
        for record in records:
            typer.echo(f"  {record.id} {record.version} — {record.title}")
            for check, bound in record.bounds.items():
                critical = " critical" if bound.critical else ""
                typer.echo(f"    {record.id}/{check} {bound.comparator} {bound.bound:g} {bound.unit}{critical}")
    for record in library.records.values():
        if record.status == "queued":
            typer.echo(f"queued for review, in no suite: {record.id} {record.version} — {record.title}")
