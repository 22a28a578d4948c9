"""The reference's support: how many rows lie where the reference has none, so that no estimate holds there.

A row is *outside* when any watched input is a number below the reference's smallest or above its largest, a category
that it never had, or missing although it never was there. An input of which the halves of the reference already lie
outside of each other (a date, a row number, a client) says nothing and takes no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from regate.detectors.candidate import Plan
from regate.detectors.columns import BoolArray, Categorical, Column, IntArray, Numeric
from regate.detectors.layout import MAX_LISTED
from regate.detectors.sections import PRESENT, Arrays
from regate.detectors.views import View

NAME = "support"
OUTSIDE = 1
# An input that is outside of the other half more often than this takes no part.
MOST_CROSSED = 0.01


@dataclass(frozen=True, slots=True)
class SupportSpec:
    """Rows, and rows outside. ``crossed`` is the share of reference rows outside of the other half's support.

    ``numbers`` are the numeric inputs with ``low`` and ``high``, ``categories`` what the categorical ones may be, and
    ``whole`` the inputs that are never missing.
    """

    type: ClassVar[str] = "support"
    name: str
    first: int
    numbers: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    categories: tuple[tuple[str, tuple[str, ...]], ...]
    whole: tuple[str, ...]
    crossed: float = 0.0

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return 2

    def outside(self, view: View) -> BoolArray:
        """Return which rows are outside."""
        found = np.zeros(view.n, dtype=np.bool_)
        for name, low, high in zip(self.numbers, self.low, self.high, strict=True):
            column = view.column(f"feature/{name}")
            if isinstance(column, Numeric):
                found |= (column.values < low) | (column.values > high)
                if name in self.whole:
                    found |= np.isnan(column.values)
            elif name in self.whole:
                found[:] = True
        for name, known in self.categories:
            column = view.column(f"feature/{name}")
            absent = name in self.whole
            if isinstance(column, Categorical):
                listed = frozenset(known)
                strange = np.array([category not in listed for category in column.categories] + [absent])
                found |= strange[column.codes]
            elif absent:
                found[:] = True
        return found

    def add(self, view: View, group: IntArray, groups: int, into: IntArray) -> None:
        """Add the counts of the rows."""
        into[:, PRESENT] = np.bincount(group, minlength=groups)
        into[:, OUTSIDE] = np.bincount(group[self.outside(view)], minlength=groups)

    def pack(self) -> tuple[dict[str, Any], Arrays]:
        """Return names and categories, and the ranges."""
        meta = {
            "name": self.name,
            "numbers": list(self.numbers),
            "categories": [[name, list(known)] for name, known in self.categories],
            "whole": list(self.whole),
            "crossed": self.crossed,
        }
        return meta, {"low": np.array(self.low, dtype=np.float64), "high": np.array(self.high, dtype=np.float64)}

    @classmethod
    def unpack(cls, meta: Mapping[str, Any], arrays: Arrays) -> SupportSpec:
        """Return the section that `pack` described."""
        return cls(
            meta["name"],
            meta["first"],
            tuple(meta["numbers"]),
            tuple(arrays["low"].tolist()),
            tuple(arrays["high"].tolist()),
            tuple((name, tuple(known)) for name, known in meta["categories"]),
            tuple(meta["whole"]),
            meta["crossed"],
        )


def support_section(plan: Plan) -> SupportSpec:
    """Return the support of the reference rows."""
    inputs = {
        name: column
        for name, feature in plan.config.features.items()
        if feature.watch and feature.type not in {"text", "vector"}
        if (column := plan.rows.features.get(name)) is not None
    }
    everywhere = np.arange(plan.rows.n)
    first, second = everywhere < plan.rows.n // 2, everywhere >= plan.rows.n // 2
    crossed = np.zeros(plan.rows.n, dtype=np.bool_)
    kept: dict[str, Column] = {}
    for name, column in inputs.items():
        one = {name: column}
        outside = np.zeros(plan.rows.n, dtype=np.bool_)
        for own, other in ((first, second), (second, first)):
            outside[own] = _support(one, other).outside(plan.view)[own]
        if outside.mean() <= MOST_CROSSED and _known(column) <= MAX_LISTED:
            kept[name] = column
            crossed |= outside
    return _support(kept, first | second, float(crossed.mean()))


def _known(column: Column) -> int:
    return 0 if isinstance(column, Numeric) else len(column.categories)


def _support(inputs: Mapping[str, Column], rows: BoolArray, crossed: float = 0.0) -> SupportSpec:
    numbers, low, high, categories, whole = [], [], [], [], []
    for name, column in inputs.items():
        if isinstance(column, Numeric):
            values = column.values[rows]
            present = values[~np.isnan(values)]
            numbers.append(name)
            low.append(float(present.min()) if present.size else -np.inf)
            high.append(float(present.max()) if present.size else np.inf)
            complete = present.size == values.size
        else:
            codes = column.codes[rows]
            counts = np.bincount(codes[codes >= 0], minlength=len(column.categories))
            categories.append((name, tuple(column.categories[code] for code in np.flatnonzero(counts).tolist())))
            complete = bool((codes >= 0).all())
        if complete:
            whole.append(name)
    return SupportSpec(
        NAME, 0, tuple(numbers), tuple(low), tuple(high), tuple(categories), tuple(whole), round(crossed, 9)
    )
