"""Reading exact ranges from Kafka without a group."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from kafka import KafkaConsumer as Client
from kafka import TopicPartition as KafkaTopicPartition
from kafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError

from regate.config.errors import FatalError, RetryableError
from regate.daemon.bus import kafka_bulk
from regate.daemon.bus.kafka_client import Cluster
from regate.daemon.bus.kafka_consumer import close_client, fetch_settings, records_of
from regate.daemon.bus.kafka_errors import mapped
from regate.daemon.bus.port import Record, TopicPartition

# One inner poll. A range that ends with transaction markers gives no record to return early for.
POLL_MS = 10
MAX_RECORDS = 10_000


class KafkaReader:
    """Group-free, read-committed reading by explicit position (port: `Reader`)."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        with mapped("open reader"):
            settings = fetch_settings(cluster)
            self._client = Client(**settings, group_id=None, auto_offset_reset="none")
        kafka_bulk.install(self._client)

    def read(self, partition: TopicPartition, start: int, stop: int, timeout_seconds: float = 30.0) -> list[Record]:
        """Return the committed records with ``start <= offset < stop``.

        Offsets of a range may hold no record (transaction markers, aborted or compacted records): the
        range is complete when the position has passed ``stop``.
        """
        if stop <= start:
            return []
        name = f"{partition.topic}-{partition.partition}"
        self._cluster.require((partition.topic,))
        tp = KafkaTopicPartition(*partition)
        deadline = time.monotonic() + timeout_seconds
        found: list[Record] = []
        with mapped(f"read {name} from {start} to {stop}"):
            first = self.beginning(partition)
            if first > start:
                raise FatalError(
                    f"{name} begins at {first}, offset {start} is gone", hint="lengthen the topic's retention"
                )
            self._client.assign([tp])
            self._client.seek(tp, start)
            try:
                while self._position(tp) < stop:
                    if time.monotonic() > deadline:
                        raise RetryableError(f"{name} is not readable up to {stop} in {timeout_seconds:g} s")
                    for batch in self._client.poll(timeout_ms=POLL_MS, max_records=MAX_RECORDS).values():
                        found += records_of(partition, batch)
            except (OffsetOutOfRangeError, NoOffsetForPartitionError) as error:
                self._refuse_range(partition, start, error)
            finally:
                self._client.assign([])
        while found and found[-1].offset >= stop:
            found.pop()
        return found

    def _position(self, tp: Any) -> int:
        found = self._client.position(tp, timeout_ms=POLL_MS)
        return -1 if found is None else int(found)

    def _refuse_range(self, partition: TopicPartition, start: int, error: Exception) -> None:
        name = f"{partition.topic}-{partition.partition}"
        if self.beginning(partition) > start:
            raise FatalError(f"{name}: offset {start} is gone", hint="lengthen the topic's retention") from error
        raise RetryableError(f"{name}: offset {start} is not there yet", hint="read again later") from error

    def beginning(self, partition: TopicPartition) -> int:
        """Return the first offset that the log still holds."""
        self._cluster.require((partition.topic,))
        tp = KafkaTopicPartition(*partition)
        with mapped(f"read the beginning of {partition.topic}-{partition.partition}"):
            return int(self._client.beginning_offsets([tp])[tp])

    def end(self, partition: TopicPartition) -> int:
        """Return the read-committed end offset (last stable offset)."""
        return self.ends((partition,))[partition]

    def ends(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the read-committed end offsets of many partitions in one request."""
        if not partitions:
            return {}
        self._cluster.require({tp.topic for tp in partitions})
        with mapped("read end offsets"):
            found = self._client.end_offsets([KafkaTopicPartition(*tp) for tp in partitions])
        return {TopicPartition(*tp): int(offset) for tp, offset in found.items()}

    def at_time(self, partition: TopicPartition, timestamp_ms: int) -> int:
        """Return the first offset whose record is not older than the time, or the end."""
        self._cluster.require((partition.topic,))
        tp = KafkaTopicPartition(*partition)
        with mapped(f"look up a time in {partition.topic}-{partition.partition}"):
            found = self._client.offsets_for_times({tp: timestamp_ms}).get(tp)
        return self.end(partition) if found is None else int(found.offset)

    def close(self) -> None:
        """Release the connection."""
        close_client(self._client, self._cluster.timeouts.request, "reader")
