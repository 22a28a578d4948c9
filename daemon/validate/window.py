"""The window collector: the last events of a model before a moment, over all partitions, with their labels.

Reads the topics through a group-free reader, backwards in growing ranges, so that it costs what it returns and
never touches the group's offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from regate.config.model import ModelConfig
from regate.config.settings import Limits
from regate.daemon.bus.port import Admin, Reader, Record, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.validate.columns import Served, first_labels, joined, served_of
from regate.daemon.wire.decode import Decoder
from regate.detectors.columns import Labels, Slice
from regate.scenarios.contracts import RunRequest
from regate.scenarios.rows import Rows

FIRST_RECORDS = 200  # a range; an Arrow record holds thousands of events, so begin small and double
SCANNED_RECORDS = 200_000  # a partition: a model that is rare among many must not make the worker read a day
LABEL_RECORDS = 500_000  # a partition, from the window's first event on
READ_RECORDS = 5_000  # one request


class Collector:
    """Reads windows. One a worker; not shared between threads."""

    def __init__(self, reader: Reader, admin: Admin, topics: Topics, limits: Limits) -> None:
        self._reader, self._admin, self._topics, self._limits = reader, admin, topics, limits

    def collect(self, request: RunRequest, config: ModelConfig, events: int) -> Rows | None:
        """Return the last ``events`` rows that were served before the request, oldest first; None when none were.

        Features are read as sent whatever their privacy: the model needs them; what is stored is up to the caller.
        """
        until = (request.window.until_ms if request.window else 0) or request.requested_ms
        open_features = {
            name: feature.model_copy(update={"privacy": "keep"}) for name, feature in config.features.items()
        }
        plain = config.model_copy(update={"features": open_features})
        decoder = Decoder({(config.tenant, config.model): plain}, self._limits)
        served: list[Served] = []
        for partition in self._partitions("telemetry"):
            served += self._telemetry(partition, until, request, plain, decoder, events)
        window = joined(served, plain, events)
        if window is None:
            return None
        labels: list[Labels] = []
        for partition in self._partitions("labels"):
            labels += self._labels(partition, window.oldest_ms, until, request, decoder)
        rows = window.rows
        return replace(rows, label=first_labels(window.event_id, labels, config)) if labels else rows

    def _partitions(self, logical: str) -> list[TopicPartition]:
        name = self._topics.name(logical)
        return [TopicPartition(name, number) for number in range(self._admin.partitions(name))]

    def _telemetry(
        self,
        partition: TopicPartition,
        until_ms: int,
        request: RunRequest,
        config: ModelConfig,
        decoder: Decoder,
        events: int,
    ) -> list[Served]:
        stop = self._reader.at_time(partition, until_ms)
        first = max(self._reader.beginning(partition), stop - SCANNED_RECORDS)
        size, found, served = FIRST_RECORDS, 0, []
        while stop > first and found < events:
            start = max(first, stop - size)
            records = self._read(partition, start, stop)
            for piece in decoder.decode(records).slices:
                if matches(piece, request):
                    served.append(served_of(piece, config, partition.partition))
                    found += piece.n
            stop, size = start, size * 2
        return served

    def _labels(
        self, partition: TopicPartition, since_ms: int, until_ms: int, request: RunRequest, decoder: Decoder
    ) -> list[Labels]:
        start = max(self._reader.at_time(partition, since_ms), self._reader.beginning(partition))
        stop = min(self._reader.at_time(partition, until_ms), start + LABEL_RECORDS)
        found = []
        for low, high in ranges(start, stop):
            decoded = decoder.decode_labels(self._read(partition, low, high)).labels
            found += [part for part in decoded if part.key.placement == f"{request.tenant}/{request.model}"]
        return found

    def _read(self, partition: TopicPartition, start: int, stop: int) -> list[Record]:
        records: list[Record] = []
        for low, high in ranges(start, stop):
            records += self._reader.read(partition, low, high)
        return records


def ranges(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cut a range of offsets into requests.

    >>> list(ranges(0, 12_000))
    [(0, 5000), (5000, 10000), (10000, 12000)]
    """
    for low in range(start, stop, READ_RECORDS):
        yield low, min(low + READ_RECORDS, stop)


def matches(piece: Slice, request: RunRequest) -> bool:
    """Return whether a slice belongs to the request's window.

    The serving version is judged on what it served itself; a candidate or a baseline on what the deployment was asked.
    """
    key = piece.key
    same = key.scope == request.scope
    return same and (request.role != "serving" or key.version == request.model_version)
