"""Recurrence: what is taken for a tool that was seen before, over pairs of tools of our own.

    python -m benchmarks.attacks.pairings              # about three minutes on one core
    python -m benchmarks.attacks.pairings --seed 4

Thirteen tools on three populations. The first attacks and leaves a pattern; in another watch that has only been told of
that pattern a second attacks, under another client, from other rows. Counted are unlike pairs (told as recurrence: it
should be none), the same tool on other inputs (known by its manner within 30 queries of its own finding), and the same
queries again: as they were, a little moved, in another order.

Tools of one family are no unlike pair; the families were written down before anything was counted, with the reason.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from benchmarks.attacks import oars
from benchmarks.attacks.measure import KEY, Rows, answered, both, referenced, sliced
from benchmarks.attacks.traffic import START_US, FloatArray, Population, attack, benign, pictures, real, table

from regate.detectors.attack import manner
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.pattern import Pattern
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.watch import AttackWatch

QUERIES = 200
AROUND = 6  # normal clients beside each attacker
EPISODES = 4  # of each tool, for pairs with itself
LATER_US = 30 * 3_600_000_000
POPULATIONS: tuple[Callable[[int], Population], ...] = (table, real, pictures)
FAMILIES: dict[str, tuple[str, ...]] = {
    "walks along the boundary by small noise": ("boundary walk", "walk"),
    "one feature at a time, by differences": ("finite differences", "zoo"),
    "some features redrawn at a time": ("square", "square, scores"),
    "random inputs, each anew": ("noise", "uniform"),
    "gradient at the boundary from a cloud, and jumps": ("hop",),
    "gradient of the score from a cloud": ("nes",),
    "one feature at a time, kept when it helps": ("simba",),
    "values of real rows, mixed": ("mix",),
    "search on the line between real rows": ("line search",),
}
FAMILY = {tool: family for family, tools in FAMILIES.items() for tool in tools}
WAYS = ("as they were", "a little moved", "in another order")


class Deaf:
    """A detector that says nothing."""

    def ask(self, x: FloatArray, score: float, account: int) -> bool:  # noqa: ARG002  (a port)
        return False


def asked(population: Population, tool: str, seed: int) -> FloatArray:
    """Return what a tool asks."""
    rng = np.random.default_rng((seed, 51, *tool.encode()))
    scale, width = population.scale, len(population.scale)
    if tool in {"hop", "walk", "nes", "square, scores"}:  # he goes on with another row when he has what he wanted
        out: list[FloatArray] = []
        while len(out) < QUERIES:
            victim = int(rng.integers(1 << 30))
            name = "square" if tool == "square, scores" else tool
            out += oars.ran(population, Deaf(), name, oars.MODES[0], QUERIES - len(out), victim).rows
        return np.array(out)
    if tool == "uniform":
        rows = population.draw(rng, 200)
        return rng.uniform(rows.min(axis=0), rows.max(axis=0), (QUERIES, width))
    if tool not in {"zoo", "simba"}:
        return attack(population, tool, rng, QUERIES)
    point, out = population.draw(rng, 1)[0], []
    while len(out) < QUERIES:
        column = int(rng.integers(width))
        size = 0.3 * scale[column] if tool == "simba" else 1e-2 * scale[column]
        plus, minus = point.copy(), point.copy()
        plus[column] += size
        minus[column] -= size
        out += [plus, minus]
        up = population.score(plus[None])[0] > population.score(minus[None])[0]
        if tool == "simba":
            point = plus if up else minus
        else:
            point = point.copy()
            point[column] += (0.1 if up else -0.1) * scale[column]
    return np.array(out[:QUERIES])


def among(population: Population, x: FloatArray, seed: int) -> Rows:
    """Return an attacker's queries among those of normal clients."""
    rng = np.random.default_rng((seed, 52))
    others = [population.draw(rng, 40) for _ in range(AROUND)]
    every = [x, *others]
    client = np.repeat(np.arange(len(every)), [len(one) for one in every])
    rows = np.concatenate(every)
    order = np.argsort(np.concatenate([np.sort(rng.random(len(one))) for one in every]), kind="stable")
    names = np.where(client == 0, 1_000 + seed, seed * 10 + client)
    kinds = np.where(client == 0, "attack", "fresh")
    return Rows(rows[order], both(population.score(rows[order])), names[order], kinds[order])


@dataclass
class Told:
    """What a watch said of one attacker."""

    found: int | None = None  # his query, from 1, of the first finding about him
    back: int | None = None  # of the first recurrence
    left: int = 0  # different queries after the finding
    since: int = 0  # different queries from the finding to the recurrence
    others: int = 0  # recurrences about others
    patterns: list[Pattern] = field(default_factory=list)


