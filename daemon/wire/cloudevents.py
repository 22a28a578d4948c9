"""CloudEvents 1.0, structured JSON: one byte string to hash and sign.

Always with ``time``; string extensions only; never a ``ce_`` header on a structured message
(SDKs misparse it: docs of the design, gates.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from regate.config.canonical import canonical_json
from regate.config.errors import PoisonError
from regate.daemon.bus.port import Headers

CONTENT_TYPE = b"application/cloudevents+json"
SOURCE = "regate"
M = TypeVar("M", bound=BaseModel)


def rfc3339(ms: int) -> str:
    """Return milliseconds since the epoch as RFC 3339 in UTC.

    >>> rfc3339(0)
    '1970-01-01T00:00:00.000Z'
    """
    whole, part = divmod(ms, 1000)
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{part:03d}Z"


def encode_event(
    kind: str, event_id: str, subject: str, time_ms: int, data: BaseModel, headers: Mapping[str, str] | None = None
) -> tuple[bytes, Headers]:
    """Return value and headers of one outgoing event; ``kind`` becomes ``io.regate.<kind>.v1``."""
    value = canonical_json(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": SOURCE,
            "type": f"io.regate.{kind}.v1",
            "subject": subject,
            "time": rfc3339(time_ms),
            "datacontenttype": "application/json",
            "data": data.model_dump(mode="json"),
        }
    )
    extra = tuple((name, text.encode()) for name, text in sorted((headers or {}).items()))
    return value, (("content-type", CONTENT_TYPE), *extra)


def decode_event(value: bytes | None, kind: str, model: type[M]) -> M:
    """Return the data of one event of regate's own topics.

    :raises PoisonError: when the record is not such an event.
    """
    try:
        envelope = msgspec.json.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonError(f"not JSON: {error}", reason="not_json") from error
    if not isinstance(envelope, dict) or envelope.get("type") != f"io.regate.{kind}.v1":
        raise PoisonError(f"not a CloudEvent of type io.regate.{kind}.v1", reason="unknown_schema")
    try:
        return model.model_validate(envelope.get("data"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PoisonError(f"{kind}: {where}: {first['msg']}", reason="invalid") from error
