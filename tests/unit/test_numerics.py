"""Golden vectors: exp, log and normal quantiles agree with these to the last digits, and exactly once rounded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from regate.detectors import numerics

X = np.array([-20.0, -3.3, -0.5, 0.0, 0.1, 1.7, 9.25])
POSITIVE = np.abs(X) + 0.1
P = np.array([1e-6, 0.01, 0.3, 0.5, 0.9, 0.9999])
GOLDEN = {
    "exp": (
        X,
        (
            "1.1b48655f37267p-29 1.2e259bb85be84p-5 1.368b2fc6f960ap-1 1p+0 1.1aec7b35a00d4p+0 1.5e552770df8a7p+2 "
            "1.452486966778ep+13"
        ),
    ),
    "exp2": (
        X,
        "1p-20 1.9fdf8bcce533ep-4 1.6a09e667f3bcdp-1 1p+0 1.125fbee250664p+0 1.9fdf8bcce533dp+1 1.306fe0a31b715p+9",
    ),
    "log": (
        POSITIVE,
        (
            "1.8017963f14ecbp+1 1.394958c0771c0p+0 -1.058aefa811452p-1 -1.26bb1bbb55515p+1 "
            "-1.9c041f7ed8d33p+0 1.2cf25fad8f1c4p-1 1.1e20cfe05d334p+1"
        ),
    ),
    "log2": (
        POSITIVE,
        (
            "1.15105c6a9a820p+2 1.c3fa15cb94a4ep+0 -1.79538dea712f5p-1 -1.a934f0979a371p+1 "
            "-1.2934f0979a371p+1 1.b22ca689867ddp-1 1.9ccbb2a630269p+1"
        ),
    ),
    "normal_quantile": (
        P,
        "-1.30381a9799f7ep+2 -1.29c5c4630ff0ep+1 -1.0c7e39582c5fcp-1 0p+0 1.4813c36e26d32p+0 1.dc08bb712897bp+1",
    ),
    "expit": (
        X,
        (
            "1.1b4865556b5d5p-29 1.236630d362b36p-5 1.829a0565978dep-2 1p-1 1.0cca12729afb8p-1 "
            "1.b0e9edc4324d8p-1 1.fff367568966ep-1"
        ),
    ),
}
ROUNDED_SUMS = (
    "1.2800000140000p+3 1.be909cee00000p+0 1.a974d1e400000p-1 1p+0 1.a974d1e400000p-1 1.be909cee00000p+0 "
    "1.2800000140000p+3"
)


def numbers(text: str) -> np.ndarray:
    return np.array([float.fromhex(f"-0x{word[1:]}" if word[0] == "-" else f"0x{word}") for word in text.split()])


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_functions_agree_with_the_golden_vectors(name: str) -> None:
    function: Callable[[np.ndarray], np.ndarray] = getattr(numerics, name)
    at, expected = GOLDEN[name]
    np.testing.assert_array_max_ulp(function(at), numbers(expected), maxulp=4)


def test_rounded_sums_are_exactly_the_golden_ones() -> None:
    assert numerics.round_log2(numerics.log2_add(X, X[::-1])).tolist() == numbers(ROUNDED_SUMS).tolist()


def test_nothing_plus_something_is_something() -> None:
    nothing = np.array([numerics.NOTHING])
    assert numerics.log2_add(nothing, np.array([3.0])).tolist() == [3.0]
    assert numerics.log2(np.array([0.0])).tolist() == [numerics.NOTHING]
