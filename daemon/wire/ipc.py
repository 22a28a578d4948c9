"""The little of Arrow's IPC framing that must be known before its reader is trusted with foreign bytes.

Source: the Arrow columnar format, "Encapsulated message format", and its flatbuffers Message.fbs and Schema.fbs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pyarrow as pa

# Message.header_type and the field numbers of the flatbuffer tables.
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_HEADER_TYPE, _HEADER = 1, 2
_DICTIONARY_DATA = 1
_COMPRESSION = 3


class FramingError(ValueError):
    """The metadata of a message is not a flatbuffer."""


def _u32(data: memoryview, at: int) -> int:
    try:
        return int(struct.unpack_from("<I", data, at)[0])
    except struct.error as error:
        raise FramingError("offset outside the message") from error


def _field(data: memoryview, table: int, number: int) -> int:
    """Return where a table's field stands, 0 when it is absent."""
    try:
        vtable = table - struct.unpack_from("<i", data, table)[0]
        if vtable < 0:
            raise FramingError("offset outside the message")
        size = struct.unpack_from("<H", data, vtable)[0]
        slot = 4 + 2 * number
        offset = struct.unpack_from("<H", data, vtable + slot)[0] if slot + 2 <= size else 0
    except struct.error as error:
        raise FramingError("offset outside the message") from error
    return table + offset if offset else 0


def is_compressed(metadata: memoryview) -> bool:
    """Return whether one message's body is compressed, so that its real size is unknown.

    :raises FramingError: when the metadata does not parse.
    """
    root = _u32(metadata, 0)
    kind_at, header_at = _field(metadata, root, _HEADER_TYPE), _field(metadata, root, _HEADER)
    if not kind_at or not header_at or kind_at >= len(metadata):
        return False
    kind, header = metadata[kind_at], header_at + _u32(metadata, header_at)
    if kind == _DICTIONARY_BATCH:
        data_at = _field(metadata, header, _DICTIONARY_DATA)
        if not data_at:
            return False
        header = data_at + _u32(metadata, data_at)
    elif kind != _RECORD_BATCH:
        return False
    return _field(metadata, header, _COMPRESSION) != 0


@dataclass(frozen=True, slots=True)
class Framing:
    """What the messages of a stream say before any body is read."""

    schema: bytes  # metadata of the first message: equal bytes are equal schemas
    compressed: bool


def framing(value: bytes) -> Framing:
    """Return what a stream's messages say.

    :raises FramingError: when a message's metadata does not parse.
    :raises pyarrow.ArrowException: when the framing is broken.
    """
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(value))
    schema = b""
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return Framing(schema, compressed=False)
        metadata = memoryview(message.metadata)
        schema = schema or bytes(metadata)
        if is_compressed(metadata):
            return Framing(schema, compressed=True)
