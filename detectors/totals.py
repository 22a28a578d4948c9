"""Totals: plain sums of a numeric source of outcomes (ages of labels, errors of a regression)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from regate.detectors.columns import IntArray, Numeric
from regate.detectors.numerics import to_units
from regate.detectors.sections import MISSING, PRESENT, Arrays
from regate.detectors.views import View, sums

TOTAL = 2


@dataclass(frozen=True, slots=True)
class TotalSpec:
    """Present, missing, and the sum of ``value / scale`` (each at most ``most``) in units of 2^-16.

    ``mean`` is the reference's mean of ``value / scale``; negative where the reference has none.
    """

    type: ClassVar[str] = "total"
    name: str
    first: int
    source: str
    scale: float = 1.0
    most: float = 256.0
    mean: float = -1.0

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return 3

    def add(self, view: View, group: IntArray, groups: int, into: IntArray) -> None:
        """Add the values of the rows."""
        column = view.column(self.source)
        if not isinstance(column, Numeric):
            into[:, MISSING] = np.bincount(group, minlength=groups)
            return
        known = ~np.isnan(column.values)
        into[:, PRESENT] = np.bincount(group[known], minlength=groups)
        into[:, MISSING] = np.bincount(group[~known], minlength=groups)
        units = to_units(np.minimum(column.values[known] / self.scale, self.most))
        into[:, TOTAL] = sums(group[known], units.astype(np.float64), groups)

    def pack(self) -> tuple[dict[str, Any], Arrays]:
        """Return all that the numbers depend on."""
        names = ("name", "source", "scale", "most", "mean")
        return {name: getattr(self, name) for name in names}, {}

    @classmethod
    def unpack(cls, meta: Mapping[str, Any], _arrays: Arrays) -> TotalSpec:
        """Return the section that `pack` described."""
        return cls(**meta)
