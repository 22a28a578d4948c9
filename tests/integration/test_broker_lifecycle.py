"""The embedded broker: one per folder, durable, gone when it should be gone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regate.config.errors import ConfigError, FatalError
from regate.daemon.bus import broker_jars
from regate.daemon.bus.broker import Broker
from regate.daemon.bus.kafka import KafkaBus
from regate.daemon.bus.port import OutRecord, TopicPartition, TopicSpec
from regate.daemon.cli import kafka as kafka_cli
from regate.daemon.cli import topics as topics_cli

pytestmark = pytest.mark.kafka


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_records_survive_stop_and_kill_on_the_same_port(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka")
    bootstrap = broker.start()
    try:
        with pytest.raises(ConfigError, match="runs on"):
            Broker(tmp_path / "kafka").start()
        bus = KafkaBus(bootstrap)
        admin, writer = bus.admin(), bus.writer()
        admin.create([TopicSpec("t", 1)])
        writer.send(OutRecord("t", b"1"))
        writer.close(5.0)
        admin.close()
        bus.close()
        first = broker.status().pid
        broker.kill()
        assert first is not None
        assert gone(first)
        assert not broker.status().running
        started = time.monotonic()
        assert broker.start() == bootstrap
        assert time.monotonic() - started < 30
        broker.stop()
        assert not broker.status().running
        assert broker.start() == bootstrap
        bus = KafkaBus(bootstrap)
        reader = bus.reader()
        assert [r.value for r in reader.read(TopicPartition("t", 0), 0, 1)] == [b"1"]
        reader.close()
        bus.close()
    finally:
        broker.stop()
    broker.stop()  # nothing to stop is fine


def test_an_owned_broker_dies_with_its_process(tmp_path: Path) -> None:
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom regate.daemon.bus.broker import Broker\n"
        "broker = Broker(Path(sys.argv[1]))\nbroker.start()\nprint(broker.status().pid, flush=True)\ntime.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while Broker(tmp_path).status().running:
        assert time.monotonic() < deadline
    assert gone(pid)


def test_a_failing_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    broker.stop()
    meta = tmp_path / "logs" / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))
    try:
        with pytest.raises(FatalError, match=r"(?s)ended while it started.*node"):
            broker.start()
        assert not broker.status().running
    finally:
        broker.stop()


def test_a_taken_port_is_refused(tmp_path: Path, broker: Broker) -> None:
    port = int(broker.bootstrap.rpartition(":")[2])
    with pytest.raises(ConfigError, match="is taken"):
        Broker(tmp_path, port).start()


def test_damaged_jars_are_seen(tmp_path: Path) -> None:
    jars = broker_jars.resolve()
    assert {jar.name for jar in jars} == set(broker_jars.expected_hashes())
    assert len(jars) == 46
    cut = tmp_path / jars[0].name
    cut.write_bytes(jars[0].read_bytes()[:-10])
    strange = tmp_path / "strange.jar"
    strange.write_bytes(b"PK")
    assert broker_jars.wrong_jars([cut, strange, *jars[1:]]) == [cut, strange]


def test_up_leaves_it_running_and_down_stops_it(tmp_path: Path) -> None:
    run, folder = CliRunner(), ["--data-dir", str(tmp_path), "--json"]
    assert run.invoke(kafka_cli.app, ["status", *folder]).exit_code == 1
    program = "import sys\nfrom regate.daemon.cli.kafka import app\napp(sys.argv[1:])\n"
    command = [sys.executable, "-c", program, "up", "--port", "0", *folder]
    up = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    try:
        assert up["running"]
        assert alive(up["pid"]), "it outlives the command that started it"
        again = json.loads(run.invoke(kafka_cli.app, ["up", "--port", "0", *folder]).stdout)
        assert again["pid"] == up["pid"]
        where = ["--bootstrap-servers", up["bootstrap"], "--json"]
        assert run.invoke(topics_cli.app, ["check", *where]).exit_code == 1
        created = json.loads(run.invoke(topics_cli.app, ["create", *where, "--telemetry-partitions", "5"]).stdout)
        assert "regate.findings.v1" in created["created"]
        assert json.loads(run.invoke(topics_cli.app, ["create", *where]).stdout) == {"created": [], "grown": {}}
        assert run.invoke(topics_cli.app, ["check", *where]).exit_code == 0
        listed = json.loads(run.invoke(topics_cli.app, ["list", *where]).stdout)
        assert {row["topic"]: row["partitions"] for row in listed}["regate.journal.observe-telemetry.v1"] == 5
    finally:
        down = run.invoke(kafka_cli.app, ["down", *folder])
    assert down.exit_code == 0
    assert gone(up["pid"])
    assert (tmp_path / "logs").exists()
