"""Texts that are no prompts: docstrings, licences, README and manual paragraphs of what is installed here."""

from __future__ import annotations

import ast
import gzip
import random
import re
import sysconfig
from pathlib import Path

_LEAST = 80
_MOST_BYTES = 400_000


def benign_texts(count: int, seed: int) -> list[str]:
    """Return ``count`` different texts, some six in ten of them docstrings."""
    rng = random.Random(seed)
    library = Path(sysconfig.get_paths()["purelib"])
    docstrings = _drawn(sorted(library.rglob("*.py")), count * 6 // 10, rng, _docstrings)
    papers = [path for path in sorted(library.glob("*.dist-info/**/*")) if path.name != "RECORD"]
    papers += sorted(Path("/usr/share/doc").rglob("*"))
    papers += sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.txt"))
    found = _drawn(papers, count - len(docstrings), rng, _paragraphs)
    found += _drawn(sorted(library.rglob("*.py")), count - len(docstrings) - len(found), rng, _docstrings)
    return docstrings + found


def _drawn(paths: list[Path], count: int, rng: random.Random, texts) -> list[str]:
    found: dict[str, None] = {}
    rng.shuffle(paths)
    for path in paths:
        if len(found) >= count:
            break
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            continue
        data = path.read_bytes()
        try:
            whole = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
            some = texts(whole)
        except (UnicodeDecodeError, OSError, EOFError, SyntaxError, ValueError):
            continue
        found |= dict.fromkeys(rng.sample(some, min(12, len(some))))
    return list(found)[:count]


def _docstrings(source: str) -> list[str]:
    nodes = ast.walk(ast.parse(source))
    texts = [
        ast.get_docstring(node) or "" for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module)
    ]
    return [text for text in texts if len(text) >= _LEAST]


def _paragraphs(paper: str) -> list[str]:
    return [part for part in [*re.split(r"\n\s*\n", paper), paper] if len(part) >= _LEAST]
