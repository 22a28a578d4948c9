"""Budgets of coverage: extraction with rows as everybody has them, and normal clients, short and long.

    python -m benchmarks.attacks.volume  # 1.3 million queries: a minute

References have 300 clients with 40 queries on average: within 20 minutes, and within 40 hours.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
from benchmarks.attacks.measure import LONG, SLICE, answered, interval, sliced
from benchmarks.attacks.traffic import START_US, Traffic, benign, lasting, pictures, real, table, woven

from regate.detectors.attack.clients import Clients
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.volume import Volume
from regate.detectors.columns import Slice

STOLEN = 1_000  # fresh rows that the extraction asks


def timed(traffic: Traffic, seed: int, gap_us: float) -> Slice:
    """Return traffic at times as people have them."""
    gaps = np.random.default_rng((seed, 77)).exponential(gap_us, len(traffic.x))
    times = START_US + np.cumsum(gaps).astype(np.int64)
    return replace(sliced(answered(traffic)), event_time_us=times, arrival_us=times)


def found(reference: AttackReference, rows: Slice) -> dict[int, int]:
    """Return who is beyond his budget, and with which of his own queries he was found."""
    volume, memory = Volume(reference.habits.volume), Clients()
    told: dict[int, int] = {}
    for start in range(0, rows.n, SLICE):
        queries = reference.queries(rows.cut(slice(start, start + SLICE)))
        steps = memory.take(queries, reference.tau)
        for sign in volume.take(steps, queries, len(memory.seen)):
            assert rows.client is not None
            mine = (rows.client == sign.client) & (rows.event_time_us <= sign.time_us)
            told.setdefault(sign.client, int(mine.sum()))
    return told


def main() -> None:
    """Measure and print."""
    normal: Counter[str] = Counter()
    for make in (table, real, pictures):
        for seed in range(2):
            population = make(seed + 1)
            for gap_us in (1e5, 1e7):
                reference = fitted(
                    rows := timed(benign(population, 300, 40, 10 * seed + 1), seed, gap_us), tuple(rows.features)
                )
                assert isinstance(reference, AttackReference), reference
                known = reference.habits.volume
                for traffic in (
                    benign(population, 1_600, 40, 10 * seed + 2),
                    lasting(population, 600, 10 * seed + 3),
                ):
                    live = timed(traffic, seed + 7, gap_us)
                    assert live.client is not None
                    ids, count = np.unique(live.client, return_counts=True)
                    told = found(reference, live)
                    long = set(ids[count > LONG].tolist())
                    normal["queries"] += int(count[count <= LONG].sum())
                    normal["found"] += len(told.keys() - long)
                    normal["long"] += len(long)
                    normal["long found"] += len(told.keys() & long)
                rng = np.random.default_rng((seed, 41))
                thief = ("thief", "extraction", population.draw(rng, STOLEN))
                around = benign(population, 100, 40, 10 * seed + 4)
                parts = [(name, "normal", around.x[around.client == name]) for name in np.unique(around.client)]
                traffic = woven(population, [*parts, thief], rng)
                live = timed(traffic, seed + 8, gap_us)
                assert live.client is not None
                own = int(live.client[np.flatnonzero(traffic.client == "thief")[0]])
                at = found(reference, live).get(own)
                print(f"{population.name} {seed}, by {known.span}: budget {known.coverage}, extraction found at {at}")
    print(f"normal clients as long as those of the reference: {normal['found']} found, in {normal['queries']} queries")
    print(f"  upper 95 % limit {interval(normal['found'], 0.9)[1] / normal['queries']:.1e} a query")
    print(f"normal clients with more than {LONG} queries: {normal['long found']} of {normal['long']} found")


if __name__ == "__main__":
    main()
