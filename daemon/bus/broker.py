"""The embedded broker: a real Apache Kafka (KRaft, one node, loopback only) that pip alone brought.

The Java process itself holds an flock on the data folder, so "is it running" has one answer for every
process of this machine, also after a crash, and a second start on the same folder is refused (Kafka's
own refusal makes the first one hang on SIGTERM).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path

from regate.config.errors import ConfigError, FatalError, RetryableError
from regate.daemon.bus import broker_jars
from regate.daemon.bus.broker_settings import JVM_OPTIONS, LOGGING, STARTED, properties

START_SECONDS = 90.0  # 3 to 8 s alone; the rest is for a machine that compiles something else meanwhile
STOP_SECONDS = 15.0  # TERM takes .5 s; a broker that hangs on it never ends by itself
# The launcher dies with its parent before it becomes Java, and Java inherits the wish. A preexec_fn would warn in
# a process with threads. The signal follows the *thread* that started it, so owned brokers start from the main thread.
_LAUNCH = (
    "import ctypes, os, signal, sys\n"
    "if sys.argv[1] != '0':\n"
    "    ctypes.CDLL(None).prctl(1, signal.SIGKILL)\n"
    "    if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """What is known about one data folder's broker."""

    running: bool
    pid: int | None
    bootstrap: str
    data_dir: str
    log: str


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cluster_id() -> str:
    """Return a random Kafka UUID; one that begins with ``-`` would be read as an option by the format tool."""
    text = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return text if not text.startswith("-") else _cluster_id()


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Broker:
    """One embedded broker on one data folder.

    :param data_dir: durable folder; logs, settings, pid and lock live in it.
    :param port: loopback port; 0 takes the port of the last start, or a free one.
    :param owned: the broker dies with this process (tests, demo); False leaves it running (`regate kafka up`).
    """

    def __init__(self, data_dir: Path, port: int = 0, *, owned: bool = True) -> None:
        self.data_dir = data_dir.absolute()
        self.log = self.data_dir / "broker.log"
        self._out = self.data_dir / "broker.out"
        self._state_file = self.data_dir / "broker.json"
        self._lock_file = self.data_dir / "lock"
        self._asked_port = port
        self._owned = owned
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Start, wait until it serves, return its bootstrap address.

        :raises ConfigError: when a broker runs on this folder already, or the port is taken.
        :raises FatalError: when it does not come up; the message ends with its log.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        jars = broker_jars.resolve()
        lock = self._take_lock(fcntl.LOCK_EX)
        if lock is None:
            time.sleep(0.1)  # somebody who only looked is gone by now
            lock = self._take_lock(fcntl.LOCK_EX)
        if lock is None:
            raise ConfigError(
                f"a broker runs on {self.data_dir} already",
                hint=f"run: regate kafka status --data-dir {self.data_dir}",
            )
        try:
            port = self._choose_ports()
            classpath = os.pathsep.join(str(jar) for jar in jars)
            self._format(classpath)
            offset = self.log.stat().st_size if self.log.exists() else 0
            self._spawn(classpath, lock)
        finally:
            os.close(lock)
        self._await_started(port, offset)
        return self.bootstrap

    @property
    def bootstrap(self) -> str:
        """Return ``127.0.0.1:port`` of the last start."""
        return f"127.0.0.1:{self._state().get('port', self._asked_port)}"

    def stop(self) -> None:
        """Stop in order, by force after 15 s. Stopping a broker that does not run is fine."""
        self.resume()
        self._signal(signal.SIGTERM)
        if not self._await_exit(STOP_SECONDS):
            self.kill()

    def kill(self) -> None:
        """Kill without warning, and wait until it is gone.

        :raises FatalError: when the process survives SIGKILL.
        """
        self._signal(signal.SIGKILL)
        if not self._await_exit(STOP_SECONDS):
            raise FatalError(f"the broker on {self.data_dir} survives SIGKILL", hint="look at its disk")

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def status(self) -> BrokerStatus:
        """Return whether it runs, where, and where its log is."""
        pid = self._pid()
        return BrokerStatus(pid is not None, pid, self.bootstrap, str(self.data_dir), str(self.log))

    def _state(self) -> dict[str, int | str]:
        try:
            state: dict[str, int | str] = json.loads(self._state_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return state

    def _save(self, **changes: int | str) -> None:
        draft = self._state_file.with_suffix(".draft")
        draft.write_text(json.dumps({**self._state(), **changes}), encoding="utf-8")
        draft.replace(self._state_file)

    def _take_lock(self, kind: int) -> int | None:
        """Return a descriptor that holds the folder's lock, or None when a broker holds it.

        Looking takes it shared, so that two who look do not take each other for a broker.
        """
        lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _pid(self) -> int | None:
        """Return the pid of the running broker; the lock proves that the noted pid is still it."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None
        if not self._lock_file.exists():
            return None
        lock = self._take_lock(fcntl.LOCK_SH)
        if lock is not None:
            os.close(lock)
            return None
        pid = self._state().get("pid")
        return int(pid) if pid else None

    def _choose_ports(self) -> int:
        state = self._state()
        port = self._asked_port or int(state.get("port", 0)) or _free_port()
        if _listening(port):
            raise ConfigError(f"port {port} on 127.0.0.1 is taken", hint="give another: regate kafka up --port N")
        cluster = str(state.get("cluster") or _cluster_id())
        self._save(port=port, cluster=cluster, pid=0)  # 0: never signal a pid of an earlier start
        text = properties(self.data_dir, port, _free_port())
        (self.data_dir / "server.properties").write_text(text, encoding="utf-8")
        return port

    def _command(self, classpath: str, main: str, *arguments: str) -> list[str]:
        return [
            str(broker_jars.java()),
            *JVM_OPTIONS,
            f"-Dlog4j2.configurationFile={LOGGING}",
            f"-Dregate.broker.log={self.log}",
            "-cp",
            classpath,
            main,
            *arguments,
        ]

    def _format(self, classpath: str) -> None:
        if (self.data_dir / "logs" / "meta.properties").exists():
            return
        settings = str(self.data_dir / "server.properties")
        cluster = str(self._state()["cluster"])
        command = self._command(classpath, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", settings)
        try:
            done = subprocess.run(  # noqa: S603  (our own Java with our own arguments)
                command, capture_output=True, text=True, check=False, timeout=START_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise RetryableError(f"formatting {self.data_dir} did not end", hint="run: regate kafka up") from error
        if done.returncode != 0:
            raise FatalError(f"cannot format {self.data_dir}: {done.stdout}{done.stderr}", hint=f"see {self.log}")

    def _spawn(self, classpath: str, lock: int) -> None:
        command = self._command(classpath, "kafka.Kafka", str(self.data_dir / "server.properties"))
        parent = str(os.getpid()) if self._owned else "0"
        with self._out.open("wb") as out:
            self._child = subprocess.Popen(  # noqa: S603  (as above)
                [sys.executable, "-I", "-S", "-c", _LAUNCH, parent, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                pass_fds=(lock,),
                start_new_session=True,  # a Ctrl-C at the terminal is for the daemon, which then stops the broker
                cwd=self.data_dir,
            )
        self._save(pid=self._child.pid)

    def _await_started(self, port: int, offset: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        child = self._child
        while child is not None and child.poll() is None:
            if STARTED in self._log_since(offset) and _listening(port):
                return
            if time.monotonic() > deadline:
                self.kill()
                raise RetryableError(f"the broker did not come up in {START_SECONDS:.0f} s", hint=f"see {self.log}")
            time.sleep(0.05)
        said = (self._log_since(offset) + self._out.read_text(errors="replace"))[-2000:]
        raise FatalError(f"the broker ended while it started: {said}", hint=f"see {self.log} and {self._out}")

    def _log_since(self, offset: int) -> str:
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(offset if self.log.stat().st_size >= offset else 0)
            return log.read().decode(errors="replace")

    def _signal(self, number: signal.Signals) -> None:
        pid = self._pid()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile, which is what is wanted
                os.kill(pid, number)

    def _await_exit(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._pid() is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        if self._child is not None:
            self._child.wait(seconds)
            self._child = None
        return True