def watched(reference: AttackReference, rows: Rows, start_us: int, known: list[Pattern]) -> Told:
    """Watch an attacker among others, having been told of patterns."""
    watch, told = AttackWatch(KEY, "benchmark", Memory(reference)), Told()
    watch.recurrence.learn(known)
    live = sliced(rows, start_us=start_us)
    mine = rows.kind == "attack"
    for one in watch.decide(reference.queries(live)):
        row = int(np.searchsorted(live.event_time_us, one.detected_us))
        if one.type != "finding" or row >= live.n:
            continue
        number = int(mine[: row + 1].sum())
        if one.kind == "attack" and mine[row] and told.found is None:
            told.found = number
        elif one.kind == "recurrence" and not mine[row]:
            told.others += 1
        elif one.kind == "recurrence" and told.back is None:
            told.back = number
    own = rows.x[mine]
    if told.found is not None:
        told.left = len(np.unique(own[told.found :], axis=0))
        told.since = len(np.unique(own[told.found : told.back], axis=0)) if told.back else 0
    told.patterns = [one.pattern for one in watch.recurrence.registry.known.values()]
    return told


@dataclass
class Figures:
    """What was counted, by population or in all."""

    unlike: int = 0
    both_found: int = 0  # of the unlike pairs
    mistaken: list[tuple[str, str]] = field(default_factory=list)
    like: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    short: int = 0  # like pairs in which one was not found, or asked too little afterwards
    again: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    others: int = 0


def counted(population: Population, seed: int, tools: tuple[str, ...], episodes: int, figures: Figures) -> None:
    """Count all pairs on one population."""
    reference = referenced(answered(benign(population, 300, 40, seed + 1)))
    made = {tool: [asked(population, tool, seed + 10 * at) for at in range(2 * episodes)] for tool in tools}
    first = {
        (tool, at): watched(reference, among(population, made[tool][at], at), START_US, [])
        for tool in tools
        for at in range(episodes)
    }
    for tool in tools:
        left = first[tool, 0]
        for other in tools:
            if FAMILY[tool] == FAMILY[other] or not left.patterns:
                continue
            told = watched(reference, among(population, made[other][episodes], 50), START_US + LATER_US, left.patterns)
            figures.unlike += 1
            figures.both_found += told.found is not None and any(one.manner.any() for one in left.patterns)
            figures.others += told.others
            if told.back is not None:
                figures.mistaken.append((f"{population.name}: {tool}", other))
        for at in range(episodes):
            _like(population, reference, made[tool], at, first[tool, at], figures.like[tool], figures)


def _like(
    population: Population,
    reference: AttackReference,
    made: list[FloatArray],
    at: int,
    left: Told,
    known: list[bool],
    figures: Figures,
) -> None:
    if not left.patterns:
        figures.short += 1
        return
    x, rng = made[at], np.random.default_rng((at, 53))
    for way, again in zip(
        WAYS, (x, x + 0.003 * population.scale * rng.normal(size=x.shape), x[rng.permutation(len(x))]), strict=True
    ):
        told = watched(reference, among(population, again, 60 + at), START_US + LATER_US, left.patterns)
        figures.again[way].append(np.inf if told.back is None else told.back)
    other = made[len(made) // 2 + at]
    told = watched(reference, among(population, other, 70 + at), START_US + LATER_US, left.patterns)
    if told.left < manner.ENOUGH or not any(one.manner.any() for one in left.patterns):
        figures.short += 1
        return
    # A finding may come up to two queries after the one that gave it: those between are counted twice.
    known.append(told.back is not None and told.since <= manner.ENOUGH + 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=EPISODES)
    options = parser.parse_args()
    print(f"seed {options.seed}")
    figures = Figures()
    for make in POPULATIONS:
        counted(make(options.seed), options.seed, tuple(FAMILY), options.episodes, figures)
        print(f"{make.__name__}: {figures.unlike} unlike pairs so far, {len(figures.mistaken)} mistaken", flush=True)
    print(
        f"unlike tools: {len(figures.mistaken)} of {figures.unlike} pairs told as recurrence {figures.mistaken or ''}"
    )
    print(f"  in {figures.both_found} of them both were found and the first left the manner of 30 queries")
    every = [one for known in figures.like.values() for one in known]
    print(f"the same tool on other inputs: {sum(every)} of {len(every)} known within 30 queries of its finding")
    for tool, known in figures.like.items():
        print(f"  {tool}: {sum(known)} of {len(known)}")
    print(f"  {figures.short} not counted: one not found, or too few queries after it")
    for way, count in figures.again.items():
        most = np.quantile(count, 0.95, method="higher")
        print(f"the same queries, {way}: median {np.median(count):g}, 95 % {most:g}, of {len(count)}")
    print(f"recurrences about normal clients: {figures.others}")


if __name__ == "__main__":
    main()
