"""Which code is this? Version and a digest of the sources, carried by journals, capsules and events."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

import regate.config
import regate.daemon
import regate.detectors
import regate.scenarios


def version() -> str:
    """Return the installed version."""
    return metadata.version("regate")


@cache
def build_digest() -> str:
    """Return ``sha256:<hex>`` over the path and bytes of every source and data file of the four packages."""
    total = hashlib.sha256()
    for package in (regate.config, regate.daemon, regate.detectors, regate.scenarios):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*")):
            if path.suffix in {".py", ".yaml", ".json"} and path.is_file():
                total.update(f"{package.__name__}/{path.relative_to(root)}\0".encode())
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return "sha256:" + total.hexdigest()
