"""The attack reference: what benign clients' queries look like."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np

from regate.config.canonical import digest_bytes
from regate.detectors.arrays import Arrays, pack
from regate.detectors.attack import dependence, geometry, lattice, sketch
from regate.detectors.attack.evidence import OWN_LANES
from regate.detectors.attack.fingerprints import Sample
from regate.detectors.attack.habits import Habits
from regate.detectors.attack.inputs import Inputs, bits_of, mixed, stacked
from regate.detectors.attack.queries import PARTS, WIDTH, ByteArray, LaneArray, Queries, SketchArray
from regate.detectors.attack.resemblance import Resemblance
from regate.detectors.attack.training import Training, total
from regate.detectors.attack.views import View
from regate.detectors.classes import class_hash
from regate.detectors.columns import BoolArray, Categorical, FloatArray, HashArray, IntArray, Numeric, Slice
from regate.detectors.probabilities import chosen, class_matrix

# Rows are taken in pieces of so many values, for a dozen arrays of them are made and read again: those of a whole slice
# would leave the caches each time. Pieces of fewer rows would lose more to the calls of numpy, a hundred a piece.
PIECE_VALUES, LEAST_PIECE, STACKED = 1 << 15, 128, 8


def _none_sampled() -> tuple[SketchArray, ByteArray]:
    return np.zeros((0, WIDTH), dtype=np.int8), np.zeros((0, WIDTH), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Own:
    """What inputs alone say of queries, and the hash by which training rows are known."""

    sketch: SketchArray
    blocks: ByteArray
    off: ByteArray
    parts: ByteArray
    lanes: LaneArray
    total: HashArray

    @classmethod
    def empty(cls, n: int) -> Own:
        """Return room for some queries."""
        return cls(
            np.empty((n, WIDTH), dtype=np.int8),
            np.empty((n, WIDTH), dtype=np.uint8),
            np.empty((n, WIDTH), dtype=np.uint8),
            np.empty((n, PARTS), dtype=np.uint8),
            np.empty((n, len(OWN_LANES)), dtype=np.float32),
            np.zeros(n, dtype=np.uint64),
        )

    def cut(self, part: slice) -> Own:
        """Return the room of some of them, as views."""
        return Own(*(getattr(self, item.name)[part] for item in fields(self)))


@dataclass(frozen=True)
class AttackReference:
    """Everything that is fitted. Equal references give equal ones."""

    inputs: Inputs
    sketch: sketch.Sketch
    lattice: lattice.Lattice
    geometry: geometry.Geometry
    tree: dependence.Tree
    tau: float
    views: tuple[View, ...] = ()
    resemblance: Resemblance = field(default_factory=Resemblance)
    sampled: tuple[SketchArray, ByteArray] = field(default_factory=_none_sampled)  # some queries: sketches, hashes
    trimmed: tuple[int, ...] = ()  # client hashes for review
    clients: int = 0
    rows: int = 0
    training: Training | None = None
    habits: Habits = field(default_factory=Habits)  # what the views beside client memory compare with

    @cached_property
    def digest(self) -> str:
        """Return the address of everything that client memory depends on."""
        from regate.detectors.attack.codec import packed  # noqa: PLC0415  (the codec knows this class)

        return digest_bytes(pack(*packed(self)))

    @cached_property
    def sample(self) -> Sample:
        """Return some queries of the reference, with what patterns must share to be compared with them."""
        one = self.sketch
        arrays: Arrays = {"centre": one.centre, "scale": one.scale, "order": one.order, "sign": one.sign}
        said = {"names": list(self.inputs.names), "categories": [list(known) for known in self.inputs.categories]}
        inputs = digest_bytes(pack(said, {}))
        space = digest_bytes(pack({**said, "step": one.step}, arrays))
        return Sample(*self.sampled, space, inputs, self.tau)

    def queries(self, rows: Slice, counted: BoolArray | None = None) -> Queries:
        """Return the slim rows of a slice; rows without a client have client 0.

        :param counted: rows that are in the counts of the reference themselves.
        """
        columns, own = self.inputs.columns(rows), Own.empty(rows.n)
        size = max(PIECE_VALUES // len(self.inputs.names), LEAST_PIECE)
        for start in range(0, rows.n, size * STACKED):
            # Columns are brought together for some pieces at once: hundreds of them are hundreds of calls.
            some = stacked(columns, slice(start, start + size * STACKED))
            for first in range(0, len(some), size):
                part = slice(start + first, start + min(first + size, len(some)))
                self._seen(
                    some.T[:, first : first + size].copy().T, None if counted is None else counted[part], own.cut(part)
                )
        own.lanes[:, 5] = margins(rows)
        none = np.zeros(rows.n, dtype=np.uint64)
        return Queries(
            event_id=rows.event_id,
            time_us=rows.event_time_us,
            client=none if rows.client is None else rows.client,
            label=labels(rows),
            sketch=own.sketch,
            blocks=own.blocks,
            off=own.off,
            parts=own.parts,
            lanes=own.lanes,
            member=np.zeros(rows.n, dtype=np.bool_) if self.training is None else self.training.has(own.total),
            latency_us=latencies(rows),
        )

    def _seen(self, x: FloatArray, counted: BoolArray | None, own: Own) -> None:
        """Write what inputs alone say of a few rows."""
        bits = bits_of(x)
        hashed = mixed(bits)
        off = self.lattice.off(hashed, bits, counted).by_block(len(x))
        z = self.sketch.scaled(x)
        own.sketch[:] = self.sketch.of(z)
        own.blocks[:] = sketch.block_hashes(hashed)
        own.off[:] = lattice.halves(off)
        own.parts[:] = sketch.part_hashes(hashed)
        own.lanes[:, 0] = off.sum(axis=1)
        own.lanes[:, 1:4] = self.geometry.score(z)
        own.lanes[:, 4] = self.tree.score(x, counted)
        if self.training is not None:
            own.total[:] = total(hashed)


def margins(rows: Slice) -> FloatArray:
    """Return -ln of how far the answer is from another one; 0 where events carry no scores."""
    found = class_matrix(rows.scores) if rows.scores else None
    if found is None or found[1].shape[0] < 1:
        return np.zeros(rows.n)
    p = np.clip(np.nan_to_num(found[1], nan=0.0), 0.0, 1.0)
    if len(p) == 1:
        gap = np.abs(2.0 * p[0] - 1.0)
    elif len(p) == 2:
        gap = np.abs(p[1] - p[0])  # what follows, without sorting
    else:
        top = np.partition(p, len(p) - 2, axis=0)
        gap = top[-1] - top[-2]
    return np.asarray(-np.log(gap + 0.001))


def latencies(rows: Slice) -> IntArray:
    """Return latencies in microseconds, -1 where unknown."""
    if rows.latency_ms is None:
        return np.full(rows.n, -1, dtype=np.int64)
    known = np.isfinite(rows.latency_ms) & (rows.latency_ms >= 0)
    return np.where(known, np.rint(np.where(known, np.minimum(rows.latency_ms, 1e9), 0.0) * 1e3), -1).astype(np.int64)


def labels(rows: Slice) -> HashArray:
    """Return the hash of each answer's class, 0 where it is unknown (or a number)."""
    answer = chosen(rows.prediction, rows.scores)
    if isinstance(answer, Categorical):
        table = np.array([class_hash(name) for name in answer.categories] + [0], dtype=np.uint64)
        return np.asarray(table[answer.codes])
    if isinstance(rows.prediction, Numeric):
        values = rows.prediction.values
        distinct, inverse = np.unique(np.nan_to_num(values, nan=-1.5), return_inverse=True)
        if len(distinct) <= 256:
            table = np.array([class_hash(f"{value:g}") for value in distinct], dtype=np.uint64)
            return np.asarray(np.where(np.isnan(values), np.uint64(0), table[inverse]))
    return np.zeros(rows.n, dtype=np.uint64)
