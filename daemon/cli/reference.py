"""Generated pages: `docs/cli.md` from the verbs, `docs/configuration.md` from the typed settings.

``python -m regate.daemon.cli.reference docs`` writes both.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from regate.config.errors import ConfigError
from regate.config.model import ModelConfig
from regate.config.policy import Policy
from regate.config.settings import Settings

WIDTH = 100
HEAD = """\
# The command line

The `--help` of every verb, generated: `python -m regate.daemon.cli.reference docs` writes it anew. What the exit codes
ask for is in [operations](operations.md).
"""


def reference_text() -> str:
    """Return the document: every verb in the order of `regate --help`, each group followed by its verbs."""
    from regate.daemon.cli.main import app

    return "\n".join([HEAD, *_sections(typer.main.get_command(app), "regate", None)])


def _sections(command: Any, name: str, parent: Any) -> Iterator[str]:
    """Yield a heading and the help of a command, then of those below it.

    Plain help, of a fixed width: the boxes of the terminal depend on the terminal.
    """
    command.rich_markup_mode = None
    context = command.context_class(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH
    )
    yield f"## {context.command_path}\n\n```\n{command.get_help(context).strip()}\n```\n"
    for below, found in getattr(command, "commands", {}).items():
        yield from _sections(found, below, context)


CONFIGURATION = """\
# Configuration

Every key of the three documents, generated: `python -m regate.daemon.cli.reference docs` writes it anew. Unknown keys
are refused with file and line (`regate check-config`). Units stand in the names. What the rules of a policy mean is in
[gate](gate.md).
"""
ABOUT: dict[type[BaseModel], str] = {
    ModelConfig: "`kind: Model`: what telemetry means and what is promised about it. `regate init` writes one.",
    Policy: "`kind: Policy`: which findings and check outcomes move a verdict, and how it moves back.",
    Settings: "Settings of the daemon, `regate.yaml` or `--settings FILE`: read once, before anything starts.",
}


def configuration_text() -> str:
    """Return the document: every key with its type and default, part by part."""
    parts = [CONFIGURATION]
    for root, about in ABOUT.items():
        parts.append(f"## {root.__name__}\n\n{about}\n")
        parts += [_part(model, heading=model is not root) for model in _below(root)]
    return "\n".join(parts)


def _below(root: type[BaseModel]) -> list[type[BaseModel]]:
    """Return a model and those in its fields, each once, in the order in which they are met."""
    found = [root]
    for model in found:
        for info in model.model_fields.values():
            found += [part for part in _models(info.annotation) if part not in found]
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _part(model: type[BaseModel], *, heading: bool) -> str:
    about = (model.__doc__ or "").strip().splitlines()[0]
    lines = [f"### {model.__name__}\n\n{about}\n"] if heading else []
    lines.append("| key | type | default |\n|---|---|---|")
    for name, info in model.model_fields.items():
        lines.append(f"| `{name}` | {_type(info.annotation)} | {_default(info)} |")
    return "\n".join(lines) + "\n"


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in {tuple, list}:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"{_type(arguments[0])} → {_type(arguments[1])}"
    if origin is Annotated:
        return _type(arguments[0])
    if arguments:
        return " or ".join(_type(argument) for argument in arguments if argument is not type(None))
    return str(getattr(annotation, "__name__", annotation))


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
        return "the shipped rules"
    return f"`{json.dumps(value, default=str)}`"


def main(arguments: list[str]) -> None:
    """Write the pages into the folder named on the command line."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        raise ConfigError("name the folder of the pages", hint="python -m regate.daemon.cli.reference docs")
    for name, text in (("cli.md", reference_text()), ("configuration.md", configuration_text())):
        page = Path(arguments[0]) / name
        page.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{page}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
