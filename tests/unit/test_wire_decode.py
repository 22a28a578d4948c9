"""Decoding: encodings, mapping, routing, limits and refusals (R01 to R06, R37)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from regate.config.errors import ConfigError
from regate.config.model import Feature, FieldMapping, ModelConfig, Output
from regate.config.settings import Limits
from regate.daemon.bus.port import Record
from regate.daemon.wire.decode import ARROW, Decoder
from regate.daemon.wire.hashing import hash_texts
from regate.daemon.wire.reasons import Reason
from regate.detectors.columns import Categorical, ModelKey, Numeric
from regate.detectors.views import event_view

CONFIG = ModelConfig(
    model="loan",
    features={
        "income": Feature(type="numeric", minimum=0, maximum=1000),
        "age": Feature(type="numeric"),
        "region": Feature(type="categorical"),
        "owner": Feature(type="boolean"),
        "note": Feature(type="text"),
        "tags": Feature(type="vector"),
        "id_number": Feature(type="categorical", privacy="hash"),
        "secret": Feature(type="numeric", privacy="drop"),
    },
    cohorts=("sex",),
)
DECODER = Decoder({("default", "loan"): CONFIG})


def event(i: int = 0, **changes: Any) -> dict[str, Any]:
    found = {
        "event_id": f"e-{i}",
        "event_time": "2026-01-01T00:00:00.250Z",
        "model": "loan",
        "model_version": "3",
        "client": f"c{i % 2}",
        "inputs": {"income": 10.5 + i, "age": 30 + i, "region": ["n", "s"][i % 2], "owner": i % 2 == 0},
        "prediction": i % 2,
        "scores": {"0": 0.25, "1": 0.75},
        "latency_ms": 4,
        "error": False,
        "cohorts": {"sex": "f"},
    }
    found.update(changes)
    return found


def with_inputs(i: int = 0, **changes: Any) -> dict[str, Any]:
    return event(i, inputs={**event(i)["inputs"], **changes})


def record(
    value: bytes | dict[str, Any] | None, offset: int = 0, headers: tuple[tuple[str, bytes], ...] = ()
) -> Record:
    data = json.dumps(value).encode() if isinstance(value, dict) else value
    return Record("telemetry", 0, offset, 1_700_000_000_000 + offset, None, data, headers)


def records(*values: bytes | dict[str, Any] | None) -> list[Record]:
    return [record(value, offset) for offset, value in enumerate(values)]


def arrow(table: pa.Table, offset: int = 0, **options: Any) -> Record:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return record(sink.getvalue().to_pybytes(), offset, (("content-type", ARROW),))


def numbers(column: object) -> list[float]:
    assert isinstance(column, Numeric)
    return column.values.tolist()


def texts(column: object) -> list[str | None]:
    assert isinstance(column, Categorical)
    return [None if code < 0 else column.categories[code] for code in column.codes.tolist()]


def wrapped(data: dict[str, Any] | None, i: int = 0, **changes: Any) -> dict[str, Any]:
    found = {"specversion": "1.0", "id": f"ce-{i}", "source": "s", "type": "io.regate.telemetry.v1"}
    return {**found, "time": "2026-01-01T00:00:01Z", "data": data, **changes}


def test_bare_json_gives_one_slice_of_columns_in_arrival_order() -> None:
    decoded = DECODER.decode(records(*(event(i) for i in range(4))))
    assert decoded.refused == []
    (got,) = decoded.slices
    assert got.key == ModelKey("default", "loan", "3", "production")
    assert got.n == 4
    assert got.event_id.tolist() == hash_texts([f"e-{i}" for i in range(4)]).tolist()
    assert got.event_time_us.tolist() == [1_767_225_600_250_000] * 4
    assert got.arrival_us.tolist() == [(1_700_000_000_000 + i) * 1000 for i in range(4)]
    assert set(got.features) == {"income", "age", "region", "owner", "id_number"}  # no text, vector or dropped one
    assert numbers(got.features["income"]) == [10.5, 11.5, 12.5, 13.5]
    assert texts(got.features["region"]) == ["n", "s", "n", "s"]
    assert texts(got.features["owner"]) == ["true", "false", "true", "false"]
    assert texts(got.prediction) == ["0", "1", "0", "1"]
    assert got.scores["1"].tolist() == [0.75] * 4
    assert texts(got.cohorts["sex"]) == ["f"] * 4
    assert got.client is not None
    assert len(set(got.client.tolist())) == 2


def test_a_cloud_event_lends_its_id_and_time() -> None:
    inner = {key: value for key, value in event().items() if key not in {"event_id", "event_time"}}
    own = event(1)
    decoded = DECODER.decode(records(wrapped(inner), wrapped(own, 1), event(2)))
    assert decoded.refused == []
    bare, enveloped = decoded.slices
    assert bare.event_id.tolist() == hash_texts(["e-2"]).tolist()
    assert enveloped.event_id.tolist() == hash_texts(["ce-0", "e-1"]).tolist()
    assert enveloped.event_time_us.tolist() == [1_767_225_601_000_000, 1_767_225_600_250_000]


def test_missing_and_null_values_are_missing_not_refused() -> None:
    decoded = DECODER.decode(records(with_inputs(income=None), event(1, inputs={}), event(2)))
    assert decoded.refused == []
    (got,) = decoded.slices
    income = numbers(got.features["income"])
    assert math.isnan(income[0])
    assert math.isnan(income[1])
    assert income[2] == 12.5
    assert texts(got.features["region"]) == ["n", None, "n"]


def test_an_event_without_time_takes_its_records_timestamp() -> None:
    (got,) = DECODER.decode(records(event(event_time=None), event(1))).slices
    assert got.event_time_us.tolist() == [1_700_000_000_000_000, 1_767_225_600_250_000]


@pytest.mark.parametrize(
    ("time", "us"),
    [
        ("2026-01-01T00:00:00+01:00", 1_767_222_000_000_000),
        ("2026-01-01T00:00:00", 1_767_225_600_000_000),
        ("2026-01-01T00:00:00.123456789Z", 1_767_225_600_123_456),
        (1_767_225_600, 1_767_225_600_000_000),
        (1_767_225_600.5, 1_767_225_600_500_000),
        (1_767_225_600_123, 1_767_225_600_123_000),
        (1_767_225_600_123_456, 1_767_225_600_123_456),
        (0, 0),
    ],
)
def test_r07_times_in_the_forms_that_senders_use(time: Any, us: int) -> None:
    decoded = DECODER.decode(records(event(event_time=time)))
    assert decoded.refused == []
    assert decoded.slices[0].event_time_us.tolist() == [us]


def test_one_slice_per_version_and_deployment() -> None:
    decoded = DECODER.decode(
        records(event(0), event(1, model_version="4"), event(2), event(3, model_version=None, deployment="canary"))
    )
    assert [(s.key.version, s.key.deployment, s.n) for s in decoded.slices] == [
        ("3", "production", 2),
        ("4", "production", 1),
        ("1", "canary", 1),
    ]


def test_the_mapping_reads_other_layouts_without_code() -> None:
    config = CONFIG.model_copy(
        update={
            "mapping": FieldMapping(
                event_id="meta.id", inputs="data.request.inputs", prediction="data.response.class", model="meta.name"
            )
        }
    )
    decoder = Decoder({("default", "loan"): config})
    body = {
        "meta": {"id": "q1", "name": "loan"},
        "data": {"request": {"inputs": {"income": 5, "region": "x"}}, "response": {"class": "yes"}},
    }
    decoded = decoder.decode(records(body, {**body, "data": {"request": {"inputs": {"income": "5"}}}}))
    (got,) = decoded.slices
    assert numbers(got.features["income"]) == [5.0]
    assert texts(got.prediction) == ["yes"]
    assert got.event_id.tolist() == hash_texts(["q1"]).tolist()
    assert [(r.reason, r.field) for r in decoded.refused] == [(Reason.WRONG_TYPE, "income")]


def test_features_at_the_top_level() -> None:
    config = ModelConfig(
        model="flat", features={"x": Feature(type="numeric")}, mapping=FieldMapping(inputs="", scores="score")
    )
    (got,) = Decoder({("default", "flat"): config}).decode(records({"event_id": 7, "x": 1.5, "score": 0.5})).slices
    assert numbers(got.features["x"]) == [1.5]
    assert got.scores[""].tolist() == [0.5]
    assert got.event_id.tolist() == hash_texts(["7"]).tolist()


def test_a_mapping_that_contradicts_itself_is_refused_at_start() -> None:
    config = ModelConfig(model="m", features={"x": Feature(type="numeric")}, mapping=FieldMapping(event_id="inputs"))
    with pytest.raises(ConfigError, match="both a value and an object"):
        Decoder({("default", "m"): config})


def test_many_models_in_any_order_each_by_its_own_configuration() -> None:
    other = ModelConfig(model="price", features={"km": Feature(type="numeric")}, output=Output(type="regression"))
    decoder = Decoder({("default", "loan"): CONFIG, ("default", "price"): other})
    price = {"event_id": "p", "model": "price", "inputs": {"km": 3}, "prediction": 1.5}
    decoded = decoder.decode(records(event(0), price, event(1), {**price, "model": None}, {"event_id": "z"}))
    assert [(s.key.model, s.n) for s in decoded.slices] == [("loan", 2), ("price", 1)]
    assert isinstance(decoded.slices[1].prediction, Numeric)
    assert len(decoded.refused) == 2


def test_a_model_without_configuration_is_decoded_by_what_it_looks_like() -> None:
    stranger = {"event_id": "s", "model": "new", "inputs": {"a": 1, "b": "x", "c": True}, "prediction": "yes"}
    decoded = DECODER.decode(records(event(0), stranger, {**stranger, "inputs": {"a": 2.5, "b": "y", "c": False}}))
    assert decoded.refused == []
    assert [(s.key.model, s.n) for s in decoded.slices] == [("loan", 1), ("new", 2)]
    assert numbers(decoded.slices[1].features["a"]) == [1.0, 2.5]
    assert texts(decoded.slices[1].features["c"]) == ["true", "false"]


def test_privacy_hashes_and_drops_before_anything_sees_a_value() -> None:
    (got,) = DECODER.decode(records(with_inputs(id_number="DE-1234", secret=5))).slices
    assert "secret" not in got.features
    (text,) = texts(got.features["id_number"])
    assert text is not None
    assert "1234" not in text
    assert len(text) == 16
    hidden = CONFIG.model_copy(update={"privacy": {"client": "drop", "sex": "drop"}})
    (dropped,) = Decoder({("default", "loan"): hidden}).decode(records(event())).slices
    assert dropped.client is None
    assert dropped.cohorts == {}


def test_the_salt_changes_client_hashes_and_nothing_else() -> None:
    plain = DECODER.decode(records(event())).slices[0]
    salted = Decoder({("default", "loan"): CONFIG}, salt=99).decode(records(event())).slices[0]
    assert plain.client is not None
    assert salted.client is not None
    assert plain.client.tolist() != salted.client.tolist()
    assert plain.event_id.tolist() == salted.event_id.tolist()


RAW = json.dumps(event())
BAD: list[tuple[str, bytes | None, Reason]] = [
    ("R01 not JSON", b"hello", Reason.NOT_JSON),
    ("R01 cut short", RAW[:-5].encode(), Reason.NOT_JSON),
    ("R01 two objects", (RAW + RAW).encode(), Reason.NOT_JSON),
    ("R01 an array", b"[1, 2]", Reason.NOT_JSON),
    ("R01 byte order mark", b"\xef\xbb\xbf" + RAW.encode(), Reason.NOT_JSON),
    ("R02 tombstone", None, Reason.EMPTY),
    ("R02 empty", b"", Reason.EMPTY),
    ("R03 10 MB", b'{"a":"' + b"x" * 10_000_000 + b'"}', Reason.TOO_LARGE),
    ("R03 depth 100,000", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.TOO_DEEP),
    ("R03 depth 100,000, never closed", b"[" * 100_000, Reason.TOO_DEEP),
    ("R04 duplicate key", RAW[:-1].encode() + b', "client": "c9"}', Reason.DUPLICATE_KEY),
    ("R04 duplicate feature", RAW.replace('"income"', '"income": 1, "income"').encode(), Reason.DUPLICATE_KEY),
    ("R04 duplicate unknown key", RAW[:-1].encode() + b', "u": 1, "u": 2}', Reason.DUPLICATE_KEY),
    (
        "R04 duplicate behind an escaped colon",
        RAW.replace('"c0"', '"c\\u003a0", "client": "x"').encode(),
        Reason.DUPLICATE_KEY,
    ),
    ("R04 invalid UTF-8", RAW.encode().replace(b"e-0", b"e\xff0"), Reason.NOT_UTF8),
    ("R04 invalid UTF-8 in an unknown field", RAW[:-1].encode() + b', "u": "\xc3"}', Reason.NOT_UTF8),
    ("R04 lone surrogate", RAW.replace("e-0", "e\\ud800").encode(), Reason.NOT_UTF8),
    ("R05 NaN", RAW.replace("10.5", "NaN").encode(), Reason.NON_FINITE),
    ("R05 infinity", RAW.replace("10.5", "-Infinity").encode(), Reason.NON_FINITE),
    ("R05 1e309", RAW.replace("10.5", "1e309").encode(), Reason.NON_FINITE),
    ("R05 1e308", RAW.replace('"age": 30', '"age": 1e308').encode(), Reason.NON_FINITE),
    ("R05 huge integer", RAW.replace("10.5", "9" * 400).encode(), Reason.NON_FINITE),
    ("R05 very huge integer", RAW.replace("10.5", "9" * 5000).encode(), Reason.NON_FINITE),
    ("R05 bool as number", RAW.replace("10.5", "true").encode(), Reason.WRONG_TYPE),
    ("R05 text as number", RAW.replace("10.5", '"10.5"').encode(), Reason.WRONG_TYPE),
    ("R05 number as bool", RAW.replace('"owner": true', '"owner": 1').encode(), Reason.WRONG_TYPE),
    ("R05 object as category", RAW.replace('"region": "n"', '"region": {}').encode(), Reason.WRONG_TYPE),
    ("R05 above the declared range", RAW.replace("10.5", "1000.5").encode(), Reason.OUT_OF_RANGE),
    ("R05 below the declared range", RAW.replace("10.5", "-1").encode(), Reason.OUT_OF_RANGE),
    ("R05 score", RAW.replace("0.75", "1e400").encode(), Reason.NON_FINITE),
    ("R06 newer schema", json.dumps(event(schema_version=2)).encode(), Reason.UNKNOWN_SCHEMA),
    ("R06 newer type", json.dumps(wrapped(event(), type="io.regate.telemetry.v2")).encode(), Reason.UNKNOWN_SCHEMA),
    ("R06 a label", json.dumps(wrapped(event(), type="io.regate.label.v1")).encode(), Reason.UNKNOWN_SCHEMA),
    ("R06 foreign type", json.dumps(wrapped(event(), type="com.example.x")).encode(), Reason.UNKNOWN_SCHEMA),
    ("R06 newer dataschema", json.dumps(wrapped(event(), dataschema="x/v2")).encode(), Reason.UNKNOWN_SCHEMA),
    ("R06 specversion", json.dumps(wrapped(event(), specversion="2.0")).encode(), Reason.UNKNOWN_SCHEMA),
    ("no id", json.dumps(event(event_id=None)).encode(), Reason.MISSING_FIELD),
    ("no inputs", json.dumps(event(inputs=None)).encode(), Reason.MISSING_FIELD),
    ("no data", json.dumps(wrapped(None)).encode(), Reason.MISSING_FIELD),
    ("inputs are a list", json.dumps(event(inputs=[1])).encode(), Reason.WRONG_TYPE),
    ("a time that is none", json.dumps(event(event_time="soon")).encode(), Reason.BAD_TIME),
    ("a time beyond years", json.dumps(event(event_time=1e300)).encode(), Reason.BAD_TIME),
    ("a time as huge integer", RAW.replace('"2026-01-01T00:00:00.250Z"', "9" * 300).encode(), Reason.BAD_TIME),
    ("R37 log injection in the version", json.dumps(event(model_version="1\nforged")).encode(), Reason.INVALID),
    ("R37 a scope in the deployment", json.dumps(event(deployment="a/b")).encode(), Reason.INVALID),
    (
        "too many features",
        json.dumps(with_inputs(**{f"u{i}": 1 for i in range(2100)})).encode(),
        Reason.TOO_MANY_FIELDS,
    ),
]


@pytest.mark.parametrize(("value", "reason"), [(v, r) for _, v, r in BAD], ids=[name for name, _, _ in BAD])
def test_one_bad_record_is_refused_and_its_neighbours_pass(value: bytes | None, reason: Reason) -> None:
    decoded = DECODER.decode(records(event(0), value, event(1)))
    assert [(r.reason, r.record.offset, r.count) for r in decoded.refused] == [(reason, 1, 1)], decoded.refused
    (got,) = decoded.slices
    assert got.event_id.tolist() == hash_texts(["e-0", "e-1"]).tolist()
    assert got.arrival_us.tolist() == [1_700_000_000_000_000, 1_700_000_000_002_000]
    assert numbers(got.features["income"]) == [10.5, 11.5]
    assert texts(got.features["region"]) == ["n", "s"]
    assert decoded.refused[0].message


@pytest.mark.parametrize(("depth", "refused"), [(31, []), (32, [Reason.TOO_DEEP])])
def test_r03_the_limit_of_depth_holds_to_the_level(depth: int, refused: list[Reason]) -> None:
    deep: Any = 1
    for level in range(depth):
        deep = [deep, "[[[{"] if level % 2 else {"a": deep}
    flat = event(1, wide=[[]] * 100)
    decoded = DECODER.decode(records(event(0, unknown=deep), flat))
    assert [r.reason for r in decoded.refused] == refused


def test_all_of_them_at_once_and_nothing_else() -> None:
    decoded = DECODER.decode(records(*(value for _, value, _ in BAD)))
    assert sum(s.n for s in decoded.slices) == 0
    by_offset = {r.record.offset: r.reason for r in decoded.refused}
    assert by_offset == {i: reason for i, (_, _, reason) in enumerate(BAD)}


def test_r06_additive_fields_are_accepted_wherever_they_stand() -> None:
    decoded = DECODER.decode(
        records(event(0, new={"a": [1, {"b": "x:y"}]}), with_inputs(1, unheard=[1, "two"]), wrapped(event(2), new="z"))
    )
    assert decoded.refused == []
    assert sum(s.n for s in decoded.slices) == 3


def test_a_payload_by_reference_stands_for_inputs_and_is_not_fetched() -> None:
    payload = {"uri": "s3://bucket/x", "digest": "sha256:00"}
    decoded = DECODER.decode(records(event(inputs=None, payload=payload), event(1, inputs=None, payload={"uri": 1})))
    assert [s.n for s in decoded.slices] == [1]
    assert [r.reason for r in decoded.refused] == [Reason.WRONG_TYPE]


def test_a_required_feature_is_refused_when_missing() -> None:
    config = ModelConfig(model="m", features={"x": Feature(type="numeric", required=True)})
    decoder = Decoder({("default", "m"): config})
    decoded = decoder.decode(records({"event_id": "a", "inputs": {"x": None}}, {"event_id": "b", "inputs": {"x": 1}}))
    assert [(r.reason, r.field) for r in decoded.refused] == [(Reason.MISSING_FIELD, "x")]
    assert [s.n for s in decoded.slices] == [1]


def test_r37_the_number_of_models_on_a_partition_is_bounded() -> None:
    decoder = Decoder({}, Limits(models=3))
    values = [{"event_id": "x", "model": f"m{i}", "inputs": {"a": 1}} for i in range(10)]
    first = decoder.decode(records(*values))
    assert len(first.slices) == 3
    assert {r.reason for r in first.refused} == {Reason.TOO_MANY_MODELS}
    again = decoder.decode(records(*values), known={s.key for s in first.slices})
    assert [s.key for s in again.slices] == [s.key for s in first.slices]


def table(n: int = 6) -> pa.Table:
    return pa.table(
        {
            "event_id": [f"e-{i}" for i in range(n)],
            "event_time": pa.array([1_767_225_600_250_000] * n, pa.timestamp("us", tz="UTC")),
            "model": ["loan"] * n,
            "model_version": ["3"] * n,
            "client": [f"c{i % 2}" for i in range(n)],
            "income": [10.5 + i for i in range(n)],
            "age": [30 + i for i in range(n)],
            "region": pa.array([["n", "s"][i % 2] for i in range(n)]).dictionary_encode(),
            "owner": [i % 2 == 0 for i in range(n)],
            "prediction": [i % 2 for i in range(n)],
            "score_0": [0.25] * n,
            "score_1": [0.75] * n,
            "latency_ms": [4.0] * n,
            "error": [False] * n,
            "cohort_sex": ["f"] * n,
        }
    )


def test_arrow_and_json_give_equal_slices() -> None:
    (one,) = DECODER.decode(records(*(event(i) for i in range(6)))).slices
    decoded = DECODER.decode([arrow(table(6).slice(0, 4)), arrow(table(6).slice(4), 1)])
    assert decoded.refused == []
    (two,) = decoded.slices
    assert one.key == two.key
    for name in ("event_id", "event_time_us", "client", "latency_ms", "error"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert numbers(one.features["age"]) == numbers(two.features["age"])
    for name in ("region", "owner"):
        assert texts(one.features[name]) == texts(two.features[name])
    assert texts(one.prediction) == texts(two.prediction)
    assert one.scores["1"].tolist() == two.scores["1"].tolist()
    assert texts(one.cohorts["sex"]) == texts(two.cohorts["sex"])
    assert two.arrival_us.tolist() == [1_700_000_000_000_000] * 4 + [1_700_000_000_001_000] * 2


def test_events_without_a_client_are_nobodys_in_every_encoding() -> None:
    decoder = Decoder({("default", "loan"): CONFIG}, salt=9)
    given = ["ann", None, "bob", "", None, "ann"]
    ann, bob = hash_texts(["ann", "bob"], 9).tolist()
    wanted = [ann, 0, bob, 0, 0, ann]
    place = table().column_names.index("client")
    plain = [event(i, client=name) for i, name in enumerate(given)]
    for one in (plain[1], plain[4]):
        del one["client"]
    columns = [
        pa.array(given),
        pa.array(given).dictionary_encode(),
        pa.array(given, pa.large_string()),
    ]
    batches = [
        records(*plain),
        records(*(wrapped(one, type="io.regate.telemetry.v1", source="/desk/4") for one in plain)),
        *([arrow(table().set_column(place, "client", column))] for column in columns),
    ]
    for batch in batches:
        decoded = decoder.decode(batch)
        assert decoded.refused == []
        (got,) = decoded.slices
        assert got.client is not None
        assert got.client.tolist() == wanted
    numbered = table().set_column(place, "client", pa.array([7.0, None, float("nan"), 7.0, 8.0, 8.0]))
    (got,) = decoder.decode([arrow(numbered)]).slices
    assert got.client is not None
    assert (got.client != 0).tolist() == [True, False, False, True, True, True]
    view = event_view(got, np.zeros(6, dtype=np.int16)).column("client")
    assert isinstance(view, Categorical)
    assert (view.codes < 0).tolist() == [False, True, True, False, False, False]


def test_arrow_rows_that_are_bad_are_refused_by_number_and_the_others_pass() -> None:
    income = pa.array([1.0, float("nan"), 5000.0, None, float("inf"), 2.0])
    ids = pa.array(["e-0", "e-1", "e-2", "e-3", "e-4", None])
    bad = table().set_column(5, "income", income).set_column(0, "event_id", ids)
    decoded = DECODER.decode([arrow(table()), arrow(bad, 1)])
    (got,) = decoded.slices
    assert got.n == 8
    assert numbers(got.features["income"])[6] == 1.0
    assert math.isnan(numbers(got.features["income"])[7])
    assert {(r.reason, r.field, r.rows, r.count, r.record.offset) for r in decoded.refused} == {
        (Reason.NON_FINITE, "income", (1,), 1, 1),
        (Reason.NON_FINITE, "income", (4,), 1, 1),
        (Reason.OUT_OF_RANGE, "income", (2,), 1, 1),
        (Reason.MISSING_FIELD, "event_id", (5,), 1, 1),
    }


def test_arrow_structs_and_many_models_in_one_stream() -> None:
    nested = pa.table(
        {
            "event_id": ["a", "b", "c"],
            "model": ["loan", "other", "loan"],
            "inputs": [{"income": 1.0, "region": "n"}, {"income": 2.0, "region": "s"}, {"income": 3.0, "region": "s"}],
        }
    )
    decoded = DECODER.decode([arrow(nested)])
    assert decoded.refused == []
    assert [(s.key.model, numbers(s.features["income"])) for s in decoded.slices] == [
        ("loan", [1.0, 3.0]),
        ("other", [2.0]),
    ]


def _arrow_garbage() -> Sequence[tuple[str, Record, Reason]]:
    good = arrow(table()).value or b""
    named_twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["event_id", "event_id"])
    deep: pa.DataType = pa.float64()
    for _ in range(40):
        deep = pa.struct([("a", deep)])
    wrong = table().set_column(5, "income", pa.array(["x"] * 6))
    newer = table().replace_schema_metadata({"regate.schema_version": "2"})
    header = (("content-type", ARROW),)
    return [
        ("cut short", record(good[:-100], 0, header), Reason.NOT_ARROW),
        ("not Arrow", record(b"hello", 0, header), Reason.NOT_ARROW),
        ("flipped", record(good[:40] + b"\xff" * 40 + good[80:], 0, header), Reason.NOT_ARROW),
        ("compressed", arrow(table(), options=pa.ipc.IpcWriteOptions(compression="zstd")), Reason.COMPRESSED),
        ("no rows", arrow(table().slice(0, 0)), Reason.EMPTY),
        ("named twice", arrow(named_twice), Reason.DUPLICATE_KEY),
        ("too deep", arrow(pa.table({"x": pa.array([None], deep)})), Reason.TOO_DEEP),
        ("too many rows", arrow(pa.table({"x": pa.nulls(5_000_000)})), Reason.TOO_MANY_ROWS),
        ("too many columns", arrow(pa.table({f"f{i}": [1.0] for i in range(2500)})), Reason.TOO_MANY_FIELDS),
        ("wrong type", arrow(wrong), Reason.WRONG_TYPE),
        ("newer schema", arrow(newer), Reason.UNKNOWN_SCHEMA),
        ("mark only", record(b"\xff\xff\xff\xff", 0), Reason.NOT_ARROW),
    ]


@pytest.mark.parametrize(
    ("given", "reason"), [(g, r) for _, g, r in _arrow_garbage()], ids=[n for n, _, _ in _arrow_garbage()]
)
def test_arrow_garbage_is_refused_with_its_reason(given: Record, reason: Reason) -> None:
    decoded = DECODER.decode([arrow(table(), 7), given])
    assert {r.reason for r in decoded.refused} == {reason}
    assert sum(s.n for s in decoded.slices) == 6


def label(i: int, **changes: Any) -> dict[str, Any]:
    return {"event_id": f"e-{i}", "event_time": "2026-01-02T00:00:00Z", "model": "loan", "label": i % 2, **changes}


def test_labels_by_json_cloud_event_and_arrow() -> None:
    decoded = DECODER.decode_labels(
        records(
            label(0, model_version="3"),
            label(1, model_version="3", prediction=1, scores=0.9),
            wrapped(label(2, model_version="3"), type="io.regate.label.v1"),
        )
    )
    assert decoded.refused == []
    bare, enveloped = decoded.labels
    assert bare.event_id.tolist() == hash_texts(["e-0", "e-1"]).tolist()
    assert texts(bare.label) == ["0", "1"]
    assert texts(bare.prediction) == [None, "1"]
    assert bare.score is not None
    assert math.isnan(bare.score[0])
    assert enveloped.event_id.tolist() == hash_texts(["e-2"]).tolist()
    columns = pa.table({"event_id": ["e-5"], "model": ["loan"], "label": [1], "score": [0.5]})
    (third,) = DECODER.decode_labels([arrow(columns)]).labels
    assert texts(third.label) == ["1"]
    assert third.key.version == "1"


def test_who_sent_a_label_is_its_client_or_the_source_of_its_cloud_event() -> None:
    decoder = Decoder({("default", "loan"): CONFIG}, salt=7)
    sent = records(
        label(0, client="ann"),
        label(1),
        wrapped(label(2), type="io.regate.label.v1", source="/desk/4"),
        wrapped(label(3, client="ann"), type="io.regate.label.v1", source="/desk/4"),
    )
    bare, enveloped = decoder.decode_labels(sent).labels
    ann, desk = hash_texts(["ann", "/desk/4"], 7).tolist()
    assert bare.source is not None
    assert enveloped.source is not None
    assert bare.source.tolist() == [ann, 0]
    assert enveloped.source.tolist() == [desk, ann]
    columns = pa.table({"event_id": ["e-5", "e-6"], "model": ["loan"] * 2, "label": [1, 0], "client": ["ann", None]})
    (third,) = decoder.decode_labels([arrow(columns)]).labels
    assert third.source is not None
    assert third.source.tolist() == [ann, 0]
    (without,) = decoder.decode_labels(records(label(1))).labels
    assert without.source is None


def test_labels_of_a_regression_are_numbers() -> None:
    config = ModelConfig(model="m", features={}, output=Output(type="regression"))
    decoder = Decoder({("default", "m"): config})
    decoded = decoder.decode_labels(records({"event_id": "a", "label": 2.5}, {"event_id": "b", "label": "x"}))
    assert numbers(decoded.labels[0].label) == [2.5]
    assert [r.reason for r in decoded.refused] == [Reason.WRONG_TYPE]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (label(0, label=None), Reason.MISSING_FIELD),
        (label(0, event_id=None), Reason.MISSING_FIELD),
        (wrapped(label(0)), Reason.UNKNOWN_SCHEMA),
        (
            wrapped({k: v for k, v in label(0).items() if k != "event_id"}, type="io.regate.label.v1"),
            Reason.MISSING_FIELD,
        ),
        ({"nothing": 1}, Reason.MISSING_FIELD),
    ],
)
def test_unusable_labels_are_refused(value: dict[str, Any], reason: Reason) -> None:
    decoded = DECODER.decode_labels(records(value, label(1)))
    assert [r.reason for r in decoded.refused] == [reason]
    assert sum(part.n for part in decoded.labels) == 1


def test_true_and_1_are_two_categories() -> None:
    config = ModelConfig(model="m", features={"x": Feature(type="categorical")})
    values = [{"event_id": str(i), "inputs": {"x": x}} for i, x in enumerate([True, 1, 1.0, "1", "true", 2.5])]
    (got,) = Decoder({("default", "m"): config}).decode(records(*values)).slices
    assert texts(got.features["x"]) == ["true", "1", "1", "1", "true", "2.5"]
