"""Schemas in step with the models, dead letters, and encoding that decodes to the same slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from regate.daemon.bus.port import Record
from regate.daemon.files import Table
from regate.daemon.wire.binding import bind
from regate.daemon.wire.columnar import flatten
from regate.daemon.wire.dead_letters import dead_letter, dead_letters, escape
from regate.daemon.wire.decode import Decoder
from regate.daemon.wire.encode import EventEncoder, plan_times
from regate.daemon.wire.infer import infer_config
from regate.daemon.wire.reasons import Reason, Refusal
from regate.daemon.wire.schemas import CONTRACTS, schema_text
from regate.detectors.columns import Categorical, Numeric

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


@pytest.mark.parametrize("name", CONTRACTS)
def test_schemas_are_what_the_models_say(name: str) -> None:
    path = SCHEMAS / f"{name}.json"
    assert path.read_text(encoding="utf-8") == schema_text(name), "stale: run `make schemas`"


def test_no_schema_is_left_over() -> None:
    assert {path.name for path in SCHEMAS.glob("*.json")} == {f"{name}.json" for name in CONTRACTS}


def refusal(value: bytes | None = b"abc", message: str = "bad", offset: int = 5) -> Refusal:
    headers = (("content-type", b"application/json"), ("authorization", b"Bearer x"), ("traceparent", b"t" * 900))
    return Refusal(
        Record("telemetry", 3, offset, 77, b"k", value, headers), Reason.NOT_JSON, message, rows=(4, 9), count=2
    )


def test_a_dead_letter_says_what_where_and_why_and_keeps_the_bytes() -> None:
    letter = dead_letter(refusal(), "regate.dead-letters.v1", 1)
    headers = dict(letter.headers)
    assert (letter.topic, letter.partition, letter.value, letter.key) == ("regate.dead-letters.v1", 1, b"abc", None)
    assert headers["regate-reason"] == b"not_json"
    assert headers["regate-topic"] == b"telemetry"
    assert headers["regate-partition"] == b"3"
    assert headers["regate-offset"] == b"5"
    assert headers["regate-rows"] == b"4,9"
    assert headers["regate-count"] == b"2"
    assert headers["content-type"] == b"application/json"
    assert len(headers["traceparent"]) == 500
    assert "authorization" not in headers


def test_r03_a_large_record_is_cut_and_its_length_noted() -> None:
    letter = dead_letter(refusal(b"x" * 3_000_000), "d", None)
    headers = dict(letter.headers)
    assert len(letter.value or b"") == 1_000_000
    assert headers["regate-length"] == b"3000000"
    assert headers["regate-cut"] == b"true"


def test_r37_messages_cannot_forge_a_line() -> None:
    letter = dead_letter(refusal(message="a\n\x1b[31mforged " + "x" * 2000), "d", None)
    message = dict(letter.headers)["regate-message"]
    assert b"\n" not in message
    assert b"\x1b" not in message
    assert len(message) <= 500
    assert len(escape("\x00" * 500)) <= 500


def test_the_bytes_of_a_record_go_out_once() -> None:
    first, second, other = dead_letters([refusal(), refusal(message="else"), refusal(offset=6)], "d", 0)
    assert (first.value, second.value, other.value) == (b"abc", b"", b"abc")


def table() -> Table:
    rng = np.random.default_rng(3)
    n = 40
    data = pa.table(
        {
            "event_id": pa.array(np.arange(n) + 100),
            "event_time": pa.array(np.arange(n) * 2_000_000, pa.timestamp("us")),
            "client": [f"c{i % 3}" for i in range(n)],
            "x": pa.array([float("nan") if i == 2 else v for i, v in enumerate(rng.normal(size=n))]),
            "k": pa.array(rng.integers(0, 5, n)),
            "c": pa.array([["a", "b", None][i % 3] for i in range(n)]).dictionary_encode(),
            "b": [i % 2 == 0 for i in range(n)],
            "cohort_sex": [["f", "m"][i % 2] for i in range(n)],
            "prediction": pa.array(rng.integers(0, 2, n)),
            "score_0": rng.uniform(size=n),
            "score_1": rng.uniform(size=n),
            "label": pa.array([None if i == 1 else i % 2 for i in range(n)]),
        }
    )
    columns = flatten(data)
    config = infer_config(columns, "m")
    return Table(columns, config, bind(columns, config), "memory")


@pytest.mark.parametrize("form", ["json", "arrow"])
def test_what_is_encoded_decodes_to_the_same_slice(form: str) -> None:
    given = table()
    config = given.config.model_copy(update={"mapping": type(given.config.mapping)()})
    decoder = Decoder({("default", "m"): config})
    times = plan_times(given, 1_700_000_000_000_000, speed=2.0, rate=None)
    assert times is not None
    encoder = EventEncoder(given)
    values = encoder.json(5, 25, times[5:25]) if form == "json" else [encoder.arrow(5, 25, times[5:25])]
    decoded = decoder.decode([Record("t", 0, i, 1, None, value) for i, value in enumerate(values)])
    assert decoded.refused == []
    (got,) = decoded.slices
    want = given.slice(5, 25)
    assert got.event_time_us.tolist() == [1_700_000_000_000_000 + row * 1_000_000 for row in range(5, 25)]
    np.testing.assert_array_equal(got.event_id, want.event_id)
    assert got.client is not None
    np.testing.assert_array_equal(got.client, want.client)
    assert set(got.features) == set(want.features)
    for name, column in want.features.items():
        other = got.features[name]
        if isinstance(column, Numeric):
            assert isinstance(other, Numeric)
            np.testing.assert_array_equal(column.values, other.values)
        else:
            assert isinstance(other, Categorical)
            assert [column.categories[c] if c >= 0 else None for c in column.codes] == [
                other.categories[c] if c >= 0 else None for c in other.codes
            ]
    np.testing.assert_array_equal(got.scores["1"], want.scores["1"])
    assert set(got.cohorts) == {"sex"}


def test_labels_name_the_events_that_they_are_about() -> None:
    given = table()
    decoder = Decoder({("default", "m"): given.config})
    values = EventEncoder(given).labels(0, 4, [7_000_000] * 4)
    decoded = decoder.decode_labels([Record("l", 0, i, 1, None, value) for i, value in enumerate(values)])
    assert decoded.refused == []
    (got,) = decoded.labels
    assert got.event_id.tolist() == given.slice(0, 4).event_id[[0, 2, 3]].tolist()
    assert got.event_time_us.tolist() == [7_000_000] * 3


def test_times_by_rate_or_not_at_all() -> None:
    by_rate = plan_times(table(), 1_000_000, speed=None, rate=10.0)
    assert by_rate is not None
    assert by_rate[:3].tolist() == [1_000_000, 1_100_000, 1_200_000]
    assert plan_times(table(), 0, speed=None, rate=None) is None
