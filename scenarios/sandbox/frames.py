"""The protocol between daemon and sandbox child: length-prefixed msgpack frames. No pickle, bounded size.

Imported by the child: msgspec and numpy only.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from regate.scenarios.targets.base import Features, Responses

_LENGTH = struct.Struct(">I")
# A window of 100,000 rows x 100 float64 features is 80 MB; a larger announced frame is a broken or hostile child.
MAX_FRAME_BYTES = 256 * 1024 * 1024


class FrameError(ValueError):
    """The peer sent bytes that are not this protocol; mapped to a failed target at the sandbox's edge."""


def encode_frame(message: dict[str, Any]) -> bytes:
    """Return one frame: four bytes of length, then msgpack."""
    body = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(body)) + body


class FrameBuffer:
    """Cuts a byte stream into messages."""

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self._bytes = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Add bytes; return the messages that they complete.

        :raises FrameError: on an oversized frame or a body that is not a msgpack map.
        """
        self._bytes += data
        messages = []
        while len(self._bytes) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._bytes)
            if length > self._limit:
                raise FrameError(f"a frame of {length} bytes is over the limit of {self._limit}")
            end = _LENGTH.size + length
            if len(self._bytes) < end:
                break
            messages.append(_message(bytes(self._bytes[_LENGTH.size : end])))
            del self._bytes[:end]
        return messages


def _message(body: bytes) -> dict[str, Any]:
    try:
        message = msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"a frame is not msgpack: {error}") from error
    if not isinstance(message, dict):
        raise FrameError(f"a frame holds a {type(message).__name__}, not a map")
    return message


def pack_column(column: npt.NDArray[Any]) -> bytes | list[Any]:
    """Return a column as little-endian float64 bytes, or as a list when it holds anything but float64."""
    if column.dtype == np.float64:
        return column.astype("<f8", copy=False).tobytes()
    return [value.item() if isinstance(value, np.generic) else value for value in column.tolist()]


def unpack_column(packed: bytes | list[Any]) -> npt.NDArray[Any]:
    """Return what `pack_column` was given."""
    if isinstance(packed, bytes):
        return np.frombuffer(packed, dtype="<f8").astype(np.float64)
    column = np.empty(len(packed), dtype=object)
    column[:] = packed
    return column


def pack_features(features: Features) -> dict[str, Any]:
    """Return a batch as plain data."""
    return {name: pack_column(column) for name, column in features.items()}


def unpack_features(packed: dict[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Return what `pack_features` was given."""
    return {name: unpack_column(column) for name, column in packed.items()}


def pack_responses(responses: Responses) -> dict[str, Any]:
    """Return answers as plain data."""
    return {
        "labels": responses.labels.tolist(),
        "scores": responses.scores.astype("<f8", copy=False).tobytes(),
        "width": responses.scores.shape[1],
        "refused": responses.refused.tolist(),
    }


def unpack_responses(packed: dict[str, Any]) -> Responses:
    """Return what `pack_responses` was given.

    :raises FrameError: when the parts do not fit together.
    """
    try:
        labels, refused = unpack_column(list(packed["labels"])), unpack_column(list(packed["refused"]))
        scores = np.frombuffer(packed["scores"], dtype="<f8").astype(np.float64).reshape(len(labels), packed["width"])
    except (KeyError, TypeError, ValueError) as error:
        raise FrameError(f"an answer has the wrong shape: {error}") from error
    if len(refused) != len(labels):
        raise FrameError("an answer has not one refusal entry a row")
    return Responses(labels, scores, refused)
