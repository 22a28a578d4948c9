"""Timing probes: one input asked again and again by one client, so that only the time of answers can be the question.

Retries alone are looked at, one after the other: a client's last inputs with how often, the label and margin that they
got, and sums of the logarithm of their latency. Two inputs of one client whose times differ (Welch 1947) are a secret
that the time tells. Memory is bounded; who has not repeated anything for longest gives way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from regate.detectors.arrays import Arrays
from regate.detectors.attack.inputs import scrambled
from regate.detectors.attack.queries import Queries
from regate.detectors.attack.sign import Sign
from regate.detectors.columns import BoolArray

REPEATS = 30
# Three times what any client of the reference repeated, so that a crawler there is none here; but one attacker there
# must not make everything usual.
TIMES_USUAL, MOST_LEAST = 3, 1_000
CAPACITY = 4_096  # clients
INPUTS = 4  # of each client
# Who asks the same again after an hour watches whether the service lives.
FORGET_US = 3_600_000_000
TELLING = 6.0  # standard errors between the latencies of two inputs
TRIMMED = 0.005
_LOG_UNIT = 1024.0  # logarithms of latency are added up in whole units: nothing depends on the order of rows
WORD, COUNT, LABEL, MARGIN, TIMES, SUM, SQUARES, LOW, HIGH, SINCE, LAST = range(11)
_COLUMNS = 11


@dataclass(frozen=True, slots=True)
class ProbeReference:
    """A reason: the lane is off."""

    reason: str = "not fitted"
    least: int = REPEATS  # repetitions that are a probe


@dataclass(slots=True)
class Probes:
    """Repeated inputs by client, in order of their last repetition."""

    reference: ProbeReference
    capacity: int = CAPACITY
    clients: dict[int, list[list[int]]] = field(default_factory=dict)

    def take(self, queries: Queries, again: BoolArray) -> list[Sign]:
        """Take queries with ids in order, with which of them are retries."""
        if self.reference.reason:
            return []
        found = []
        for client, count, inputs, at in self.repeated(queries, again):
            own = inputs[at]
            least = self.reference.least
            if count % REPEATS or min(count, own[TIMES]) < least or own[LOW] == own[HIGH]:
                continue
            found.append(self._sign(client, own, inputs))
        return found

    def repeated(self, queries: Queries, again: BoolArray) -> list[tuple[int, int, list[list[int]], int]]:
        """Count retries; return each that is at least the thirtieth of its input: client, how many, inputs, which."""
        rows = np.flatnonzero(again)
        halves = np.ascontiguousarray(queries.blocks[rows]).view(np.uint64)
        word = (scrambled(scrambled(halves[:, 0]) ^ halves[:, 1]) >> np.uint64(1)).astype(np.int64)
        latency = queries.latency_us[rows]
        logs = np.rint(_LOG_UNIT * np.log(np.maximum(latency, 1).astype(np.float64))).astype(np.int64)
        columns = (
            queries.client[rows],
            word,
            (queries.label[rows] >> np.uint64(1)).astype(np.int64),
            np.rint(queries.lanes[rows, -1].astype(np.float64) * 2**20).astype(np.int64),
            latency,
            logs,
            queries.time_us[rows],
        )
        found = []
        for client, one, label, margin, took, log, now_us in zip(*(c.tolist() for c in columns), strict=True):
            inputs = self.clients.pop(client, None)
            if inputs is None:
                if len(self.clients) >= self.capacity:
                    del self.clients[next(iter(self.clients))]
                inputs = []
            self.clients[client] = inputs
            at = _counted(inputs, one, label, margin, now_us)
            if at is None:
                continue
            own = inputs[at]
            if took >= 0:
                own[LOW] = took if not own[TIMES] else min(own[LOW], took)
                own[HIGH] = max(own[HIGH], took)
                own[TIMES] += 1
                own[SUM] += log
                own[SQUARES] += log * log
            if own[COUNT] >= REPEATS:
                found.append((client, own[COUNT], [list(entry) for entry in inputs], at))
        return found

    def _sign(self, client: int, own: list[int], inputs: list[list[int]]) -> Sign:
        apart = max((_apart(own, other) for other in inputs if other[WORD] != own[WORD]), default=0.0)
        said = (
            f"client {{subject}} asks one input {own[COUNT]} times and gets the same answer: only the time varies, "
            f"from {own[LOW] / 1000:.3g} to {own[HIGH] / 1000:.3g} ms"
        )
        if apart >= TELLING:
            said += f"; two of its inputs are told apart by time ({apart:.1f} standard errors)"
        level = float(np.log(own[COUNT]) + max(apart - TELLING, 0.0))
        bar = float(np.log(self.reference.least))
        return Sign("probe", "", own[LAST], own[SINCE], own[COUNT], "queries", level, bar, said, client)

    def state(self) -> Arrays:
        """Return everything as one table."""
        rows = [[place, *one] for place, inputs in enumerate(self.clients.values()) for one in inputs]
        # A client whose inputs have all given way keeps its place in line.
        return {
            "client": np.fromiter(self.clients, dtype=np.uint64, count=len(self.clients)),
            "inputs": np.array(rows, dtype=np.int64).reshape(len(rows), _COLUMNS + 1),
        }

    def restore(self, arrays: Arrays) -> None:
        """Take back what `state` gave."""
        lists: list[list[list[int]]] = [[] for _ in arrays["client"]]
        for place, *one in arrays["inputs"].tolist():
            lists[place].append(one)
        self.clients = dict(zip(arrays["client"].tolist(), lists, strict=True))


def _counted(inputs: list[list[int]], word: int, label: int, margin: int, now_us: int) -> int | None:
    """Count one more retry of an input; return its place, or None where it found none (Misra, Gries 1982)."""
    for at, own in enumerate(inputs):
        if own[WORD] != word:
            continue
        if (own[LABEL], own[MARGIN]) != (label, margin) or now_us - own[LAST] > FORGET_US:
            inputs[at] = [word, 1, label, margin, 0, 0, 0, 0, 0, now_us, now_us]
        else:
            own[COUNT] += 1
            own[LAST] = now_us
        return at
    if len(inputs) < INPUTS:
        inputs.append([word, 1, label, margin, 0, 0, 0, 0, 0, now_us, now_us])
        return len(inputs) - 1
    for own in inputs:
        own[COUNT] -= 1
    inputs[:] = [own for own in inputs if own[COUNT] > 0]
    return None


def _apart(one: list[int], other: list[int]) -> float:
    """Return how many standard errors lie between the mean log latencies of two inputs."""
    if min(one[TIMES], other[TIMES]) < REPEATS:
        return 0.0
    (mean, error), (second, more) = (_mean(entry) for entry in (one, other))
    return abs(mean - second) / max(float(np.sqrt(error + more)), 1e-9)


def _mean(entry: list[int]) -> tuple[float, float]:
    n = entry[TIMES]
    mean = entry[SUM] / n
    return mean, max((entry[SQUARES] - n * mean * mean) / (n - 1), 1.0) / n


def fitted(queries: Queries, again: BoolArray, clients: int) -> ProbeReference:
    """Return whether reference clients leave room for this lane."""
    probes = Probes(ProbeReference(""), capacity=max(clients, 1))
    most: dict[int, int] = {}
    for client, count, *_ in probes.repeated(queries, again):
        most[client] = max(most.get(client, 0), count)
    usual = {client: count for client, count in most.items() if count >= REPEATS}
    if len(usual) > TRIMMED * clients:
        return ProbeReference(f"{len(usual)} of {clients} clients of the reference repeat one input {REPEATS} times")
    least = min(TIMES_USUAL * max(most.values(), default=0), MOST_LEAST)
    return ProbeReference("", -(-max(least, REPEATS) // REPEATS) * REPEATS)
