"""Memory stays flat, whatever comes: tables are full and clients give way, nothing else grows."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.attacks.traffic import benign, table
from tests.attack_traffic import KEY, rows_of

from regate.detectors.attack import state
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.watch import AttackWatch

POPULATION = table(4)


def held(watch: AttackWatch) -> int:
    """Return the bytes of everything that a snapshot would hold."""
    return sum(array.nbytes for _, _, arrays in state.chunks(watch) for array in arrays.values())


def _resident() -> int:
    """Return the kilobytes that are resident now; the largest ever, which the kernel also counts, only grows."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def asked(queries: int, clients: int, size: int, capacity: int | None) -> tuple[AttackWatch, list[int], list[int]]:
    """Return a watch after queries of random clients, and bytes held and resident kilobytes at ten points."""
    rows = rows_of(benign(POPULATION, 200, 30, 1))
    reference = fitted(rows, tuple(rows.features))
    assert isinstance(reference, AttackReference)
    base = reference.queries(rows_of(benign(POPULATION, 400, 40, 2)))
    rng = np.random.default_rng(7)
    watch = AttackWatch(KEY, "sha256:profile", Memory(reference, capacity))
    sizes, resident, now = [], [], int(base.time_us.max())
    steps = queries // size
    for step in range(steps):
        pick = rng.integers(0, base.n, size)
        own = rng.integers(1, clients + 1, size).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        at = now + np.arange(size, dtype=np.int64) * 20_000
        now = int(at[-1])
        watch.decide(replace(base.some(pick), client=own, time_us=at))
        if (step + 1) % max(steps // 10, 1) == 0:
            sizes.append(held(watch))
            resident.append(_resident())
    return watch, sizes, resident


def test_tables_are_full_and_then_nothing_grows() -> None:
    watch, sizes, _ = asked(60_000, 40_000, 2_000, 3_000)
    assert [len(seen.table.slots) for seen in watch.memory.views[:2]] == [3_000, 3_000]
    assert watch.memory.evicted > 10_000
    assert max(sizes[5:]) <= 1.02 * sizes[4], sizes


@pytest.mark.slow
@pytest.mark.timeout(3_000)
def test_ten_million_queries_of_a_million_clients() -> None:
    watch, sizes, resident = asked(10_000_000, 1_000_000, 20_000, None)
    assert watch.memory.queries == 10_000_000
    print(
        f"bytes held {sizes}, resident kB {resident}, open {len(watch.incidents.open)}, evicted {watch.memory.evicted}"
    )
    assert sizes[-1] <= 1.02 * sizes[1], sizes
    # All tables are full by then; what is left is what the allocator keeps.
    assert resident[-1] - resident[4] <= 20_000, resident
    arrays = [getattr(seen.table, name) for seen in watch.memory.views for name in seen.table.arrays]
    assert sum(array.nbytes for array in arrays) <= 64_000_000
