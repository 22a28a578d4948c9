"""Topics on Kafka: created from the table, never by accident."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafka import TopicPartition as KafkaTopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError

from regate.config.errors import ConfigError
from regate.daemon.bus.kafka_client import Cluster
from regate.daemon.bus.kafka_errors import mapped
from regate.daemon.bus.port import TopicPartition, TopicSpec

# A topic without a leader for every partition refuses the first record; creation waits for them.
READY_MS = 15_000


class KafkaAdmin:
    """The administration client (port: `Admin`)."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._client = cluster.admin()

    def create(self, specs: Sequence[TopicSpec]) -> list[str]:
        """Create the topics that do not exist; return their names."""
        existing = set(self.topics())
        wanted = {
            spec.name: {
                "num_partitions": spec.partitions,
                "replication_factor": spec.replication,
                "configs": dict(spec.config),
            }
            for spec in specs
            if spec.name not in existing
        }
        created: list[str] = []
        for name, options in wanted.items():
            with mapped(f"create topic {name}"):
                try:
                    self._client.create_topics({name: options})
                except TopicAlreadyExistsError:
                    continue  # another process was quicker
                created.append(name)
        if created:
            with mapped("wait for new topics"):
                self._client.wait_for_topics(created, timeout_ms=READY_MS)
        return created

    def _described(self, topic: str) -> dict[str, Any] | None:
        with mapped(f"describe topic {topic}"):
            (found,) = self._client.describe_topics([topic])
        if found["error_code"] == UnknownTopicOrPartitionError.errno:
            return None
        return dict(found)

    def partitions(self, topic: str) -> int:
        """Return the number of partitions; 0 when the topic does not exist."""
        found = self._described(topic)
        return 0 if found is None else len(found["partitions"])

    def topics(self) -> list[str]:
        """Return the names of all topics."""
        with mapped("list topics"):
            return sorted(self._client.list_topics())

    def config(self, topic: str) -> dict[str, str]:
        """Return the topic's settings."""
        if self._described(topic) is None:
            raise ConfigError(f"topic {topic} does not exist", hint="run: regate topics create")
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        with mapped(f"read the settings of {topic}"):
            found = self._client.describe_configs([resource], config_filter="all")
        settings = found["topic"][topic]
        return {name: str(entry["value"]) for name, entry in settings.items()}

    def add_partitions(self, topic: str, total: int) -> None:
        """Grow the topic to ``total`` partitions."""
        with mapped(f"grow topic {topic}"):
            self._client.create_partitions({topic: total})
            self._client.wait_for_topics([topic], timeout_ms=READY_MS)

    def delete(self, topics: Sequence[str]) -> None:
        """Delete topics (tests and demos)."""
        present = set(self.topics()) & set(topics)
        self._cluster.forget(topics)
        if present:
            with mapped("delete topics"):
                self._client.delete_topics(sorted(present))

    def forget(self, partition: TopicPartition, before: int) -> None:
        """Drop the records below ``before``, as retention does (tests and drills)."""
        with mapped(f"drop records of {partition.topic}-{partition.partition}"):
            self._client.delete_records({KafkaTopicPartition(*partition): before})

    def close(self) -> None:
        """Release the connection."""
        self._client.close()
