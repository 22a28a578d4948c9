"""What the attack lanes cost a query: slim rows (`AttackReference.queries`), then client memory (`Memory.take`).

    python -m benchmarks.attacks.cost [--repeat 9] [--features 14 64 784] [--slices 256 1000 4000]

Microseconds of processor time (not of the clock on the wall: others work on the machine) on one thread, medians of
repeats. Each repeat goes through the same 8,000 queries of normal clients with an empty memory, cut into slices of
each size in turn, so that a busy minute falls on all sizes alike. The reference is of 300 other normal clients: `table`
has 14 features, pictures of 8 x 8 have 64, of 28 x 28 784. A processor that is shared still swings by half from minute
to minute (caches and clock rate are shared too): compare two versions by running them in turn, and by their ratio.
"""

from __future__ import annotations

import argparse
import statistics
import time

from benchmarks.attacks.measure import answered, referenced, sliced
from benchmarks.attacks.traffic import Population, benign, pictures, table
from threadpoolctl import threadpool_limits

from regate.detectors.attack.memory import Memory
from regate.detectors.attack.reference import AttackReference
from regate.detectors.columns import Slice

POPULATIONS: dict[int, Population] = {14: table(), 64: pictures(side=8), 784: pictures(side=28)}
QUERIES = 8_000
PARTS = ("slim rows", "client memory")


def spent(reference: AttackReference, rows: Slice, size: int) -> tuple[float, float]:
    """Return the microseconds a query of both parts, all rows in slices of a size."""
    memory, slim, remembered = Memory(reference), 0.0, 0.0
    for start in range(0, rows.n, size):
        part = rows.cut(slice(start, start + size))
        began = time.process_time()
        queries = reference.queries(part)
        between = time.process_time()
        memory.take(queries)
        remembered += time.process_time() - between
        slim += between - began
    return slim / rows.n * 1e6, remembered / rows.n * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--features", type=int, nargs="+", default=list(POPULATIONS), choices=list(POPULATIONS))
    parser.add_argument("--slices", type=int, nargs="+", default=[256, 1_000, 4_000])
    asked = parser.parse_args()
    print("us a query".ljust(28) + "".join(f"slices of {size:,}".rjust(18) for size in asked.slices))
    with threadpool_limits(1):
        for features in asked.features:
            population = POPULATIONS[features]
            reference = referenced(answered(benign(population, 300, 40, 1)))
            rows = sliced(answered(benign(population, 220, 40, 2))).cut(slice(0, QUERIES))
            found = [[spent(reference, rows, size) for size in asked.slices] for _ in range(asked.repeat)]
            for number, name in enumerate(PARTS):
                medians = [statistics.median(one[at][number] for one in found) for at in range(len(asked.slices))]
                print(f"{features} features, {name}".ljust(28) + "".join(f"{one:18.2f}" for one in medians))


if __name__ == "__main__":
    main()
