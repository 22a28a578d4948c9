"""The budgets of all models, from the bus alone: profiles in force, and the findings of the last period."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from regate.config.errors import PoisonError
from regate.config.model import Detection
from regate.daemon.bus.port import Bus, Reader, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.control import View
from regate.daemon.wire.cloudevents import decode_event
from regate.detectors.budget import Budget, spending
from regate.detectors.columns import ModelKey
from regate.detectors.finding import Finding

DAY_MS = 86_400_000


@dataclass(slots=True)
class Ledger:
    """Findings as far as they were read; reading again takes only what is new."""

    reader: Reader
    topics: Topics
    partitions: int
    unreadable: int = 0
    _positions: dict[int, int] = field(default_factory=dict)
    _kept: dict[str, list[tuple[int, Finding]]] = field(default_factory=dict)  # model key -> (bus time, finding)

    @classmethod
    def of(cls, bus: Bus, reader: Reader, topics: Topics) -> Ledger:
        """Return a ledger that has read nothing yet."""
        admin = bus.admin()
        try:
            return cls(reader, topics, admin.partitions(topics.name("findings")))
        finally:
            admin.close()

    def read(self, now_ms: int) -> dict[str, Budget]:
        """Return the budget of every model version with a profile in force, by its key."""
        view, applied = self._control()
        details = {}
        for name, profile in view.profiles.items():
            config = view.models.get(profile.key.placement)
            details[name] = (profile, Detection() if config is None else config.detection)
        longest = max((detail.period_days for _, detail in details.values()), default=0.0)
        self._follow(now_ms - round(longest * DAY_MS))
        budgets = {}
        for name, (profile, detection) in sorted(details.items()):
            period_ms = detection.period_days * DAY_MS
            kept = [(at, one) for at, one in self._kept.get(name, []) if at > now_ms - period_ms]
            watched = (now_ms - applied.get(name, now_ms)) / period_ms
            budgets[name] = spending(profile, [one for _, one in kept], detection.false_alarms, watched)
        return budgets

    def _control(self) -> tuple[View, dict[str, int]]:
        """Return what is in force, and by the bus's time since when each profile is."""
        partition = TopicPartition(self.topics.name("control"), 0)
        records = self.reader.read(partition, self.reader.beginning(partition), self.reader.end(partition))
        view, applied = View(), {}
        for record in records:
            for changed in view.apply([record]):
                kind, _, name = changed.partition("/")
                if kind == "profile":
                    applied[name] = record.timestamp_ms
        return view, applied

    def _follow(self, since_ms: int) -> None:
        name = self.topics.name("findings")
        for number in range(self.partitions):
            partition = TopicPartition(name, number)
            end = self.reader.end(partition)
            start = self._positions.get(number)
            if start is None:
                start = self.reader.at_time(partition, since_ms)
            for record in self.reader.read(partition, max(start, self.reader.beginning(partition)), end):
                try:
                    finding = decode_event(record.value, "finding", Finding)
                except PoisonError as error:
                    self.unreadable += 1
                    structlog.get_logger().warning("finding_unreadable", offset=record.offset, reason=error.reason)
                    continue
                key = ModelKey(finding.tenant, finding.model, finding.model_version, finding.deployment)
                self._kept.setdefault(str(key), []).append((record.timestamp_ms, finding))
            self._positions[number] = end
        recent = {name: [row for row in rows if row[0] > since_ms] for name, rows in self._kept.items()}
        self._kept = {name: rows for name, rows in recent.items() if rows}
