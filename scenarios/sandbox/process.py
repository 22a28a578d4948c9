"""The daemon's side of the sandbox: starts the supervised child and talks to it without ever blocking for long.

Every wait is a `poll` of at most `POLL_SECONDS`, between which `cancelled` is asked, so a thread that drives a
hanging target can be stopped, and the poll loop beside it keeps the interpreter lock.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from regate.config.errors import PoisonError
from regate.scenarios.sandbox import supervisor
from regate.scenarios.sandbox.frames import FrameBuffer, FrameError, encode_frame

POLL_SECONDS = 0.1  # how soon a cancelled run lets go
START_SECONDS = 20.0  # the child starts in 0.2 s; a loaded machine may take long, a broken one for ever
STOP_SECONDS = 7.0  # more than the supervisor's own sweep
# Nothing of the daemon's environment reaches the target: no credentials, one thread for every BLAS.
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


class TargetError(PoisonError):
    """The target hung, crashed, forked, ran out of memory or broke the protocol: its checks are errors.

    ``reason``: hang, crash, exit, memory, forked, protocol, target, budget, stopped.
    """


@dataclass(frozen=True, slots=True)
class Limits:
    """What a target may use."""

    memory_bytes: int = 512 * 1024 * 1024  # 192 MB is the least that onnxruntime starts in
    wall_seconds: float = 300.0  # of the child's whole life
    processes: int = 1
    start_seconds: float = START_SECONDS


@dataclass(frozen=True, slots=True)
class Ending:
    """Why the child ended, as the supervisor reports it."""

    reason: str
    detail: str = ""
    peak_bytes: int = 0
    swept: int = 0


class Sandbox:
    """One supervised child process with a message channel.

    :param command: the program of the child; ``{fd}`` in it becomes the number of the channel's descriptor.
    :param cancelled: asked between waits; True stops the child and raises `TargetError` (reason stopped).
    """

    def __init__(
        self,
        command: Sequence[str],
        limits: Limits,
        *,
        network: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._limits = limits
        self._cancelled = cancelled
        self._frames = FrameBuffer()
        self._inbox: deque[dict[str, Any]] = deque()
        self._outbox = bytearray()
        self._ending: Ending | None = None
        self._seq = 0
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        self._channel, theirs = socket.socketpair()
        try:
            self._process = self._start(command, theirs, network=network)
        finally:
            theirs.close()
        self._channel.setblocking(False)

    def _start(self, command: Sequence[str], theirs: socket.socket, *, network: bool) -> subprocess.Popen[bytes]:
        fd = theirs.fileno()
        settings = {
            "fd": fd,
            "parent": os.getpid(),
            "memory_bytes": self._limits.memory_bytes,
            "wall_seconds": self._limits.wall_seconds,
            "processes": self._limits.processes,
            "network": network,
        }
        program = [sys.executable, "-I", "-S", str(Path(supervisor.__file__)), json.dumps(settings)]
        return subprocess.Popen(  # noqa: S603  (our own interpreter and script, no shell)
            [*program, *(part.replace("{fd}", str(fd)) for part in command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            pass_fds=(fd,),
            start_new_session=True,
            cwd="/",
            env=ENVIRONMENT,
        )

    @property
    def pid(self) -> int:
        """Return the supervisor's process id."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Wait for the child's first message.

        :raises TargetError: when the child cannot open its target.
        """
        self._checked(self._next(time.monotonic() + self._limits.start_seconds))

    def request(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send a message and return its reply.

        :raises TargetError: when no proper reply comes within ``seconds``; the child is dead after that.
        """
        seq = self.send(message)
        deadline = time.monotonic() + seconds
        while True:
            reply = self._checked(self._next(deadline))
            answered = reply.get("seq")
            if answered == seq:
                return reply
            if not isinstance(answered, int) or answered > seq:
                raise self._fail("protocol", f"reply {answered!r} to message {seq}")
            # An answer to an earlier `send` that nobody waited for any more: load gave it up as an error.

    def send(self, message: dict[str, Any]) -> int:
        """Queue a message without waiting; return its sequence number."""
        self._seq += 1
        self._outbox += encode_frame({**message, "seq": self._seq})
        self._transfer(0.0)
        return self._seq

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """Return the next reply, or None when none comes within ``seconds``."""
        deadline = time.monotonic() + seconds
        while not self._inbox:
            left = deadline - time.monotonic()
            self._transfer(max(0.0, min(left, POLL_SECONDS)))
            if left <= 0 and not self._inbox:
                return None
        return self._checked(self._inbox.popleft())

    def close(self) -> Ending:
        """End the child and everything it started; return why it ended."""
        if self._ending is None:
            self._channel.close()
            self._ending = self._collect()
            self._stderr.close()
        return self._ending

    def _next(self, deadline: float) -> dict[str, Any]:
        while not self._inbox:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._fail("hang", "no answer within the budget")
            self._transfer(min(left, POLL_SECONDS))
        return self._inbox.popleft()

    def _transfer(self, seconds: float) -> None:
        if self._ending is not None:
            raise TargetError("the sandbox is closed", reason=self._ending.reason)
        if self._cancelled():
            raise self._fail("stopped", "the run was cancelled")
        # poll, not select: a daemon with over 1,024 open descriptors would get a ValueError.
        poll = select.poll()
        poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._outbox else 0))
        seen = next((events for _, events in poll.poll(int(seconds * 1000))), 0)
        readable, writable = seen & (select.POLLIN | select.POLLHUP | select.POLLERR), seen & select.POLLOUT
        try:
            if writable:
                del self._outbox[: self._channel.send(memoryview(self._outbox)[: 1 << 20])]
            if readable:
                data = self._channel.recv(1 << 20)
                if not data:
                    raise self._fail("exit", "it closed the channel")
                self._inbox.extend(self._frames.feed(data))
        except FrameError as error:
            raise self._fail("protocol", str(error)) from error
        except OSError as error:
            raise self._fail("exit", f"the channel broke: {error.strerror}") from error

    def _checked(self, reply: dict[str, Any]) -> dict[str, Any]:
        if "failed" in reply:
            raise self._fail(str(reply["failed"])[:40], str(reply.get("message", ""))[:500])
        return reply

    def _fail(self, reason: str, detail: str) -> TargetError:
        """Close, and prefer what the supervisor saw over what the channel showed (a crash shows as a hang-up)."""
        noise = self._noise()
        ending = self.close()
        if reason == "exit" and ending.reason not in {"done", "stopped"}:
            reason, detail = ending.reason, ending.detail
        tail = f"; it said: {noise}" if noise and reason in {"crash", "exit", "protocol"} else ""
        return TargetError(
            f"target failed ({reason}): {detail}{tail}",
            reason=reason,
            hint="run `regate validate --target FILE` to see it alone",
        )

    def _noise(self) -> str:
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - 300))
        return self._stderr.read().decode("utf-8", "backslashreplace").strip().replace("\n", " | ")

    def _collect(self) -> Ending:
        """Wait for the supervisor: politely, then TERM (it sweeps), then KILL of its group."""
        for wait, act in ((0.5, self._process.terminate), (STOP_SECONDS, self._process.kill), (STOP_SECONDS, None)):
            try:
                output, _ = self._process.communicate(timeout=wait)
                break
            except subprocess.TimeoutExpired:
                if act is not None:
                    act()
        else:
            return Ending("stuck", "the supervisor could not be killed")
        try:
            report = json.loads(output)
        except ValueError:
            return Ending("stopped", f"the supervisor ended with {self._process.returncode}")
        return Ending(report["reason"], report["detail"], report.get("peak_bytes", 0), report.get("swept", 0))
