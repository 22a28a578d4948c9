"""Model inversion: who climbs the model's confidence, by the view for climbs alone and by all lanes.

    python -m benchmarks.attacks.inversion               # about two minutes on one core
    python -m benchmarks.attacks.inversion --seed 74

Four ways to climb from three starts on three populations: random steps that are kept when they help, finite
differences, a cloud of samples (NES), and single values as real rows have them. 300 queries each. The normal clients
are those of `strangers`, and a tuner: a person who changes one value of a case at a time and keeps what raised the
score. He does what an attacker does, and has a row of his own.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable

import numpy as np
from benchmarks.attacks.measure import SLICE, Rows, alone, answered, both, hashed, interval, referenced, sliced
from benchmarks.attacks.strangers import MORE, asked
from benchmarks.attacks.traffic import BENIGN, FloatArray, Population, benign, pictures, real, table, woven

from regate.detectors.attack.memory import Memory
from regate.detectors.attack.reference import AttackReference

QUERIES = 300
POPULATIONS: tuple[Callable[[int], Population], ...] = (table, real, pictures)
STARTS = ("a real row", "the middle", "noise")
BETWEEN = (0, 1, 3)


def _random(population: Population, point: FloatArray, rng: np.random.Generator) -> list[FloatArray]:
    out, best = [point], population.score(point[None])[0]
    while len(out) < QUERIES:
        trial = point + 0.1 * population.scale * rng.normal(size=len(point))
        out.append(trial)
        if (score := population.score(trial[None])[0]) > best:
            point, best = trial, score
    return out


def _differences(population: Population, point: FloatArray, rng: np.random.Generator) -> list[FloatArray]:
    out, width = [point], len(point)
    while len(out) < QUERIES:
        here, slope = population.score(point[None])[0], np.zeros(width)
        for column in rng.permutation(width):
            probe = point.copy()
            probe[column] += 0.05 * population.scale[column]
            out.append(probe)
            slope[column] = population.score(probe[None])[0] - here
        point = point + 0.4 * population.scale * slope / (np.linalg.norm(slope) + 1e-12)
        out.append(point)
    return out


def _cloud(population: Population, point: FloatArray, rng: np.random.Generator) -> list[FloatArray]:
    out = [point]
    while len(out) < QUERIES:
        here, slope = population.score(point[None])[0], np.zeros(len(point))
        for _ in range(10):
            step = rng.normal(size=len(point))
            probe = point + 0.1 * population.scale * step
            out.append(probe)
            slope += (population.score(probe[None])[0] - here) * step
        point = point + 0.4 * population.scale * slope / (np.linalg.norm(slope) + 1e-12)
        out.append(point)
    return out


def _valid(population: Population, point: FloatArray, rng: np.random.Generator) -> list[FloatArray]:
    out, best = [point], population.score(point[None])[0]
    while len(out) < QUERIES:
        trial, some = point.copy(), rng.choice(len(point), 2, replace=False)
        trial[some] = population.draw(rng, 1)[0][some]
        out.append(trial)
        if (score := population.score(trial[None])[0]) > best:
            point, best = trial, score
    return out


WAYS = {
    "random steps, kept when they help": _random,
    "finite differences": _differences,
    "cloud (NES)": _cloud,
    "values as real rows have them": _valid,
}


def climbing(population: Population, way: str, start: str, rng: np.random.Generator) -> FloatArray:
    """Return what an attacker asks."""
    rows = population.draw(rng, 100)
    # He has a row that is least of the class that he wants to see.
    point = rows[np.argmin(np.abs(population.score(rows) - 0.55))]
    if start == "the middle":
        point = population.centre.copy()
    elif start == "noise":
        point = population.centre + population.scale * rng.normal(size=len(point))
    return np.array(WAYS[way](population, point, rng)[:QUERIES])


def tuned(population: Population, rng: np.random.Generator, queries: int) -> FloatArray:
    """Return what somebody asks who changes one value at a time, a new case after twenty."""
    out: list[FloatArray] = []
    while len(out) < queries:
        case = population.draw(rng, 1)[0]
        best = population.score(case[None])[0]
        out.append(case)
        for _ in range(19):
            trial, column = case.copy(), int(rng.integers(len(case)))
            trial[column] = population.draw(rng, 1)[0][column]
            out.append(trial)
            if (score := population.score(trial[None])[0]) > best:
                case, best = trial, score
    return np.array(out[:queries])


def found(reference: AttackReference, rows: Rows, about: str = "") -> tuple[int | None, int | None, set[str]]:
    """Return the first query of a kind found by climbs and by any lane, and the clients that climbs told of."""
    memory, live = Memory(reference), sliced(rows)
    kinds, by_climb, by_lane = rows.kind, None, None
    names = hashed(rows.client)
    told: set[str] = set()
    mine = np.cumsum(kinds == about)
    for start in range(0, live.n, SLICE):
        alarms = memory.take(reference.queries(live.cut(slice(start, start + SLICE))))
        for alarm in alarms:
            if kinds[start + alarm.row] == about and by_lane is None:
                by_lane = int(mine[start + alarm.row])
        for sign in memory.beside.waiting:
            row = int(np.searchsorted(live.event_time_us, sign.time_us))
            if sign.lane == "climb":
                told.add(f"{kinds[row]} {names[row]}")
                if kinds[row] == about and by_climb is None:
                    by_climb = int(mine[row])
        memory.beside.waiting.clear()
    return by_climb, by_lane, told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=73)
    parser.add_argument("--episodes", type=int, default=5, help="of each way, start and population")
    parser.add_argument("--clients", type=int, default=150, help="normal ones of each kind")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    false: Counter[str] = Counter()
    asked_by: Counter[str] = Counter()
    needed: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for make in POPULATIONS:
        population = make(options.seed)
        reference = referenced(answered(benign(population, 300, 40, options.seed + 1)))
        print(
            f"{population.name}: {reference.habits.climb.reason or f'bar {reference.habits.climb.bar:.1f}'}", flush=True
        )
        rng = np.random.default_rng((options.seed, 9))
        for way in WAYS:
            for start in STARTS:
                for _ in range(options.episodes):
                    x = climbing(population, way, start, rng)
                    for between in BETWEEN if start == STARTS[0] else BETWEEN[:1]:
                        normal = population.draw(rng, len(x) * between)
                        every = np.concatenate([x[:, None], normal.reshape(len(x), between, x.shape[1])], axis=1)
                        rows = alone(
                            every.reshape(-1, x.shape[1]), both(population.score(every.reshape(-1, x.shape[1])))
                        )
                        kinds = np.where(np.arange(rows.n) % (between + 1) == 0, "attack", "fresh")
                        one = found(reference, Rows(rows.x, rows.p, rows.client, kinds), "attack")
                        needed.setdefault((way, between), []).append(
                            (one[0] or np.inf, min(one[0] or np.inf, one[1] or np.inf))
                        )
        parts = []
        for kind in (*BENIGN, *MORE, "tuner"):
            for number in range(options.clients):
                queries = int(rng.integers(150, 450) if number < options.clients // 20 else rng.integers(10, 70))
                x = tuned(population, rng, queries) if kind == "tuner" else asked(population, kind, rng, queries)
                parts.append((f"{kind}-{number}", kind, x))
                asked_by[kind] += queries
        for one in found(reference, answered(woven(population, parts, rng)))[2]:
            false[one.split()[0]] += 1
    print("queries of the attack until found, medians (found of all): by climbs alone; by any lane")
    for (way, between), count in needed.items():
        climbs, lanes = np.array(count).T
        print(
            f"  {way}, {between} normal ones between: {np.median(climbs):g} ({np.isfinite(climbs).sum()} of "
            f"{len(count)}); {np.median(lanes):g} ({np.isfinite(lanes).sum()})"
        )
    normal_queries = sum(queries for kind, queries in asked_by.items() if kind != "tuner")
    told = sum(count for kind, count in false.items() if kind != "tuner")
    print(
        f"normal clients that climbs told of: {told}, of {normal_queries:,} queries, upper 95 % limit "
        f"{interval(told)[1] / normal_queries:.1e} {dict(false)}"
    )
    print(f"tuners told of: {false['tuner']} of {options.clients * len(POPULATIONS)} ({asked_by['tuner']:,} queries)")


if __name__ == "__main__":
    main()
