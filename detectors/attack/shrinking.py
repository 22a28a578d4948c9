"""The shortest run of one client's queries at which the lanes, knowing nothing of him, raise a finding."""

from __future__ import annotations

from dataclasses import dataclass

from regate.detectors.attack.memory import Alarm, Memory
from regate.detectors.attack.queries import Queries
from regate.detectors.attack.reference import AttackReference


@dataclass(frozen=True, slots=True)
class Run:
    """Queries ``start`` to ``stop`` (exclusive); the alarm is at the last of them, its row counted from ``start``."""

    start: int
    stop: int
    alarm: Alarm


def first_alarm(reference: AttackReference, queries: Queries) -> Alarm | None:
    """Return the first alarm that empty memory raises over queries in their order, by whichever view."""
    return next(iter(Memory(reference).take(queries)), None)


def shortest(reference: AttackReference, queries: Queries) -> Run | None:
    """Return a run that alarms and does not without its first query, nor without its last; None: nothing alarms.

    :param queries: of one client, in order.

    The end is the first alarm; the start is found by runs of doubling length before it, then by bisection. An alarm
    may come sooner in a shorter run (what he asked before no longer makes a query look like an edit): then that is the
    end, and the search for a start begins anew. More evidence is no monotone thing, so it is the shortest run of those
    tried, which are some 2 log2(n), and not of all.
    """
    alarm = first_alarm(reference, queries)
    if alarm is None:
        return None
    start, stop = 0, alarm.row + 1
    while True:
        start = _start(reference, queries, start, stop)
        alarm = first_alarm(reference, queries.some(slice(start, stop)))
        assert alarm is not None
        if start + alarm.row + 1 == stop:
            return Run(start, stop, alarm)
        stop = start + alarm.row + 1


def _start(reference: AttackReference, queries: Queries, low: int, stop: int) -> int:
    """Return a start that alarms before ``stop`` while the next one does not; ``low`` is known to alarm."""
    high, size = stop, 1  # an empty run raises nothing
    while stop - size > low:
        if first_alarm(reference, queries.some(slice(stop - size, stop))) is not None:
            low = stop - size
            break
        high, size = stop - size, size * 2
    while high - low > 1:
        middle = (low + high) // 2
        if first_alarm(reference, queries.some(slice(middle, stop))) is None:
            high = middle
        else:
            low = middle
    return low
