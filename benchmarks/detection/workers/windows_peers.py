"""NannyML and Evidently: fixed windows of rows against the reference, the largest over the features."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pandas as pd

os.environ.setdefault("NML_DISABLE_USAGE_LOGGING", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
warnings.simplefilter("ignore")

WINDOW = 500


def fit(call: str, _level: float | None, reference: np.ndarray) -> tuple[str, Any]:
    library, method = call.split(":")
    return call, (_nannyml if library == "nannyml" else _evidently)(method, reference)


def scores(fitted: tuple[str, Any], values: np.ndarray) -> np.ndarray:
    call, state = fitted
    whole = len(values) // WINDOW * WINDOW
    if not whole:
        return np.zeros(0)
    library, method = call.split(":")
    return (_nannyml_scores if library == "nannyml" else _evidently_scores)(method, state, values[:whole])


def frame(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, columns=[f"x{index}" for index in range(values.shape[1])])


def _binary(values: np.ndarray) -> bool:
    return values.shape[1] == 1 and set(np.unique(values)) <= {0.0, 1.0}


def _nannyml(method: str, reference: np.ndarray) -> Any:
    import nannyml

    table = frame(reference)
    names = list(table)
    if method == "reconstruction":
        calculator = nannyml.DataReconstructionDriftCalculator(column_names=names, chunk_size=WINDOW)
    elif _binary(reference):
        calculator = nannyml.UnivariateDriftCalculator(
            column_names=names, treat_as_categorical=names, categorical_methods=[method], chunk_size=WINDOW
        )
        table = table.astype("category")
    else:
        calculator = nannyml.UnivariateDriftCalculator(
            column_names=names, continuous_methods=[method], chunk_size=WINDOW
        )
    return calculator.fit(table)


def _nannyml_scores(method: str, calculator: Any, values: np.ndarray) -> np.ndarray:
    """How many standard deviations of the reference's own windows a window is off: its default alarm is at 3."""
    table = frame(values)
    if getattr(calculator, "treat_as_categorical", None):
        table = table.astype("category")
    result = calculator.calculate(table)
    subjects = [("reconstruction_error",)] if method == "reconstruction" else [(name, method) for name in table]
    both, watched = result.filter(period="reference").to_df(), result.filter(period="analysis").to_df()
    found = np.full(len(values) // WINDOW, -np.inf)
    for subject in subjects:
        normal = both[(*subject, "value")].to_numpy(dtype=float)
        value = watched[(*subject, "value")].to_numpy(dtype=float)
        off = (value - np.nanmean(normal)) / np.nanstd(normal)
        found = np.maximum(found, np.abs(off) if method == "reconstruction" else off)
    return found


def _evidently(_method: str, reference: np.ndarray) -> Any:
    from evidently import DataDefinition, Dataset

    table = frame(reference)
    kind = {"categorical_columns" if _binary(reference) else "numerical_columns": list(table)}
    definition = DataDefinition(**kind)
    return definition, Dataset.from_pandas(table, data_definition=definition), list(table)


def _evidently_scores(method: str, state: Any, values: np.ndarray) -> np.ndarray:
    """The drift score of each window; where it is a p-value, -log10 of it."""
    from evidently import Dataset, Report
    from evidently.metrics import ValueDrift

    definition, reference, names = state
    table = frame(values)
    p_value = method in {"ks", "z"}
    found = []
    for start in range(0, len(values), WINDOW):
        report = Report([ValueDrift(column=name, method=method) for name in names])
        now = Dataset.from_pandas(table.iloc[start : start + WINDOW], data_definition=definition)
        got = [float(metric["value"]) for metric in report.run(now, reference).dict()["metrics"]]
        found.append(max(-np.log10(max(one, 1e-300)) if p_value else one for one in got))
    return np.array(found)
