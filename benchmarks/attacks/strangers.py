"""Findings about normal clients, of kinds that the reference shows and of kinds that it does not.

    python -m benchmarks.attacks.strangers                # about two minutes on one core
    python -m benchmarks.attacks.strangers --seed 56 --clients 300

Six populations, each with a reference of four kinds of client (those of the logs) and one of all eight. The live
traffic has the eight kinds and three more: a form changed bit by bit, two values swept against each other, a sensor
four times as fine. One client in twenty asks for ten times as long as any in the reference. Everything that
`AttackWatch` tells is counted. The lanes were chosen on seeds 50 to 55.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable

import numpy as np
from benchmarks.attacks.measure import KEY, SLICE, answered, interval, referenced, sliced
from benchmarks.attacks.traffic import (
    BENIGN,
    FloatArray,
    Population,
    benign,
    benign_client,
    pictures,
    real,
    table,
    woven,
)

from regate.detectors.attack.memory import Memory
from regate.detectors.attack.watch import AttackWatch

LOGGED = ("fresh", "retries", "what-if", "jitter")
MORE = ("form", "grid", "finer")
POPULATIONS: dict[str, Callable[[int], Population]] = {
    "table": table,
    "wide table": lambda seed: table(seed, 40),
    "real": real,
    "wide real": lambda seed: real(seed, 48),
    "pictures": pictures,
    "small pictures": lambda seed: pictures(seed, 6),
}


def asked(population: Population, kind: str, rng: np.random.Generator, queries: int) -> FloatArray:
    """Return what one normal client asks, in order."""
    draw, width = population.draw, len(population.scale)
    if kind == "form":  # values change one by one, then a new case
        rows = draw(rng, queries)
        for at in range(1, queries):
            if at % 20:
                column = int(rng.integers(width))
                rows[at] = np.where(np.arange(width) == column, rows[at], rows[at - 1])
        return rows
    if kind == "grid":  # two values swept over what others have
        one, two = rng.choice(width, 2, replace=False).tolist()
        rows = np.repeat(draw(rng, 1), queries, axis=0)
        rows[:, one] = np.repeat(draw(rng, -(-queries // 40))[:, one], 40)[:queries]
        rows[:, two] = np.resize(np.sort(draw(rng, 40)[:, two]), queries)
        return rows
    if kind == "finer":  # a sensor four times as fine as the reference's, read for longer
        base = np.repeat(draw(rng, -(-queries // 30)), 30, axis=0)[:queries]
        return np.asarray(base + 0.005 * population.scale * rng.normal(size=base.shape))
    return benign_client(population, kind, rng, queries)


def told(population: Population, known: tuple[str, ...], clients: int, seed: int) -> tuple[Counter[str], int, int]:
    """Return findings by kind of client, queries and clients."""
    reference = referenced(answered(benign(population, 300, 40, seed + 1, known)))
    rng = np.random.default_rng((seed, 7))
    parts = []
    for kind in (*BENIGN, *MORE):
        for number in range(clients):
            long = number < max(clients // 20, 1)
            queries = int(rng.integers(150, 450) if long else rng.integers(10, 70))
            parts.append((f"{kind}-{number}", kind, asked(population, kind, rng, queries)))
    rows = answered(woven(population, parts, rng))
    live, watch, found = sliced(rows), AttackWatch(KEY, "benchmark", Memory(reference)), Counter[str]()
    for start in range(0, live.n, SLICE):
        queries_of = reference.queries(live.cut(slice(start, start + SLICE)))
        for one in watch.decide(queries_of):
            if one.type == "finding":
                found[str(rows.kind[np.searchsorted(live.event_time_us, one.detected_us)])] += 1
    return found, live.n, len(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=150, help="clients of each kind")
    parser.add_argument("--seed", type=int, default=56)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    totals: dict[str, tuple[Counter[str], int, int]] = {}
    for name, made in POPULATIONS.items():
        for label, known in (("four kinds", LOGGED), ("all kinds", BENIGN)):
            found, queries, clients = told(made(options.seed), known, options.clients, options.seed)
            before = totals.get(label, (Counter(), 0, 0))
            totals[label] = (before[0] + found, before[1] + queries, before[2] + clients)
            print(f"{name}, reference of {label}: {sum(found.values())} of {queries:,} {dict(found) or ''}", flush=True)
    for label, (found, queries, clients) in totals.items():
        for what, kinds in (("the eight kinds", BENIGN), ("three that no reference has", MORE)):
            count, share = sum(found[kind] for kind in kinds), len(kinds) / len((*BENIGN, *MORE))
            upper = interval(count)[1] / (queries * share)
            print(
                f"reference of {label}, {what}: {count} of {queries * share:,.0f} queries, upper 95 % limit "
                f"{upper:.1e}; {count / (clients * share):.3%} of clients"
            )


if __name__ == "__main__":
    main()
