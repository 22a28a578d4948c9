"""Every topic that regate reads or writes, in one table: `topics create` applies it, `topics check` compares.

A topic's full name is ``{prefix}.{logical}.v1``; telemetry and labels are the users' and have the names in the
settings. All placed topics have the same number of partitions, because partition k of each is one shard.
Observe has one journal and one snapshot partition for each telemetry and label partition, in two pairs of topics
(``journal.observe-telemetry``, ``journal.observe-labels``): either input may grow without moving the other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from regate.config.errors import FatalError
from regate.config.settings import Bus as BusSettings
from regate.daemon.bus.port import TopicSpec

DAY_MS = 86_400_000
FOREVER = -1
# Recovery re-reads what a journal names: nothing that is journalled may be kept shorter than the journal's tail lives.
INPUT_DAYS = 7
JOURNAL_DAYS = 30
# Kafka's own default. A snapshot chunk and a cell fragment stay below it (900 kB).
RECORD_BYTES = 1_048_588
# Input limits are checked by regate, with a dead letter as the answer: the topic lets more through than they allow.
INPUT_RECORD_BYTES = 8_388_608
# A dead letter carries the refused bytes, cut, beside its reason and headers.
DEAD_LETTER_BYTES = 2_097_152

Count = Literal["placed", "one", "telemetry", "labels"]


class Row(NamedTuple):
    """One topic of the table. ``days`` None means compacted."""

    partitions: Count
    days: int | None
    record_bytes: int = RECORD_BYTES
    compaction_lag_ms: int = 0


TABLE: Mapping[str, Row] = {
    "telemetry": Row("telemetry", INPUT_DAYS, INPUT_RECORD_BYTES),
    "labels": Row("labels", INPUT_DAYS, INPUT_RECORD_BYTES),
    "cells": Row("placed", INPUT_DAYS),
    "slim": Row("placed", INPUT_DAYS),
    "heartbeats": Row("placed", INPUT_DAYS),
    "clock": Row("placed", INPUT_DAYS),
    "observations": Row("placed", INPUT_DAYS),
    "findings": Row("placed", 90),
    # A recovery steps again with the control records that a journal names: superseded ones must still be there.
    "control": Row("one", None, compaction_lag_ms=DAY_MS),
    "validations": Row("placed", 90),
    "runs": Row("placed", 90),
    "gates": Row("placed", FOREVER),
    "gate-state": Row("placed", None),
    "commands": Row("placed", 90),
    "acks": Row("placed", 90),
    "dead-letters": Row("placed", 30, DEAD_LETTER_BYTES),
    "journal.observe-telemetry": Row("telemetry", JOURNAL_DAYS),
    "journal.observe-labels": Row("labels", JOURNAL_DAYS),
    "journal.decide": Row("placed", JOURNAL_DAYS),
    "journal.gate": Row("placed", JOURNAL_DAYS),
    "journal.validate": Row("placed", JOURNAL_DAYS),
    "snapshots.observe-telemetry": Row("telemetry", None),
    "snapshots.observe-labels": Row("labels", None),
    "snapshots.decide": Row("placed", None),
    "snapshots.gate": Row("placed", None),
    "snapshots.validate": Row("placed", None),
}
INPUTS = ("telemetry", "labels")


def _config(row: Row, replication: int) -> tuple[tuple[str, str], ...]:
    """Return the topic's settings under Kafka's names."""
    settings: dict[str, int | str] = {
        "max.message.bytes": row.record_bytes,
        # With three copies, a record is acknowledged when two have it: one broker may die.
        "min.insync.replicas": 2 if replication > 2 else 1,
    }
    if row.days is None:
        # Only closed segments are compacted, and recovery reads a snapshot partition whole: close them early.
        settings |= {
            "cleanup.policy": "compact",
            "segment.bytes": 16_777_216,
            "segment.ms": 600_000,
            "min.cleanable.dirty.ratio": "0.1",
            "delete.retention.ms": DAY_MS,
            "min.compaction.lag.ms": row.compaction_lag_ms,
        }
    else:
        # Retention drops whole segments: one a day keeps it honest.
        settings |= {
            "cleanup.policy": "delete",
            "retention.ms": FOREVER if row.days == FOREVER else row.days * DAY_MS,
            "segment.ms": DAY_MS,
        }
    return tuple(sorted((name, str(value)) for name, value in settings.items()))


class Topics:
    """Names and settings of all topics under one prefix.

    >>> topics = Topics(BusSettings(prefix="acme"))
    >>> topics.name("findings"), topics.logical("acme.journal.gate.v1"), topics.name("telemetry")
    ('acme.findings.v1', 'journal.gate', 'telemetry')
    """

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self.prefix = settings.prefix
        self._names = {logical: f"{settings.prefix}.{logical}.v1" for logical in TABLE}
        self._names |= {"telemetry": settings.telemetry_topic, "labels": settings.labels_topic}
        self._logical = {name: logical for logical, name in self._names.items()}

    def name(self, logical: str) -> str:
        """Return the full name of a logical topic.

        :raises FatalError: when the table has no such topic.
        """
        try:
            return self._names[logical]
        except KeyError:
            raise FatalError(f"no topic is called {logical!r}", hint="regate topics list") from None

    def logical(self, name: str) -> str:
        """Return the logical name of a full name.

        :raises FatalError: when it is none of regate's.
        """
        try:
            return self._logical[name]
        except KeyError:
            raise FatalError(f"topic {name!r} is not regate's", hint="regate topics list") from None

    def specs(self, telemetry_partitions: int, label_partitions: int) -> list[TopicSpec]:
        """Return every topic with its settings, for input topics of these sizes."""
        counts: dict[Count, int] = {
            "placed": self._settings.partitions,
            "one": 1,
            "telemetry": telemetry_partitions,
            "labels": label_partitions,
        }
        replication = self._settings.replication
        return [
            TopicSpec(self._names[logical], counts[row.partitions], replication, _config(row, replication))
            for logical, row in TABLE.items()
        ]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the full names of the users' topics."""
        return tuple(self._names[logical] for logical in INPUTS)
