"""Slim rows: what client memory takes of telemetry. Made by observe, a slice at a time; decide puts them in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from regate.detectors.columns import HashArray, IntArray

ByteArray = npt.NDArray[np.uint8]
SketchArray = npt.NDArray[np.int8]
LaneArray = npt.NDArray[np.float32]

# A query is remembered by so many numbers: coordinates of its sketch, and bytes of hash, one a block of features.
WIDTH = 16
# The last query of a client is remembered more finely, by so many parts of its features.
PARTS = 32


@dataclass(frozen=True, slots=True)
class Queries:
    """Some queries of one model. All arrays have ``n`` rows, lanes as the reference names them."""

    event_id: HashArray
    time_us: IntArray
    client: HashArray  # 0: without an id
    label: HashArray  # of the predicted class, 0 unknown
    sketch: SketchArray  # [n, 16]
    blocks: ByteArray  # [n, 16]
    off: ByteArray  # [n, 16] weight of values off the lattice, in halves
    parts: ByteArray  # [n, 32] by which it is told how many values two queries share
    lanes: LaneArray  # [n, lanes]
    member: npt.NDArray[np.bool_]  # rows that the model was trained on; False where no filter was given
    latency_us: IntArray  # -1 unknown

    @property
    def n(self) -> int:
        """Return the number of queries."""
        return len(self.time_us)

    def some(self, rows: IntArray | slice | npt.NDArray[np.bool_]) -> Queries:
        """Return some of the queries."""
        return Queries(*(getattr(self, item.name)[rows] for item in fields(self)))


def of_columns(columns: Mapping[str, np.ndarray]) -> Queries:
    """Return queries of stored columns; frames and snapshots of before had no latency."""
    return Queries(**{"latency_us": np.full(len(columns["time_us"]), -1, dtype=np.int64), **columns})


def ordered(queries: Queries) -> Queries:
    """Return the queries by (event time, event id): the order in which client memory takes them."""
    return queries.some(np.lexsort((queries.event_id, queries.time_us)))


def joined(parts: Sequence[Queries]) -> Queries:
    """Return all queries of some parts (at least one)."""
    return Queries(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(Queries)))
