"""Frouros's streaming detectors. Unlike River's they do not start anew by themselves; here both are started anew."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
from frouros.detectors import concept_drift as concept
from frouros.detectors.data_drift import IncrementalKSTest, MMDStreaming

warnings.simplefilter("ignore")
KS_WINDOW, KS_REFERENCE = 100, 2000
MMD_WINDOW, MMD_REFERENCE = 50, 500
NEVER_NEGATIVE = 8.0  # ADWIN refuses negative sums; it does not look at where zero is


def make(call: str, level: float) -> Any:
    config = {
        "ADWIN": lambda: concept.ADWINConfig(delta=level),
        "CUSUM": lambda: concept.CUSUMConfig(lambda_=level),
        "PageHinkley": lambda: concept.PageHinkleyConfig(lambda_=level),
        "GeometricMovingAverage": lambda: concept.GeometricMovingAverageConfig(lambda_=level),
        "DDM": lambda: concept.DDMConfig(drift_level=level, warning_level=level * 2.0 / 3.0),
        "ECDDWT": lambda: concept.ECDDWTConfig(
            average_run_length=min((100, 400, 1000), key=lambda run: abs(run - level))
        ),
        "EDDM": lambda: concept.EDDMConfig(beta=level, alpha=1.0),
        "HDDMA": lambda: concept.HDDMAConfig(alpha_d=level, alpha_w=min(0.999, 5.0 * level)),
        "HDDMW": lambda: concept.HDDMWConfig(alpha_d=level, alpha_w=min(0.999, 5.0 * level)),
        "RDDM": lambda: concept.RDDMConfig(drift_level=level, warning_level=level * 0.785),
        "STEPD": lambda: concept.STEPDConfig(alpha_d=level, alpha_w=min(0.999, 10.0 * level)),
    }[call]()
    return getattr(concept, call)(config=config)


def fit(call: str, level: float | None, reference: np.ndarray) -> Any:
    if call == "IncrementalKS":
        detector = IncrementalKSTest(window_size=KS_WINDOW)
        detector.fit(X=reference[-KS_REFERENCE:, 0])
        return detector
    if call == "MMD":
        detector = MMDStreaming(window_size=MMD_WINDOW)
        detector.fit(X=reference[-MMD_REFERENCE:])
        return detector
    assert level is not None
    detector = make(call, level)
    for value in prepare(call, reference):
        detector.update(value=value)
        if detector.drift:
            detector.reset()
    return detector


def prepare(call: str, values: np.ndarray) -> list[float]:
    moved = np.maximum(values[:, 0] + NEVER_NEGATIVE, 0.0) if call == "ADWIN" and values.min() < 0 else values[:, 0]
    return moved.tolist()


def first(detector: Any, values: list[float], start: int) -> int | None:
    update = detector.update
    for at in range(start, len(values)):
        update(value=values[at])
        if detector.drift:
            return at
    return None


def scores(fitted: Any, values: np.ndarray) -> np.ndarray:
    detector = copy.deepcopy(fitted)
    single = isinstance(detector, IncrementalKSTest)
    found = np.full(len(values), np.nan)
    for at, row in enumerate(values):
        result = detector.update(value=row[0] if single else row)[0]
        if result is not None:
            found[at] = result.statistic if single else result.distance
    return found
