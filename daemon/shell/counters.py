"""What a loop did: read by the watchdog, said in the log, printed by benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, field

KEPT_STEPS = 10_000  # durations behind the percentiles; some 40 minutes of steps


@dataclass(slots=True)
class Counters:
    """What the loop did, for status, tests and benchmarks."""

    steps: int = 0
    records: int = 0
    outputs: int = 0
    recoveries: int = 0
    restarts: int = 0
    snapshots: int = 0
    step_seconds: list[float] = field(default_factory=list)  # the last `KEPT_STEPS` steps without the waiting
    longest_gap: float = 0.0  # between two polls
    busy_since: float | None = None  # monotonic; read by the watchdog

    def stepped(self, seconds: float) -> None:
        """Count one committed step and how long it took."""
        self.steps += 1
        self.step_seconds.append(seconds)
        del self.step_seconds[:-KEPT_STEPS]

    def summary(self) -> dict[str, float]:
        """Return the counts and the step percentiles (milliseconds) as fields of a log line.

        >>> counters = Counters(step_seconds=[0.01 * n for n in range(1, 101)])
        >>> [counters.summary()[name] for name in ("step_ms_p50", "step_ms_p95", "step_ms_max")]
        [500.0, 950.0, 1000.0]
        """
        ordered = sorted(self.step_seconds)

        def at(share: float) -> float:
            return round(ordered[max(0, round(share * len(ordered)) - 1)] * 1000, 1) if ordered else 0.0

        return {
            "steps": self.steps,
            "records": self.records,
            "outputs": self.outputs,
            "recoveries": self.recoveries,
            "restarts": self.restarts,
            "snapshots": self.snapshots,
            "longest_gap_ms": round(self.longest_gap * 1000, 1),
            "step_ms_p50": at(0.5),
            "step_ms_p95": at(0.95),
            "step_ms_max": at(1.0),
        }
