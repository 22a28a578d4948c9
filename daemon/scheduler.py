"""Periodic work: APScheduler puts clock events on the bus, with ids made of job and due time.

A job decides nothing: the cores do. Two daemons with the same schedule put the same ids, and the
gate takes each id once.
"""

from __future__ import annotations

import structlog
from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from regate.config.canonical import content_id
from regate.config.settings import Schedule
from regate.daemon.bus.port import OutRecord, Writer
from regate.daemon.bus.topics import Topics
from regate.daemon.shell.clock import Clock
from regate.daemon.wire.cloudevents import encode_event
from regate.daemon.wire.internal import Clock as ClockEvent

MISFIRE_SECONDS = 60  # a machine that slept fires once on waking, not once per missed interval


def clock_records(event: ClockEvent, partitions: int) -> list[OutRecord]:
    """Return the clock event for every partition of the clock topic."""
    event_id = content_id("clock", event.job, event.due_ms, event.scope)
    value, headers = encode_event("clock", event_id, event.job, event.due_ms, event)
    return [
        OutRecord("clock", value, key=event.job.encode(), headers=headers, partition=number)
        for number in range(partitions)
    ]


class Scheduler:
    """The schedule of one daemon process."""

    def __init__(self, schedule: Schedule, topics: Topics, writer: Writer, clock: Clock, partitions: int) -> None:
        self._topics, self._writer, self._clock, self._partitions = topics, writer, clock, partitions
        self._log = structlog.get_logger().bind(part="scheduler")
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": MISFIRE_SECONDS},
        )
        self._scheduler.add_listener(self._failed, EVENT_JOB_ERROR)
        for job, seconds in (
            ("revalidate", schedule.revalidate_seconds),
            ("renew", schedule.renew_seconds),
            ("heartbeat", schedule.heartbeat_seconds),
        ):
            self._scheduler.add_job(
                self._fire, IntervalTrigger(seconds=seconds, timezone="UTC"), args=(job, seconds), id=job
            )

    def start(self) -> None:
        """Begin firing."""
        self._scheduler.start()

    def stop(self) -> None:
        """Stop firing and close the writer."""
        self._scheduler.shutdown(wait=True)
        self._writer.close(5.0)

    def _fire(self, job: str, seconds: float) -> None:
        # Due times are multiples of the interval, so that every daemon computes the same ones.
        interval = round(seconds * 1000)
        due = self._clock.now_ms() // interval * interval
        event = ClockEvent.model_validate({"job": job, "due_ms": due})
        for record in clock_records(event, self._partitions):
            self._writer.send(
                OutRecord(self._topics.name("clock"), record.value, record.key, record.headers, record.partition)
            )
        self._writer.flush(10.0)

    def _failed(self, event: JobExecutionEvent) -> None:
        # The next due time tries again; a lease that is not renewed meanwhile runs out, which is the safe side.
        self._log.error("job_failed", job=event.job_id, error=str(event.exception))
