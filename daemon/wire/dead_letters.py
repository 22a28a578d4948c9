"""Refusals as records of the dead-letter topic: the bytes as they came, and why they were refused."""

from __future__ import annotations

from collections.abc import Iterable

from regate.daemon.bus.port import OutRecord
from regate.daemon.wire.reasons import Refusal

# A dead letter holds at most this much of its record, whatever limits.record_bytes is: its topic lets 2 MB through.
VALUE_BYTES = 1_000_000
MESSAGE_CHARS = 500
HEADER_BYTES = 500
# Headers of the sender that may hold no personal data and that help to find the sender.
ALLOWED = frozenset({"content-type", "traceparent", "ce_id", "ce_type", "ce_source", "ce_specversion"})
PREFIX = "regate-"


def escape(text: str) -> str:
    r"""Return a text that cannot forge a line of a log or of a terminal, at most 500 characters long.

    >>> escape("a\nb\x1b[2Jé")
    'a\\nb\\x1b[2J\\xe9'
    """
    safe = text[:MESSAGE_CHARS].encode("unicode_escape").decode("ascii")
    return safe[:MESSAGE_CHARS]


def dead_letter(refusal: Refusal, topic: str, partition: int | None, *, with_value: bool = True) -> OutRecord:
    """Return the dead letter of one refusal.

    :param topic: name of the dead-letter topic.
    :param with_value: False for further refusals of rows of a record whose bytes went with the first one.
    """
    record = refusal.record
    value = record.value or b""
    cut = value[:VALUE_BYTES] if with_value else b""
    said = {
        "reason": str(refusal.reason),
        "message": escape(refusal.message),
        "field": escape(refusal.field),
        "model": escape(refusal.model),
        "topic": escape(record.topic),
        "partition": str(record.partition),
        "offset": str(record.offset),
        "timestamp-ms": str(record.timestamp_ms),
        "count": str(refusal.count),
        "rows": ",".join(map(str, refusal.rows)),
        "length": str(len(value)),
        "cut": "true" if len(cut) < len(value) else "",
        "tombstone": "true" if record.value is None else "",
    }
    headers = [(PREFIX + name, text.encode()) for name, text in said.items() if text]
    headers += [(name, text[:HEADER_BYTES]) for name, text in record.headers if name.lower() in ALLOWED]
    return OutRecord(topic, cut, None, tuple(headers), partition, record.timestamp_ms)


def dead_letters(refusals: Iterable[Refusal], topic: str, partition: int | None) -> list[OutRecord]:
    """Return the dead letters of a batch; the bytes of a record go with its first refusal only."""
    sent: set[tuple[str, int, int]] = set()
    letters = []
    for refusal in refusals:
        place = (refusal.record.topic, refusal.record.partition, refusal.record.offset)
        letters.append(dead_letter(refusal, topic, partition, with_value=place not in sent))
        sent.add(place)
    return letters
