"""The environment of a run: what may make the same seed give another answer, and its digest."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from regate.config.canonical import digest

PACKAGES = ("regate", "numpy", "onnxruntime", "msgspec", "pyarrow")


def capture(target: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return the environment as text by name. ``target``: what the target said of itself in `describe`."""
    found = {f"package.{name}": _version(name) for name in PACKAGES}
    found |= {
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpus": str(os.cpu_count() or 0),
        "blas_threads": "1",  # the sandbox pins them, see regate.scenarios.sandbox.process
        "topology": "one sandboxed process, one thread",
        "target.digest": str(target.get("digest", "")),
        "target.kind": str(target.get("kind", "")),
        "target.runtime": f"onnxruntime {target.get('onnxruntime', '')} numpy {target.get('numpy', '')}",
        "sandbox.network": str(target.get("network", "")),
    }
    if baseline is not None:
        found["baseline.digest"] = str(baseline.get("digest", ""))
    return found


def environment_digest(environment: Mapping[str, str]) -> str:
    """Return the digest under which equal run digests are promised."""
    return digest(dict(environment))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    """Return the CPU's name: its instruction set decides how a sum is vectorised."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor() or "unknown"
    return platform.processor() or "unknown"
