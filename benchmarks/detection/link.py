"""Peers run as workers: one process a library, npz in, JSON out. regate's own process imports no peer."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

WORKERS = Path(__file__).parent / "workers"
ENVIRONMENTS = Path(__file__).resolve().parents[2] / ".bench"
START_SECONDS = 240.0
GRACE_SECONDS = 240.0  # over a job's own limit, before its worker is given up


class PeerError(Exception):
    """A peer could not be run; the message is the reason that the table gives."""


def interpreter(home: str) -> Path:
    """Return the Python of an environment.

    :raises PeerError: when it was not made.
    """
    if home == "regate":
        return Path(sys.executable)
    found = ENVIRONMENTS / home / "bin" / "python"
    if not found.exists():
        failed = ENVIRONMENTS / f"{home}.failed"
        why = failed.read_text().strip() if failed.exists() else "it was not made"
        raise PeerError(f"the environment .bench/{home} does not exist: {why}")
    return found


@dataclass
class Link:
    """Starts a worker when it is first asked for; one that dies or hangs is given up with the reason."""

    folder: Path
    _running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _dead: dict[str, str] = field(default_factory=dict)
    _jobs: int = 0

    def ask(self, home: str, library: str, job: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Run one job.

        :raises PeerError: when the library cannot be imported, fails, or takes far too long.
        """
        if library in self._dead:
            raise PeerError(self._dead[library])
        try:
            worker = self._running.get(library) or self._start(home, library)
            self._jobs += 1
            path, out = self.folder / f"job-{self._jobs}.json", self.folder / f"job-{self._jobs}.out.json"
            path.write_text(json.dumps({**job, "seconds": seconds, "out": str(out)}))
            assert worker.stdin is not None
            worker.stdin.write(f"{path}\n")
            worker.stdin.flush()
            self._answer(worker, library, seconds + GRACE_SECONDS)
        except (PeerError, OSError) as error:
            self._dead[library] = str(error)
            self._stop(library)
            raise PeerError(str(error)) from error
        result: dict[str, Any] = json.loads(out.read_text())
        path.unlink()
        out.unlink()
        if "error" in result:
            raise PeerError(result["error"])
        return result

    def _start(self, home: str, library: str) -> subprocess.Popen[str]:
        errors = (self.folder / f"{library}.log").open("w")
        worker = subprocess.Popen(
            [str(interpreter(home)), "-u", str(WORKERS / "serve.py"), library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"},
        )
        self._running[library] = worker
        self._answer(worker, library, START_SECONDS)
        return worker

    def _answer(self, worker: subprocess.Popen[str], library: str, seconds: float) -> None:
        stdout: IO[str] | None = worker.stdout
        assert stdout is not None
        if not select.select([stdout], [], [], seconds)[0]:
            raise PeerError(f"no answer within {seconds:.0f} s")
        if not stdout.readline():
            lines = (self.folder / f"{library}.log").read_text().strip().splitlines()
            raise PeerError(f"the worker ended: {lines[-1] if lines else 'without a word'}")

    def _stop(self, library: str) -> None:
        worker = self._running.pop(library, None)
        if worker is not None:
            worker.kill()
            worker.wait()

    def close(self) -> None:
        for library in list(self._running):
            self._stop(library)
