"""Where a query lies: beyond the range of the reference, off its main directions, far along them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.attack.inputs import within
from regate.detectors.columns import FloatArray

KEPT_VARIANCE = 0.9
MOST_COMPONENTS = 64
# Farther than this, in scales, nothing is told apart: the scale of a feature may be next to nothing.
FAR = 1e6


@dataclass(frozen=True, slots=True)
class Geometry:
    """Range and principal components of scaled reference inputs."""

    low: FloatArray  # [features]
    high: FloatArray  # [features]
    axes: FloatArray  # [features, components + 1]; the last column is the mean, so that one product gives both
    deviation: FloatArray  # [components]

    def score(self, z: FloatArray) -> FloatArray:
        """Return ``float64[n, 3]``: excess over the range (in scales), residual norm, Mahalanobis distance.

        :param z: `inputs.scaled` inputs.
        """
        if not within(z, FAR):
            z = np.clip(z, -FAR, FAR)
        mean = self.axes[:, -1]
        product = z @ self.axes
        along = product[:, :-1] - mean @ self.axes[:, :-1]
        whole = np.einsum("ij,ij->i", z, z) - 2.0 * product[:, -1] + mean @ mean
        left = np.maximum(whole - np.einsum("ij,ij->i", along, along), 0.0)
        far = np.square(along / self.deviation).sum(axis=1)
        return np.stack([self._beyond(z), np.sqrt(left), np.sqrt(far)], axis=1)

    def _beyond(self, z: FloatArray) -> FloatArray:
        """Return how far each row is beyond the range, all features together."""
        out = z > self.high
        out |= z < self.low
        # Few values are: to pick them is half of what arithmetic with all of them costs.
        n = max(len(z), 1)
        at = np.flatnonzero(out.T)
        feature, row = at // n, at % n
        value = z[row, feature]
        excess = np.maximum(value - self.high[feature], self.low[feature] - value)
        return np.asarray(np.bincount(row, excess, minlength=len(z)), dtype=np.float64)


def fitted(z: FloatArray) -> Geometry:
    """Return the geometry of distinct reference rows, scaled."""
    z = np.clip(z, -FAR, FAR)
    mean = z.mean(axis=0)
    covariance = (z - mean).T @ (z - mean) / max(len(z) - 1, 1)
    value, vector = np.linalg.eigh(covariance)
    order = np.argsort(value)[::-1]
    value, vector = np.maximum(value[order], 0.0), vector[:, order]
    share = np.cumsum(value) / max(float(value.sum()), 1e-12)
    keep = min(int(np.searchsorted(share, KEPT_VARIANCE)) + 1, MOST_COMPONENTS, int((value > 1e-9).sum()) or 1)
    # The sign of an axis means nothing, but equal references must give equal bytes.
    axes = vector[:, :keep] * np.where(vector[np.abs(vector[:, :keep]).argmax(axis=0), np.arange(keep)] < 0, -1.0, 1.0)
    return Geometry(
        z.min(axis=0), z.max(axis=0), np.column_stack([axes, mean]), np.sqrt(np.maximum(value[:keep], 1e-9))
    )
