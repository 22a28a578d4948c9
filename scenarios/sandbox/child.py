"""The entry of the sandbox child: opens the target and serves its frames until the parent hangs up.

Starts in about 0.2 s: numpy, msgspec and onnxruntime, nothing of the daemon, River, SciPy or pydantic.
Usage: ``python -m regate.scenarios.sandbox.child FD JSON``.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any

from regate.scenarios.sandbox.frames import (
    FrameBuffer,
    encode_frame,
    pack_responses,
    unpack_features,
)
from regate.scenarios.targets.base import Target

OUT_OF_MEMORY = ("bad_alloc", "failed to allocate", "cannot allocate memory", "out of memory")


def answer(target: Target, message: dict[str, Any]) -> dict[str, Any]:
    """Return the reply to one message. Exceptions of the target are for `serve` to report."""
    operation = message.get("op")
    if operation == "predict":
        responses = target.predict(unpack_features(message["features"]), each=bool(message.get("each")))
        return {"responses": pack_responses(responses)}
    if operation == "describe":
        network = os.environ.get("REGATE_SANDBOX_NETWORK", "")
        return {"description": {**target.describe(), "network": network}}
    if operation == "health":
        return {"health": target.health()}
    if operation == "reset":
        target.reset()
        return {"state_digest": target.state_digest()}
    if operation == "state_digest":
        return {"state_digest": target.state_digest()}
    return {"failed": "protocol", "message": f"unknown operation {operation!r}"}


def failure(error: BaseException) -> dict[str, Any]:
    """Return an exception as a reply with a stable reason: ``memory`` or ``target``."""
    text = f"{type(error).__name__}: {error}"[:500]
    memory = isinstance(error, MemoryError) or any(mark in text.lower() for mark in OUT_OF_MEMORY)
    return {"failed": "memory" if memory else "target", "message": text}


def serve(channel: socket.socket, target: Target) -> None:
    """Answer messages in order until the peer closes. A failed call is reported and ends the child."""
    buffer = FrameBuffer()
    while data := channel.recv(1 << 20):
        for message in buffer.feed(data):
            try:
                reply = answer(target, message)
            except Exception as error:  # noqa: BLE001  (whatever the target raises is reported, then the child ends)
                reply = failure(error)
            reply["seq"] = message.get("seq")
            channel.sendall(encode_frame(reply))
            if "failed" in reply:
                return


def main(arguments: list[str]) -> int:
    """Open the target that the JSON names and serve it."""
    channel = socket.socket(fileno=int(arguments[0]))
    options = json.loads(arguments[1])
    try:
        from regate.scenarios.targets.onnx import OnnxTarget  # noqa: PLC0415  (a failing import is reported by frame)

        target = OnnxTarget(options)
    except Exception as error:  # noqa: BLE001  (the parent gets the reason instead of a bare exit code)
        channel.sendall(encode_frame(failure(error)))
        return 1
    channel.sendall(encode_frame({"ready": os.getpid()}))
    serve(channel, target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
