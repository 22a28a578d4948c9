"""A sign: what a view beside the lanes of client memory saw, before it is an incident."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sign:
    """One sighting. ``subject`` is empty where it is about a client; ``said`` has ``{subject}`` where its name goes."""

    lane: str
    subject: str
    time_us: int
    since_us: int
    count: int
    unit: str
    level: float  # nats
    bar: float
    said: str
    client: int = 0

    @property
    def place(self) -> str:
        """Return whose incident it is."""
        return f"{self.lane}/{self.subject or f'{self.client:016x}'}"
