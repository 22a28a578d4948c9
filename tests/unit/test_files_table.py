"""Files to slices: the column conventions of backtest, in every format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import csv, feather

from regate.config.errors import ConfigError
from regate.config.model import Feature, FieldMapping, ModelConfig, Output
from regate.daemon.files import Table, read_table
from regate.daemon.wire.hashing import hash_texts
from regate.detectors.columns import Categorical, Numeric

ROWS = 60


def events() -> pa.Table:
    rng = np.random.default_rng(5)
    return pa.table(
        {
            "event_id": [f"e-{i}" for i in range(ROWS)],
            "event_time": pa.array(np.arange(ROWS) * 1_000_000 + 1_700_000_000_000_000, pa.timestamp("us", tz="UTC")),
            "client": [f"c{i % 3}" for i in range(ROWS)],
            "income": pa.array([None if i == 4 else float(x) for i, x in enumerate(rng.normal(size=ROWS))]),
            "age": pa.array(rng.integers(18, 80, ROWS)),
            "region": pa.array([["north", "south", None][i % 3] for i in range(ROWS)]),
            "owner": pa.array([bool(i % 2) for i in range(ROWS)]),
            "note": pa.array(
                [f"a long text that a person wrote about row number {i} of this file" for i in range(ROWS)]
            ),
            "cohort_sex": pa.array([["f", "m"][i % 2] for i in range(ROWS)]),
            "prediction": pa.array([i % 2 for i in range(ROWS)]),
            "score": pa.array(rng.uniform(size=ROWS)),
            "label": pa.array([float(i % 4 == 0) for i in range(ROWS)]),
            "latency_ms": pa.array(rng.uniform(1, 9, ROWS)),
            "error": pa.array([i == 7 for i in range(ROWS)]),
        }
    )


def write(folder: Path, suffix: str, table: pa.Table) -> Path:
    path = folder / f"loan model{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".csv":
        csv.write_csv(table, path)
    elif suffix == ".arrow":
        feather.write_feather(table, path, compression="uncompressed")
    elif suffix == ".arrows":
        with pa.ipc.new_stream(str(path), table.schema) as sink:
            sink.write_table(table, max_chunksize=7)
    else:
        rows = table.set_column(1, "event_time", table["event_time"].cast(pa.string())).to_pylist()
        text = "\n".join(json.dumps(row) for row in rows).encode()
        path.write_bytes(gzip.compress(text) if suffix.endswith(".gz") else text)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".arrow", ".arrows", ".jsonl", ".jsonl.gz"])
def test_every_format_gives_the_same_slice(tmp_path: Path, suffix: str) -> None:
    table = read_table(write(tmp_path, suffix, events()))
    want = Table(*_inputs(events()))
    assert table.rows == ROWS
    assert {name: f.type for name, f in table.config.features.items()} == {
        "income": "numeric",
        "age": "numeric",
        "region": "categorical",
        "owner": "boolean",
        "note": "text",
    }
    assert table.config.output == Output(type="binary", classes=("0", "1"), positive="1")
    assert table.config.cohorts == ("sex",)
    got, expected = table.slice(3, 20), want.slice(3, 20)
    assert got.n == expected.n == 17
    np.testing.assert_array_equal(got.event_id, expected.event_id)
    np.testing.assert_array_equal(got.event_time_us, expected.event_time_us)
    np.testing.assert_array_equal(got.client, expected.client)
    income, region = got.features["income"], got.features["region"]
    assert isinstance(income, Numeric)
    np.testing.assert_array_equal(np.isnan(income.values), np.arange(3, 20) == 4)
    assert isinstance(region, Categorical)
    assert region.codes.tolist() == expected.features["region"].codes.tolist()  # type: ignore[union-attr]
    assert "note" not in got.features
    assert table.has_label
    label = table.labels()
    assert isinstance(label, Categorical)
    assert [label.categories[code] for code in label.codes[:4]] == ["1", "0", "0", "0"]
    assert got.error is not None
    assert np.flatnonzero(got.error).tolist() == [4]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_rows_without_a_client_are_nobodys(tmp_path: Path, suffix: str) -> None:
    names = [None if i % 5 == 1 else f"c{i % 3}" for i in range(ROWS)]
    table = read_table(write(tmp_path, suffix, events().set_column(2, "client", pa.array(names))))
    client = table.whole.client
    assert client is not None
    assert [table.client_name(int(one)) if one else None for one in client] == names
    # Clients that are numbers become floats in some tools, and a missing one NaN.
    numbers = np.where(np.arange(ROWS) % 5 == 1, np.nan, np.arange(ROWS) % 3)
    client = read_table(write(tmp_path, suffix, events().set_column(2, "client", pa.array(numbers)))).whole.client
    assert client is not None
    assert (client == 0).tolist() == (np.arange(ROWS) % 5 == 1).tolist()


def _inputs(table: pa.Table) -> tuple[dict[str, pa.Array], ModelConfig, object, str]:
    from regate.daemon.wire.binding import bind
    from regate.daemon.wire.columnar import flatten
    from regate.daemon.wire.infer import infer_config

    columns = flatten(table)
    config = infer_config(columns, "m")
    return columns, config, bind(columns, config), "memory"


def test_model_name_and_key_come_from_the_stem(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, ".parquet", events()))
    assert (table.key.tenant, table.key.model, table.key.deployment) == ("default", "loan-model", "production")


def test_what_the_daemon_would_refuse_is_missing_and_counted(tmp_path: Path) -> None:
    values = [1.0, float("nan"), float("inf"), 1e308, -1.0, 5.0, 11.0]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": pa.array(values, from_pandas=False), "y": list(range(7))}), path)
    config = ModelConfig(model="m", features={"x": Feature(type="numeric", minimum=0, maximum=10)})
    table = read_table(path, config)
    column = table.slice(0, 7).features["x"]
    assert isinstance(column, Numeric)
    np.testing.assert_array_equal(column.values, [1.0, np.nan, np.nan, np.nan, np.nan, 5.0, np.nan])
    assert table.refused == {("x", "non_finite"): 2, ("x", "out_of_range"): 2}


def test_mapping_finds_nested_columns(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"data": {"req": {"a": i, "b": "x"}, "out": i % 2}, "meta": {"id": f"i{i}"}} for i in range(5)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    config = ModelConfig(
        model="m",
        features={"a": Feature(type="numeric"), "b": Feature(type="categorical")},
        mapping=FieldMapping(inputs="data.req", prediction="data.out", event_id="meta.id"),
    )
    got = read_table(path, config).slice(0, 5)
    assert got.features["a"].values.tolist() == [0, 1, 2, 3, 4]  # type: ignore[union-attr]
    assert got.event_id.tolist() == hash_texts([f"i{i}" for i in range(5)]).tolist()
    assert isinstance(got.prediction, Categorical)


def test_rows_without_id_and_time_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x\n1\n2\n3\n")
    table = read_table(path)
    assert table.event_time_us() is None
    assert not table.has_label
    assert table.labels() is None
    got = table.slice(1, 9)
    assert got.n == 2
    assert got.event_id.tolist() == hash_texts(["1", "2"]).tolist()
    assert got.event_time_us.tolist() == [1_000_000, 2_000_000]


def test_a_gap_in_event_times_takes_the_time_before(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("event_time,x\n,1\n2024-01-01T00:00:01Z,2\n,3\n2024-01-01T00:00:05+01:00,4\n")
    times = read_table(path).event_time_us()
    assert times is not None
    first = 1_704_067_201_000_000
    assert times.tolist() == [first, first, first, first + 4_000_000 - 3_600_000_000]


def test_more_than_a_thousand_columns(tmp_path: Path) -> None:
    path = tmp_path / "wide.parquet"
    rng = np.random.default_rng(1)
    pq.write_table(pa.table({f"f{i}": rng.normal(size=50) for i in range(1500)}), path)
    assert len(read_table(path).slice(0, 50).features) == 1500


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.parquet", None, "no such file"),
        ("a.xls", b"x", "unknown format"),
        ("a.parquet", b"not parquet", "not readable"),
        ("a.arrow", b"", "not readable"),
        ("a.csv", b"", "not readable"),
        ("a.csv", b"x,y\n", "no rows"),
        ("a.csv", b"x,x\n1,2\n", "named twice"),
        ("a.jsonl", b'{"x": 1}\n{"x": ', "not readable"),
    ],
)
def test_unusable_files_say_why(tmp_path: Path, name: str, content: bytes | None, said: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read_table(path)


def test_a_declared_feature_that_no_column_serves_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x\n1\n")
    with pytest.raises(ConfigError, match="no column for: salary"):
        read_table(path, ModelConfig(model="m", features={"salary": Feature(type="numeric")}))


def test_a_text_column_declared_numeric_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x\none\n")
    table = read_table(path, ModelConfig(model="m", features={"x": Feature(type="numeric")}))
    with pytest.raises(ConfigError, match="x: expected numbers"):
        table.slice(0, 1)
