"""`init` proposes a configuration that loads and decodes; `produce` sends rows when they are due, labels late."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner

from regate.config.errors import ConfigError
from regate.config.loading import load
from regate.config.model import FieldMapping, ModelConfig
from regate.config.settings import Limits
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.port import OutRecord, Record, TopicPartition, TopicSpec
from regate.daemon.cli.init import init
from regate.daemon.files import Table, read_table
from regate.daemon.wire.decode import Decoder
from regate.daemon.wire.describe import to_yaml
from regate.daemon.wire.encode import EventEncoder, plan_times
from regate.daemon.wire.guess import guess
from regate.daemon.wire.sampling import columns_of, newest, one_model
from regate.daemon.wire.sending import Sending, Sent, send

ROWS = 50


def write(path: Path, **extra: Any) -> Path:
    rng = np.random.default_rng(2)
    data = {
        "event_id": [f"e{i}" for i in range(ROWS)],
        "event_time": pa.array(np.arange(ROWS) * 1_000_000, pa.timestamp("us")),
        "client": [f"c{i % 4}" for i in range(ROWS)],
        "income": rng.normal(size=ROWS),
        "no": rng.integers(0, 9, ROWS),  # a word that YAML reads as false
        "sex": [["f", "m"][i % 2] for i in range(ROWS)],
        "prediction": rng.integers(0, 2, ROWS),
        "label": rng.integers(0, 2, ROWS),
    }
    pq.write_table(pa.table(data | extra), path)
    return path


def loaded(tmp_path: Path, text: str) -> ModelConfig:
    path = tmp_path / "model.yaml"
    path.write_text(text)
    return load(ModelConfig, path)


def test_init_from_a_file_loads_and_reads_that_file(tmp_path: Path) -> None:
    path = write(tmp_path / "loan.parquet")
    app = typer.Typer()
    app.command()(init)
    target = tmp_path / "model.yaml"
    done = CliRunner().invoke(app, ["--from", str(path), "-o", str(target)])
    assert done.exit_code == 0, done.output
    config = load(ModelConfig, target)
    assert {name: feature.type for name, feature in config.features.items()} == {
        "income": "numeric",
        "no": "numeric",
        "sex": "categorical",
    }
    assert all(feature.minimum is None and feature.maximum is None for feature in config.features.values())
    text = target.read_text()
    assert "# Cohort candidates among the features: sex." in text
    assert "# Label candidates: label." in text
    assert "seen " in text
    assert read_table(path, config).slice(0, ROWS).n == ROWS
    again = CliRunner().invoke(app, ["--from", str(path), "-o", str(target)])
    assert isinstance(again.exception, ConfigError)


def test_init_maps_the_columns_that_a_file_calls_otherwise(tmp_path: Path) -> None:
    columns = {
        "timestamp": pa.array(["2026-01-01T00:00:00+0200"] * 3),
        "request_id": pa.array(["a", "b", "c"]),
        "y_true": pa.array([0, 1, 0]),
        "predicted": pa.array([0, 1, 1]),
        "income": pa.array([1.0, None, 3.0]),
    }
    found = guess(columns, "m", events=False)
    mapping = found.config.mapping
    assert (mapping.event_id, mapping.event_time, mapping.label) == ("request_id", "timestamp", "y_true")
    assert mapping.prediction == "predicted"
    assert list(found.config.features) == ["income"]
    assert found.zone == "+0200"
    assert "33.3 % missing" in to_yaml(found, "x")


@pytest.mark.parametrize(
    "event",
    [
        {
            "event_id": "a",
            "model": "m",
            "inputs": {"x": 1.5, "c": "u"},
            "prediction": 1,
            "scores": {"0": 0.5, "1": 0.5},
        },
        {"id": "a", "x": 1.5, "c": "u", "score": 0.5, "model_name": "m"},
        {
            "meta": {"request_id": "a", "model": "m"},
            "data": {"request": {"x": 1.5, "c": "u"}, "response": {"decision": 1}},
        },
        {
            "specversion": "1.0",
            "id": "a",
            "type": "io.regate.telemetry.v1",
            "data": {"model": "m", "inputs": {"x": 1, "c": "u"}},
        },
    ],
)
def test_init_from_a_topic_gives_a_configuration_that_decodes_it(tmp_path: Path, event: dict[str, Any]) -> None:
    bus = MemoryBus()
    bus.admin().create([TopicSpec("events", 2)])
    writer = bus.writer()
    for i in range(20):
        writer.send(OutRecord("events", json.dumps(event).encode(), partition=i % 2))
    writer.send(OutRecord("events", b"garbage", partition=0))
    writer.flush()
    records = newest(bus, "events", 100)
    columns, named = one_model(columns_of(records, Limits()), "")
    config = loaded(tmp_path, to_yaml(guess(columns, named or "m", events=True), "events"))
    assert {name: feature.type for name, feature in config.features.items()} == {"x": "numeric", "c": "categorical"}
    decoded = Decoder({("default", config.model): config}).decode(records)
    assert sum(s.n for s in decoded.slices) == 20, decoded.refused
    assert len(decoded.refused) == 1


def test_init_names_what_is_neither_file_nor_topic() -> None:
    with pytest.raises(ConfigError, match="neither a file nor a topic"):
        newest(MemoryBus(), "nowhere", 10)


def test_comments_cannot_be_left(tmp_path: Path) -> None:
    columns = {"a\nkind: Policy": pa.array(["x\n# y", "z"]), "n": pa.array([1.0, 2.0])}
    config = loaded(tmp_path, to_yaml(guess(columns, "m", events=False), "file\nkind: Policy"))
    assert set(config.features) == {"a\nkind: Policy", "n"}


@pytest.mark.parametrize("inputs", ["", "data.request.inputs"])
def test_produce_writes_the_layout_that_the_mapping_reads(tmp_path: Path, inputs: str) -> None:
    mapping = {"event_id": "meta.id", "inputs": inputs, "prediction": "out.class", "event_time": "timestamp"}
    table = read_table(write(tmp_path / "loan.parquet"))
    table = read_table(tmp_path / "loan.parquet", table.config.model_copy(update={"mapping": FieldMapping(**mapping)}))
    encoder = EventEncoder(table)
    values = encoder.json(0, 9, [1_000_000] * 9)
    assert "event_id" not in json.loads(values[0])
    decoder = Decoder({("default", "loan"): table.config})
    decoded = decoder.decode([Record("t", 0, i, 1, None, value) for i, value in enumerate(values)])
    assert decoded.refused == []
    (got,) = decoded.slices
    want = table.slice(0, 9)
    assert got.event_id.tolist() == want.event_id.tolist()
    assert got.event_time_us.tolist() == [1_000_000] * 9
    assert set(got.features) == set(want.features)
    labels = encoder.labels(0, 9, [1_000_000] * 9)
    late = decoder.decode_labels([Record("l", 0, i, 1, None, value) for i, value in enumerate(labels)])
    assert late.refused == []


class Clock:
    """Time that only passes by waiting."""

    def __init__(self) -> None:
        self.us = 1_000_000_000

    def now(self) -> int:
        return self.us

    def wait(self, seconds: float) -> None:
        self.us += round(seconds * 1e6)


def sent(
    tmp_path: Path, how: Sending, *, speed: float | None = None
) -> tuple[Sent, list[Record], list[Record], Clock, Table]:
    table = read_table(write(tmp_path / "loan.parquet"))
    bus, clock = MemoryBus(), Clock()
    bus.admin().create([TopicSpec("t", 1), TopicSpec("l", 1)])
    times = plan_times(table, clock.us, speed=speed, rate=None)
    done = send(table, bus.writer(), how, times_us=times, now_us=clock.now, wait=clock.wait)
    reader = bus.reader()
    records = [reader.read(TopicPartition(name, 0), 0, reader.end(TopicPartition(name, 0))) for name in ("t", "l")]
    return done, records[0], records[1], clock, table


@pytest.mark.parametrize("form", ["json", "arrow"])
def test_produce_sends_every_row_and_every_label(tmp_path: Path, form: Any) -> None:
    how = Sending("t", "l", form=form, label_delay_rows=10, batch_rows=7)
    done, events, labels, _, table = sent(tmp_path, how)
    assert (done.events, done.labels) == (ROWS, ROWS)
    decoder = Decoder({("default", "loan"): table.config})
    decoded = decoder.decode(events)
    assert decoded.refused == []
    assert np.concatenate([s.event_id for s in decoded.slices]).tolist() == table.slice(0, ROWS).event_id.tolist()
    late = decoder.decode_labels(labels)
    assert late.refused == []
    assert late.labels[0].event_id.tolist() == table.slice(0, ROWS).event_id.tolist()


def test_produce_keeps_the_spacing_divided_by_speed(tmp_path: Path) -> None:
    _, events, labels, clock, table = sent(tmp_path, Sending("t", "l", label_delay_rows=5), speed=10.0)
    assert clock.us == 1_000_000_000 + (ROWS - 1) * 100_000
    decoder = Decoder({("default", "loan"): table.config})
    (got,) = decoder.decode(events).slices
    assert np.diff(got.event_time_us).tolist() == [100_000] * (ROWS - 1)
    (late,) = decoder.decode_labels(labels).labels
    delay = late.event_time_us - got.event_time_us
    assert delay[: ROWS - 5].min() >= 500_000
    assert delay[: ROWS - 5].max() <= 900_000


def test_produce_keys_by_model_client_or_not_at_all(tmp_path: Path) -> None:
    keys = {key: {r.key for r in sent(tmp_path, Sending("t", key=key))[1]} for key in ("model", "client", "none")}  # type: ignore[arg-type]
    assert keys == {"model": {b"default/loan"}, "client": {b"c0", b"c1", b"c2", b"c3"}, "none": {None}}
