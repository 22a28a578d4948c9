"""The views beside client memory on normal traffic: false findings, cost; and honest and poisoned labels.

    python -m benchmarks.attacks.views                 # 2.9 million queries, 1.2 million labels: ten minutes
    python -m benchmarks.attacks.views --references 1  # a fifth of it

Load tests and crawlers of the watched traffic ask by the clock in one run of three; no reference does.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
from benchmarks.attacks.measure import KEY, SLICE, answered, interval, sliced
from benchmarks.attacks.traffic import START_US, Population, Traffic, benign, pictures, real, table

from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.habits import labels_of
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.poison import Poison
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.watch import AttackWatch
from regate.detectors.classes import class_hash
from regate.detectors.columns import Slice
from regate.detectors.marks import Outcomes, OutcomeShape, marks

CLOCKWORK = ("load-test", "crawler")
CELL = 50  # labels a second


def timed(traffic: Traffic, seed: int, *, clockwork: bool) -> Slice:
    """Return traffic at times as people have them, and with latencies; some clients by the clock."""
    rng = np.random.default_rng((seed, 77))
    n = len(traffic.x)
    busy = 1.0 + 0.5 * np.sin(np.arange(n) / 3_000)
    times = START_US + np.cumsum(rng.exponential(1e5, n) * busy).astype(np.int64)
    if clockwork:
        for client in np.unique(traffic.client[np.isin(traffic.kind, CLOCKWORK)]):
            own = np.flatnonzero(traffic.client == client)
            gap = rng.integers(200_000, 5_000_000)
            times[own] = times[own[0]] + gap * np.arange(len(own))
    order = np.argsort(times, kind="stable")
    columns = {name: getattr(traffic, name)[order] for name in ("x", "client", "kind", "score")}
    rows = sliced(answered(replace(traffic, **columns)))
    return replace(
        rows, event_time_us=times[order], arrival_us=times[order], latency_ms=np.exp(rng.normal(np.log(12.0), 0.3, n))
    )


def queries(references: int, clients: int) -> None:
    """Print false findings of normal queries."""
    total = 0
    found: list[str] = []
    for make in (table, real, pictures):
        for seed in range(references):
            population: Population = make(seed + 1)
            rows = timed(benign(population, 300, 40, 10 * seed + 1), seed, clockwork=False)
            made = fitted(rows, tuple(rows.features))
            assert isinstance(made, AttackReference), made
            off = [note for note in made.habits.notes() if "off" in note and "labels" not in note]
            began, n, told = time.perf_counter(), 0, []
            for live in range(3):
                rows = timed(benign(population, clients, 40, 10 * seed + 2 + live), live, clockwork=live % 2 == 1)
                watch = AttackWatch(KEY, "", Memory(made))
                for start in range(0, rows.n, SLICE):
                    part = made.queries(rows.cut(slice(start, start + SLICE)))
                    told += [
                        one.message for one in watch.decide(part) if one.detector != "attack" and one.type == "finding"
                    ]
                n += rows.n
            cost = (time.perf_counter() - began) / n * 1e6
            print(f"{population.name} {seed}: {n} queries, {cost:.0f} us each with all lanes, false {told}, {off}")
            total, found = total + n, found + told
    limit = interval(len(found), 0.9)[1] / total
    print(f"all: {len(found)} false findings of {total} queries, upper 95 % limit {limit:.1e}")


def world(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and honest labels."""
    score = rng.beta(0.7, 0.7, n)
    off = rng.random(n) < 0.3 * (1.0 - np.abs(2.0 * score - 1.0)) ** 2
    return score, np.where(off, score < 0.5, score >= 0.5).astype(np.int64)


def outcomes_of(score: np.ndarray, label: np.ndarray) -> Outcomes:
    """Return outcomes of labels 0 and 1 and scores of class 1."""
    shape = OutcomeShape("binary", "1", ("0", "1"))
    values = np.array([class_hash("0"), class_hash("1")], dtype=np.uint64)
    made = (score >= 0.5).astype(np.int64)
    mark = marks(len(score), score, {}, shape, np.zeros(len(score), dtype=np.int64))
    return Outcomes((made != label).astype(np.int64), values[made], values[label], mark, shape=shape)


def labels(runs: int) -> None:
    """Print false findings of honest labels, and labels until a poisoner is found."""
    made = labels_of(outcomes_of(*world(np.random.default_rng(1), 6_000)), None, None)
    none = np.zeros(0, dtype=np.uint64)
    for share in (0.0, 1.0, 0.5, 0.2, 0.1):
        needed: list[float] = []
        others = count = 0
        for run in range(runs):
            rng = np.random.default_rng((2, run, round(100 * share)))
            score, label = world(rng, 40_000)
            source = rng.integers(1, 21, len(score)).astype(np.uint64)
            drift = np.clip((np.arange(len(score)) - 10_000) / 10_000, 0.0, 1.0) * 0.1 * (run % 2)
            label = np.where(rng.random(len(score)) < drift, 1 - label, label)  # that all sources see
            label = np.where((source == 7) & (rng.random(len(score)) < share), 1 - label, label)
            poison, signs = Poison(made), []
            for cell, start in enumerate(range(0, len(score), CELL)):
                own = slice(start, start + CELL)
                signs += poison.take(outcomes_of(score[own], label[own]), source[own], none, cell)
            mine = [sign for sign in signs if share and sign.subject.endswith("7")]
            others += len({sign.subject for sign in signs}) - bool(mine)
            needed.append(int((source[: (mine[0].time_us + 1) * CELL] == 7).sum()) if mine else np.inf)
            count += len(score)
        print(
            f"one of 20 sources turns {share:.0%} over: found {sum(np.isfinite(needed))} of {runs}, "
            f"its labels until then {np.median(needed):.0f} (median); other sources told {others}, of {count} labels"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--references", type=int, default=5, help="of each of three populations")
    parser.add_argument("--clients", type=int, default=1_600, help="of each run, three runs a reference")
    parser.add_argument("--runs", type=int, default=6, help="of labels, 40,000 each, at each of five shares")
    options = parser.parse_args()
    labels(options.runs)
    queries(options.references, options.clients)


if __name__ == "__main__":
    main()
