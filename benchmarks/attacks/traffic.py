"""Traffic of clients, made from seeds: what normal ones do, and simple attackers of our own.

A population has whole numbers, amounts, codes and flags that depend on each other (`table`), or real values only
(`real`). The model is logistic on scaled inputs. Nothing here was taken from the shared logs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Answer = Callable[[FloatArray], FloatArray]

START_US = 1_760_000_000_000_000


@dataclass(frozen=True, slots=True)
class Population:
    """Where inputs come from, and the model that answers."""

    name: str
    draw: Callable[[np.random.Generator, int], FloatArray]
    scale: FloatArray
    weights: FloatArray
    centre: FloatArray

    def score(self, x: FloatArray) -> FloatArray:
        """Return the probability of class 1."""
        return np.asarray(1.0 / (1.0 + np.exp(-((x - self.centre) / self.scale) @ self.weights)))


def table(seed: int = 0, width: int = 14) -> Population:
    """Return a population as forms have it: ages, amounts, codes, flags, some of them dependent."""

    def draw(rng: np.random.Generator, n: int) -> FloatArray:
        age = np.clip(np.rint(rng.normal(42, 13, n)), 18, 90)
        x = [
            age,
            np.rint(np.exp(rng.normal(10.3, 0.5, n) + 0.006 * age)),
            np.rint(np.clip(age - 22 + rng.normal(0, 4, n), 0, 60)),
        ]
        kinds = rng.choice(7, n, p=[0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02]).astype(float)
        x += [
            kinds,
            np.minimum(kinds + rng.integers(0, 3, n), 8).astype(float),
            (rng.random(n) < 0.1 + 0.05 * kinds).astype(float),
        ]
        x += [
            np.where(rng.random(n) < 0.9, 0.0, np.rint(rng.exponential(5_000, n))),
            np.rint(rng.normal(40, 8, n)).clip(1, 99),
        ]
        while len(x) < width:
            column = len(x)
            levels = 3 + column % 9
            x.append(np.floor(rng.beta(1.2, 2.5, n) * levels))
        return np.stack(x[:width], axis=1)

    return _with_model("table", draw, seed)


def real(seed: int = 0, width: int = 20) -> Population:
    """Return a population of real values only: a low-dimensional cause and noise in every reading."""
    mix = np.random.default_rng((seed, 31)).normal(size=(4, width))

    def draw(rng: np.random.Generator, n: int) -> FloatArray:
        return np.asarray(rng.normal(size=(n, 4)) @ mix + 0.3 * rng.normal(size=(n, width)))

    return _with_model("real", draw, seed)


def pictures(seed: int = 0, side: int = 8, levels: int = 17) -> Population:
    """Return small pictures of a few grey levels."""
    at = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)

    def draw(rng: np.random.Generator, n: int) -> FloatArray:
        total = np.zeros((n, side * side))
        for _ in range(3):
            middle = rng.normal(side / 2, side / 5, (n, 1, 2))
            total += np.exp(-((at[None] - middle) ** 2).sum(axis=2) / 2.5)
        return np.asarray(np.floor(np.clip(total / total.max(axis=1, keepdims=True), 0, 1) * (levels - 1)))

    return _with_model("pictures", draw, seed)


def _with_model(name: str, draw: Callable[[np.random.Generator, int], FloatArray], seed: int) -> Population:
    rng = np.random.default_rng((seed, 30))
    x = draw(rng, 4_000)
    scale = x.std(axis=0) + 0.1
    weights = rng.normal(size=x.shape[1]) * 1.5 / np.sqrt(x.shape[1]) * 2
    return Population(name, draw, scale, weights, np.median(x, axis=0))


@dataclass(frozen=True, slots=True)
class Traffic:
    """Queries in order of time."""

    x: FloatArray
    client: npt.NDArray[np.str_]
    kind: npt.NDArray[np.str_]  # of the client's behaviour
    score: FloatArray
    time_us: npt.NDArray[np.int64]

    def columns(self) -> dict[str, object]:
        """Return columns as telemetry names them."""
        return {
            "event_id": [f"e{number}" for number in range(len(self.x))],
            "event_time": self.time_us.astype("datetime64[us]"),
            "client": self.client,
            **{f"f{index:03}": self.x[:, index] for index in range(self.x.shape[1])},
            "prediction": (self.score >= 0.5).astype(np.int64),
            "score": self.score,
        }


BENIGN = ("fresh", "retries", "what-if", "jitter", "session", "crawler", "ab", "load-test")


def benign_client(population: Population, kind: str, rng: np.random.Generator, queries: int) -> FloatArray:
    """Return what one normal client asks, in order."""
    draw, width = population.draw, len(population.scale)
    if kind == "fresh":
        return draw(rng, queries)
    if kind == "retries":  # each asked up to four times
        return np.repeat(draw(rng, queries), rng.integers(1, 5, queries), axis=0)[:queries]
    if kind == "what-if":  # a few values of one case replaced by values of others
        out = []
        while len(out) < queries:
            base, others = draw(rng, 1)[0], draw(rng, 8)
            out.append(base)
            for other in others[: rng.integers(2, 8)]:
                edited = base.copy()
                at = rng.choice(width, rng.integers(1, 3), replace=False)
                edited[at] = other[at]
                out.append(edited)
        return np.array(out[:queries])
    if kind == "jitter":  # one sensor read again and again
        base = draw(rng, max(queries // 12, 1))
        rows = np.repeat(base, 12, axis=0)[:queries]
        return np.asarray(rows + 0.02 * population.scale * rng.normal(size=rows.shape))
    if kind == "session":  # cases that drift: some values stay from query to query
        rows = draw(rng, queries)
        for at in range(1, queries):
            if rng.random() < 0.7:
                stay = rng.random(width) < 0.5
                rows[at, stay] = rows[at - 1, stay]
        return rows
    if kind == "crawler":  # one value swept over what others have, the rest fixed
        base, column = draw(rng, 1)[0], int(rng.integers(width))
        rows = np.repeat(base[None], queries, axis=0)
        rows[:, column] = np.sort(draw(rng, queries)[:, column])
        return rows
    if kind == "ab":  # everything twice, the second time one flag or code changed
        rows = np.repeat(draw(rng, -(-queries // 2)), 2, axis=0)[:queries]
        column = int(rng.integers(width))
        rows[1::2, column] = draw(rng, len(rows[1::2]))[:, column]
        return rows
    if kind == "load-test":  # a short list in a ring
        return draw(rng, 20)[np.arange(queries) % 20]
    raise ValueError(kind)


ATTACKS = ("boundary walk", "finite differences", "square", "noise", "mix", "line search")


def attack(population: Population, kind: str, rng: np.random.Generator, queries: int) -> FloatArray:
    """Return what a simple attacker of our own asks; he sees only answers."""
    draw, scale, width = population.draw, population.scale, len(population.scale)
    rows = draw(rng, 200)
    label = population.score(rows) >= 0.5
    one, other = rows[label][0] if label.any() else rows[0], rows[~label][0] if (~label).any() else rows[1]
    out: list[FloatArray] = []
    if kind == "noise":
        return np.asarray(population.centre + 2.0 * scale * rng.normal(size=(queries, width)))
    if kind == "mix":
        source = draw(rng, queries * width).reshape(queries, width, width)
        return np.asarray(source[:, np.arange(width), np.arange(width)])
    if kind == "line search":
        while len(out) < queries:
            low, high = 0.0, 1.0
            left, right = draw(rng, 2)
            for _ in range(12):
                middle = 0.5 * (low + high)
                point = left + middle * (right - left)
                out.append(point)
                same = (population.score(point[None])[0] >= 0.5) == (population.score(left[None])[0] >= 0.5)
                low, high = (middle, high) if same else (low, middle)
        return np.array(out[:queries])
    if kind == "finite differences":
        while len(out) < queries:
            out.append(one.copy())
            for column in rng.permutation(width):
                step = one.copy()
                step[column] += 1e-3 * scale[column]
                out.append(step)
            one = one + 0.05 * scale * rng.normal(size=width)
        return np.array(out[:queries])
    if kind == "square":
        while len(out) < queries:
            point = one + 0.3 * scale * rng.choice([-1.0, 1.0], width)
            out.append(point)
            for _ in range(20):
                part = rng.random(width) < 0.1
                trial = point.copy()
                trial[part] = one[part] + 0.3 * scale[part] * rng.choice([-1.0, 1.0], int(part.sum()))
                out.append(trial)
                if abs(population.score(trial[None])[0] - 0.5) < abs(population.score(point[None])[0] - 0.5):
                    point = trial
        return np.array(out[:queries])
    # A boundary walk: halve the way to the other class, then small orthogonal steps and steps back.
    point = other
    wanted = population.score(other[None])[0] >= 0.5
    for _ in range(8):
        middle = 0.5 * (point + one)
        out.append(middle)
        if (population.score(middle[None])[0] >= 0.5) == wanted:
            point = middle
    while len(out) < queries:
        trial = point + 0.05 * scale * rng.normal(size=width) + 0.02 * (one - point)
        out.append(trial)
        if (population.score(trial[None])[0] >= 0.5) == wanted:
            point = trial
    return np.array(out[:queries])


def woven(
    population: Population, parts: list[tuple[str, str, FloatArray]], rng: np.random.Generator, start_us: int = START_US
) -> Traffic:
    """Return the queries of ``(client, kind, inputs)`` at random times, each client's own in their order."""
    x = np.concatenate([inputs for _, _, inputs in parts])
    client = np.repeat([name for name, _, _ in parts], [len(inputs) for _, _, inputs in parts])
    kind = np.repeat([what for _, what, _ in parts], [len(inputs) for _, _, inputs in parts])
    when = np.concatenate([np.sort(rng.random(len(inputs))) for _, _, inputs in parts])
    order = np.argsort(when, kind="stable")
    time_us = start_us + np.arange(len(x), dtype=np.int64) * 100_000
    x = x[order]
    return Traffic(x, client[order], kind[order], population.score(x), time_us)


def benign(population: Population, clients: int, queries: int, seed: int, kinds: tuple[str, ...] = BENIGN) -> Traffic:
    """Return the traffic of normal clients, each of one kind, kinds in turn."""
    rng = np.random.default_rng((seed, 40))
    parts = []
    for number in range(clients):
        kind = kinds[number % len(kinds)]
        parts.append(
            (
                f"{kind}-{seed}-{number}",
                kind,
                benign_client(population, kind, rng, int(rng.integers(10, 2 * queries - 9))),
            )
        )
    return woven(population, parts, rng)


def lasting(population: Population, clients: int, seed: int) -> Traffic:
    """Return the traffic of normal clients with 40 queries on average, then of a twentieth as many with 300."""
    short, long = benign(population, clients, 40, seed), benign(population, max(clients // 20, 8), 300, seed + 1)
    return Traffic(
        np.concatenate([short.x, long.x]),
        np.concatenate([short.client, long.client]),
        np.concatenate([short.kind, long.kind]),
        np.concatenate([short.score, long.score]),
        START_US + np.arange(len(short.x) + len(long.x), dtype=np.int64) * 100_000,
    )
