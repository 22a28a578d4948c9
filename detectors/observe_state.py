"""The state of one observed partition as named chunks, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from regate.config.errors import PoisonError
from regate.detectors.arrays import pack, unpack
from regate.detectors.columns import ModelKey
from regate.detectors.observe import Partition
from regate.detectors.seen import Seen

PREFIX = "seen/"


def dump(partition: Partition) -> dict[str, bytes]:
    """Return the state as chunks; equal states give equal bytes."""
    meta = {
        "watermark_us": partition.watermark_us,
        "last_seen_ms": partition.last_seen_ms,
        "versions_ms": partition.versions_ms,
        "counters": partition.counters,
        "widths": [[asdict(key), seen.width] for key, seen in _by_name(partition)],
    }
    chunks = {"partition": pack(meta, {})}
    for key, seen in _by_name(partition):
        for name, ids in seen.chunks().items():
            chunks[f"{PREFIX}{key}/{name}"] = pack({"key": asdict(key), "name": name}, {"ids": ids})
    return chunks


def load(chunks: Mapping[str, bytes]) -> tuple[Partition, list[str]]:
    """Return the state that `dump` gave, and the names of the chunks that were refused."""
    partition, refused = Partition(), []
    for name in sorted(chunks):
        if name != "partition" and not name.startswith(PREFIX):
            continue
        try:
            meta, arrays = unpack(chunks[name])
        except PoisonError:
            refused.append(name)
            continue
        if name == "partition":
            partition.watermark_us = meta["watermark_us"]
            partition.last_seen_ms, partition.counters = meta["last_seen_ms"], meta["counters"]
            partition.versions_ms = meta.get("versions_ms", {})
            for key, width in meta["widths"]:
                partition.seen.setdefault(ModelKey(**key), Seen(width))
        else:
            seen = partition.seen.get(ModelKey(**meta["key"]))
            if seen is not None:  # "partition" sorts before "seen/"
                seen.restore({meta["name"]: arrays["ids"]})
    return partition, refused


def _by_name(partition: Partition) -> list[tuple[ModelKey, Seen]]:
    return sorted(partition.seen.items(), key=lambda item: str(item[0]))
