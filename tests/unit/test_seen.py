from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from regate.detectors.seen import IDS_A_CHUNK, Seen


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 25)), max_size=60),
    st.lists(st.integers(0, 60), max_size=5),
)
def test_equals_a_set_a_span_whatever_the_slices(rows: list[tuple[int, int]], cuts: list[int]) -> None:
    seen, found = Seen(10), []
    for part in np.split(np.arange(len(rows)), sorted(min(cut, len(rows)) for cut in cuts)):
        ids = np.array([rows[row][0] for row in part], dtype=np.uint64)
        cells = np.array([rows[row][1] for row in part], dtype=np.int64)
        found += seen.duplicates(ids, cells).tolist()
    known: set[tuple[int, int]] = set()
    expected = []
    for event_id, cell in rows:
        expected.append((event_id, cell // 10) in known)
        known.add((event_id, cell // 10))
    assert found == expected


def test_many_ids_stay_exact_and_survive_as_chunks() -> None:
    rng = np.random.default_rng(3)
    ids = rng.integers(0, 2**63, IDS_A_CHUNK + 5000).astype(np.uint64)
    seen = Seen(10)
    for part in np.array_split(ids, 7):
        assert not seen.duplicates(part, np.zeros(len(part), dtype=np.int64)).any()
    chunks = seen.chunks()
    assert [len(chunk) for chunk in chunks.values()] == [IDS_A_CHUNK, 5000]
    again = Seen(10)
    again.restore(chunks)
    assert again.duplicates(ids[::-1].copy(), np.zeros(len(ids), dtype=np.int64)).all()
    assert not again.duplicates(ids[:10], np.full(10, 10)).any()


def test_spans_are_forgotten_when_their_last_cell_has_closed() -> None:
    seen, one = Seen(10), np.array([5], dtype=np.uint64)
    seen.duplicates(one, np.array([3]))
    seen.forget(9)
    assert seen.duplicates(one, np.array([9])).all()
    seen.forget(10)
    assert seen.chunks() == {}
