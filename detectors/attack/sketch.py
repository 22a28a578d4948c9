"""A query in 64 bytes: 16 coordinates that keep distances, 16 hashes that tell blocks apart, 32 of shared values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.attack.inputs import scaled, scrambled, within
from regate.detectors.attack.queries import PARTS, WIDTH, ByteArray, SketchArray
from regate.detectors.columns import FloatArray, IntArray

LARGEST = 127
# One step of a coordinate is this much more than what the reference needs: an odd query must not be cut at once.
ROOM = 1.25
FAR = 0.999
_FAR = 65536.0 * 1e3  # beyond a thousand scales, in multiples of 2^-16, nothing is told apart


@dataclass(frozen=True, slots=True)
class Sketch:
    """Each feature goes, with a sign, into one coordinate (a count sketch: Charikar, Chen, Farach-Colton 2002)."""

    centre: FloatArray  # [features]
    scale: FloatArray  # [features]
    order: IntArray  # features, by coordinate
    starts: IntArray  # of each coordinate in ``order``
    sign: FloatArray  # of each feature in ``order``
    step: float

    def scaled(self, x: FloatArray) -> FloatArray:
        """Return inputs as deviations from the centre, in scales; missing values lie at the centre."""
        return scaled(x, self.centre, self.scale)

    def coordinates(self, z: FloatArray) -> FloatArray:
        """Return ``float64[n, coordinates]`` of scaled inputs."""
        whole = z * 65536.0
        if not within(whole, _FAR):
            np.clip(whole, -_FAR, _FAR, out=whole)
        np.rint(whole, out=whole)
        # Whole multiples of 2^-16 (a coordinate has below 2^52 of them for up to 2^26 features) add up exactly in any
        # order, so every machine has the same sketch, whatever its matrix product does.
        return np.asarray(whole @ self._signs() / 65536.0)

    def _signs(self) -> FloatArray:
        """Return ``float64[features, coordinates]``: the sign of each feature in its coordinate, 0 elsewhere."""
        d = len(self.order)
        found = np.zeros((d, len(self.starts)))
        found[self.order, np.repeat(np.arange(len(self.starts)), np.diff(np.r_[self.starts, d]))] = self.sign
        return found

    def of(self, z: FloatArray) -> SketchArray:
        """Return ``int8[n, 16]`` of scaled inputs."""
        found = np.zeros((len(z), WIDTH), dtype=np.int8)
        steps = np.clip(np.rint(self.coordinates(z) / self.step), -LARGEST, LARGEST)
        found[:, : steps.shape[1]] = steps.astype(np.int8)
        return found


def fitted(x: FloatArray) -> Sketch:
    """Return the sketch of reference inputs."""
    d = x.shape[1]
    centre = np.nan_to_num(np.nanmedian(x, axis=0))
    spread = np.nan_to_num(np.nanstd(x, axis=0))
    scale = spread + 0.1 * float(np.median(spread[spread > 0])) if bool((spread > 0).any()) else np.ones(d)
    width = min(d, WIDTH)
    if d <= WIDTH:
        place, sign = np.arange(d), np.ones(d)
    else:
        mixed = scrambled(np.arange(1, d + 1, dtype=np.uint64))
        # Dealt round in a scrambled order: as many features in each coordinate.
        place = np.empty(d, dtype=np.int64)
        place[np.argsort(mixed, kind="stable")] = np.arange(d) % width
        sign = np.where(mixed & np.uint64(1), 1.0, -1.0)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(width))
    made = Sketch(centre, scale, order, starts, sign[order], 1.0)
    far = float(np.quantile(np.abs(made.coordinates(made.scaled(x))), FAR))
    return Sketch(centre, scale, order, starts, sign[order], ROOM * max(far, 1e-9) / LARGEST)


def block_hashes(mixed: np.ndarray) -> ByteArray:
    """Return ``uint8[n, 16]``: a byte of hash for each of 16 blocks of features (feature j in block j mod 16)."""
    n, d = mixed.shape
    # Sixteen features at a time: sums along columns run several times as fast. Each carries its feature's number.
    even = d - d % WIDTH
    total = mixed.T[:even].reshape(d // WIDTH, WIDTH, n).sum(axis=0, dtype=np.uint64)
    total[: d - even] += mixed.T[even:]
    found = np.zeros((n, WIDTH), dtype=np.uint8)
    used = min(d, WIDTH)
    found[:, :used] = (scrambled(total[:used]) >> np.uint64(56)).T
    return found


def part_hashes(mixed: np.ndarray) -> ByteArray:
    """Return ``uint8[n, 32]``: of each part of the features (feature j in part j mod 32) the byte of its least hash.

    The least of some hashes is the same for two queries as often as these share values (MinHash: Broder 1997).
    """
    n, d = mixed.shape
    used, even = min(d, PARTS), d - d % PARTS
    found = np.zeros((n, PARTS), dtype=np.uint8)
    least = mixed.T[:used]
    if even > PARTS:
        least = mixed.T[:even].reshape(d // PARTS, PARTS, n).min(axis=0)
    if even and d > even:
        least = np.concatenate([np.minimum(least[: d - even], mixed.T[even:]), least[d - even :]])
    found[:, :used] = least.T.astype(np.uint8)
    return found


def tau_of(sketch: SketchArray, seed: int) -> float:
    """Return the distance below which two queries are near: the .5 % quantile between random reference rows."""
    rng = np.random.default_rng((seed, 21))
    left, right = rng.integers(len(sketch), size=(2, 40_000))
    distance = distances(sketch[left], sketch[right])
    apart = distance[(left != right) & (distance > 0)]
    return float(np.quantile(apart, 0.005)) if apart.size else 1.0


def distances(left: SketchArray, right: SketchArray) -> FloatArray:
    """Return Euclidean distances of rows, in steps."""
    difference = left.astype(np.int32) - right.astype(np.int32)
    return np.asarray(np.sqrt((difference * difference).sum(axis=-1).astype(np.float64)))
