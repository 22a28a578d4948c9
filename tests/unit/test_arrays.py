from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regate.config.errors import PoisonError
from regate.detectors import arrays as codec
from regate.detectors.arrays import pack, unpack


def test_round_trip_of_every_type_and_shape() -> None:
    given_arrays = {
        "i8": np.arange(6, dtype=np.int64).reshape(2, 3),
        "i4": np.array([-1, 2], dtype=np.int32),
        "i2": np.array([[7]], dtype=np.int16),
        "u8": np.array([2**64 - 1], dtype=np.uint64),
        "f8": np.array([np.nan, -0.0, 1e-300]),
        "u1": np.frombuffer(b"abc", dtype=np.uint8),
        "b1": np.array([True, False]),
        "none": np.zeros((0, 4), dtype=np.int64),
    }
    meta, found = unpack(pack({"a": [1, "x"]}, given_arrays))
    assert meta == {"a": [1, "x"]}
    assert list(found) == sorted(given_arrays)
    for name, array in given_arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_equal_content_gives_equal_bytes() -> None:
    x, y = np.arange(3), np.ones(2)
    assert pack({"a": 1, "b": 2}, {"x": x, "y": y}) == pack({"b": 2, "a": 1}, {"y": y, "x": x[::1].copy()})
    big = np.arange(3, dtype=">i8")
    assert pack({}, {"x": big}) == pack({}, {"x": big.astype("<i8")})


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.array([1j])])
def test_only_numbers_go_over_the_wire(array: np.ndarray) -> None:
    with pytest.raises(TypeError):
        pack({}, {"x": array})


def test_a_newer_schema_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "SCHEMA", 2)
    newer = pack({}, {})
    monkeypatch.undo()
    with pytest.raises(PoisonError) as caught:
        unpack(newer)
    assert caught.value.reason == "newer_schema"
    assert "regate version" in caught.value.hint


@given(st.data())
def test_any_flipped_byte_is_found(data: st.DataObject) -> None:
    good = pack({"n": 1}, {"x": np.arange(5)})
    at = data.draw(st.integers(0, len(good) - 1))
    flip = data.draw(st.integers(1, 255))
    bad = good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :]
    with pytest.raises(PoisonError):
        unpack(bad)


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    for candidate in (data, codec.MAGIC + data):
        with pytest.raises(PoisonError):
            unpack(candidate)


def test_a_well_signed_lie_about_sizes_is_refused() -> None:
    import hashlib
    import json

    header = json.dumps({"schema": 1, "meta": {}, "arrays": [["x", "<i8", [1 << 40]]]}).encode()
    body = codec.MAGIC + len(header).to_bytes(4, "little") + header
    body = body.ljust(-(-len(body) // 8) * 8, b"\0")
    with pytest.raises(PoisonError):
        unpack(body + hashlib.sha256(body).digest()[:16])
