"""Incidents as the findings topic tells them: to accept one, and to keep their rows out of a new reference."""

from __future__ import annotations

from dataclasses import dataclass

from regate.config.errors import ConfigError, PoisonError
from regate.daemon.bus.port import Bus, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.wire.cloudevents import decode_event
from regate.detectors.columns import BoolArray, IntArray, ModelKey
from regate.detectors.finding import CLOSING, Finding

# What was no change, or is the new normal, may stand in a reference.
HARMLESS = {"withdrawn", "accepted"}


@dataclass(slots=True)
class Story:
    """One incident: its first finding, and how it ended."""

    finding: Finding
    revision: str = ""
    ended_us: int | None = None

    @property
    def key(self) -> ModelKey:
        """Return whom it is about."""
        one = self.finding
        return ModelKey(one.tenant, one.model, one.model_version, one.deployment)

    @property
    def open(self) -> bool:
        """Return whether nothing has ended it."""
        return self.ended_us is None

    def covers(self, event_time_us: IntArray) -> BoolArray:
        """Return which event times lie between its onset and its end."""
        inside = event_time_us >= self.finding.onset_us
        return inside if self.ended_us is None else inside & (event_time_us < self.ended_us)


def read_stories(bus: Bus, topics: Topics) -> dict[str, Story]:
    """Return all incidents that the findings topic still holds, by id, oldest first."""
    admin, reader = bus.admin(), bus.reader()
    try:
        name = topics.name("findings")
        stories: dict[str, Story] = {}
        for number in range(admin.partitions(name)):
            partition = TopicPartition(name, number)
            for record in reader.read(partition, reader.beginning(partition), reader.end(partition)):
                try:
                    finding = decode_event(record.value, "finding", Finding)
                except PoisonError as error:
                    raise ConfigError(
                        f"{name}[{number}]@{record.offset} is no finding: {error.message}",
                        hint="something else writes to regate's own topics; see who may",
                    ) from error
                _tell(stories, finding)
        return stories
    finally:
        admin.close()
        reader.close()


def _tell(stories: dict[str, Story], finding: Finding) -> None:
    if finding.type == "finding":
        stories.setdefault(finding.incident, Story(finding))
        return
    story = stories.get(finding.incident)
    if story is not None and finding.revision in CLOSING:
        story.revision, story.ended_us = finding.revision, finding.detected_us


def find(stories: dict[str, Story], incident: str) -> Story:
    """Return one open incident.

    :raises ConfigError: when it is unknown or has ended.
    """
    story = stories.get(incident)
    if story is None:
        known = ", ".join(name for name, one in stories.items() if one.open) or "none"
        raise ConfigError(f"no incident {incident}", hint=f"open ones: {known}")
    if not story.open:
        raise ConfigError(f"incident {incident} has ended: {story.revision}", hint="nothing is left to accept")
    return story


def quarantined(stories: dict[str, Story], key: ModelKey, accepts: frozenset[str]) -> dict[str, Story]:
    """Return the incidents whose rows may not become a reference: of this model version, and not accepted."""
    return {
        name: story
        for name, story in stories.items()
        if story.key == key and story.revision not in HARMLESS and name not in accepts
    }
