"""What labels called harmless was one size of a change: when it grows, it is looked for again.

A withdrawn change keeps its charts, so that it is not found again and again. The stretch from its onset until it was
withdrawn says how large it was; each later stretch of 1,024 events is compared with that one.
"""

from __future__ import annotations

import numpy as np

from regate.detectors.charts import Bank, BankState
from regate.detectors.columns import FloatArray, IntArray
from regate.detectors.incidents import Incident

LOOK_EVENTS = 1_024
# By this much more (standard deviations of one trial) a change is another one: the smallest shift that is looked for.
LARGER = 0.15
# So many standard errors make it sure; it is asked every 1,024 events for as long as the change stays.
SURELY = 5.0
# Scores of an input that has changed may vary this much more than the reference's; rates say themselves how they vary.
WILDER = 2.0


def settle(incident: Incident, state: BankState, charts: dict[str, int]) -> None:
    """Remember the sums of an incident's charts when it is withdrawn."""
    incident.settled = {name: _sums(state, index) for name, index in charts.items()}
    incident.looked, incident.looked_events = dict(incident.settled), 0


def grown(incident: Incident, bank: Bank, state: BankState, charts: dict[str, int], events: int) -> bool:
    """Return whether a withdrawn change is surely larger in the last stretch than it was when it was withdrawn."""
    incident.looked_events += events
    if incident.looked_events < LOOK_EVENTS:
        return False
    found = False
    for name, index in charts.items():
        if name not in incident.since or name not in incident.settled:
            continue
        stretches = (incident.since[name], incident.settled[name]), (incident.looked[name], _sums(state, index))
        (before, trials_before), (now, trials) = (_size(bank, index, first, last) for first, last in stretches)
        if not trials or not trials_before:
            continue
        vary = [_variance(bank, index, first, last) for first, last in stretches]
        error = np.sqrt(bank.charts[index].tau * (vary[0] / trials_before + vary[1] / trials))
        found = found or bool(abs(now) > abs(before) + LARGER and abs(now - before) > SURELY * error)
    incident.looked = {name: _sums(state, charts[name]) for name in incident.settled if name in charts}
    incident.looked_events = 0
    return found


def _sums(state: BankState, index: int) -> tuple[int, int, float]:
    return int(state.sum_s[index]), int(state.sum_n[index]), float(state.sum_centre[index])


def _variance(bank: Bank, index: int, first: tuple[int, int, float], last: tuple[int, int, float]) -> float:
    """Return how much a trial of a stretch varies, in variances of the reference's."""
    if bank.charts[index].form != "indicator":
        return WILDER**2
    hits, trials, expected = last[0] - first[0], max(last[1] - first[1], 1), last[2] - first[2]
    rate, usual = (hits + 1.0) / (trials + 2.0), max(expected / trials, 1e-9)
    return max(rate * (1.0 - rate) / (usual * (1.0 - usual)), 1.0)


def _size(bank: Bank, index: int, first: tuple[int, int, float], last: tuple[int, int, float]) -> tuple[float, float]:
    """Return how far a stretch is off the reference in standard deviations of a trial, and of how many trials."""
    s: IntArray = np.zeros(len(bank.charts), dtype=np.int64)
    n: IntArray = np.zeros(len(bank.charts), dtype=np.int64)
    centre: FloatArray = np.zeros(len(bank.charts))
    s[index], n[index], centre[index] = last[0] - first[0], last[1] - first[1], last[2] - first[2]
    return float(bank.sizes(s, n, centre)[index]), float(bank.trials(n)[index])
