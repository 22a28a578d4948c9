"""CPU us an event of decoding: JSON fast path, mapped, extra fields, CloudEvents, Arrow; bare msgspec beside them.

    python benchmarks/decode.py [--events 20000] [--repeat 5] [--json]

All rows come from one run, so that ratios hold on a busy machine. ``bare`` is msgspec decoding each record into a
Struct of the same fields, without columns, checks, hashes or times: what no Python decoder can go below.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from regate.config.model import Feature, FieldMapping, ModelConfig
from regate.daemon.bus.port import Record
from regate.daemon.wire.decode import ARROW, Decoder

FEATURES = 8


def config(mapping: FieldMapping | None = None) -> ModelConfig:
    features = {f"x{i}": Feature(type="numeric", minimum=-100, maximum=100) for i in range(FEATURES)}
    return ModelConfig(model="m", features=features, mapping=mapping or FieldMapping())


def events(n: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(7)
    inputs = rng.normal(size=(n, FEATURES)).round(6)
    return [
        {
            "event_id": str(uuid.UUID(int=0x1234_5678_9ABC_DEF0_1234_5678 * (i + 1))),
            "event_time": f"2026-01-01T00:{i // 60 % 60:02d}:{i % 60:02d}.125Z",
            "model": "m",
            "model_version": "3",
            "client": f"client-{i % 100}",
            "inputs": {f"x{j}": float(inputs[i, j]) for j in range(FEATURES)},
            "prediction": i % 2,
            "scores": 0.75,
            "latency_ms": 3.5,
        }
        for i in range(n)
    ]


def records(values: list[bytes], *headers: tuple[str, bytes]) -> list[Record]:
    return [Record("t", 0, i, 1_767_225_600_000 + i, None, value, headers) for i, value in enumerate(values)]


def arrow(rows: list[dict[str, Any]], batch: int, key: Callable[[int], Any]) -> list[Record]:
    table = pa.table(
        {
            "event_id": [key(i) for i in range(len(rows))],
            "event_time": pa.array(np.arange(len(rows)) * 1000, pa.timestamp("us", tz="UTC")),
            "client": pa.array([row["client"] for row in rows]).dictionary_encode(),
            **{f"x{j}": [row["inputs"][f"x{j}"] for row in rows] for j in range(FEATURES)},
            "prediction": [row["prediction"] for row in rows],
            "score": [0.75] * len(rows),
            "latency_ms": [3.5] * len(rows),
        }
    )
    values = []
    for start in range(0, len(rows), batch):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.slice(start, batch))
        values.append(sink.getvalue().to_pybytes())
    return records(values, ("content-type", ARROW))


def bare(values: list[bytes]) -> Callable[[], object]:
    inner = msgspec.defstruct("Inputs", [(f"x{j}", float) for j in range(FEATURES)], gc=False)
    names = ("event_id", "event_time", "model", "model_version", "client")
    fields: list[Any] = [(name, str) for name in names]
    fields += [("inputs", inner), ("prediction", int), ("scores", float), ("latency_ms", float)]
    decode = msgspec.json.Decoder(msgspec.defstruct("Event", fields, gc=False)).decode
    return lambda: list(map(decode, values))


def measure(work: dict[str, Callable[[], object]], n: int, repeat: int) -> dict[str, float]:
    best = dict.fromkeys(work, float("inf"))
    for _ in range(repeat):  # in turn, so that a busy moment meets all of them
        for name, run in work.items():
            started = time.process_time()
            run()
            best[name] = min(best[name], time.process_time() - started)
    return {name: seconds / n * 1e6 for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = events(given.events)
    values = [json.dumps(row).encode() for row in rows]
    extra = [json.dumps({**row, "trace": "abc"}).encode() for row in rows]
    wrapped = [
        json.dumps(
            {"specversion": "1.0", "id": row["event_id"], "source": "s", "type": "io.regate.telemetry.v1", "data": row}
        ).encode()
        for row in rows
    ]
    paths = FieldMapping(inputs="data.request.inputs", event_id="meta.id")
    mapped = []
    for row in rows:
        rest = {name: value for name, value in row.items() if name not in {"event_id", "inputs"}}
        payload = {**rest, "meta": {"id": row["event_id"]}, "data": {"request": {"inputs": row["inputs"]}}}
        mapped.append(json.dumps(payload).encode())
    plain, other = Decoder({("default", "m"): config()}), Decoder({("default", "m"): config(paths)})
    shadow = Decoder({})
    several = {("default", name): config().model_copy(update={"model": name}) for name in ("m", "n", "o")}
    many = Decoder(several)
    given_records = {
        "json": (plain, records(values)),
        "json, mapped": (other, records(mapped)),
        "json, unknown fields": (plain, records(extra)),
        "cloudevents": (plain, records(wrapped)),
        "json, one of three models": (many, records(values)),
        "json, model without configuration": (shadow, records(values)),
        "arrow, 4000 a record, uuid ids": (plain, arrow(rows, 4000, lambda i: rows[i]["event_id"])),
        "arrow, 4000 a record, integer ids": (plain, arrow(rows, 4000, lambda i: i)),
        "arrow, 100 a record": (plain, arrow(rows, 100, lambda i: rows[i]["event_id"])),
    }
    for name, (decoder, batch) in given_records.items():
        decoded = decoder.decode(batch)
        assert not decoded.refused, (name, decoded.refused[0])
        assert sum(part.n for part in decoded.slices) == given.events, name
    work: dict[str, Callable[[], object]] = {"bare msgspec": bare(values)}
    for name, (decoder, batch) in given_records.items():
        work[name] = lambda decoder=decoder, batch=batch: decoder.decode(batch)
    found = measure(work, given.events, given.repeat)
    base = found["bare msgspec"]
    if given.json:
        print(json.dumps({name: {"us": round(us, 4), "ratio": round(us / base, 3)} for name, us in found.items()}))
        return
    print(f"{'':36}{'us/event':>10}{'x bare':>9}   ({len(values[0])} bytes, {FEATURES} numeric features)")
    for name, us in found.items():
        print(f"{name:36}{us:10.3f}{us / base:9.2f}")


if __name__ == "__main__":
    main()
