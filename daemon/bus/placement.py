"""Where a record goes: Kafka's own hash, so that every client of any language agrees."""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_SEED = 0x9747B28C
_M = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """Return the 32-bit murmur2 of Kafka's Java client (``Utils.murmur2``), unsigned.

    >>> hex(murmur2(b"21"))
    '0xc5f2f8ec'
    """
    length = len(data)
    h = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if length > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Return the partition of a key as Kafka's default partitioner: the positive hash modulo ``partitions``."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def partition_of(text: str, partitions: int) -> int:
    """Return the partition of a placement (``tenant/model``) in a topic of ``partitions`` partitions."""
    return murmur2_partition(text.encode(), partitions)
