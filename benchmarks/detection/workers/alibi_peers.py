"""Alibi Detect's online detectors, by their statistic.

Their thresholds come from a bootstrap that needs at least ten runs for each event of the expected run time: 100,000
for 10,000 events, hours for MMD and LSDD. So the statistic is compared with a level that the benchmark tunes, as
for everybody; the bootstrap at construction is kept as small as the library allows.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
warnings.simplefilter("ignore")

from alibi_detect.cd import CVMDriftOnline, FETDriftOnline, LSDDDriftOnline, MMDDriftOnline  # noqa: E402

WINDOW = 50
WINDOWS = [25, 100]
RATE_WINDOWS = [50, 100]
REFERENCE = 500  # their kernel matrices are of this size squared
# Of the runs that are left after a window of 100 steps there must be as many as the expected run time asks for.
ERT, BOOTSTRAPS, MORE_BOOTSTRAPS = 100, 300, 1_000
# State grows with every event watched, so a long stream is watched in pieces.
PIECE = 4000


def fit(call: str, _level: float | None, reference: np.ndarray) -> Any:
    np.random.seed(0)  # noqa: NPY002  (what the library draws from)
    ref = reference[-REFERENCE:].astype(np.float32)
    common: dict[str, Any] = {"ert": ERT, "n_bootstraps": BOOTSTRAPS, "verbose": False}
    if call == "MMD":
        return MMDDriftOnline(ref, window_size=WINDOW, backend="tensorflow", **common)
    if call == "LSDD":
        return LSDDDriftOnline(ref, window_size=WINDOW, backend="tensorflow", **common)
    common["n_bootstraps"] = MORE_BOOTSTRAPS
    if call == "CVM":
        return CVMDriftOnline(reference[-2000:], window_sizes=WINDOWS, **common)
    return FETDriftOnline(reference[-2000:].astype(int), window_sizes=RATE_WINDOWS, **common)


def scores(detector: Any, values: np.ndarray) -> np.ndarray:
    whole = isinstance(detector, FETDriftOnline)
    rows = (
        values.astype(int) if whole else values if isinstance(detector, CVMDriftOnline) else values.astype(np.float32)
    )
    found = np.full(len(values), np.nan)
    warm = max(WINDOWS + RATE_WINDOWS) if whole or isinstance(detector, CVMDriftOnline) else WINDOW
    for start in range(0, len(rows), PIECE):
        detector.reset_state()
        for at in range(start, min(start + PIECE, len(rows))):
            data = detector.predict(rows[at])["data"]
            if at - start + 1 >= warm:
                found[at] = np.nanmax(data["test_stat"])
    return found
