"""driftfdr: its sequential e-CUSUM, calibrated by its own bootstrap, a p-value after each event (a rise only)."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
from driftfdr.detectors import ECUSUM
from driftfdr.streaming import CalibratedDetector

warnings.simplefilter("ignore")
REFERENCE, WINDOW, HORIZON = 2000, 100, 5


def fit(_call: str, _level: float | None, reference: np.ndarray) -> list[Any]:
    fitted = []
    for column in reference[-REFERENCE:].T:
        detector = CalibratedDetector(
            ECUSUM(), n_ref=min(REFERENCE, len(column)), window=WINDOW, horizon=HORIZON, seed=1, sequential=True
        )
        for value in column.tolist():
            detector.update(value)
        fitted.append(detector)
    return fitted


def scores(fitted: list[Any], values: np.ndarray) -> np.ndarray:
    best = np.full(len(values), -np.inf)
    for detector, column in zip(copy.deepcopy(fitted), values.T, strict=True):
        found = [detector.update(value) for value in column.tolist()]
        best = np.maximum(best, -np.log10(np.array(found, dtype=float)))
    return best
