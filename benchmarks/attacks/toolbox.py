"""Attacks by the Adversarial Robustness Toolbox: data sets, the worker that makes the logs, and their places.

Digits (scikit-learn's, shifted by up to a pixel), real values (`make_classification`), loans (River's Agrawal: numbers,
whole numbers and categories). The target, its training rows, the attackers' rows, the reference and the live traffic
share no base row. Logs stay under .bench/attack-logs and are made anew when the size, the seed or the worker change.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from benchmarks.attacks.measure import Episode, Place, alone, answered, referenced
from benchmarks.attacks.traffic import Population, benign, lasting
from benchmarks.detection import environments
from benchmarks.detection.link import ENVIRONMENTS, PeerError, interpreter

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
HERE = Path(__file__).parent
WORKER = HERE / "workers" / "art_worker.py"
SECONDS = 1_800.0
REFERENCE_CLIENTS = 300
AROUND = 24  # normal clients beside an attacker
NEAR = 0.5  # an evasion's goal: another class within this share of the way to the nearest real row of one
STOLEN = 0.9  # agreement with the target at which a copy is one
SURE = 0.99  # MIFace's own threshold


@dataclass(frozen=True, slots=True)
class Size:
    """How much is run."""

    episodes: int
    cap: int
    clients: int


@dataclass(frozen=True)
class Data:
    """Rows by who has them."""

    name: str
    target: str
    x: FloatArray
    y: IntArray
    train: slice
    attacker: slice
    reference: slice
    live: slice
    whole: BoolArray
    codes: BoolArray
    side: int | None = None  # of pictures, which are shifted

    def population(self, part: slice, seed: int) -> Population:
        """Return a population that deals out rows of a part, each once before any comes again."""
        rows, order = self.x[part], np.random.default_rng((seed, 80)).permutation(part.stop - part.start)
        at = 0

        def draw(rng: np.random.Generator, n: int) -> FloatArray:
            nonlocal at
            picked = rows[order[(at + np.arange(n)) % len(order)]]
            at += n
            return picked if self.side is None else shifted(picked, self.side, rng)

        spread = self.x[self.train].std(axis=0) + 0.1 * float(np.median(self.x[self.train].std(axis=0)))
        spread = np.where(self.codes, 1.0, spread)
        return Population(self.name, draw, spread, np.zeros(self.x.shape[1]), np.median(rows, axis=0))


def shifted(rows: FloatArray, side: int, rng: np.random.Generator) -> FloatArray:
    """Return pictures moved by up to one pixel each way; what leaves is lost, what comes in is 0."""
    padded = np.pad(rows.reshape(-1, side, side), ((0, 0), (1, 1), (1, 1)))
    out = np.empty((len(rows), side, side))
    for at, (down, right) in enumerate(rng.integers(0, 3, (len(rows), 2)).tolist()):
        out[at] = padded[at, down : down + side, right : right + side]
    return out.reshape(len(rows), -1)


def digits(seed: int) -> Data:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng((seed, 81)).permutation(len(x))
    all_ = np.ones(x.shape[1], dtype=bool)
    cuts = (slice(0, 500), slice(500, 800), slice(800, 1300), slice(1300, len(x)))
    return Data("digits", "network", x[order], y[order].astype(np.int64), *cuts, all_, ~all_, side=8)


def numbers(seed: int) -> Data:
    from sklearn.datasets import make_classification

    x, y = make_classification(120_000, 20, n_informative=8, n_redundant=6, random_state=seed)
    none = np.zeros(20, dtype=bool)
    cuts = (slice(0, 2_000), slice(2_000, 4_000), slice(4_000, 40_000), slice(40_000, 120_000))
    return Data("real values", "network", x, y.astype(np.int64), *cuts, none, none)


LOAN = ("salary", "commission", "age", "elevel", "car", "zipcode", "hvalue", "hyears", "loan")
LOAN_CODES = ("elevel", "car", "zipcode")


def loans(seed: int) -> Data:
    from river.datasets.synth import Agrawal

    stream = list(Agrawal(classification_function=6, seed=seed).take(120_000))
    x = np.rint(np.array([[float(row[name]) for name in LOAN] for row, _ in stream]))
    y = np.array([int(label) for _, label in stream])
    codes = np.array([name in LOAN_CODES for name in LOAN])
    cuts = (slice(0, 2_000), slice(2_000, 4_000), slice(4_000, 40_000), slice(40_000, 120_000))
    return Data("loans", "trees", x, y, *cuts, ~codes, codes)


DATA: tuple[Callable[[int], Data], ...] = (digits, numbers, loans)


@dataclass
class Logs:
    """One data set: its place, and what each attack asked there."""

    place: Place
    episodes: dict[str, list[Episode]]
    about: dict[str, Any]


def made() -> str | None:
    """Make the attackers' environment; return why it could not be made."""
    return environments.make("art", HERE)


