"""Sections: groups of columns of the mergeable statistics, and how rows add to them.

A section reads named sources of a view (`regate.detectors.views`) and adds integers to its own columns, summed by
any grouping of the rows. Families are made of these; one that needs another kind writes it in its own module and
names it in `regate.detectors.registry`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from regate.detectors.columns import Categorical, FloatArray, IntArray, Numeric
from regate.detectors.ranktable import RankTable
from regate.detectors.views import Test, View, sums

Arrays = dict[str, npt.NDArray[Any]]

# Offsets inside a section's own columns. Every section counts its trials first.
PRESENT, MISSING = 0, 1
SUM_Z, SUM_Z2, OUTSIDE, NUMERIC_WIDTH, MIDDLE = 2, 3, 4, 5, 5
OTHER, UNSEEN, KEPT = 2, 3, 4
HITS = 1


class Section(Protocol):
    """Some columns of the statistics, ``first`` to ``first + width``."""

    type: ClassVar[str]

    @property
    def name(self) -> str:
        """Return the section's name, unique in its layout."""

    @property
    def first(self) -> int:
        """Return the first column."""

    @property
    def width(self) -> int:
        """Return the number of columns."""

    def add(self, view: View, group: IntArray, groups: int, into: IntArray) -> None:
        """Add the rows to ``into`` (``int64[groups, width]``), row by ``group``."""

    def pack(self) -> tuple[dict[str, Any], Arrays]:
        """Return all that the numbers depend on: plain values, and arrays by name."""

    @classmethod
    def unpack(cls, meta: Mapping[str, Any], arrays: Arrays) -> Section:
        """Return the section that `pack` described."""


@runtime_checkable
class Linked(Protocol):
    """A section that uses what stands in others."""

    def linked(self, sections: Sequence[Section]) -> Section:
        """Return the section with what it uses of the others."""


S = TypeVar("S", bound=Section)


def placed(sections: list[Section], first: int) -> tuple[Section, ...]:
    """Return the sections one behind the other from a column on."""
    found: list[Section] = []
    for section in sections:
        found.append(replace(section, first=first))  # type: ignore[type-var]
        first += section.width
    return tuple(found)


@dataclass(frozen=True, slots=True)
class NumericSpec:
    """A numeric source by the rank table of each stratum: present, missing, sum z, sum z^2, outside the reference.

    ``where`` narrows it to some rows: the others are neither present nor missing. ``shaped``: one column more, the rows
    in the middle half of the reference.
    """

    type: ClassVar[str] = "numeric"
    name: str
    first: int
    tables: tuple[RankTable, ...]
    source: str = ""  # default: the feature of that name
    where: tuple[Test, ...] = ()
    shaped: bool = False

    @property
    def path(self) -> str:
        """Return the source."""
        return self.source or f"feature/{self.name}"

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return NUMERIC_WIDTH + self.shaped

    def add(self, view: View, group: IntArray, groups: int, into: IntArray) -> None:
        """Add scores and counts of the rows."""
        values = view.column(self.path)
        rows = view.rows_where(self.where)
        if rows is not None:
            group = group[rows]
        into[:, PRESENT] = np.bincount(group, minlength=groups)
        if not isinstance(values, Numeric):
            into[:, MISSING] = into[:, PRESENT]
        elif len(self.tables) == 1:
            cells = cells_of(self, view, values) if rows is None else self.tables[0].cells(values.values[rows])
            self._score(0, cells, group, groups, into)
        else:
            number, stratum = (
                (values.values, view.stratum) if rows is None else (values.values[rows], view.stratum[rows])
            )
            for which in np.unique(stratum):
                at = stratum == which
                self._score(int(which), self.tables[which].cells(number[at]), group[at], groups, into)
        into[:, PRESENT] -= into[:, MISSING]

    def _score(self, which: int, cells: IntArray, group: IntArray, groups: int, into: IntArray) -> None:
        z, z2 = self.tables[which].scores
        last = self.tables[which].edges.size
        into[:, SUM_Z] += sums(group, z[cells], groups)
        into[:, SUM_Z2] += sums(group, z2[cells], groups)
        if self.shaped:
            low, high = self.tables[which].middle
            into[:, MIDDLE] += np.bincount(group[(cells >= low) & (cells < high)], minlength=groups)
        edge = np.flatnonzero((cells == 0) | (cells >= last))
        if edge.size:
            missing = cells[edge] > last
            into[:, MISSING] += np.bincount(group[edge[missing]], minlength=groups)
            into[:, OUTSIDE] += np.bincount(group[edge[~missing]], minlength=groups)

    def pack(self) -> tuple[dict[str, Any], Arrays]:
        """Return names, and the tables one behind the other."""
        meta = {"name": self.name, "source": self.source, "where": packed(self.where), "shaped": self.shaped}
        joined = {
            name: np.concatenate([getattr(table, name) for table in self.tables]) for name in ("edges", "z", "z2")
        }
        sizes = np.array([[table.edges.size, table.rows] for table in self.tables], dtype=np.int64)
        return meta, {**joined, "sizes": sizes}

    @classmethod
    def unpack(cls, meta: Mapping[str, Any], arrays: Arrays) -> NumericSpec:
        """Return the section that `pack` described."""
        sizes = arrays["sizes"]
        cuts = np.cumsum(sizes[:, 0])[:-1]
        edges = np.split(arrays["edges"], cuts)
        z, z2 = (np.split(arrays[name], cuts + np.arange(1, len(sizes))) for name in ("z", "z2"))
        parts = zip(edges, z, z2, sizes[:, 1].tolist(), strict=True)
        tables = tuple(RankTable(edge, one, two, rows) for edge, one, two, rows in parts)
        shaped = meta.get("shaped", False)  # profiles of before had none
        return cls(meta["name"], meta["first"], tables, meta["source"], unpacked(meta["where"]), shaped)


