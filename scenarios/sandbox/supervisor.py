"""The process between the daemon and the target: sets limits, watches, and leaves nothing behind.

It is a *subreaper*: whatever the target forks, even into a session of its own, becomes a descendant of this
process and is killed when the target ends, breaks a limit, or the daemon dies. Standard library only, run as
``python -I -S supervisor.py JSON COMMAND...`` (10 ms); it writes one JSON line on stdout: why it ended.
Linux only: prctl(2), /proc.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
POLL_SECONDS = 0.02  # how long a forbidden fork or an overdrawn memory budget can last
SWEEP_SECONDS = 5.0  # a fork bomb races its killer; after this long something is unkillable (state D)
STDERR_BYTES = 1_000_000  # a target that logs without end must not fill the disk


def children_of(pid: int) -> list[int]:
    """Return the direct children, of all threads of the process."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += [int(text) for text in (task / "children").read_text().split()]
    except FileNotFoundError:
        return found
    except (ProcessLookupError, PermissionError):
        return found
    return found


def descendants(root: int) -> list[int]:
    """Return all descendants of a process, parents first."""
    found, queue = [], [root]
    while queue:
        below = children_of(queue.pop())
        found += below
        queue += below
    return found


def resident_bytes(pids: list[int]) -> int:
    """Return the resident memory of several processes; one that has gone counts nothing."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
        except (OSError, IndexError, ValueError):
            continue
    return total


def prepare(settings: dict[str, Any], libc: Any) -> None:
    """In the forked child, before exec: own session, no network where the kernel allows, limits, death with us."""
    os.setsid()
    isolated = not settings["network"] and libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    limits = {
        resource.RLIMIT_AS: settings["memory_bytes"],
        resource.RLIMIT_CPU: int(settings["wall_seconds"]) + 5,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_FSIZE: STDERR_BYTES,
    }
    for kind, value in limits.items():
        resource.setrlimit(kind, (value, value))
    os.environ["REGATE_SANDBOX_NETWORK"] = "none" if isolated else "shared"
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def sweep() -> int:
    """Kill every descendant until none is left; return how many there were at first."""
    first = None
    deadline = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < deadline:
        alive = descendants(os.getpid())
        first = len(alive) if first is None else first
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        while reap() is not None:
            pass
        if not descendants(os.getpid()):
            break
        time.sleep(0.002)
    return first or 0


def reap() -> tuple[int, int, int] | None:
    """Return pid, wait status and peak resident bytes of one ended child, None when there is none."""
    try:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status, usage.ru_maxrss * 1024) if pid else None


def watch(target: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Wait for the target's end, a broken limit, or the daemon's wish; return the reason."""
    deadline = time.monotonic() + settings["wall_seconds"]
    while True:
        got = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM}, POLL_SECONDS)
        if got is not None and got.si_signo == signal.SIGTERM:
            return {"reason": "stopped", "detail": "the daemon stopped it or is gone"}
        while (ended := reap()) is not None:
            pid, status, peak = ended
            if pid == target:
                return ending(status, peak)
        alive = descendants(os.getpid())
        if len(alive) > settings["processes"]:
            return {"reason": "forked", "detail": f"{len(alive)} processes, {settings['processes']} allowed"}
        if (used := resident_bytes(alive)) > settings["memory_bytes"]:
            return {"reason": "memory", "detail": f"{used} bytes resident"}
        if time.monotonic() > deadline:
            return {"reason": "hang", "detail": f"over {settings['wall_seconds']} s of wall clock"}


def ending(status: int, peak: int) -> dict[str, Any]:
    """Return how the target ended by itself."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        reason = "hang" if number == signal.SIGXCPU else "crash"
        return {"reason": reason, "detail": f"signal {signal.Signals(number).name}", "peak_bytes": peak}
    code = os.WEXITSTATUS(status)
    return {"reason": "exit" if code else "done", "detail": f"exit code {code}", "peak_bytes": peak}


def main(arguments: list[str]) -> int:
    """Run one command under limits and report its end."""
    settings, command = json.loads(arguments[0]), arguments[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != settings["parent"]:
        return 1  # the daemon died between fork and prctl
    target = os.fork()
    if target == 0:
        try:
            prepare(settings, libc)
            os.execve(command[0], command, os.environ)  # noqa: S606  (the command is ours; there is no shell)
        finally:
            os._exit(127)
    os.close(settings["fd"])  # else the daemon would never see the target hang up
    report = watch(target, settings)
    left = sweep()
    report["swept"] = left
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
