"""Snapshots: state in named chunks on a compacted topic; only what changed is written, the manifest last.

A compacted topic read to its end gives the latest chunk of each name. All chunks of one snapshot
and its manifest are written in one transaction, so the newest manifest and the newest chunks always
belong together; a chunk that does not match its digest is refused by name and its owner warms up.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from regate.config.canonical import digest_bytes
from regate.config.errors import FatalError
from regate.daemon.bus.port import OutRecord, Reader, TopicPartition

SCHEMA = 1
MAX_CHUNK = 900_000  # a record's default limit on a broker is 1 MB, headers and key included
MANIFEST = "manifest"


class Manifest(msgspec.Struct, frozen=True):
    """What a snapshot holds and up to where it speaks."""

    shard: str
    step: int
    journal: int  # journal entries after the snapshot stand at or after this offset
    control: int  # next control offset
    positions: tuple[tuple[str, int, int], ...]  # (logical topic, partition, next offset)
    chunks: dict[str, str]  # name -> digest
    build: str
    schema: int = SCHEMA


class Snapshot(msgspec.Struct, frozen=True):
    """A manifest with the chunks that match it, and the names of those that do not."""

    manifest: Manifest
    chunks: dict[str, bytes]
    refused: tuple[str, ...] = ()


def _key(shard: str, name: str) -> bytes:
    return f"{shard}/{name}".encode()


def write(
    partition: TopicPartition, manifest: Manifest, chunks: Mapping[str, bytes], written: Mapping[str, str]
) -> list[OutRecord]:
    """Return the records that turn the snapshot ``written`` (name -> digest) into this one.

    :raises FatalError: when a chunk is larger than a record may be.
    """
    records = []
    for name, data in chunks.items():
        if len(data) > MAX_CHUNK:
            raise FatalError(f"snapshot chunk {name} has {len(data)} bytes, more than {MAX_CHUNK}")
        if written.get(name) != manifest.chunks[name]:
            records.append((name, data))
    gone = [(name, None) for name in written if name not in manifest.chunks]
    last = (MANIFEST, msgspec.json.encode(manifest))
    return [
        OutRecord(topic=partition.topic, partition=partition.partition, key=_key(manifest.shard, name), value=data)
        for name, data in (*records, *gone, last)
    ]


def digests(chunks: Mapping[str, bytes]) -> dict[str, str]:
    """Return the content address of each chunk."""
    return {name: digest_bytes(data) for name, data in sorted(chunks.items())}


def read(reader: Reader, partition: TopicPartition, shard: str) -> Snapshot | None:
    """Return the shard's last snapshot, or None if it never had one.

    :raises FatalError: when it was written by a newer schema.
    """
    prefix = f"{shard}/".encode()
    latest: dict[str, bytes | None] = {}
    for record in reader.read(partition, reader.beginning(partition), reader.end(partition)):
        if record.key is not None and record.key.startswith(prefix):
            latest[record.key[len(prefix) :].decode()] = record.value
    raw = latest.get(MANIFEST)
    if raw is None:
        return None
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except msgspec.DecodeError as error:
        raise FatalError(
            f"snapshot manifest of shard {shard} is unreadable: {error}",
            hint="see docs/operations.md, Recovery: delete the snapshot to warm up from the journal",
        ) from error
    if manifest.schema > SCHEMA:
        raise FatalError(
            f"snapshot of shard {shard} has schema {manifest.schema}, this build reads up to {SCHEMA}",
            hint=f"install the release that wrote it (build {manifest.build})",
        )
    chunks: dict[str, bytes] = {}
    refused = []
    for name, wanted in manifest.chunks.items():
        data = latest.get(name)
        if data is None or digest_bytes(data) != wanted:
            refused.append(name)
        else:
            chunks[name] = data
    return Snapshot(manifest=manifest, chunks=chunks, refused=tuple(refused))