@dataclass(frozen=True, slots=True)
class CategoricalSpec:
    """A categorical source: present, missing, other (rare and unseen), unseen, one column for each kept category."""

    type: ClassVar[str] = "categorical"
    name: str
    first: int
    kept: tuple[str, ...]
    rare: tuple[str, ...]
    source: str = ""
    where: tuple[Test, ...] = ()

    @property
    def path(self) -> str:
        """Return the source."""
        return self.source or f"feature/{self.name}"

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return KEPT + len(self.kept)

    def add(self, view: View, group: IntArray, groups: int, into: IntArray) -> None:
        """Add the counts of the rows."""
        column = view.column(self.path)
        rows = view.rows_where(self.where)
        own = group if rows is None else group[rows]
        total = np.bincount(own, minlength=groups)
        if not isinstance(column, Categorical):
            into[:, MISSING] = total
            return
        cells = self.cells(column)
        group, cells = own, cells if rows is None else cells[rows]
        width = self.width
        counts = np.bincount(group * width + cells, minlength=groups * width).reshape(groups, width)
        into[:, MISSING:] = counts[:, MISSING:]
        into[:, OTHER] += into[:, UNSEEN]
        into[:, PRESENT] = total - into[:, MISSING]

    def cells(self, column: Categorical) -> IntArray:
        """Return the column (inside the section's own) that each row counts in."""
        place = {category: KEPT + index for index, category in enumerate(self.kept)}
        rare = frozenset(self.rare)
        # The last entry is what code -1, missing, picks.
        to_cell = np.array(
            [place.get(category, OTHER if category in rare else UNSEEN) for category in column.categories] + [MISSING],
            dtype=np.int64,
        )
        return np.asarray(to_cell[column.codes])

    def pack(self) -> tuple[dict[str, Any], Arrays]:
        """Return names and categories."""
        return {
            "name": self.name,
            "source": self.source,
            "kept": list(self.kept),
            "rare": list(self.rare),
            "where": packed(self.where),
        }, {}

    @classmethod
    def unpack(cls, meta: Mapping[str, Any], _arrays: Arrays) -> CategoricalSpec:
        """Return the section that `pack` described."""
        return cls(
            meta["name"],
            meta["first"],
            tuple(meta["kept"]),
            tuple(meta["rare"]),
            meta["source"],
            unpacked(meta["where"]),
        )


@dataclass(frozen=True, slots=True)
class FlagSpec:
    """How often something is true: trials (rows that meet ``trial``) and hits (those that also meet ``hit``)."""

    type: ClassVar[str] = "flag"
    name: str
    first: int
    hit: tuple[Test, ...]
    trial: tuple[Test, ...] = ()

    @property
    def width(self) -> int:
        """Return the number of columns."""
        return 2

    def add(self, view: View, group: IntArray, groups: int, into: IntArray) -> None:
        """Add the counts of the rows."""
        trial, hit = view.where(self.trial), view.where(self.hit)
        assert hit is not None
        into[:, PRESENT] = np.bincount(group if trial is None else group[trial], minlength=groups)
        into[:, HITS] = np.bincount(group[hit if trial is None else hit & trial], minlength=groups)

    def pack(self) -> tuple[dict[str, Any], Arrays]:
        """Return names and tests."""
        return {"name": self.name, "hit": packed(self.hit), "trial": packed(self.trial)}, {}

    @classmethod
    def unpack(cls, meta: Mapping[str, Any], _arrays: Arrays) -> FlagSpec:
        """Return the section that `pack` described."""
        return cls(meta["name"], meta["first"], unpacked(meta["hit"]), unpacked(meta["trial"]))


def packed(tests: tuple[Test, ...]) -> list[list[str]]:
    """Return tests as JSON holds them."""
    return [[test.source, test.op, test.value] for test in tests]


def unpacked(listed: list[list[str]]) -> tuple[Test, ...]:
    """Return the tests that `packed` gave."""
    return tuple(Test(*parts) for parts in listed)


def cells_of(spec: NumericSpec, view: View, column: Numeric) -> IntArray:
    """Return the table cell of each row, of a section with one table and all rows."""
    table = spec.tables[0]
    return view.once(f"cells {spec.path} {id(table)}", lambda: table.cells(column.values))


def scored(spec: NumericSpec, view: View) -> tuple[FloatArray, FloatArray]:
    """Return z and z^2 of every row in units of 2^-16, 0 where missing, by the row's own stratum."""
    column = view.column(spec.path)
    if not isinstance(column, Numeric):
        return np.zeros(view.n), np.zeros(view.n)
    if len(spec.tables) == 1:
        cells = cells_of(spec, view, column)
        z, z2 = spec.tables[0].scores
        return z[cells], z2[cells]
    found = np.zeros((2, view.n))
    for which in np.unique(view.stratum):
        at = view.stratum == which
        cells = spec.tables[which].cells(column.values[at])
        for row, scores in enumerate(spec.tables[which].scores):
            found[row, at] = scores[cells]
    return found[0], found[1]
