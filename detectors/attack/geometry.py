"""Where a query lies: beyond the range of the reference, off its main directions, far along them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.columns import FloatArray

KEPT_VARIANCE = 0.9
MOST_COMPONENTS = 64


@dataclass(frozen=True, slots=True)
class Geometry:
    """Range and principal components of scaled reference inputs."""

    centre: FloatArray
    scale: FloatArray
    low: FloatArray
    high: FloatArray
    axes: FloatArray  # [features, components]
    deviation: FloatArray  # [components]

    def score(self, x: FloatArray) -> FloatArray:
        """Return ``float64[n, 3]``: excess over the range (in scales), residual norm, Mahalanobis distance."""
        z = np.nan_to_num((x - self.centre) / self.scale, nan=0.0, posinf=1e6, neginf=-1e6)
        beyond = np.maximum(z - self.high, 0.0) + np.maximum(self.low - z, 0.0)
        along = z @ self.axes
        left = np.maximum((z * z).sum(axis=1) - (along * along).sum(axis=1), 0.0)
        far = np.square(along / self.deviation).sum(axis=1)
        return np.stack([beyond.sum(axis=1), np.sqrt(left), np.sqrt(far)], axis=1)


def fitted(x: FloatArray, centre: FloatArray, scale: FloatArray) -> Geometry:
    """Return the geometry of distinct reference rows."""
    z = np.nan_to_num((x - centre) / scale)
    mean = z.mean(axis=0)
    covariance = (z - mean).T @ (z - mean) / max(len(z) - 1, 1)
    value, vector = np.linalg.eigh(covariance)
    order = np.argsort(value)[::-1]
    value, vector = np.maximum(value[order], 0.0), vector[:, order]
    share = np.cumsum(value) / max(float(value.sum()), 1e-12)
    keep = min(int(np.searchsorted(share, KEPT_VARIANCE)) + 1, MOST_COMPONENTS, int((value > 1e-9).sum()) or 1)
    # The sign of an axis means nothing, but equal references must give equal bytes.
    axes = vector[:, :keep] * np.where(vector[np.abs(vector[:, :keep]).argmax(axis=0), np.arange(keep)] < 0, -1.0, 1.0)
    shifted = centre + mean * scale
    return Geometry(
        shifted,
        scale,
        z.min(axis=0) - mean,
        z.max(axis=0) - mean,
        axes,
        np.sqrt(np.maximum(value[:keep], 1e-9)),
    )
