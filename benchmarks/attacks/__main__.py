"""Attacks, found and missed: our lanes beside Blacklight and PRADA, false findings by kind of client, cost.

    python -m benchmarks.attacks                                     # about ten minutes on two cores
    python -m benchmarks.attacks --quick                             # two minutes
    python -m benchmarks.attacks --logs ../shared/data/attacks       # logged attacks too, from a folder
    python -m benchmarks.attacks --no-art                            # without the Adversarial Robustness Toolbox

Makes the toolbox's environment under .bench/art when it is not there, and says why if it cannot. Prints the table and
writes REPORT.md and report.json. Blacklight (Li et al. 2022), PRADA (Juuti et al. 2019) and OARS (Feng et al. 2023) are
our own re-implementations from the papers, at the papers' settings.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.attacks import adaptive, toolbox
from benchmarks.attacks.measure import (
    PLAIN,
    Episode,
    Outcome,
    Place,
    alone,
    answered,
    both,
    findings,
    flagged,
    referenced,
    summary,
)
from benchmarks.attacks.peers import Blacklight, Prada, first
from benchmarks.attacks.report import markdown
from benchmarks.attacks.traffic import (
    ATTACKS,
    Population,
    attack,
    benign,
    benign_client,
    lasting,
    pictures,
    real,
    table,
)
from benchmarks.detection.link import PeerError

from regate.daemon.files.table import read_table
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.reference import AttackReference
from regate.detectors.columns import Categorical, Numeric

QUERIES = 120  # of an own attacker
POPULATIONS = (table, real, pictures)


def placed(population: Population, clients: int, episodes: int) -> Place:
    """Return a population with its reference and the normal traffic around attacks."""
    around = [answered(benign(population, toolbox.AROUND, 30, 100 + at)) for at in range(episodes)]
    normal = benign_client(population, "fresh", np.random.default_rng(6), 3 * QUERIES)
    between = alone(normal, both(population.score(normal)))
    return Place(
        population.name,
        referenced(answered(benign(population, toolbox.REFERENCE_CLIENTS, 40, 1))),
        answered(lasting(population, clients, 2)),
        around,
        between,
    )


def own(place: Place, population: Population, episodes: int) -> list[dict[str, Any]]:
    """Measure our own attackers."""
    out = []
    for kind in ATTACKS:
        some = []
        for seed in range(episodes):
            x = attack(population, kind, np.random.default_rng((5, seed, 0)), QUERIES)
            some.append(Episode(x, both(population.score(x))))
        out.append(place.row("own", kind, some))
    return out


def logged(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Measure one log: the attackers of its truth file; all others are normal. Return rows, and normal clients."""
    truth = json.loads(path.with_name(f"{path.stem}.truth.json").read_text())
    data = read_table(path, None)
    reference = fitted(data.slice(0, truth["reference_rows"]), tuple(data.config.features))
    assert isinstance(reference, AttackReference), reference
    rows = data.slice(truth["reference_rows"], data.rows)
    assert rows.client is not None
    names = {int(one): data.client_name(int(one)) for one in np.unique(rows.client)}
    told = [(row, names.get(client, "")) for row, client in findings(Memory(reference), rows)]
    client = np.array([names[int(one)] for one in rows.client])
    attackers = {one["client"]: one["attack"] for one in truth["attacks"]}
    x = np.nan_to_num(reference.inputs.matrix(rows))
    answer = rows.prediction
    label = answer.codes if isinstance(answer, Categorical) else np.zeros(rows.n)
    label = np.nan_to_num(answer.values) if isinstance(answer, Numeric) else label
    label = label.astype(np.int64)
    peers = (Blacklight(reference), Prada(reference.sketch.scale))
    found: dict[str, dict[str, list[Outcome]]] = {}
    asked: dict[str, list[int]] = {}
    for who, kind in attackers.items():
        mine = client == who
        row = next((row for row, one in told if one == who or (not one and mine[row])), None)
        kinds = found.setdefault(kind, {})
        kinds.setdefault("lanes", []).append(Outcome(None if row is None else int(mine[: row + 1].sum()), None))
        for peer in peers:
            kinds.setdefault(peer.name, []).append(Outcome(first(peer, x[mine], label[mine]), None))
        asked.setdefault(kind, []).append(int(mine.sum()))
    normal = ~np.isin(client, list(attackers))
    false = sum(one not in attackers and not (not one and not normal[row]) for row, one in told)
    table_rows = [
        {
            "by": "log",
            "data": path.stem,
            "attack": kind,
            "queries": int(np.median(asked[kind])),
            **{name: {PLAIN: summary(some)} for name, some in by.items()},
        }
        for kind, by in found.items()
    ]
    clients = len(np.unique(client[normal]))
    return table_rows, {
        "data": path.stem,
        "kind": "as logged",
        "queries": int(normal.sum()),
        "clients": clients,
        "lanes": false,
        **{
            peer.name: int(flagged(peer, x[normal], label[normal], rows.client[normal].astype(np.int64))[0].sum())
            for peer in peers
        },
    }


