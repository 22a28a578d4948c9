"""Producing to Kafka: the transactional producer of a role, and the plain writer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any

import structlog
from kafka import KafkaProducer as Client
from kafka import TopicPartition as KafkaTopicPartition
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from regate.config.errors import FatalError, RegateError, RetryableError
from regate.daemon.bus.bounded import bounded
from regate.daemon.bus.broker_settings import MAX_MESSAGE_BYTES
from regate.daemon.bus.kafka_client import Cluster
from regate.daemon.bus.kafka_errors import mapped, translated
from regate.daemon.bus.port import GroupMetadata, OutRecord, TopicPartition

log = structlog.get_logger(__name__)


def _settings(cluster: Cluster, linger_ms: int, batch_bytes: int) -> dict[str, Any]:
    timeouts = cluster.timeouts
    return {
        **cluster.streaming_settings(),
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": linger_ms,
        "batch_size": batch_bytes,
        "max_block_ms": int(timeouts.block * 1000),
        "delivery_timeout_ms": int(timeouts.delivery * 1000),
        "max_request_size": MAX_MESSAGE_BYTES,  # the topic's own limit decides; this one must not be the smaller
        "allow_auto_create_topics": False,
    }


def _send(client: Any, cluster: Cluster, record: OutRecord) -> Any:
    """Queue one record; return its future.

    A bad partition or an over-long record raises here; an unknown topic would block for ``max_block_ms``
    and is asked for first.
    """
    cluster.require((record.topic,))
    return client.send(
        record.topic,
        value=record.value,
        key=record.key,
        headers=list(record.headers),
        partition=record.partition,
        timestamp_ms=record.timestamp_ms,
    )


def _close(client: Any, seconds: float, name: str) -> None:
    """Close the client; a close that fails or hangs leaves a daemon thread, and is said."""
    try:
        bounded(lambda: client.close(timeout=seconds), seconds + 1.0, f"close {name}")
    except Exception as error:  # noqa: BLE001  (whatever the client raises, the records were settled by commit or flush)
        log.warning("producer_close_failed", producer=name, error=type(error).__name__, detail=str(error))


class KafkaTransactions:
    """One transactional producer (port: `Producer`). Any failure breaks it for good: create a new one."""

    def __init__(self, cluster: Cluster, transactional_id: str) -> None:
        self._cluster = cluster
        self._id = transactional_id
        self._broken = False
        self._futures: list[Any] = []
        settings = _settings(cluster, linger_ms=0, batch_bytes=1 << 20)
        timeouts = cluster.timeouts
        with mapped(f"open producer {transactional_id}"):
            self._client = Client(
                **settings,
                transactional_id=transactional_id,
                transaction_timeout_ms=int(timeouts.transaction * 1000),
            )
        try:
            with mapped(f"initialise producer {transactional_id}"):
                bounded(self._client.init_transactions, timeouts.block + 1.0, "init_transactions")
        except RegateError:
            _close(self._client, 0.0, transactional_id)
            raise

    def begin(self) -> None:
        """Open a transaction."""
        self._refuse_broken()
        self._futures = []
        with self._guarded("begin a transaction"):
            self._client.begin_transaction()

    def send(self, record: OutRecord) -> None:
        """Add a record to the open transaction."""
        self._refuse_broken()
        with self._guarded(f"send to {record.topic}"):
            self._futures.append(_send(self._client, self._cluster, record))

    def commit(self, offsets: Mapping[TopicPartition, int], group: GroupMetadata | None) -> None:
        """Flush, check every send, add the input offsets under the generation, commit."""
        self._refuse_broken()
        if group is not None and not offsets:
            raise FatalError(
                "a commit under a group carries no offsets", hint="send the position of every held partition"
            )
        seconds = self._cluster.timeouts.commit
        with self._guarded(f"commit {self._id}"):
            bounded(lambda: self._commit(offsets, group, time.monotonic() + seconds), seconds, "commit")

    def _commit(self, offsets: Mapping[TopicPartition, int], group: GroupMetadata | None, deadline: float) -> None:
        # 1. Everything is sent. 2. Everything arrived: a batch that expired only fails its own future, and the
        # commit after it would still say ok (torn commit).
        self._client.flush(timeout=max(deadline - time.monotonic(), 0.001))
        for future in self._futures:
            if not future.is_done:
                raise RetryableError("a record was not acknowledged by the flush", hint="recover")
            if future.failed():
                raise translated(future.exception, "a record was refused") from future.exception
        # 3. The offsets, with the generation: the only place where the broker checks it.
        if group is not None:
            self._client.send_offsets_to_transaction(
                {KafkaTopicPartition(*tp): OffsetAndMetadata(offset, "", -1) for tp, offset in offsets.items()},
                ConsumerGroupMetadata(group.group, group.generation, group.member_id, group.instance_id),
            )
        # 4. The commit itself.
        self._client.commit_transaction()
        self._futures = []

    def abort(self) -> None:
        """Abort the open transaction; after a failure the broker's timeout, or the next init, does it."""
        if self._broken:
            return
        with self._guarded(f"abort {self._id}"):
            bounded(self._client.abort_transaction, self._cluster.timeouts.commit, "abort")
        self._futures = []

    def close(self, deadline_seconds: float) -> None:
        """Close within the deadline."""
        self._broken = True
        _close(self._client, deadline_seconds, self._id)

    def _refuse_broken(self) -> None:
        if self._broken:
            raise RetryableError(f"producer {self._id} is used up", hint="create a new one and recover")

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Any:
        try:
            with mapped(what):
                yield
        except BaseException:
            self._broken = True
            raise


class KafkaWriter:
    """A plain idempotent producer (port: `Writer`)."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._failed: list[BaseException] = []
        settings = _settings(cluster, linger_ms=5, batch_bytes=1 << 18)
        with mapped("open writer"):
            self._client = Client(**settings)

    def send(self, record: OutRecord) -> None:
        """Queue a record; a refusal shows at `flush`."""
        with mapped(f"send to {record.topic}"):
            _send(self._client, self._cluster, record).add_errback(self._note)

    def _note(self, error: BaseException) -> None:
        with self._lock:
            self._failed.append(error)

    def flush(self, timeout_seconds: float = 30.0) -> None:
        """Wait for all queued records; raise if any was refused."""
        with mapped("flush"):
            bounded(lambda: self._client.flush(timeout=timeout_seconds), timeout_seconds + 1.0, "flush")
        with self._lock:
            failed, self._failed = self._failed, []
        if failed:
            raise translated(failed[0], f"{len(failed)} records were refused, the first") from failed[0]

    def close(self, deadline_seconds: float) -> None:
        """Flush and close within the deadline."""
        try:
            self.flush(deadline_seconds)
        finally:
            _close(self._client, deadline_seconds, "writer")
