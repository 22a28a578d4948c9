from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from regate.detectors.cells import Block, Closed, Joiner, OpenCells, group_rows


def closed(*rows: tuple[int, int, int]) -> Closed:
    """Rows of (cell, stratum, events)."""
    cell, stratum, events = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    return Closed(cell, stratum.astype(np.int16), np.stack([events, events * 10], axis=1), events * 0)


@given(st.lists(st.tuples(st.sampled_from([0, 1, 5, 10**9]), st.integers(0, 3)), min_size=1, max_size=40))
def test_groups_are_the_distinct_cells_and_strata_in_order(rows: list[tuple[int, int]]) -> None:
    cell = np.array([cell for cell, _ in rows])
    stratum = np.array([stratum for _, stratum in rows], dtype=np.int16)
    groups = group_rows(cell, stratum)
    assert list(zip(groups.cell.tolist(), groups.stratum.tolist(), strict=True)) == sorted(set(rows))
    assert groups.cell[groups.group].tolist() == cell.tolist()
    assert groups.stratum[groups.group].tolist() == stratum.tolist()


def test_fragments_of_a_cell_add_up_and_close_in_order() -> None:
    cells = OpenCells(2)
    cells.add(closed((7, 0, 3), (5, 1, 2)))
    cells.add(closed((5, 1, 4), (5, 0, 1), (9, 0, 8)))
    first = cells.close(8)
    assert first.cell.tolist() == [5, 5, 7]
    assert first.stratum.tolist() == [0, 1, 0]
    assert first.stats.tolist() == [[1, 10], [6, 60], [3, 30]]
    assert len(cells.close(9)) == 0
    assert cells.close(10).stats.tolist() == [[8, 80]]


def blocks(rows: Closed, limit: int, joiner: Joiner | None = None) -> list[tuple[int, int, int, int]]:
    found: list[Block] = list((joiner or Joiner()).take(rows, limit))
    return [(block.stratum, block.first, block.last, block.events) for block in found]


def test_a_block_ends_with_enough_events() -> None:
    rows = closed((1, 0, 30), (2, 0, 30), (3, 0, 30), (4, 0, 64))
    assert blocks(rows, 5, Joiner(events=64)) == [(0, 1, 3, 90), (0, 4, 4, 64)]
    assert blocks(rows, 5) == [(0, 1, 1, 30), (0, 2, 2, 30), (0, 3, 3, 30), (0, 4, 4, 64)]


def test_a_block_ends_after_a_minute_and_never_spans_more() -> None:
    assert blocks(closed((0, 0, 1), (59, 0, 1), (60, 0, 1)), 61) == [(0, 0, 59, 2)]
    assert blocks(closed((0, 0, 1)), 59) == []
    assert blocks(closed((0, 0, 1)), 60) == [(0, 0, 0, 1)]


def test_strata_do_not_mix_and_end_in_order_of_their_minutes() -> None:
    assert blocks(closed((0, 1, 5), (1, 0, 5), (200, 1, 1)), 201) == [(1, 0, 0, 5), (0, 1, 1, 5)]


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 1), st.integers(1, 90)), min_size=1, max_size=40),
    st.lists(st.integers(0, 301), max_size=6),
)
def test_blocks_do_not_depend_on_when_cells_are_closed(rows: list[tuple[int, int, int]], limits: list[int]) -> None:
    whole, cut = OpenCells(2), OpenCells(2)
    whole.add(closed(*rows))
    cut.add(closed(*rows))
    expected = blocks(whole.close(400), 400)
    joiner, found = Joiner(), []
    for limit in [*sorted(limits), 400]:
        found += blocks(cut.close(limit), limit, joiner)
    assert found == expected


def test_overdue_blocks_end_in_order_of_time_also_after_a_snapshot() -> None:
    joiner = Joiner()
    one = np.array([1, 10])
    joiner.forming = {0: Block(0, 30, 30, one, 0), 1: Block(1, 5, 5, one, 0)}  # a snapshot keeps them by stratum
    assert [block[0] for block in blocks(OpenCells(2).close(0), 1000, joiner)] == [1, 0]
