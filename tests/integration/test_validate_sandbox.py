"""The sandbox against real hostile processes: an error within the budget, nothing left behind (R23)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import models

from regate.scenarios.sandbox.client import SandboxedTarget
from regate.scenarios.sandbox.process import Limits, TargetError

HOSTILE = str(Path(__file__).parents[1] / "hostile_target.py")
BATCH = models.rows(4).features
MARK = f"of-test-process-{os.getpid()}"  # tells our children from those of a test run beside us


def open_hostile(behaviour: str, path: str = "", **limits: float) -> SandboxedTarget:
    command = [sys.executable, HOSTILE, "{fd}", behaviour, path, MARK]
    return SandboxedTarget(command, Limits(**limits), reply_seconds=3.0)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture(autouse=True)
def no_orphans() -> Iterator[None]:
    yield
    left = subprocess.run(["pgrep", "-f", MARK], capture_output=True, text=True, check=False).stdout.split()
    assert left == []


def test_an_honest_target_answers_and_ends_by_itself() -> None:
    target = open_hostile("none")
    assert target.predict(BATCH).labels.tolist() == ["1"] * 4
    assert target.close().reason == "done"


@pytest.mark.parametrize(
    ("behaviour", "reason", "seconds"),
    [
        ("hang", "hang", 5.0),
        ("spin", "hang", 5.0),
        ("segfault", "crash", 3.0),
        ("quit", "exit", 3.0),
        ("eat", "memory", 5.0),
        ("garbage", "protocol", 3.0),
        ("huge", "protocol", 3.0),
        ("babble", "protocol", 3.0),
    ],
)
def test_r23_a_misbehaving_target_is_an_error_within_its_budget(behaviour: str, reason: str, seconds: float) -> None:
    target = open_hostile(behaviour)
    began = time.monotonic()
    with pytest.raises(TargetError) as caught:
        target.predict(BATCH)
    assert caught.value.reason == reason
    assert time.monotonic() - began < seconds
    assert not alive(target.pid)


@pytest.mark.parametrize(("behaviour", "allowed", "reason"), [("fork", 1, "forked"), ("escape", 9, "exit")])
def test_r23_forked_processes_are_swept_even_from_their_own_sessions(
    behaviour: str, allowed: int, reason: str, tmp_path: Path
) -> None:
    note = tmp_path / "pids"
    target = open_hostile(behaviour, str(note), processes=allowed)
    with pytest.raises(TargetError) as caught:
        target.predict(BATCH)
    assert caught.value.reason == reason
    pids = [int(line) for line in note.read_text().split()] if note.exists() else []
    assert [pid for pid in pids if alive(pid)] == []
    assert behaviour == "fork" or pids  # the escaped daemon did live before it was swept


def test_a_target_that_never_gets_ready_is_given_up() -> None:
    with pytest.raises(TargetError) as caught:
        open_hostile("never_ready", start_seconds=0.5)
    assert caught.value.reason == "hang"


def test_the_supervisor_ends_a_target_whose_caller_forgot_it() -> None:
    target = open_hostile("none", wall_seconds=0.6)

    def ask_on() -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            target.predict(BATCH)

    with pytest.raises(TargetError) as caught:
        ask_on()
    assert caught.value.reason == "hang"


def test_the_target_cannot_reach_the_network_or_the_run_says_that_it_can() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        target = open_hostile("dial", str(server.getsockname()[1]))
        network = target.describe().get("network")
        if network == "none":
            with pytest.raises(TargetError) as caught:
                target.predict(BATCH)
            assert caught.value.reason == "target"
            with pytest.raises(TimeoutError):
                server.accept()
        else:  # this kernel lets nobody unshare it without rights
            target.predict(BATCH)
            server.accept()[0].close()
            target.close()
        assert (network == "none") == may_unshare_network()


def may_unshare_network() -> bool:
    """Ask the kernel itself, in a process of its own, as the sandbox would."""
    ask = "import os; os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)" if hasattr(os, "unshare") else ASK_BY_LIBC
    return subprocess.run([sys.executable, "-c", ask], capture_output=True, check=False).returncode == 0


ASK_BY_LIBC = (
    "import ctypes, sys; sys.exit(0 if ctypes.CDLL(None, use_errno=True).unshare(0x10000000 | 0x40000000) == 0 else 1)"
)


def test_the_target_sees_none_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGATE_SECRET", "hunter2")
    target = open_hostile("none")
    child = int(Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text().split()[0])
    assert b"hunter2" not in Path(f"/proc/{child}/environ").read_bytes()
    assert b"hunter2" not in Path(f"/proc/{target.pid}/environ").read_bytes()
    target.close()


def test_everything_dies_with_the_daemon(tmp_path: Path) -> None:
    """The daemon is killed with SIGKILL while a target hangs: the supervisor sweeps."""
    program = f"""
import sys
sys.path.insert(0, {str(Path(HOSTILE).parents[1])!r})
from tests.integration.test_validate_sandbox import BATCH, open_hostile
target = open_hostile("hang")
print(target.pid, flush=True)
target.reply_seconds = 100
target.predict(BATCH)
"""
    daemon = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    supervisor = int(daemon.stdout.readline())
    deadline = time.monotonic() + 10
    while not (children := Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()):
        assert time.monotonic() < deadline
    daemon.kill()
    daemon.communicate()
    while (alive(supervisor) or alive(int(children[0]))) and time.monotonic() < deadline:
        os.sched_yield()
    assert not alive(supervisor)
    assert not alive(int(children[0]))


def test_r23_another_thread_never_waits_a_second_while_targets_hang() -> None:
    gaps, stop = [0.0], threading.Event()

    def loop() -> None:
        last = time.monotonic()
        while not stop.wait(0.01):
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        for behaviour in ("hang", "eat", "fork", "segfault"):
            with pytest.raises(TargetError):
                open_hostile(behaviour, "/dev/null").predict(BATCH)
    finally:
        stop.set()
        thread.join()
    assert max(gaps) < 1.0


def test_a_cancelled_call_lets_go_at_once() -> None:
    cancelled = threading.Event()
    command = [sys.executable, HOSTILE, "{fd}", "hang", "", MARK]
    target = SandboxedTarget(command, Limits(), reply_seconds=60.0, cancelled=cancelled.is_set)
    threading.Timer(0.3, cancelled.set).start()
    began = time.monotonic()
    with pytest.raises(TargetError) as caught:
        target.predict(BATCH)
    assert caught.value.reason == "stopped"
    assert time.monotonic() - began < 3
