"""Attack lanes on generated traffic and on logs: queries until found, false findings by kind of client, cost.

    python -m benchmarks.attacks                                     # generated traffic alone
    python -m benchmarks.attacks --logs ../shared/data/attacks       # logged attacks too, from a folder
    python -m benchmarks.attacks --clients 400                       # smaller

Prints tables; `--json FILE` keeps the figures. Blacklight (Li et al. 2022) and PRADA (Juuti et al. 2019) are our own
re-implementations from the papers, at the papers' settings.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.attacks.peers import Blacklight, Peer, Prada
from benchmarks.attacks.traffic import (
    ATTACKS,
    BENIGN,
    Population,
    Traffic,
    attack,
    benign,
    benign_client,
    pictures,
    real,
    table,
    woven,
)
from scipy.stats import chi2

from regate.daemon.files.table import read_table
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.reference import AttackReference
from regate.detectors.columns import ModelKey, Numeric, Slice

KEY = ModelKey("default", "benchmark", "1", "production")
SLICE = 2_000
EPISODES = 10
QUERIES = 120


def rows_of(traffic: Traffic) -> tuple[Slice, dict[int, str]]:
    """Return traffic as a slice, and clients by their number."""
    distinct, number = np.unique(traffic.client, return_inverse=True)
    n = len(traffic.x)
    rows = Slice(
        KEY,
        n,
        np.arange(1, n + 1, dtype=np.uint64),
        traffic.time_us,
        traffic.time_us,
        {f"f{index:03}": Numeric(np.ascontiguousarray(traffic.x[:, index])) for index in range(traffic.x.shape[1])},
        prediction=Numeric((traffic.score >= 0.5).astype(np.float64)),
        scores={"": traffic.score},
        client=(number.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15),
    )
    names = {int(one): str(distinct[at]) for one, at in zip(rows.client.tolist(), number, strict=True)}  # type: ignore[union-attr]
    return rows, names


def found(reference: AttackReference, rows: Slice, names: dict[int, str]) -> list[tuple[int, str]]:
    """Return (row, client) of each finding."""
    memory, told = Memory(reference), []
    for start in range(0, rows.n, SLICE):
        part = reference.queries(rows.cut(slice(start, start + SLICE)))
        told += [(start + alarm.row, names.get(alarm.client, "pattern")) for alarm in memory.take(part)]
    return told


def upper(count: int) -> float:
    """Return the upper 95 % limit of a Poisson mean (one-sided)."""
    return float(chi2.ppf(0.95, 2 * count + 2) / 2.0)


def with_gaps(queries: np.ndarray, between: int, population: Population, rng: np.random.Generator) -> np.ndarray:
    """Return attack queries with so many normal ones of the same client after each."""
    if not between:
        return queries
    normal = benign_client(population, "fresh", rng, len(queries) * between).reshape(len(queries), between, -1)
    return np.concatenate([np.concatenate([one[None], rest]) for one, rest in zip(queries, normal, strict=True)])


def episodes(reference: AttackReference, population: Population, kind: str, between: int) -> list[int | None]:
    """Return the attack queries until each episode's finding."""
    needed: list[int | None] = []
    for seed in range(EPISODES):
        rng = np.random.default_rng((5, seed, between))
        inputs = with_gaps(attack(population, kind, rng, QUERIES), between, population, rng)
        rows, names = rows_of(woven(population, [("evil", kind, inputs)], rng))
        told = found(reference, rows, names)
        needed.append(told[0][0] // (between + 1) + 1 if told else None)
    return needed


def peer_needed(peer: Peer, population: Population, kind: str) -> list[int | None]:
    needed: list[int | None] = []
    for seed in range(EPISODES):
        rng = np.random.default_rng((5, seed, 0))
        inputs = attack(population, kind, rng, QUERIES)
        needed.append(peer.first(inputs, population.score(inputs) >= 0.5))
    return needed


def summary(needed: list[int | None]) -> dict[str, Any]:
    known = sorted(np.inf if one is None else one for one in needed)
    return {
        "found": sum(one is not None for one in needed),
        "of": len(needed),
        "median": None if np.isinf(np.median(known)) else float(np.median(known)),
        "p95": None if np.isinf(known[-1]) else float(known[int(0.95 * (len(known) - 1))]),
    }


def generated(population: Population, clients: int) -> dict[str, Any]:
    """Measure one population."""
    began = time.perf_counter()
    rows, _ = rows_of(benign(population, 300, 40, 1))
    reference = fitted(rows, tuple(rows.features))
    assert isinstance(reference, AttackReference), reference
    fit = time.perf_counter() - began
    traffic = benign(population, clients, 40, 2)
    rows, names = rows_of(traffic)
    began = time.perf_counter()
    told = found(reference, rows, names)
    cost = (time.perf_counter() - began) / rows.n * 1e6
    kinds = {kind: int((traffic.kind == kind).sum()) for kind in BENIGN}
    false = {kind: sum(traffic.kind[row] == kind for row, _ in told) for kind in BENIGN}
    peers: dict[str, Any] = {}
    for peer in (Blacklight(reference), Prada()):
        hit = {
            kind: [
                peer.first(traffic.x[own], traffic.score[own] >= 0.5) is not None
                for client in np.unique(traffic.client[traffic.kind == kind])[:20]
                for own in [traffic.client == client]
            ]
            for kind in BENIGN
        }
        peers[peer.name] = {
            "benign clients flagged": {kind: round(float(np.mean(one)), 2) for kind, one in hit.items()},
            "attacks": {kind: summary(peer_needed(peer, population, kind)) for kind in ATTACKS},
        }
    return {
        "population": population.name,
        "features": len(population.scale),
        "fit_seconds": round(fit, 1),
        "us_a_query": round(cost, 1),
        "benign_queries": kinds,
        "false_findings": false,
        "clients": clients,
        "attacks": {
            str(between): {kind: summary(episodes(reference, population, kind, between)) for kind in ATTACKS}
            for between in (0, 1, 3)
        },
        "peers": peers,
    }


def logged(path: Path) -> dict[str, Any]:
    """Measure one log: the attackers of its truth file, all others are normal."""
    truth = json.loads(path.with_name(f"{path.stem}.truth.json").read_text())
    data = read_table(path, None)
    reference = fitted(data.slice(0, truth["reference_rows"]), tuple(data.config.features))
    assert isinstance(reference, AttackReference), reference
    rows = data.slice(truth["reference_rows"], data.rows)
    assert rows.client is not None
    names = {int(one): data.client_name(int(one)) for one in np.unique(rows.client)}
    began = time.perf_counter()
    told = found(reference, rows, names)
    cost = (time.perf_counter() - began) / rows.n * 1e6
    client = np.array([names[int(one)] for one in rows.client])
    attackers = {one["client"]: one["attack"] for one in truth["attacks"]}
    needed: dict[str, list[int | None]] = {}
    for who, kind in attackers.items():
        row = next((row for row, _ in told if client[row] == who), None)  # his query, whoever it is ascribed to
        needed.setdefault(kind, []).append(None if row is None else int((client[: row + 1] == who).sum()))
    normal = ~np.isin(client, list(attackers))
    return {
        "log": path.stem,
        "us_a_query": round(cost, 1),
        "attacks": {kind: summary(one) for kind, one in needed.items()},
        "benign_queries": int(normal.sum()),
        "false_findings": sum(normal[row] for row, _ in told),
    }


def line(name: str, one: dict[str, Any]) -> str:
    median = "-" if one["median"] is None else f"{one['median']:.0f}"
    last = "-" if one["p95"] is None else f"{one['p95']:.0f}"
    return f"  {name:28} found {one['found']:2}/{one['of']:2}  median {median:>4}  95 % {last:>4}"


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    queries = false = 0
    for one in result["generated"]:
        print(f"\n{one['population']}: {one['features']} features, {one['us_a_query']} us a query")
        for kind, count in one["benign_queries"].items():
            print(f"  normal, {kind:12} {count:7} queries, {one['false_findings'][kind]} false findings")
            queries, false = queries + count, false + one["false_findings"][kind]
        for between, kinds in one["attacks"].items():
            print(f" attacks with {between} normal queries after each")
            for kind, found_of in kinds.items():
                print(line(kind, found_of))
        for name, peer in one["peers"].items():
            print(f" {name}: share of normal clients flagged {peer['benign clients flagged']}")
            for kind, found_of in peer["attacks"].items():
                print(line(kind, found_of))
    for one in result["logs"]:
        print(f"\n{one['log']}: {one['us_a_query']} us a query")
        for kind, found_of in one["attacks"].items():
            print(line(kind, found_of))
        print(f"  normal: {one['benign_queries']} queries, {one['false_findings']} false findings")
        queries, false = queries + one["benign_queries"], false + one["false_findings"]
    print(
        f"\nall normal traffic: {false} false findings of {queries} queries, {false / queries:.1e} a query, "
        f"upper 95 % limit {upper(false) / queries:.1e} (bound 3e-5)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1_600, help="normal clients of each population")
    parser.add_argument("--logs", type=Path, help="folder of logged attacks (Parquet with .truth.json)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {
        "generated": [generated(make(1), options.clients) for make in (table, real, pictures)],
        "logs": [],
    }
    if options.logs is not None:
        result["logs"] = [logged(path) for path in sorted(options.logs.glob("*.parquet"))]
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
