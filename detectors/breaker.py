"""The breaker: a partition of which nearly everything is refused proves nothing about its models."""

from __future__ import annotations

from dataclasses import dataclass, field

MINUTE_MS = 60_000
LEAST = 100  # events of the last minute, fewer say nothing
OPENS_RATIO, CLOSES_RATIO = 0.99, 0.5


@dataclass(slots=True)
class Breaker:
    """What one partition brought in the last minute: (tick, used, refused) for each tick, and since."""

    ticks: list[list[int]] = field(default_factory=list)
    used: int = 0
    refused: int = 0
    tripped: bool = False

    def take(self, used: int, refused: int) -> None:
        """Count what a batch held."""
        self.used += used
        self.refused += refused

    def tick(self, now_ms: int) -> str:
        """Return ``opened`` or ``closed`` when the last minute changed the answer, else an empty string.

        >>> breaker = Breaker()
        >>> breaker.take(0, 500); breaker.tick(1000)
        'opened'
        >>> breaker.take(5, 5); breaker.tick(2000), breaker.take(900, 0), breaker.tick(3000)
        ('', None, 'closed')
        """
        if self.used or self.refused:
            self.ticks.append([now_ms, self.used, self.refused])
            self.used = self.refused = 0
        self.ticks = [one for one in self.ticks if one[0] > now_ms - MINUTE_MS]
        refused = sum(one[2] for one in self.ticks)
        total = refused + sum(one[1] for one in self.ticks)
        if not self.tripped and total >= LEAST and refused > OPENS_RATIO * total:
            self.tripped = True
            return "opened"
        if self.tripped and total and refused < CLOSES_RATIO * total:
            self.tripped = False
            return "closed"
        return ""
