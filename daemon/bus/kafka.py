"""Kafka behind the bus port, by kafka-python.

The rules of docs/design (exactly-once with this client) stand in the modules where they act:
`kafka_producer` (order of a commit), `kafka_consumer` (callbacks only note), `kafka_reader` (ranges end
by position), `kafka_errors` (the error tree).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regate.daemon.bus.kafka_admin import KafkaAdmin
from regate.daemon.bus.kafka_client import Cluster, Timeouts
from regate.daemon.bus.kafka_consumer import KafkaGroupConsumer
from regate.daemon.bus.kafka_producer import KafkaTransactions, KafkaWriter
from regate.daemon.bus.kafka_reader import KafkaReader


class KafkaBus:
    """One Kafka cluster (port: `Bus`).

    :param bootstrap_servers: comma-separated ``host:port``.
    :param security: TLS and SASL settings under kafka-python's names.
    :param timeouts: seconds; the defaults are the ones that passed.
    """

    def __init__(
        self, bootstrap_servers: str, security: Mapping[str, Any] | None = None, timeouts: Timeouts | None = None
    ) -> None:
        self._cluster = Cluster(bootstrap_servers, security, timeouts or Timeouts())

    def consumer(self, group: str, instance_id: str | None = None) -> KafkaGroupConsumer:
        """Return a group member."""
        return KafkaGroupConsumer(self._cluster, group, instance_id)

    def reader(self) -> KafkaReader:
        """Return a group-free reader."""
        return KafkaReader(self._cluster)

    def producer(self, transactional_id: str) -> KafkaTransactions:
        """Return an initialised transactional producer; fences older ones with the same id."""
        return KafkaTransactions(self._cluster, transactional_id)

    def writer(self) -> KafkaWriter:
        """Return a plain producer."""
        return KafkaWriter(self._cluster)

    def admin(self) -> KafkaAdmin:
        """Return the administration client."""
        return KafkaAdmin(self._cluster)

    def close(self) -> None:
        """Release what the parts share."""
        self._cluster.close()
