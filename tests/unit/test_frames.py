from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from tests.telemetry_streams import CONFIG, KEY, Pipeline, profile, telemetry

from regate.config.errors import PoisonError
from regate.detectors import frames
from regate.detectors.arrays import pack, unpack
from regate.detectors.frames import Frame, decode_frame, encode_frames
from regate.detectors.observe import NO_TIME, Observed, Partition, Watched, observe, watched

EVENTS, LABELS = telemetry(3000, seed=3)


def observed() -> tuple[Observed, ...]:
    return tuple(observe(Partition(), [EVENTS, LABELS], {KEY: watched(CONFIG, profile())}, Watched()))


def same(one: object, other: object) -> bool:
    return all(
        np.array_equal(getattr(one, item.name), getattr(other, item.name))
        for item in fields(one)  # type: ignore[arg-type]
    )


def test_a_frame_survives_its_bytes() -> None:
    frame = Frame("telemetry-3", 123, idle=True, tick_ms=9, parts=observed(), sources=("telemetry-3", "labels-0"))
    (record,) = encode_frames(frame)
    found = decode_frame(record, NO_TIME)
    assert (found.source, found.watermark_us, found.idle, found.tick_ms) == ("telemetry-3", 123, True, 9)
    assert found.sources == frame.sources
    events, labels = found.parts
    assert events.fragments is not None
    assert events.predictions is not None
    assert labels.labels is not None
    assert same(events.fragments, frame.parts[0].fragments)
    assert same(events.predictions, frame.parts[0].predictions)
    assert same(labels.labels, frame.parts[1].labels)
    assert encode_frames(frame) == [record]


def test_a_large_frame_is_cut_and_only_its_last_record_moves_the_watermark(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = Pipeline(("telemetry-0",)), Pipeline(("telemetry-0",))
    whole.feed("telemetry-0", EVENTS)
    monkeypatch.setattr(frames, "FRAME_BYTES", 20_000)
    records = cut.observe("telemetry-0", EVENTS)
    assert len(records) > 3
    assert max(map(len, records)) < 20_000 * 1.5
    assert [decode_frame(record, NO_TIME).watermark_us == NO_TIME for record in records] == [True] * (
        len(records) - 1
    ) + [False]
    for record in records:
        cut.decide([record])
    whole.end()
    cut.end()
    assert cut.integers() == whole.integers()
    assert cut.shard.models[KEY].counters == whole.shard.models[KEY].counters


@pytest.mark.parametrize(
    "spoil",
    [
        lambda meta, arrays: meta.pop("source"),
        lambda meta, arrays: meta["parts"][0].pop("key"),
        lambda meta, arrays: meta["parts"][0].update(key={"tenant": "x"}),
        lambda meta, arrays: arrays.pop("0f.cell"),
        lambda meta, arrays: arrays.update({"0f.cell": np.zeros(1, dtype=np.int64)}),
        lambda meta, arrays: arrays.update({"0f.stats": arrays["0f.stats"][:, 0]}),
    ],
)
def test_a_malformed_frame_is_refused(spoil) -> None:
    (record,) = encode_frames(Frame("telemetry-0", 1, parts=observed()[:1]))
    meta, arrays = unpack(record)
    spoil(meta, arrays)
    with pytest.raises(PoisonError) as caught:
        decode_frame(pack(meta, arrays), NO_TIME)
    assert caught.value.reason == "corrupt"


def test_labels_of_before_have_no_sender() -> None:
    (record,) = encode_frames(Frame("labels-0", 1, parts=observed()[1:]))
    meta, arrays = unpack(record)
    del arrays["0l.source"], arrays["0l.mark"]
    (part,) = decode_frame(pack(meta, arrays), NO_TIME).parts
    assert part.labels is not None
    assert len(part.labels.source) == len(part.labels.event_id) > 0
    assert not part.labels.source.any()
