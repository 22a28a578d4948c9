"""No bytes raise out of the decoder, nothing is lost, and the cut into batches and chunks changes nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regate.config.model import Feature, ModelConfig
from regate.daemon.bus.port import Record
from regate.daemon.wire import decode_json, limits
from regate.daemon.wire.decode import ARROW, Decoder
from regate.daemon.wire.hashing import hash_column, hash_texts
from regate.detectors.columns import Categorical, Numeric

CONFIG = ModelConfig(
    model="m",
    features={
        "x": Feature(type="numeric", minimum=-10, maximum=10),
        "c": Feature(type="categorical"),
        "t": Feature(type="text"),
    },
    cohorts=("sex",),
)
DECODER = Decoder({("default", "m"): CONFIG})
TWO = Decoder({("default", "m"): CONFIG, ("t", "n"): CONFIG.model_copy(update={"tenant": "t", "model": "n"})})

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
FIELDS = st.sampled_from(
    [
        "event_id",
        "event_time",
        "tenant",
        "model",
        "model_version",
        "deployment",
        "client",
        "inputs",
        "prediction",
        "scores",
        "latency_ms",
        "error",
        "cohorts",
        "payload",
        "schema_version",
        "specversion",
        "data",
        "type",
        "label",
    ]
)
INPUTS = st.dictionaries(st.sampled_from(["x", "c", "t", "y"]), SCALARS, max_size=3)
EVENTS = st.dictionaries(FIELDS, JSON | INPUTS, max_size=10)
GOOD = st.fixed_dictionaries(
    {
        "event_id": st.text(min_size=1, max_size=80) | st.integers(),
        "inputs": st.fixed_dictionaries(
            {},
            optional={
                "x": st.none() | st.floats(-10, 10),
                "c": st.none() | st.text(max_size=5) | st.booleans(),
                "t": st.none() | st.text(max_size=40),
            },
        ),
    },
    optional={
        "event_time": st.none() | st.datetimes(timezones=st.just(None)).map(lambda t: t.isoformat() + "Z"),
        "client": st.text(max_size=5) | st.integers(),
        "prediction": st.sampled_from([0, 1, "a:b", True, 1.5]),
        "scores": st.floats(0, 1) | st.dictionaries(st.sampled_from(["0", "1"]), st.floats(0, 1)),
        "cohorts": st.dictionaries(st.just("sex"), st.sampled_from(["f", "m", None])),
        "unknown": JSON.filter(lambda value: "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value)),
    },
)
FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def surrogate_free(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def records(values: list[bytes]) -> list[Record]:
    return [Record("t", 0, i, 1_700_000_000_000 + i, None, value) for i, value in enumerate(values)]


def mangled(data: st.DataObject, value: bytes) -> bytes:
    cut = data.draw(st.integers(0, len(value)))
    return value[:cut] + data.draw(st.binary(max_size=8)) + value[cut + data.draw(st.integers(0, 8)) :]


@FAST
@given(st.lists(st.binary(max_size=60) | EVENTS.map(lambda e: json.dumps(e).encode()), max_size=6))
def test_any_record_is_a_row_or_a_refusal(values: list[bytes]) -> None:
    for decoder in (DECODER, TWO):
        decoded = decoder.decode(records(values))
        assert sum(s.n for s in decoded.slices) + sum(r.count for r in decoded.refused) == len(values)
        labelled = decoder.decode_labels(records(values))
        assert sum(part.n for part in labelled.labels) + sum(r.count for r in labelled.refused) == len(values)
        for part in decoded.slices:
            x = part.features.get("x")
            if isinstance(x, Numeric) and part.key.model in {"m", "n"}:
                assert bool((np.isnan(x.values) | (np.abs(x.values) <= 10)).all())


@FAST
@given(st.data(), st.lists(GOOD.filter(surrogate_free), min_size=1, max_size=4))
def test_a_mangled_record_never_hurts_its_neighbours(data: st.DataObject, events: list[dict[str, Any]]) -> None:
    values = [json.dumps(event, ensure_ascii=data.draw(st.booleans())).encode() for event in events]
    assert DECODER.decode(records(values)).refused == []
    bad = mangled(data, values[0])
    decoded = DECODER.decode(records([*values, bad]))
    assert all(refusal.record.offset == len(values) for refusal in decoded.refused)
    assert sum(s.n for s in decoded.slices) + sum(r.count for r in decoded.refused) == len(values) + 1


@FAST
@given(st.data())
def test_a_mangled_arrow_stream_is_read_or_refused(data: st.DataObject) -> None:
    table = pa.table(
        {
            "event_id": ["a", "b", "c"],
            "x": [1.0, None, 3.0],
            "c": pa.array(["u", "v", "u"]).dictionary_encode(),
            "t": ["a text", None, "another: one"],
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    value = sink.getvalue().to_pybytes()
    given_records = [Record("t", 0, 0, 1, None, mangled(data, value), (("content-type", ARROW),))]
    for _ in range(2):
        decoded = DECODER.decode(given_records)
        assert decoded.slices or decoded.refused or given_records[0].value is None


@FAST
@given(st.lists(GOOD.filter(surrogate_free), min_size=1, max_size=12), st.integers(1, 5))
def test_chunks_and_batches_change_nothing(events: list[dict[str, Any]], size: int) -> None:
    given_records = records([json.dumps(event).encode() for event in events])
    (whole,) = DECODER.decode(given_records).slices
    before = decode_json.CHUNK, limits.CHUNK
    decode_json.CHUNK = limits.CHUNK = size
    try:
        (chunked,) = DECODER.decode(given_records).slices
    finally:
        decode_json.CHUNK, limits.CHUNK = before
    parts = [s for i in range(0, len(events), size) for s in DECODER.decode(given_records[i : i + size]).slices]
    for name in ("event_id", "event_time_us", "arrival_us"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(chunked, name))
        np.testing.assert_array_equal(getattr(whole, name), np.concatenate([getattr(p, name) for p in parts]))
    one, two = whole.features["c"], chunked.features["c"]
    assert isinstance(one, Categorical)
    assert isinstance(two, Categorical)
    assert one.categories == two.categories
    np.testing.assert_array_equal(one.codes, two.codes)
    assert whole.texts["t"].categories == chunked.texts["t"].categories
    np.testing.assert_array_equal(whole.texts["t"].codes, chunked.texts["t"].codes)


@FAST
@given(st.data(), st.lists(GOOD.filter(surrogate_free), min_size=1, max_size=4))
def test_r04_a_doubled_key_is_found_wherever_it_stands(data: st.DataObject, events: list[dict[str, Any]]) -> None:
    values = [json.dumps(event) for event in events]
    place = data.draw(st.integers(0, len(values) - 1))
    event = events[place]
    key = data.draw(st.sampled_from(sorted(event)))
    values[place] = values[place][:-1] + ", " + json.dumps(key) + " : " + json.dumps(event[key]) + "}"
    decoded = DECODER.decode(records([value.encode() for value in values]))
    assert [(r.record.offset, str(r.reason)) for r in decoded.refused] == [(place, "duplicate_key")]


@FAST
@given(st.lists(st.text(max_size=90).filter(surrogate_free), min_size=1, max_size=20), st.integers(0, 2**64 - 1))
def test_a_hash_depends_on_its_identifier_and_seed_alone(texts: list[str], seed: int) -> None:
    together = hash_texts(texts, seed).tolist()
    assert together == [int(hash_texts([text], seed)[0]) for text in texts]
    assert together == hash_column(pa.array(texts).dictionary_encode(), seed).tolist()
    assert together == hash_column(pa.array(["pad", *texts, None]), seed)[1:-1].tolist()
    by_text = dict(zip(texts, together, strict=True))
    assert len(set(by_text.values())) == len(by_text)


def test_hashes_are_fixed_for_ever() -> None:
    # Stored state and client memory hold these: another value would break every join across an upgrade.
    texts = ["", "a", "e-1", "12345678", "123456789", "x" * 64, "x" * 65]
    assert [f"{h:016x}" for h in hash_texts(texts).tolist()] == GOLDEN


GOLDEN = [
    "0000000000000000",
    "80c1ae61e48259f9",
    "778df84e4a535e49",
    "28ff4139041281a6",
    "f9a0ae8052971b30",
    "508b35bc2b21679f",
    "9136e11a7c9483bb",
]
