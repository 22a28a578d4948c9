"""Views: whose memory a query belongs to. The same lanes look at the same queries three times.

By client, an attack shows after a few queries. By client and octant of the input space, normal queries that he puts
between fall into other octants, and his attack's own memory does not forget. By region, whoever asks: one attack
spread over many ids, or one without any, still steps about one point.

A region is where a query lies to some planes through the middle of the reference (Charikar 2002): queries that are
close to each other are mostly on the same sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.attack.clients import CAPACITY, PARTS_OF_LAST, WHO
from regate.detectors.attack.evidence import Tails
from regate.detectors.attack.inputs import scrambled
from regate.detectors.attack.queries import WIDTH, Queries, SketchArray
from regate.detectors.columns import BoolArray, FloatArray, HashArray

_STEPS = 17  # planes have whole coordinates from -8 to 8, so that sides are exact on every machine


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to look."""

    name: str
    planes: int
    by_client: bool
    share: float  # of the false findings that are allowed
    capacity: int  # owners remembered
    most: float = 2.0  # share of the bar that one query can say
    keeps: str = ""  # besides what all memories hold


CLIENT = Kind("client", 0, by_client=True, share=0.75, capacity=CAPACITY, keeps=PARTS_OF_LAST)
OCTANT = Kind("octant", 3, by_client=True, share=0.2, capacity=24_000)
# Normal clients meet in a region by chance, in ways that a reference shows only some of: it must be surer, and two odd
# rows, whoever sent them, are no attack.
REGION = Kind("region", 8, by_client=False, share=0.05, capacity=1_024, most=0.5, keeps=WHO)
KINDS = (CLIENT, OCTANT, REGION)


@dataclass(frozen=True, slots=True)
class View:
    """A way to look, with the tails and the bar that the reference gave it."""

    kind: Kind
    tails: Tails
    bar: int  # in units of 2^-20 nats
    usual: int  # the largest tide that is usual, in the same units


def seen_by(kind: Kind, queries: Queries) -> BoolArray:
    """Return which queries a view looks at: those without a client have no memory by client."""
    return queries.client != 0 if kind.by_client else np.ones(queries.n, dtype=np.bool_)


def owners(kind: Kind, queries: Queries) -> HashArray:
    """Return whose memory each query belongs to; never 0 for what the view looks at."""
    if not kind.planes:
        return queries.client
    place = scrambled(regions(queries.sketch, kind.planes) + np.uint64(1))
    return np.asarray(scrambled(queries.client ^ place) if kind.by_client else place)


def regions(sketch: SketchArray, planes: int) -> HashArray:
    """Return on which sides of the planes each query lies, as bits."""
    sides = sketch.astype(np.float64) @ _planes(planes) > 0  # whole numbers: exact in any order
    bits = np.left_shift(np.uint64(1), np.arange(planes, dtype=np.uint64))
    return np.asarray((sides * bits).sum(axis=1, dtype=np.uint64))


def _planes(count: int) -> FloatArray:
    number = np.arange(1, WIDTH * count + 1, dtype=np.uint64)
    value = scrambled(number * np.uint64(0x9E3779B97F4A7C15)) % np.uint64(_STEPS)
    return value.astype(np.float64).reshape(count, WIDTH).T - 8.0
