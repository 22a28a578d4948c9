"""The rows that frame all others: a CUSUM that knows both laws, an alarm by the clock, and no alarm at all.

The CUSUM (Page 1954) is the fastest rule there is for its run length (Lorden 1971; Moustakides 1986): here with
the exact likelihood given the past. By blocks of 64 it is what any detector that decides once a block can reach.
"""

from __future__ import annotations

import numpy as np
from benchmarks.detection.streams import FloatArray, IntArray


def path(log_ratio: FloatArray) -> FloatArray:
    """Return the CUSUM statistic of each step, never restarted: ``[streams, steps]``."""
    total = np.cumsum(log_ratio, axis=1)
    lowest = np.minimum(np.minimum.accumulate(total, axis=1), 0.0)
    # max(0, S + l): what the walk has gained since its lowest point, 0 included.
    return np.asarray(total - lowest)


def alarms(log_ratio: FloatArray, level: float) -> list[list[int]]:
    """Return the steps at which a CUSUM passes ``level``, starting anew after each."""
    streams, steps = log_ratio.shape
    found: list[list[int]] = [[] for _ in range(streams)]
    state = np.zeros(streams)
    columns = np.ascontiguousarray(log_ratio.T)
    for step in range(steps):
        state += columns[step]
        np.maximum(state, 0.0, out=state)
        if state.max() >= level:
            for stream in np.flatnonzero(state >= level):
                found[stream].append(step)
                state[stream] = 0.0
    return found


def by_blocks(log_ratio: FloatArray, block: int) -> FloatArray:
    """Return the log ratios of whole blocks."""
    streams, steps = log_ratio.shape
    whole = steps // block
    return np.asarray(log_ratio[:, : whole * block].reshape(streams, whole, block).sum(axis=2))


def clock_alarms(streams: int, rows: int, every: int, rng: np.random.Generator) -> list[list[int]]:
    """Return periodic alarms whose phase nobody knows."""
    phase: IntArray = rng.integers(every, size=streams)
    return [list(range(int(first), rows, every)) for first in phase]
