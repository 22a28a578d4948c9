"""The play: deploy, watch the suite pass, send the stream with late labels, tell what the daemon did with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from regate.config.canonical import content_id
from regate.daemon.bus.placement import partition_of
from regate.daemon.bus.port import OutRecord
from regate.daemon.demo.account import Account, Tail
from regate.daemon.demo.data import Parts, write_applications
from regate.daemon.demo.served import Served, serve
from regate.daemon.demo.stage import Stage, daemon, stage
from regate.daemon.wire.cloudevents import encode_event
from regate.daemon.wire.encode import plan_times
from regate.daemon.wire.internal import Command
from regate.daemon.wire.sending import Sending, send
from regate.scenarios.contracts import TargetSpec

DEPLOY_SECONDS = 45.0  # the first suite takes some 15; more means that something is wrong, and the log says what
SETTLE_SECONDS = 30.0  # for what the last events set off
QUIET_SECONDS = 5.0
LABEL_DELAY_SECONDS = 3.0
LOOK_SECONDS = 0.4
CALIBRATE_SECONDS = 5.0
ROWS = Parts(learned=14_000, steady=8_000, population=9_000, concept=9_000)
SEED = 7


def prepare(
    data: Path | None, folder: Path, console: Console, *, seconds: float, steady: bool, seed: int
) -> tuple[Served, dict[str, int]]:
    """Return the served model and, for the built-in data, the stream rows at which something really changes."""
    truth: dict[str, int] = {}
    if data is None:
        later = ROWS.steady + ROWS.population + ROWS.concept
        parts = Parts(ROWS.learned, later, 0, 0) if steady else ROWS
        data = folder / "applications.parquet"
        write_applications(data, parts, seed)
        truth = parts.truth
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("reading", total=1.0)
        served = serve(
            data,
            folder,
            events_per_second=20_000 / seconds,
            calibrate_seconds=CALIBRATE_SECONDS,
            seed=seed,
            progress=lambda what, share: bar.update(task, description=what, completed=share),
        )
    first = served.train_rows + served.reference_rows
    return served, {what: row - first for what, row in truth.items()}


def play(
    data: Path | None,
    folder: Path,
    console: Console,
    *,
    seconds: float,
    speed: float | None,
    bootstrap_servers: str | None,
    steady: bool,
    seed: int = SEED,
) -> Account:
    """Run the demo; return what was seen on the bus."""
    console.rule("Prepare")
    served, truth = prepare(data, folder, console, seconds=seconds, steady=steady, seed=seed)
    config = served.config
    console.print(
        f"Model [bold]{config.model}[/] version {config.version}: trained on {served.train_rows} rows, "
        f"exported to ONNX; accuracy {served.accuracy:.1%} on the {served.reference_rows} rows that say what is normal."
    )
    unwatchable = len(served.profile.unwatchable)
    console.print(f"{len(served.profile.charts) - unwatchable} charts are watched, {unwatchable} cannot be.")
    with stage(folder, bootstrap_servers) as at, daemon(at, served):
        console.print(f"Kafka at {at.settings.bus.bootstrap_servers}, daemon log in {at.log}")
        reader = at.bus.reader()
        account = Account(console)
        tail = Tail(reader, at.topics, at.settings.bus.partitions)

        def look() -> None:
            for time_ms, event in tail.look():
                account.take(time_ms, event)

        console.rule("Deploy: the suite runs before live traffic")
        _deploy(at, served)
        _until(lambda: bool(account.runs) and not account.busy(), look, DEPLOY_SECONDS)
        console.rule(f"Serve {served.stream.rows} events, labels {LABEL_DELAY_SECONDS:g} s late")
        _stream(at, served, seconds, speed, look, console, truth)
        _until(lambda: time.time() * 1000 - account.last_ms > QUIET_SECONDS * 1000 and not account.busy(), look)
        reader.close()
    account.tell()
    console.print(f"Where to look: {at.log} (daemon), {at.settings.artefacts} (capsules, windows), {folder} (models)")
    return account


def _deploy(at: Stage, served: Served) -> None:
    config = served.config
    target, baseline = config.target, config.baseline
    if target is None or baseline is None:
        return
    now = time.time_ns() // 1_000_000
    command = Command(
        id=content_id("demo", config.model, now),
        kind="deploy",
        tenant=config.tenant,
        model=config.model,
        deployment=config.deployment,
        model_version=config.version,
        target=TargetSpec(uri=target.uri, digest=target.digest, name=config.model, version=config.version),
        baseline=TargetSpec(
            uri=baseline.target.uri, digest=baseline.target.digest, name=baseline.name, version=baseline.version
        ),
        actor="demo",
        reason="first deployment",
        issued_ms=now,
    )
    value, headers = encode_event("command", command.id, command.scope, now, command)
    placement = f"{config.tenant}/{config.model}"
    writer = at.bus.writer()
    writer.send(
        OutRecord(
            at.topics.name("commands"),
            value,
            command.scope.encode(),
            headers,
            partition_of(placement, at.settings.bus.partitions),
        )
    )
    writer.flush()
    writer.close(5.0)


def _stream(
    at: Stage,
    served: Served,
    seconds: float,
    speed: float | None,
    look: Callable[[], None],
    console: Console,
    truth: dict[str, int],
) -> None:
    table = served.stream
    start_us = time.time_ns() // 1000
    times = table.event_time_us()
    if speed is None and times is not None:
        speed = max(1.0, float(times.max() - times.min()) / 1e6 / seconds)
    rate = None if times is not None else table.rows / seconds
    planned = plan_times(table, start_us, speed=speed, rate=rate)
    per_second = table.rows / max(1.0, (planned.max() - start_us) / 1e6) if planned is not None else table.rows
    untold = dict(truth)
    looked = 0.0

    def wait(pause: float) -> None:
        nonlocal looked
        if time.monotonic() - looked >= LOOK_SECONDS:
            look()
            looked = time.monotonic()
        else:
            time.sleep(pause)

    def tell(sent: int) -> None:
        for what, row in list(untold.items()):
            if sent >= row:
                console.print(
                    f"[dim]--- in truth, from here on the {what} (event {row}); the daemon is not told ---[/]"
                )
                del untold[what]

    writer = at.bus.writer()
    how = Sending(
        telemetry=at.topics.name("telemetry"),
        labels=at.topics.name("labels"),
        key="none",
        label_delay_rows=int(per_second * LABEL_DELAY_SECONDS),
    )
    send(
        table,
        writer,
        how,
        times_us=planned,
        run=f"demo-{start_us:x}",
        now_us=lambda: time.time_ns() // 1000,
        wait=wait,
        progress=lambda sent: tell(sent.events),
    )
    writer.close(10.0)


def _until(done: Callable[[], bool], look: Callable[[], None], seconds: float = SETTLE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        look()
        if done():
            return
        time.sleep(LOOK_SECONDS)
