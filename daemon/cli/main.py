"""`regate`: one verb a file. Errors of our own tree become one clear line and their exit code."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from regate.config.errors import ConfigError, RegateError
from regate.daemon.cli import apply as apply_verb
from regate.daemon.cli import (
    backtest,
    budget,
    check_config,
    demo,
    deploy,
    gate,
    init,
    kafka,
    patterns,
    produce,
    profile,
    replay,
    run,
    status,
    topics,
    validate,
    version,
)

EXIT_CODES = (
    "Exit codes: 0 done (gate: approve) · 1 hold or worse, or a failed check · 2 error or wrong usage · "
    "3 inconclusive · 65 bad input · 70 broken invariant · 75 try again · 76 fenced by another process · "
    "78 bad configuration."
)

app = typer.Typer(
    name="regate",
    help="A model's approval is a lease, not a stamp.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("run")(run.run)
app.command("demo")(demo.demo)
app.command("init")(init.init)
app.command("produce")(produce.produce)
app.command("apply")(apply_verb.apply)
app.command("backtest")(backtest.backtest)
app.command("validate")(validate.validate)
app.command("status")(status.status)
app.command("deploy")(deploy.deploy)
app.command("replay")(replay.replay)
app.command("check-config")(check_config.check_config)
app.command("version")(version.version)
app.add_typer(gate.app, name="gate")
app.add_typer(kafka.app, name="kafka")
app.add_typer(topics.app, name="topics")
app.add_typer(profile.app, name="profile")
app.add_typer(budget.app, name="budget")
app.add_typer(patterns.app, name="patterns")


def main() -> None:
    """Run the command line."""
    try:
        app()
    except RegateError as error:
        console = Console(stderr=True, soft_wrap=True)
        console.print(f"[bold red]error:[/] {_plain(error.message)}")
        if error.hint:
            console.print(f"[dim]next:[/] {_plain(error.hint)}")
        sys.exit(error.exit_code)
    except OSError as error:
        # A file or folder that the user named; anything without a name is a defect of ours, to be seen whole.
        if error.filename is None:
            raise
        console = Console(stderr=True, soft_wrap=True)
        console.print(f"[bold red]error:[/] {_plain(f'cannot use {error.filename}: {error.strerror}')}")
        console.print("[dim]next:[/] check that the path and its folder exist and may be used")
        sys.exit(ConfigError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()
