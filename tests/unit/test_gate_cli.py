"""Asking a gate from outside: exit codes, expired leases, commands on the bus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.gate_world import SCOPE, World, finding, sha
from typer.testing import CliRunner

from regate.config.errors import ConfigError
from regate.config.model import Feature, ModelConfig
from regate.config.settings import Settings
from regate.daemon.apply import apply_documents
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.placement import partition_of
from regate.daemon.bus.port import OutRecord, TopicPartition
from regate.daemon.bus.topics import Topics
from regate.daemon.cli import deploy as deploy_verb
from regate.daemon.cli import gate as gate_verb
from regate.daemon.cli import status as status_verb
from regate.daemon.cli.connection import Link
from regate.daemon.gate.events import GateState
from regate.daemon.states import judge, read_states, scope_name
from regate.daemon.wire.cloudevents import decode_event, encode_event
from regate.daemon.wire.internal import Command


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Link:
    settings = Settings()
    bus, topics = MemoryBus(), Topics(settings.bus)
    bus.admin().create(topics.specs(1, 1))
    made = Link(settings, bus, topics)
    for verb in (gate_verb, deploy_verb, status_verb):
        monkeypatch.setattr(verb, "connect", lambda *_: made)
    apply_documents(bus, topics, [ModelConfig(model="loan", features={"income": Feature(type="numeric")})])
    return made


def test_a_command_for_a_model_that_nobody_configured_is_refused(link: Link) -> None:
    refused = ask("revalidate", "typo")
    assert refused.exit_code == 1
    assert isinstance(refused.exception, ConfigError)
    assert "default/loan" in refused.exception.message


def publish(link: Link, state: GateState) -> None:
    value, headers = encode_event("gate-state", "id", SCOPE, 0, state)
    writer = link.bus.writer()
    place = partition_of("default/loan", link.settings.bus.partitions)
    writer.send(OutRecord(link.topics.name("gate-state"), value, SCOPE.encode(), headers, place))
    writer.flush()


def at(monkeypatch: pytest.MonkeyPatch, world: World, seconds: float = 0.0) -> None:
    for verb in (gate_verb, status_verb):
        monkeypatch.setattr(verb, "now_ms", lambda: world.now_ms + round(seconds * 1000))


def ask(*words: str) -> Any:
    return CliRunner().invoke(gate_verb.app, [*words, "--json"])


def test_check_approve_is_0_and_an_expired_lease_is_1(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.approve()
    publish(link, world.state)
    at(monkeypatch, world)
    done = ask("check", "loan")
    assert done.exit_code == 0, done.output
    at(monkeypatch, world, 7 * 3600)  # the daemon is dead: the reader checks the lease by its own clock
    done = ask("check", "loan")
    assert done.exit_code == 1
    assert "ran out" in json.loads(done.output)["message"]


def test_check_hold_is_1_and_undecided_is_3(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("check", "loan").exit_code == 3  # nobody has spoken
    world = World()
    at(monkeypatch, world)
    world.configure()
    publish(link, world.state)
    assert ask("check", "loan").exit_code == 3  # the first run is under way
    world.answer("inconclusive")
    publish(link, world.state)
    assert ask("check", "loan").exit_code == 3
    world.clock()
    world.answer("fail", role="serving")
    publish(link, world.state)
    assert ask("check", SCOPE).exit_code == 1


def test_check_without_topics_is_2(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = Link(link.settings, MemoryBus(), link.topics)
    monkeypatch.setattr(gate_verb, "connect", lambda *_: empty)
    done = ask("check", "loan")
    assert done.exit_code == 2
    assert "regate topics create" in done.output


def test_shadow_mode_is_not_to_be_acted_on() -> None:
    world = World()
    world.feed("finding", finding("harm"))
    assert judge(world.state, world.now_ms).code == 3


def test_an_override_approves_until_it_ends() -> None:
    world = World()
    world.approve()
    world.feed("finding", finding("harm"))
    expires = world.now_ms + 60_000
    world.command("override", verdict="approve", actor="a", reason="r", ticket="t", expires_ms=expires)
    assert judge(world.state, world.now_ms).code == 0
    assert judge(world.state, expires).code == 1


def test_wait_ends_at_its_timeout_with_3(link: Link) -> None:
    done = ask("wait", "loan", "--timeout", "0")
    assert done.exit_code == 3
    assert "not settled" in json.loads(done.output)["message"]


def test_wait_ends_when_the_version_is_judged(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.approve()
    publish(link, world.state)
    at(monkeypatch, world)
    assert ask("wait", "loan", "--timeout", "0", "--version", "1").exit_code == 0
    assert ask("wait", "loan", "--timeout", "0", "--version", "2").exit_code == 3
    assert ask("wait", "loan", "--timeout", "0", "--after-seq", "99").exit_code == 3


def commands(link: Link) -> list[Command]:
    place = TopicPartition(link.topics.name("commands"), partition_of("default/loan", link.settings.bus.partitions))
    reader = link.bus.reader()
    return [decode_event(item.value, "command", Command) for item in reader.read(place, 0, reader.end(place))]


def test_deploy_puts_a_command_with_the_digest_of_the_bytes(link: Link, tmp_path: Path) -> None:
    artefact = tmp_path / "m.onnx"
    artefact.write_bytes(b"2")
    app = typer.Typer()
    app.command()(deploy_verb.deploy)
    done = CliRunner().invoke(app, ["loan", "--target", str(artefact), "--version", "2", "--approved-by", "ann"])
    assert done.exit_code == 0, done.output
    command = commands(link)[0]
    assert (command.kind, command.model_version, command.scope) == ("deploy", "2", SCOPE)
    assert command.target is not None
    assert command.target.digest == sha("2")
    assert command.approvals == ("ann",)


def test_requalify_override_and_revalidate_are_commands(link: Link) -> None:
    assert ask("requalify", "loan", "--actor", "a", "--reason", "r").exit_code == 0
    words = ("override", "loan", "--verdict", "approve", "--actor", "a", "--reason", "r", "--ticket", "t")
    assert ask(*words, "--seconds", "60").exit_code == 0
    assert ask("revalidate", "loan").exit_code == 0
    assert [item.kind for item in commands(link)] == ["requalify", "override", "revalidate"]


def test_status_shows_every_scope_worst_first(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.approve()
    publish(link, world.state)
    at(monkeypatch, world)
    app = typer.Typer()
    app.command()(status_verb.status)
    rows = json.loads(CliRunner().invoke(app, ["--json"]).output)["scopes"]
    assert [(row["scope"], row["verdict"], row["exit_code"]) for row in rows] == [(SCOPE, "approve", 0)]
    assert "approve" in CliRunner().invoke(app, []).output


def test_the_newest_state_of_a_scope_counts(link: Link) -> None:
    world = World()
    world.approve()
    publish(link, world.state)
    world.feed("finding", finding("harm"))
    publish(link, world.state)
    assert read_states(link.bus, link.topics)[SCOPE].verdict == "hold"


def test_names_of_scopes() -> None:
    assert [scope_name(text) for text in ("a", "t/a", "t/a/d")] == [
        "default/a/production",
        "t/a/production",
        "t/a/d",
    ]
