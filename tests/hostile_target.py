"""Real child processes that speak the sandbox's protocol and then misbehave. Run as a program, never imported.

Usage: ``python hostile_target.py FD BEHAVIOUR [PATH [MARK]]``. An honest answer is class "1" with score .9 for all.
"""

import ctypes
import os
import resource
import signal
import socket
import sys
import time

import numpy as np

from regate.scenarios.sandbox.child import serve
from regate.scenarios.sandbox.frames import encode_frame
from regate.scenarios.targets.base import Responses, rows_of

DIGEST = "sha256:" + "0" * 64


class Hostile:
    def __init__(self, behaviour: str, path: str) -> None:
        self.behaviour, self.path, self.calls = behaviour, path, 0
        self.kept = []

    def describe(self):
        return {"kind": "hostile", "digest": DIGEST, "classes": ["0", "1"]}

    def health(self):
        pages = int(open("/proc/self/statm").read().split()[1])  # noqa: PTH123, SIM115
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"peak_bytes": peak, "resident_bytes": pages * 4096, "answers": self.calls}

    def reset(self):
        pass

    def state_digest(self):
        return f"{DIGEST}/{self.calls}" if self.behaviour == "restless" else DIGEST

    def predict(self, features, *, each=False):
        self.calls += 1
        act = getattr(self, self.behaviour, None)
        if act is not None:
            act()
        n = rows_of(features)
        labels, refused = np.full(n, "1", object), np.full(n, None, object)
        scores = np.tile([0.1, 0.9], (n, 1))
        if self.behaviour == "drift":  # learns from what it is asked: another answer the next time
            scores += np.array([0.0001, -0.0001]) * self.calls
        if self.behaviour == "short" and n > 1:
            return Responses(labels[1:], scores[1:], refused[1:])
        return Responses(labels, scores, refused)

    def hang(self):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)

    def spin(self):
        while True:
            pass

    def segfault(self):
        ctypes.string_at(0)

    def quit(self):
        os._exit(3)

    def eat(self):
        hoard = []
        while True:
            hoard.append(bytearray(16 << 20))

    def fork(self):
        """A storm of children in sessions of their own, which note their ids and sleep."""
        for _ in range(20):
            if os.fork() == 0:
                os.setsid()
                for _ in range(2):
                    os.fork()
                with open(self.path, "a") as file:  # noqa: PTH123
                    file.write(f"{os.getpid()}\n")
                time.sleep(600)
                os._exit(0)
        time.sleep(600)

    def escape(self):
        """One double-forked daemon that outlives its parent unless somebody sweeps; the parent then exits."""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                with open(self.path, "a") as file:  # noqa: PTH123
                    file.write(f"{os.getpid()}\n")
                time.sleep(600)
            os._exit(0)
        while not os.path.exists(self.path):  # noqa: PTH110
            time.sleep(0.01)
        os._exit(0)

    def leak(self):
        self.kept.append(np.ones(1 << 16))  # half a megabyte a call, touched

    def babble(self):
        channel.sendall(encode_frame({"noise": "x" * 100}))

    def garbage(self):
        channel.sendall(b"\x00\x00\x00\x04\xc1\xc1\xc1\xc1")

    def huge(self):
        channel.sendall(b"\xff\xff\xff\xff")

    def dial(self):
        socket.create_connection(("127.0.0.1", int(self.path)), timeout=2).sendall(b"leak")


if __name__ == "__main__":
    channel = socket.socket(fileno=int(sys.argv[1]))
    target = Hostile(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")
    if sys.argv[2] == "never_ready":
        time.sleep(600)
    channel.sendall(encode_frame({"ready": os.getpid()}))
    serve(channel, target)
