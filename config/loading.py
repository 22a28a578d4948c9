"""YAML in, settings out: safe loading, and errors that name file, line and key."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from regate.config.errors import ConfigError

M = TypeVar("M", bound=BaseModel)

# A settings file is written by a person; more is a mistake or an attack (alias bombs grow from little).
MAX_BYTES = 4_000_000


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys, which YAML would resolve by silently dropping one."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _documents(text: str, source: str) -> Iterator[tuple[Any, Node]]:
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{source}: {len(text)} characters are more than {MAX_BYTES}", hint="split the file")
    if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
        raise ConfigError(f"{source}: YAML aliases are not used here", hint="write the value out")
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is None:
                return
            yield loader.construct_document(node), node
    finally:
        loader.dispose()


def line_of(node: Node, path: tuple[int | str, ...]) -> int:
    """Return the 1-based line where the value at ``path`` stands, or its nearest parent that does."""
    for step in path:
        if isinstance(node, MappingNode):
            for key_node, value_node in node.value:
                if isinstance(key_node, ScalarNode) and key_node.value == str(step):
                    node = value_node if not isinstance(value_node, ScalarNode) else key_node
                    break
            else:
                break
        elif isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
        else:
            break
    return int(node.start_mark.line) + 1


def load_documents(path: Path) -> list[tuple[Any, Node]]:
    """Return every YAML document of a file with its node tree (for line numbers).

    :raises ConfigError: when the file is missing, not UTF-8, not YAML, or uses aliases or duplicate keys.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: {error.reason}", hint="save it as UTF-8") from error
    try:
        return list(_documents(text, str(path)))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError(f"{path}:{line}: {error.problem}", hint="mend the YAML at that line") from error


def parse(kind: type[M], data: Any, node: Node, source: str) -> M:
    """Validate plain data; every problem is named with file, line and key.

    :raises ConfigError: listing all problems, one a line.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"]) or "(top level)"
            text = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"]
            lines.append(f"{source}:{line_of(node, problem['loc'])}: {where}: {text}")
        raise ConfigError("\n".join(lines), hint=f"docs/configuration.md has every key of {kind.__name__}") from error


def load(kind: type[M], path: Path) -> M:
    """Load one document of one kind from a YAML file."""
    documents = load_documents(path)
    if len(documents) != 1:
        raise ConfigError(f"{path}: expected one YAML document, found {len(documents)}")
    data, node = documents[0]
    return parse(kind, data, node, str(path))