def measured(options: argparse.Namespace, result: dict[str, Any]) -> None:
    """Fill the result; it is printed as it grows."""
    episodes = 3 if options.quick else 10
    clients = options.clients or (160 if options.quick else 1_600)
    rows, normal, cost, missing = (result[name] for name in ("rows", "normal", "cost", "about"))
    missing = missing["missing"]
    places = [(population, placed(population, clients, episodes)) for population in (make(1) for make in POPULATIONS)]
    size = toolbox.Size(3, 200, clients) if options.quick else toolbox.Size(8, 500, clients)
    why = "--no-art" if options.no_art else toolbox.made()
    if why:
        missing.append(f"attacks by the Adversarial Robustness Toolbox: {why}")
        print(missing[-1], flush=True)
    for make in () if why else toolbox.DATA:
        data = make(options.seed)
        try:
            logs = toolbox.logs(data, size, options.seed)
        except PeerError as error:
            missing.append(str(error))
            continue
        rows += [logs.place.row("ART", name, some) for name, some in logs.episodes.items()]
        counts, used = logs.place.normal()
        normal += counts
        cost.append(used)
        errors = {(one["attack"], one["error"]) for one in logs.about["logs"] if "error" in one}
        missing += [f"{name} on {data.name}: {error}" for name, error in sorted(errors)]
        print(f"ART on {data.name}: done", flush=True)
    for population, place in places:
        rows += own(place, population, episodes)
        counts, used = place.normal()
        normal += counts
        cost.append(used)
    for path in sorted(options.logs.glob("*.parquet")) if options.logs else ():
        more, count = logged(path)
        rows += more
        normal.append(count)
    for population, place in places:
        rows += adaptive.rows(place, population, 3 if options.quick else 8, 150 if options.quick else 400)
        print(f"OARS on {place.name}: done", flush=True)


def lines_of(result: dict[str, Any]) -> str:
    """Return the result as JSON with a row a line."""
    lists = [
        f'"{name}": [\n' + ",\n".join(json.dumps(row, separators=(",", ":")) for row in result[name]) + "\n]"
        for name in ("rows", "normal", "cost")
    ]
    return "{\n" + ",\n".join([f'"about": {json.dumps(result["about"])}', *lists]) + "\n}\n"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-art", action="store_true")
    parser.add_argument("--clients", type=int, help="normal clients of each population")
    parser.add_argument("--logs", type=Path, help="folder of logged attacks (Parquet with .truth.json)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    began = time.perf_counter()
    given = [name for name in ("quick", "no_art") if getattr(options, name)]
    given += ["logs FOLDER"] if options.logs else []
    about: dict[str, Any] = {
        "command": " ".join(["python -m benchmarks.attacks", *(f"--{one.replace('_', '-')}" for one in given)]),
        "seed": options.seed,
        "missing": [] if options.logs else ["logged attacks: no --logs given"],
    }
    result: dict[str, Any] = {"about": about, "rows": [], "normal": [], "cost": []}
    measured(options, result)
    about["machine"] = f"Python {platform.python_version()}, {time.perf_counter() - began:.0f} s"
    text = markdown(result)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "REPORT.md").write_text(text)
    (options.out / "report.json").write_text(lines_of(result))


if __name__ == "__main__":
    main()
