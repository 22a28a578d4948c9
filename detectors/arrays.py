"""Named numpy arrays and a little JSON as one byte string: the form of wire frames and of snapshots.

Layout: magic, 4 bytes header length, canonical JSON header, zero padding to 8, the arrays one after
the other (little endian, C order, each padded to 8), and 16 bytes of SHA-256 over all before. Equal
content gives equal bytes. Numbers only, so nothing that is read can execute.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from regate.config.canonical import canonical_json
from regate.config.errors import PoisonError

MAGIC = b"RGA1"
SCHEMA = 1
# Every type that may cross the wire; an unknown one is refused instead of guessed.
DTYPES = ("<i8", "<i4", "<i2", "<u8", "<u4", "<u2", "<f8", "<f4", "|i1", "|u1", "|b1")
CHECK_BYTES = 16
# A damaged length must not make a reader allocate: frames and snapshot chunks are far smaller.
MAX_ITEMS = 1 << 28

Arrays = dict[str, npt.NDArray[Any]]


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def pack(meta: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """Return the bytes of some JSON-able ``meta`` and named arrays.

    >>> meta, arrays = unpack(pack({"a": 1}, {"x": np.arange(3)}))
    >>> meta, arrays["x"].tolist()
    ({'a': 1}, [0, 1, 2])
    """
    listed = []
    parts = []
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        dtype = array.dtype.newbyteorder("<").str
        if dtype not in DTYPES:
            raise TypeError(f"array {name} has type {array.dtype}, which does not go over the wire")
        listed.append([name, dtype, list(array.shape)])
        data = array.astype(dtype, copy=False).tobytes()
        parts.append(data.ljust(_padded(len(data)), b"\0"))
    header = canonical_json({"schema": SCHEMA, "meta": dict(meta), "arrays": listed})
    head = MAGIC + len(header).to_bytes(4, "little") + header
    body = head.ljust(_padded(len(head)), b"\0") + b"".join(parts)
    return body + hashlib.sha256(body).digest()[:CHECK_BYTES]


def unpack(data: bytes) -> tuple[dict[str, Any], Arrays]:
    """Return what `pack` was given; the arrays are read-only views of ``data``.

    :raises PoisonError: when the bytes are not intact (``corrupt``) or of a newer schema (``newer_schema``).
    """
    if len(data) < 8 + CHECK_BYTES or data[:4] != MAGIC:
        raise PoisonError("not a packed array record", reason="corrupt")
    body = memoryview(data)[:-CHECK_BYTES]
    if hashlib.sha256(body).digest()[:CHECK_BYTES] != data[-CHECK_BYTES:]:
        raise PoisonError("a packed array record is damaged", reason="corrupt")
    length = int.from_bytes(data[4:8], "little")
    try:
        header = json.loads(bytes(body[8 : 8 + length]))
        schema = int(header["schema"])
        if schema != SCHEMA:
            raise PoisonError(
                f"array record has schema {schema}, this build reads {SCHEMA}",
                reason="newer_schema",
                hint="install the version that wrote it: regate version",
            )
        return dict(header["meta"]), _arrays(body, _padded(8 + length), header["arrays"])
    except (ValueError, KeyError, TypeError) as error:
        raise PoisonError(f"a packed array record is malformed: {error}", reason="corrupt") from error


def _arrays(body: memoryview, offset: int, listed: list[Any]) -> Arrays:
    arrays: Arrays = {}
    for name, dtype, shape in listed:
        count = 1
        for size in shape:
            count *= int(size)
        if dtype not in DTYPES or not 0 <= count <= MAX_ITEMS:
            raise ValueError(f"array {name!r} has type {dtype!r} and {count} items")
        kind = np.dtype(dtype)
        arrays[str(name)] = np.frombuffer(body, dtype=kind, count=count, offset=offset).reshape(shape)
        offset += _padded(count * kind.itemsize)
    return arrays
