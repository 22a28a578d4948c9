"""Frames of the sandbox: what goes in comes out, whatever the cut; what is no frame is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regate.scenarios.sandbox.frames import (
    FrameBuffer,
    FrameError,
    encode_frame,
    pack_features,
    pack_responses,
    unpack_features,
    unpack_responses,
)
from regate.scenarios.targets.base import Responses

SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text()


@given(
    numbers=st.lists(st.floats(), min_size=0, max_size=20),
    mixed=st.lists(SCALARS, max_size=20),
    cuts=st.lists(st.integers(1, 50), min_size=1, max_size=50),
)
def test_batches_survive_any_cut(numbers: list[float], mixed: list[object], cuts: list[int]) -> None:
    column = np.empty(len(mixed), dtype=object)
    column[:] = mixed
    sent = encode_frame({"features": pack_features({"a": np.array(numbers, np.float64), "b": column})})
    buffer, messages, at = FrameBuffer(), [], 0
    while at < len(sent):
        size = cuts[at % len(cuts)]
        messages += buffer.feed(sent[at : at + size])
        at += size
    got = unpack_features(messages[0]["features"])
    np.testing.assert_array_equal(got["a"], np.array(numbers, np.float64))
    assert repr(got["b"].tolist()) == repr(mixed)


def test_responses_survive() -> None:
    labels, refused = np.array(["a", None], dtype=object), np.array([None, "no"], dtype=object)
    answer = unpack_responses(pack_responses(Responses(labels, np.array([[0.1, 0.9], [np.nan, np.nan]]), refused)))
    assert answer.labels.tolist() == ["a", None]
    assert answer.refused.tolist() == [None, "no"]
    assert answer.answered.tolist() == [True, False]


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for_but_never_crashes(data: bytes) -> None:
    try:
        FrameBuffer(limit=1000).feed(data)
    except FrameError:
        return


def test_an_oversized_frame_is_refused_before_it_arrives() -> None:
    with pytest.raises(FrameError, match="over the limit"):
        FrameBuffer(limit=1000).feed(b"\x00\x00\x10\x00")


@pytest.mark.parametrize(
    "packed",
    [{}, {"labels": ["a"], "scores": b"", "width": 2, "refused": [None]}, {"labels": [], "scores": b"", "width": 0}],
)
def test_an_answer_of_the_wrong_shape_is_refused(packed: dict[str, object]) -> None:
    with pytest.raises(FrameError):
        unpack_responses(packed)


def test_the_child_starts_without_the_heavy_modules() -> None:
    program = (
        "import sys, regate.scenarios.sandbox.child, regate.scenarios.targets.onnx\n"
        "print([name for name in ('river', 'scipy', 'pydantic', 'pyarrow', 'kafka', 'structlog', 'regate.daemon')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
