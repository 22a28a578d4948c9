"""The local artefact store: bytes by digest, names that point at them; every read is checked.

Layout under its root: ``objects/<2 hex>/<62 hex>`` and ``names/<name>`` (a small file that holds the digest).
Objects never change; a name may move, since an orphan of a step that was not committed may have taken it first.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from regate.config.canonical import digest_bytes
from regate.config.errors import ConfigError, FatalError, RetryableError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class LocalStore:
    """Artefacts in a folder of this machine. Safe for several threads and processes: files appear by rename."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, name: str, data: bytes) -> str:
        """Keep bytes under a name; return their digest. Writing the same twice is writing it once.

        :raises FatalError: when the name could leave the folder.
        :raises RetryableError: when the disk does not take it.
        """
        digest = digest_bytes(data)
        place = self._object(digest)
        try:
            if not place.exists():
                _write(place, data)
            _write(self._name(name), digest.encode())
        except OSError as error:
            raise RetryableError(
                f"artefact {name} could not be written: {error.strerror}", hint=f"check the disk under {self._root}"
            ) from error
        return digest

    def get(self, name: str) -> bytes:
        """Return the bytes of a name or of a digest.

        :raises ConfigError: when there is no such artefact.
        :raises FatalError: when the bytes are not those that were put.
        """
        digest = name
        try:
            if not _DIGEST.fullmatch(name):
                digest = self._name(name).read_text().strip()
            data = self._object(digest).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"no artefact {name} under {self._root}", hint="check `artefacts` in the settings"
            ) from error
        if digest_bytes(data) != digest:
            raise FatalError(f"artefact {name} is damaged: it is not {digest}", hint="restore it from a copy")
        return data

    def names(self, prefix: str = "") -> list[str]:
        """Return the names that begin so, sorted."""
        folder = self._root / "names"
        return sorted(path.name for path in folder.glob(f"{prefix}*") if _NAME.fullmatch(path.name))

    def _name(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise FatalError(f"{name!r} cannot name an artefact", hint="letters, digits, dot, dash, underscore")
        return self._root / "names" / name

    def _object(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise FatalError(f"{digest!r} is no digest", hint="restore the artefact store from a copy")
        text = digest.removeprefix("sha256:")
        return self._root / "objects" / text[:2] / text[2:]


def _write(place: Path, data: bytes) -> None:
    """Write whole or not at all: a reader, or a crash, never sees half a file."""
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=place.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(place)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
