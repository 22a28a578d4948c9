"""River's drift detectors. Several features: one detector each on standardised values, any alarm counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from river import drift
from river.drift import binary

WINDOW = 100  # of KSWIN, its default
BINARY = {"DDM", "EDDM", "FHDDM", "HDDMA", "HDDMW"}


def make(call: str, level: float) -> Any:
    if call == "ADWIN":
        return drift.ADWIN(delta=level)
    if call == "PageHinkley":
        return drift.PageHinkley(threshold=level)
    if call == "DDM":
        return binary.DDM(drift_threshold=level, warning_threshold=level * 2.0 / 3.0)
    if call == "EDDM":
        return binary.EDDM(beta=level, alpha=1.0)
    if call == "FHDDM":
        return binary.FHDDM(confidence_level=level)
    if call == "HDDMA":
        return binary.HDDMA(drift_confidence=level, warning_confidence=min(1.0, 5.0 * level))
    if call == "HDDMW":
        return binary.HDDMW(drift_confidence=level, warning_confidence=min(1.0, 5.0 * level))
    if call == "Dummy":
        return drift.DummyDriftDetector(
            trigger_method="random", t_0=max(1, round(level)), w=max(2, round(level)), seed=1
        )
    raise ValueError(call)


def fit(call: str, level: float | None, reference: np.ndarray) -> Any:
    if call == "KSWIN":
        return reference
    assert level is not None
    detectors = [make(call, level) for _ in range(reference.shape[1])]
    if call == "Dummy":
        return detectors
    for detector, values in zip(detectors, _columns(call, reference), strict=True):
        for value in values:
            detector.update(value)
    return detectors


def _columns(call: str, values: np.ndarray) -> list[list[Any]]:
    if call in BINARY:
        # FHDDM looks for a fall of the rate of ones (whatever its docstring says), so it gets correct, not wrong.
        one = values[:, 0] > 0
        return [(~one if call == "FHDDM" else one).tolist()]
    return [column.tolist() for column in values.T]


def prepare(call: str, values: np.ndarray) -> list[list[Any]]:
    return _columns(call, values)


def first(detectors: list[Any], prepared: list[list[Any]], start: int) -> int | None:
    hits = []
    stop = len(prepared[0])
    for detector, values in zip(detectors, prepared, strict=True):
        update = detector.update
        for at in range(start, stop):
            update(values[at])
            if detector.drift_detected:
                hits.append(at)
                stop = at  # an earlier alarm of another feature is all that is still of interest
                break
    return min(hits) if hits else None


def scores(_reference: np.ndarray, values: np.ndarray) -> np.ndarray:
    """KSWIN's own p-value as -log10 p, after each event; where its effect size is too small, nothing."""
    best = np.full(len(values), -np.inf)
    for column in values.T:
        detector = drift.KSWIN(alpha=0.0, window_size=WINDOW, seed=1)
        found = np.zeros(len(column))
        for at, value in enumerate(column.tolist()):
            detector.update(value)
            found[at] = detector.p_value if at + 1 >= WINDOW else 1.0
        best = np.maximum(best, -np.log10(np.maximum(found, 1e-300)))
    best[: WINDOW - 1] = np.nan
    return best
