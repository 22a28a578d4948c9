"""Putting documents and profiles on the control topic, once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError

from regate.config.errors import ConfigError
from regate.config.model import ModelConfig
from regate.config.policy import Policy
from regate.daemon.bus.port import Bus
from regate.daemon.bus.topics import Topics
from regate.daemon.control import acceptance_record, current, document_record, profile_records
from regate.daemon.incidents import Story
from regate.daemon.wire.cloudevents import decode_event
from regate.daemon.wire.internal import Acceptance, Control
from regate.detectors.profile import Profile


def apply_documents(
    bus: Bus, topics: Topics, documents: Sequence[ModelConfig | Policy], profiles: Sequence[Profile] = ()
) -> list[str]:
    """Write what differs from the bus; return the names (``<kind>/<name>``) that were written."""
    reader, writer = bus.reader(), bus.writer()
    try:
        standing = current(reader, topics).digests
        now = time.time_ns() // 1_000_000
        records = [document_record(document, now) for document in documents]
        for profile in profiles:
            records.extend(profile_records(profile, now))
        changed = []
        for record in records:
            control = decode_event(record.value, "control", Control)
            owner = control.name.partition("#")[0]
            name = f"{'profile' if control.kind == 'profile-chunk' else control.kind}/{owner}"
            if standing.get(name) == control.digest:
                continue
            writer.send(replace(record, topic=topics.name(record.topic)))
            if name not in changed:
                changed.append(name)
        writer.flush()
        return changed
    finally:
        writer.close(5.0)
        reader.close()


def accept_change(
    bus: Bus, topics: Topics, story: Story, profile: Profile | None, *, actor: str, reason: str, ticket: str = ""
) -> None:
    """Put a profile in force, when there is one, and behind it the acceptance of the incident that it describes."""
    now = time.time_ns() // 1_000_000
    key = story.key
    try:
        said = Acceptance(
            incident=story.finding.incident,
            tenant=key.tenant,
            model=key.model,
            model_version=key.version,
            deployment=key.deployment,
            actor=actor,
            reason=reason,
            ticket=ticket,
            profile="" if profile is None else profile.digest,
        )
    except ValidationError as error:
        raise ConfigError(f"the acceptance is not complete: {error}", hint="--actor and --reason") from error
    if profile is not None:
        apply_documents(bus, topics, [], [profile])
    record = acceptance_record(said, now)
    writer = bus.writer()
    try:
        writer.send(replace(record, topic=topics.name(record.topic)))
        writer.flush()
    finally:
        writer.close(5.0)
