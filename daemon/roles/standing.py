"""Control as a watch shard keeps it: what is in effect, and the records that say so, for snapshots.

Only records that count are kept: a refused one must not push the one that is in effect out of the
snapshot, nor half of a new profile the old one, or a restart would undo what live is in force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from regate.config.errors import PoisonError
from regate.config.model import ModelConfig
from regate.daemon.bus.port import Record
from regate.daemon.control import View
from regate.daemon.wire.cloudevents import decode_event
from regate.daemon.wire.internal import Control
from regate.detectors.arrays import pack, unpack
from regate.detectors.columns import ModelKey

PREFIX = "control/"
# Policies are the gate's; a watch shard has no use for them.
KINDS = ("model/", "profile/", "profile-chunk/", "pattern/", "prompts/")


@dataclass(slots=True)
class Standing:
    """The view of control, and the records behind it by snapshot name: a snapshot outlives the topic's compaction."""

    view: View = field(default_factory=View)
    records: dict[str, Record] = field(default_factory=dict)
    refused: int = 0

    def take(self, records: Sequence[Record]) -> set[str]:
        """Take control records in order; return the ``<kind>/<name>`` that changed."""
        changed: set[str] = set()
        for record in records:
            key = (record.key or b"").decode(errors="replace")
            if key.startswith(KINDS):
                changed |= self._apply(key, record)
        return changed

    def _apply(self, key: str, record: Record) -> set[str]:
        changed = self.view.apply([record])
        if self.view.refused:
            self.refused += len(self.view.refused)
            self.view.refused.clear()
            return changed
        kind, _, name = key.partition("/")
        if kind in {"model", "pattern", "prompts"}:
            self.records[key] = record
            if record.value is None:
                del self.records[key]
            return changed
        if record.value is not None:
            self.records[f"{key}@{decode_event(record.value, 'control', Control).digest}"] = record
        if changed:
            self._forget_profiles(name.partition("#")[0])
        return changed

    def _forget_profiles(self, owner: str) -> None:
        """Drop the chunks of a model's profiles that are neither in force nor on their way."""
        wanted = {self.view.digests.get(f"profile/{owner}"), *self.view.pending}
        for name in list(self.records):
            kind, _, rest = name.partition("/")
            whose, digest = rest.rpartition("#")[0], name.rpartition("@")[2]
            if kind not in {"model", "pattern", "prompts"} and whose == owner and digest not in wanted:
                del self.records[name]

    def config(self, key: ModelKey) -> ModelConfig | None:
        """Return the configuration of a model, if it has one."""
        return self.view.models.get(key.placement)

    def decoding(self) -> dict[tuple[str, str], ModelConfig]:
        """Return the configurations by (tenant, model), as the decoder takes them."""
        return {(config.tenant, config.model): config for config in self.view.models.values()}

    def dump(self) -> dict[str, bytes]:
        """Return one chunk a control record."""
        chunks = {}
        for name, record in self.records.items():
            key = (record.key or b"").decode(errors="replace")
            value: np.ndarray[tuple[int], np.dtype[np.uint8]] = np.frombuffer(record.value or b"", dtype=np.uint8)
            meta = {"key": key, "offset": record.offset, "gone": record.value is None}
            chunks[PREFIX + name] = pack(meta, {"value": value})
        return chunks


def load(chunks: Mapping[str, bytes]) -> tuple[Standing, list[str]]:
    """Return what `Standing.dump` gave, and the names of refused chunks."""
    records, refused = [], []
    for name in sorted(chunks):
        if not name.startswith(PREFIX):
            continue
        try:
            meta, arrays = unpack(chunks[name])
        except PoisonError:
            refused.append(name)
            continue
        value = None if meta["gone"] else arrays["value"].tobytes()
        records.append(Record("control", 0, int(meta["offset"]), 0, str(meta["key"]).encode(), value))
    standing = Standing()
    standing.take(sorted(records, key=lambda record: record.offset))
    return standing, refused
