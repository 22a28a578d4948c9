"""Train a model on the first rows of a file, export it to ONNX, and do not trust the export unchecked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regate.config.canonical import digest_bytes
from regate.config.errors import ConfigError, FatalError

AGREEMENT = 0.999  # export and original may differ where float32 rounds a value across a split
MAX_CATEGORIES = 30  # one-hot columns a feature; rarer values share one
Columns = dict[str, npt.NDArray[Any]]  # name -> float64 (NaN missing) or object of str ("" missing)


@dataclass(frozen=True, slots=True)
class Exported:
    """A model on disk."""

    path: Path
    digest: str
    agreement: float


def train(columns: Columns, label: npt.NDArray[Any], *, simple: bool, seed: int) -> Any:
    """Return a fitted scikit-learn pipeline: boosted trees, or logistic regression when ``simple``."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from threadpoolctl import threadpool_limits

    numeric = [i for i, values in enumerate(columns.values()) if values.dtype.kind == "f"]
    text = [i for i in range(len(columns)) if i not in numeric]
    scale = [StandardScaler()] if simple else []
    steps: list[tuple[str, Any, list[int]]] = []
    if numeric:
        steps.append(("numeric", make_pipeline(SimpleImputer(keep_empty_features=True), *scale), numeric))
    if text:
        encoder = OneHotEncoder(handle_unknown="ignore", max_categories=MAX_CATEGORIES, sparse_output=False)
        steps.append(("categorical", encoder, text))
    final: Any = (
        LogisticRegression(max_iter=400)
        if simple
        else HistGradientBoostingClassifier(max_iter=80, random_state=seed, early_stopping=False)
    )
    pipeline = make_pipeline(ColumnTransformer(steps), final)
    # One thread: two beside a busy process once took 45 s (docs/decisions).
    with threadpool_limits(1):
        pipeline.fit(matrix(columns), label)
    return pipeline


def matrix(columns: Columns) -> npt.NDArray[Any]:
    """Return the columns side by side as objects, in order."""
    joined = np.empty((len(next(iter(columns.values()))), len(columns)), dtype=object)
    for index, values in enumerate(columns.values()):
        joined[:, index] = values
    return joined


def export(pipeline: Any, columns: Columns, path: Path) -> Exported:
    """Write the pipeline as ONNX with one named input a column; compare it with the original on these rows.

    :raises FatalError: when the export answers differently (some exporters do so silently).
    """
    import onnxruntime
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    # The pipeline was fitted on a matrix of objects; the exporter wants one typed input a column.
    types = [
        (name, FloatTensorType([None, 1]) if values.dtype.kind == "f" else StringTensorType([None, 1]))
        for name, values in columns.items()
    ]
    final = pipeline.steps[-1][1]
    model = to_onnx(pipeline, initial_types=types, options={id(final): {"zipmap": False}}, target_opset=17)
    # The export's bytes depend on the order of a set: sort, so that equal models have equal digests.
    opsets = sorted(((item.domain, item.version) for item in model.opset_import), key=str)
    del model.opset_import[:]
    for domain, version in opsets:
        item = model.opset_import.add()
        item.domain, item.version = domain, version
    data = model.SerializeToString(deterministic=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    answered, _ = predict(session, columns)
    share = float(np.mean(answered == pipeline.predict(matrix(columns)).astype(str)))
    if share < AGREEMENT:
        raise FatalError(
            f"the ONNX export agrees with the model on only {share:.1%} of rows",
            hint="this pipeline cannot be exported faithfully; use another model type",
        )
    return Exported(path, digest_bytes(data), share)


def predict(session: Any, columns: Columns) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float64]]:
    """Return predicted classes as text, and the probabilities, shape (rows, classes)."""
    feeds = {
        name: (values.astype(np.float32) if values.dtype.kind == "f" else values)[:, None]
        for name, values in columns.items()
    }
    label, scores = session.run(None, feeds)
    return np.asarray(label).astype(str), np.asarray(scores, dtype=np.float64)


def check_label(label: npt.NDArray[Any] | None, source: str) -> npt.NDArray[Any]:
    """Return the label, or say why a model cannot be trained on it."""
    if label is None:
        raise ConfigError(
            f"{source} has no column `label`", hint="the demo trains a classifier; name its outcome `label`"
        )
    classes = np.unique(label)
    if not 2 <= len(classes) <= 50:
        raise ConfigError(
            f"{source}: the label has {len(classes)} distinct values", hint="the demo needs 2 to 50 classes"
        )
    return label
