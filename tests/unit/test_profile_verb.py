"""`regate profile`: from a file, from a topic, and shown."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.told import finding
from typer.testing import CliRunner

from regate.config.errors import ConfigError
from regate.config.settings import Bus, Limits
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.port import OutRecord, TopicSpec
from regate.daemon.bus.provision import provision
from regate.daemon.bus.topics import Topics
from regate.daemon.cli.profile import app
from regate.daemon.files.table import read_table
from regate.daemon.incidents import Story, find, quarantined, read_stories
from regate.daemon.profiles import Request, from_file, from_topic
from regate.daemon.wire.cloudevents import encode_event
from regate.daemon.wire.encode import EventEncoder
from regate.detectors.charts import Bank
from regate.detectors.profile import Profile

ROWS = 1200
START_US = int(datetime(2026, 5, 1, tzinfo=UTC).timestamp() * 1e6)
REQUEST = Request(events_per_second=None, budget_events=None, calibrate_seconds=0.0, seed=0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(4)
    truth = rng.integers(0, 2, ROWS)
    table = pa.table(
        {
            "event_id": [f"e{row}" for row in range(ROWS)],
            "event_time": pa.array(START_US + np.arange(ROWS) * 500_000, pa.timestamp("us", "UTC")),
            "income": rng.lognormal(size=ROWS),
            "region": rng.choice(["north", "south", "west"], ROWS),
            "prediction": np.where(rng.random(ROWS) < 0.1, 1 - truth, truth),
            "label": truth,
        }
    )
    path = tmp_path / "loans.parquet"
    pq.write_table(table, path)
    return path


def silent(_stage: str, _share: float) -> None:
    return


def on_topic(file: Path) -> tuple[MemoryBus, EventEncoder]:
    bus = MemoryBus()
    bus.admin().create([TopicSpec("telemetry", 3), TopicSpec("labels", 2)])
    table = read_table(file)
    encoder = EventEncoder(table)
    times = table.event_time_us()
    writer = bus.writer()
    for row, value in enumerate(encoder.json(0, ROWS, times)):
        stamp = int(times[row]) // 1000
        writer.send(OutRecord("telemetry", value, partition=row % 3, timestamp_ms=stamp))
    for row, value in enumerate(encoder.labels(0, ROWS, times)):
        writer.send(OutRecord("labels", value, partition=row % 2, timestamp_ms=int(times[row]) // 1000))
    writer.flush()
    return bus, encoder


def test_a_topic_gives_the_same_charts_as_the_file(file: Path) -> None:
    config = read_table(file).config
    bus, _ = on_topic(file)
    of_file = from_file(file, None, None, REQUEST, silent)
    of_topic = from_topic(bus, "telemetry", "labels", config, None, None, Limits(), REQUEST, silent)
    assert of_topic.events_per_second == pytest.approx(2.0, rel=0.01)
    # A topic knows when labels came, a file does not.
    arrival = {"performance/labels/age", "performance/labels/coverage"}
    by_class = {f"performance/labels/coverage of class={name}" for name in "01"}
    assert {chart.name for chart in of_topic.charts} - {chart.name for chart in of_file.charts} == arrival | by_class
    of_both = [chart for chart in of_topic.charts if chart.name not in arrival | by_class]
    assert [chart.digest for chart in of_both] == [chart.digest for chart in of_file.charts]
    assert "performance/error/rate" in {chart.name for chart in of_topic.charts}


def test_since_and_until_cut_the_topic(file: Path) -> None:
    config = read_table(file).config
    bus, _ = on_topic(file)
    half = from_topic(
        bus, "telemetry", None, config, "2026-05-01T00:01:40", "2026-05-01T00:06:40+00:00", Limits(), REQUEST, silent
    )
    assert half.rows == 600
    assert "performance/error/rate" not in {chart.name for chart in half.charts}
    with pytest.raises(ConfigError, match="no event of"):
        from_topic(bus, "telemetry", None, config, "2027-01-01", None, Limits(), REQUEST, silent)
    with pytest.raises(ConfigError, match="neither a file nor a topic"):
        from_topic(bus, "nowhere", None, config, None, None, Limits(), REQUEST, silent)
    with pytest.raises(ConfigError, match="no time"):
        from_topic(bus, "telemetry", None, config, "yesterday", None, Limits(), REQUEST, silent)


def test_rows_of_an_open_incident_do_not_become_normal_by_waiting(file: Path) -> None:
    config = read_table(file).config
    bus, _ = on_topic(file)
    story = Story(finding(1, onset_us=START_US + 900 * 500_000))
    assert quarantined({"f1": story}, story.key, frozenset({"f1"})) == {}
    assert quarantined({"f1": story}, story.key, frozenset()) == {"f1": story}
    clean = from_topic(bus, "telemetry", None, config, None, None, Limits(), REQUEST, silent, {"f1": story})
    assert clean.rows == 900
    assert any("300 rows of incident f1" in note for note in clean.notes)
    whole = from_topic(bus, "telemetry", None, config, None, None, Limits(), REQUEST, silent, {})
    assert whole.rows == ROWS


def test_stories_follow_an_incident_to_its_end() -> None:
    bus, topics = MemoryBus(), Topics(Bus(partitions=2))
    provision(bus.admin(), topics)
    writer = bus.writer()
    for one in (finding(1), finding(2), finding(2, "confirmed"), finding(2, "recovered", detected_us=77)):
        value, headers = encode_event("finding", one.id, one.scope, 1, one)
        writer.send(OutRecord(topics.name("findings"), value, None, headers, 0))
    writer.flush()
    stories = read_stories(bus, topics)
    assert (stories["f1"].open, stories["f2"].open, stories["f2"].ended_us) == (True, False, 77)
    assert stories["f2"].covers(np.array([0, 1, 76, 77])).tolist() == [False, True, True, False]
    assert find(stories, "f1") is stories["f1"]
    with pytest.raises(ConfigError, match="has ended: recovered"):
        find(stories, "f2")
    with pytest.raises(ConfigError, match="no incident f3"):
        find(stories, "f3")


def test_build_writes_a_profile_and_show_reads_it(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "loans.profile"
    built = CliRunner().invoke(
        app, ["build", str(file), "--out", str(out), "--reference-rows", "1000", "--calibrate-seconds", "0.5", "--json"]
    )
    assert built.exit_code == 0, built.output
    told = json.loads(built.stdout)
    profile = Profile.from_bytes(out.read_bytes())
    assert told["digest"] == profile.digest
    assert told["rows"] == 1000
    assert {chart["name"] for chart in told["charts"] if chart["watchable"]} >= {"feature_drift/income/mean"}
    traffic = profile.events_per_period(2.0)
    assert [row["events_per_period"] for row in told["thresholds"]] == pytest.approx(
        [0.1 * traffic, traffic, 10 * traffic], rel=0.01
    )
    assert Bank(profile).threshold(profile.budget_events or 0.0) == told["thresholds"][1]["log10_threshold"]
    shown = CliRunner().invoke(app, ["show", str(out)])
    assert shown.exit_code == 0, shown.output
    assert "the ceiling is 1" in shown.stdout
    assert profile.digest in shown.stdout.replace("\n", "")


def test_what_cannot_be_a_source_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["build", "no-such-thing", "--out", str(tmp_path / "x.profile")])
    assert isinstance(result.exception, ConfigError)
    assert "regate init --from no-such-thing" in result.exception.hint
    result = CliRunner().invoke(app, ["show", str(tmp_path / "missing.profile")])
    assert isinstance(result.exception, ConfigError)