def logs(data: Data, size: Size, seed: int) -> Logs:
    """Run the attacks, or read what they asked when they ran before.

    :raises PeerError: when the environment or the worker fails.
    """
    folder = ENVIRONMENTS / "attack-logs"
    folder.mkdir(parents=True, exist_ok=True)
    live = data.population(data.live, seed)
    reference = benign(data.population(data.reference, seed), REFERENCE_CLIENTS, 40, 1)
    parts = [reference, lasting(live, size.clients, 2)]
    parts += [benign(live, AROUND, 30, 100 + at) for at in range(size.episodes)]
    between = live.draw(np.random.default_rng((seed, 82)), 3 * size.cap)
    for part in parts:
        part.x[:, data.codes] = np.rint(part.x[:, data.codes])  # a category does not jitter
    asked = np.concatenate([*(part.x for part in parts), between])
    job = _job(data, asked, size, seed, folder)
    answers = np.load(job["out"])
    about = json.loads(Path(job["out"]).with_suffix(".json").read_text())
    p = np.split(answers["normal"], np.cumsum([len(part.x) for part in parts]))
    rows = [answered(part, own) for part, own in zip(parts, p, strict=False)]
    known = referenced(rows[0], data.codes)
    place = Place(data.name, known, rows[1], rows[2:], alone(between, p[-1]), data.codes)
    episodes: dict[str, list[Episode]] = {}
    for number, one in enumerate(about["logs"]):
        if one["queries"]:
            x, own_p = answers[f"x{number}"], answers[f"p{number}"]
            episodes.setdefault(one["attack"], []).append(
                Episode(x, own_p, goal(data, one, x, own_p, answers["own_class"]))
            )
    return Logs(place, episodes, about)


def _job(data: Data, asked: FloatArray, size: Size, seed: int, folder: Path) -> dict[str, Any]:
    x = data.x
    parts = {
        "train_x": x[data.train],
        "train_y": data.y[data.train],
        "attacker_x": x[data.attacker],
        "attacker_y": data.y[data.attacker],
        "low": x[data.train].min(axis=0),
        "high": np.maximum(x[data.train].max(axis=0), x[data.train].min(axis=0) + 1.0),
        "whole": data.whole,
        "codes": data.codes,
        "target": np.array(data.target),
        "normal": asked,
    }
    content = hashlib.blake2b(WORKER.read_bytes(), digest_size=6)
    for value in parts.values():
        content.update(np.ascontiguousarray(value).tobytes())
    content.update(f"{size.episodes} {size.cap} {seed}".encode())
    name = f"{data.name.replace(' ', '-')}-{content.hexdigest()}"
    job = {
        "data": str(folder / f"{name}.data.npz"),
        "out": str(folder / f"{name}.npz"),
        "seed": seed,
        "episodes": size.episodes,
        "cap": size.cap,
    }
    if Path(job["out"]).with_suffix(".json").exists():
        return job
    print(f"attacks on {data.name}: {size.episodes} episodes of at most {size.cap} queries", flush=True)
    np.savez(job["data"], **parts)
    (folder / f"{name}.job").write_text(json.dumps(job))
    with (folder / f"{name}.log").open("w") as out:
        done = subprocess.run(
            [str(interpreter("art")), "-u", str(WORKER), str(folder / f"{name}.job")],
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,  # GeoDA leaves files where it runs
            timeout=SECONDS,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    Path(job["data"]).unlink()
    if done.returncode:
        last = (folder / f"{name}.log").read_text().strip().splitlines()[-1:]
        raise PeerError(f"the attacks on {data.name} ended: {last[0] if last else 'without a word'}")
    return job


def goal(data: Data, about: dict[str, Any], x: FloatArray, p: FloatArray, own_class: IntArray) -> int | None:
    """Return the number of the query that reached the goal, from 1; None when none did or there is no goal.

    :param own_class: what the target says of the attackers' rows.
    """
    if about["goal"] == "steal":
        return len(x) if (about.get("fidelity") or 0.0) >= STOLEN else None
    if about["goal"] == "invert":
        return _first(p[:, about["class"]] >= SURE)
    if about["goal"] is None:
        return None
    other = p.argmax(axis=1) != about["class"]
    if about["goal"] == "flip":
        return _first(other)
    spread, origin = data.x[data.train].std(axis=0) + 1e-9, np.array(about["origin"])
    known = data.x[data.attacker][own_class != about["class"]]
    nearest = float(np.sqrt((((known - origin) / spread) ** 2).sum(axis=1)).min())
    far = np.sqrt((((x - origin) / spread) ** 2).sum(axis=1))
    return _first(other & (far <= NEAR * nearest))


def _first(reached: BoolArray) -> int | None:
    return int(np.argmax(reached)) + 1 if reached.any() else None
