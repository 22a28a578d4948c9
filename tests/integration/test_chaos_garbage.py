"""R01 to R06: everything that is not telemetry, on the telemetry topic of the real daemon on a real broker."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.integration.chaos import Ground, World, drifting, essence, recovered, replay
from tests.telemetry_streams import event_json, telemetry

from regate.daemon.bus.broker import Broker
from regate.daemon.bus.kafka import KafkaBus

pytestmark = pytest.mark.kafka
LARGE = 16  # times 5 MB: more than a step may hold
RSS_BYTES = 400_000_000


def garbage() -> dict[str, tuple[bytes | None, str]]:
    """Content and the reason that its dead letter gives, by name."""
    events, _ = telemetry(1, seed=1)
    good = json.loads(event_json(events, 0))

    def changed(**values: object) -> bytes:
        return json.dumps(good | values).encode()

    def income(text: str) -> bytes:
        return changed(inputs=good["inputs"] | {"income": "@"}).replace(b'"@"', text.encode())

    return {
        "r01_not_json": (b"not json", "not_json"),
        "r01_empty": (b"", "empty"),
        "r02_tombstone": (None, "empty"),
        "r03_five_megabytes": (b'{"x":"' + b"x" * 5_000_000 + b'"}', "too_large"),
        "r03_depth_100000": (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
        "r04_duplicate_keys": (changed()[:-1] + b',"model":"loan"}', "duplicate_key"),
        "r04_invalid_utf8": (changed().replace(b"loan", b"lo\xff\xfen"), "not_utf8"),
        "r04_lone_surrogate": (changed().replace(b"loan", b"lo\\ud800n"), "not_utf8"),
        "r05_nan": (income("NaN"), "non_finite"),
        "r05_infinite": (income("1e400"), "non_finite"),
        "r05_1e308": (income("1e308"), "non_finite"),
        "r05_huge_integer": (income("1" + "0" * 400), "non_finite"),
        "r05_bool_as_number": (income("true"), "wrong_type"),
        "r05_text_as_number": (income('"much"'), "wrong_type"),
        "r06_unknown_schema": (
            json.dumps({"specversion": "1.0", "id": "1", "source": "x", "type": "io.other.v9", "data": good}).encode(),
            "unknown_schema",
        ),
        "r01_not_an_object": (b"[1,2,3]", "not_json"),
    }


def letters_by_value(world: World) -> dict[str, str]:
    """What each content was refused for: said when the counts differ."""
    return {
        f"{(record.value or b'')[:60]!r}..{(record.value or b'')[-60:]!r}": dict(record.headers)[
            "regate-reason"
        ].decode()
        for record in world.records("dead-letters")
    }


def test_r01_r06_garbage_is_kept_with_reasons_in_bounded_memory_and_a_true_shift_is_found_after(
    kafka_bus: KafkaBus, broker: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    ground = Ground(kafka_bus, broker.bootstrap, tmp_path, topic_prefix)
    world = ground.world("dirty")
    stream = drifting(4_000, seed=8, start_us=time.time_ns() // 1000 - 200_000_000)
    wanted: Counter[str] = Counter()
    with world.daemon() as daemon:
        recovered(daemon, world.shards)
        ground.send(stream, 1.0, part=(0.0, 0.4))
        before = daemon.rss()
        writer = kafka_bus.writer()
        for number, (content, reason) in enumerate(garbage().values()):
            times = LARGE if content is not None and len(content) > 1_000_000 else 20
            for turn in range(times):
                ground.write(writer, "telemetry", (number + turn) % 3, content)
                wanted[reason] += 1
            writer.flush()
        writer.close(10.0)
        ground.send(stream, 1.0, part=(0.4, 1.0))
        world.drained([daemon], 90)
        grown = daemon.rss() - before
        assert daemon.end() == 0
    letters = [dict(record.headers)["regate-reason"].decode() for record in world.records("dead-letters")]
    assert Counter(letters) == wanted, letters_by_value(world)
    assert grown < RSS_BYTES, f"{grown / 1e6:.0f} MB more than before"
    assert essence(world.findings()) == essence(stream.reference())
    assert {("change", "income"), ("harm", "error")} <= {(one.kind, one.subject) for one in world.findings()}
    assert replay(world).differences == []
    print(f"RSS grew by {grown / 1e6:.0f} MB")
