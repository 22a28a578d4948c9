"""Canonical bytes and content addresses: equal content gives equal bytes gives an equal digest."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

from regate.config.errors import FatalError

# Every content-made id lives under this namespace; changing it would change all ids.
NAMESPACE = uuid.UUID("6f0f5c63-4c5d-5d0e-9c0b-2f1f0f5a7e11")


def canonical_json(value: Any) -> bytes:
    """Return sorted, compact UTF-8 JSON of plain data.

    :raises FatalError: on NaN or infinity, which JSON does not have.

    >>> canonical_json({"b": 1, "a": [1.5, None]})
    b'{"a":[1.5,null],"b":1}'
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise FatalError(
            f"a value cannot be written as JSON: {error}", hint="refuse non-finite numbers before this point"
        ) from error
    return text.encode()


def digest_bytes(data: bytes) -> str:
    """Return ``sha256:<hex>`` of raw bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """Return the content address of plain data."""
    return digest_bytes(canonical_json(value))


def content_id(*parts: Any) -> str:
    """Return a UUIDv5 made from content, so that doing the same thing twice gives the same id."""
    return str(uuid.uuid5(NAMESPACE, canonical_json(list(parts)).decode()))
