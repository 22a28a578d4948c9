"""Watched texts on the wire: JSON, CloudEvents, Arrow and files carry them, and no text does harm."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from regate.config.model import Feature, ModelConfig
from regate.config.settings import Limits
from regate.daemon.bus.port import Record
from regate.daemon.files.table import read_table
from regate.daemon.profiles import joined
from regate.daemon.wire.decode import ARROW, Decoder
from regate.daemon.wire.reasons import Reason
from regate.detectors.columns import Categorical, Slice
from regate.detectors.prompts.rows import made

CONFIG = ModelConfig(
    model="chat",
    features={
        "x": Feature(type="numeric"),
        "prompt": Feature(type="text", privacy="hash"),
        "system": Feature(type="text", watch=False),
        "secret": Feature(type="text", privacy="drop"),
    },
)
DECODER = Decoder({("default", "chat"): CONFIG})


def event(number: int, prompt: Any = "hello", **more: Any) -> dict[str, Any]:
    inputs = {"x": 1.0, "prompt": prompt, "system": "be kind", "secret": "42"}
    return {"event_id": f"e{number}", "model": "chat", "client": "c", "inputs": inputs, "prediction": 1, **more}


def record(value: Any, offset: int = 0, headers: tuple[tuple[str, bytes], ...] = ()) -> Record:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Record("telemetry", 0, offset, 1_700_000_000_000 + offset, None, data, headers)


def arrow(columns: dict[str, Any], offset: int = 0) -> Record:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return record(sink.getvalue().to_pybytes(), offset, (("content-type", ARROW),))


def texts(column: Categorical) -> list[str | None]:
    return [None if code < 0 else column.categories[code] for code in column.codes.tolist()]


def only(records: list[Record], decoder: Decoder = DECODER) -> Slice:
    decoded = decoder.decode(records)
    assert decoded.refused == []
    (found,) = decoded.slices
    return found


PROMPTS = ["one", None, "two: \u00e9\U0001f600", "one", ""]


def test_json_carries_watched_texts_and_no_others() -> None:
    got = only([record(event(number, prompt), number) for number, prompt in enumerate(PROMPTS)])
    assert set(got.texts) == {"prompt"}
    assert texts(got.texts["prompt"]) == PROMPTS
    assert got.texts["prompt"].categories == ("one", "two: \u00e9\U0001f600", "")  # each once
    assert set(got.features) == {"x"}


def test_cloud_events_carry_them_too() -> None:
    envelope = {"specversion": "1.0", "id": "i", "source": "s", "type": "io.regate.telemetry.v1"}
    got = only([record({**envelope, "id": f"i{n}", "data": event(n, text)}, n) for n, text in enumerate(PROMPTS)])
    assert texts(got.texts["prompt"]) == PROMPTS


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_arrow_carries_them_too(kind: pa.DataType) -> None:
    prompts = pa.array(PROMPTS, pa.string()).cast(kind)
    columns = {"event_id": [f"e{n}" for n in range(5)], "model": ["chat"] * 5, "x": [1.0] * 5, "system": ["s"] * 5}
    got = only([arrow({**columns, "prompt": prompts})])
    assert texts(got.texts["prompt"]) == PROMPTS
    assert set(got.texts) == {"prompt"}


def test_both_encodings_give_the_same_prints() -> None:
    prompts = [f"Please tell me how number {n} is written in the language of the island." for n in range(6)]
    one = only([record(event(n, text), n) for n, text in enumerate(prompts)])
    columns = {"event_id": [f"e{n}" for n in range(6)], "client": ["c"] * 6, "x": [1.0] * 6, "prompt": prompts}
    two = only([arrow(columns)])
    for name in ("event_id", "client", "digest", "signature", "anchors", "coat", "length"):
        first, second = (getattr(made(part, ("prompt",), 9), name) for part in (one, two))
        np.testing.assert_array_equal(first, second)


def test_what_is_no_text_is_refused() -> None:
    decoded = DECODER.decode([record(event(0, 5)), record(event(1, ["a"]), 1), record(event(2, "fine"), 2)])
    assert [(one.record.offset, one.reason, one.field) for one in decoded.refused] == [
        (0, Reason.WRONG_TYPE, "prompt"),
        (1, Reason.WRONG_TYPE, "prompt"),
    ]
    assert texts(decoded.slices[0].texts["prompt"]) == ["fine"]
    decoded = DECODER.decode([arrow({"event_id": ["a", "b"], "x": [1.0, 2.0], "prompt": [1, 2]})])
    assert [(one.reason, one.field, one.count) for one in decoded.refused] == [(Reason.WRONG_TYPE, "prompt", 2)]
    assert decoded.slices == []


def test_a_required_text_must_be_there() -> None:
    config = CONFIG.model_copy(update={"features": {"prompt": Feature(type="text", required=True)}})
    decoder = Decoder({("default", "chat"): config})
    decoded = decoder.decode([record(event(0, None)), record(event(1, "here"), 1)])
    assert [(one.reason, one.field) for one in decoded.refused] == [(Reason.MISSING_FIELD, "prompt")]
    decoded = decoder.decode([arrow({"event_id": ["a", "b"], "prompt": ["here", None]})])
    assert [(one.reason, one.field) for one in decoded.refused] == [(Reason.MISSING_FIELD, "prompt")]


def test_texts_are_cut_with_their_rows() -> None:
    got = only([record(event(number, f"text {number}"), number) for number in range(6)])
    assert texts(got.cut(slice(2, 4)).texts["prompt"]) == ["text 2", "text 3"]
    assert texts(got.some(np.arange(6) % 2 == 1).texts["prompt"]) == ["text 1", "text 3", "text 5"]
    versions = DECODER.decode([record(event(n, f"t{n}", model_version=f"{n % 2}"), n) for n in range(4)]).slices
    assert [texts(part.texts["prompt"]) for part in versions] == [["t0", "t2"], ["t1", "t3"]]
    bad = event(9)
    bad["inputs"]["x"] = "no number"
    decoded = DECODER.decode([record(event(0, "kept")), record(bad, 1), record(event(2, "too"), 2)])
    assert texts(decoded.slices[0].texts["prompt"]) == ["kept", "too"]


def test_a_reference_from_the_bus_has_them_in_the_order_of_time() -> None:
    parts = [only([record(event(n, f"text {n}", event_time=1_700_000_000 - n), n)]) for n in range(3)]
    assert texts(joined(parts).texts["prompt"]) == ["text 2", "text 1", "text 0"]


def test_a_reference_from_the_bus_keeps_its_clients_where_some_batches_have_none() -> None:
    named = only([record(event(0, "a", client="ann"), 0)])
    nameless = only([record(event(1, "b", client=None), 1)])
    assert named.client is not None
    assert nameless.client is None
    got = joined([nameless, named]).client
    assert got is not None
    assert sorted(got.tolist()) == [0, int(named.client[0])]
    assert joined([nameless, nameless]).client is None


def test_long_texts_are_the_wires_matter() -> None:
    decoder = Decoder({("default", "chat"): CONFIG}, Limits(record_bytes=5_000))
    decoded = decoder.decode([record(event(0, "x" * 6_000)), record(event(1, "y" * 4_000), 1)])
    assert [one.reason for one in decoded.refused] == [Reason.TOO_LARGE]
    assert texts(decoded.slices[0].texts["prompt"]) == ["y" * 4_000]


def test_one_text_in_a_hundred_thousand_rows_is_read_once() -> None:
    rows = 100_000
    whole = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), pa.array(["a b c " * 5_000]))
    ids = pa.array(np.arange(rows), pa.int64())
    got = only([arrow({"event_id": ids, "prompt": whole})])
    started = time.process_time()
    prints = made(got.cut(slice(0, 2_000)), ("prompt",), 1)
    assert time.process_time() - started < 2.0
    assert prints is not None
    assert len(np.unique(prints.event_id)) == 2_000


def test_hostile_texts_become_prints() -> None:
    hostile = ["\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace"), "\x00" * 100, "\u202e" * 500]
    hostile += ["=" * 5_000, "%" * 5_000, "&#" * 3_000, "\\u" * 3_000, "AAAA" * 2_000, "\ufdfa" * 2_000, "a" * 23]
    got = only([record(event(number, text), number) for number, text in enumerate(hostile)])
    prints = made(got, ("prompt",), 1)
    assert prints is not None
    assert len(np.unique(prints.event_id)) == len(hostile)
    escaped = b'{"event_id":"s","model":"chat","inputs":{"prompt":"\\ud800 lone"}}'
    decoded = DECODER.decode([record(escaped)])
    assert len(decoded.slices) + len(decoded.refused) == 1


def test_files_carry_them(tmp_path: Path) -> None:
    path = tmp_path / "chat.parquet"
    pq.write_table(pa.table({"x": [1.0] * 5, "prompt": PROMPTS, "system": ["s"] * 5, "secret": ["4"] * 5}), path)
    table = read_table(path, CONFIG)
    assert texts(table.slice(1, 4).texts["prompt"]) == PROMPTS[1:4]
    assert set(table.whole.texts) == {"prompt"}
    guessed = read_table(path)
    assert guessed.config.features["prompt"] == Feature(type="text", privacy="hash", watch=False)
    assert guessed.whole.texts == {}
