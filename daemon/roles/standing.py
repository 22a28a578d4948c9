"""Control as a watch shard keeps it: what is in effect, and the records that say so, for snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from regate.config.errors import PoisonError
from regate.config.model import ModelConfig
from regate.daemon.bus.port import Record
from regate.daemon.control import View
from regate.detectors.arrays import pack, unpack
from regate.detectors.columns import ModelKey

PREFIX = "control/"
# Policies are the gate's; a watch shard has no use for them.
KINDS = ("model/", "profile/", "profile-chunk/")


@dataclass(slots=True)
class Standing:
    """The view of control, and the newest record under each key: a snapshot outlives the topic's compaction."""

    view: View = field(default_factory=View)
    records: dict[str, Record] = field(default_factory=dict)
    refused: int = 0

    def take(self, records: Sequence[Record]) -> set[str]:
        """Take control records in order; return the ``<kind>/<name>`` that changed."""
        mine = []
        for record in records:
            key = (record.key or b"").decode(errors="replace")
            if not key.startswith(KINDS):
                continue
            mine.append(record)
            self.records[key] = record
        changed = self.view.apply(mine)
        self.refused += len(self.view.refused)
        self.view.refused.clear()
        return changed

    def config(self, key: ModelKey) -> ModelConfig | None:
        """Return the configuration of a model, if it has one."""
        return self.view.models.get(key.placement)

    def decoding(self) -> dict[tuple[str, str], ModelConfig]:
        """Return the configurations by (tenant, model), as the decoder takes them."""
        return {(config.tenant, config.model): config for config in self.view.models.values()}

    def dump(self) -> dict[str, bytes]:
        """Return one chunk a control record."""
        chunks = {}
        for key, record in self.records.items():
            value: np.ndarray[tuple[int], np.dtype[np.uint8]] = np.frombuffer(record.value or b"", dtype=np.uint8)
            meta = {"key": key, "offset": record.offset, "gone": record.value is None}
            chunks[PREFIX + key] = pack(meta, {"value": value})
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
