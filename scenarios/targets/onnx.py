"""The `onnx` target: a model file in onnxruntime. Runs inside the sandbox child only.

Input conventions: one named input a column (numeric [n, 1] or [n], string [n, 1] or [n]) as skl2onnx exports
scikit-learn pipelines, or one float matrix [n, d] with the features in the order of the configuration.
A missing number is NaN, a missing string is "". A value of the wrong type is refused, never coerced.
"""

from __future__ import annotations

import hashlib
import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from regate.scenarios.targets.base import (
    Features,
    Responses,
    class_text,
    join,
    refuse_all,
    rows_of,
    score_order,
    take,
)

_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(string)": np.object_,
}
_CHECKED = {"numeric", "boolean", "categorical", "text"}
_NUMBERS = np.empty(0)
_TRUTH = {True: 1.0, False: 0.0, "true": 1.0, "false": 0.0}


class RefusedError(ValueError):
    """The target says no to an input: a proper answer, not a failure."""


def _plain(name: str) -> str:
    return re.sub(r"\W", "_", name)


def _number(value: Any, feature: str) -> float:
    if value is None:
        return np.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RefusedError(f"{feature}: {type(value).__name__} where a number is expected")
    return float(value)


def _truth(value: Any, feature: str) -> float:
    if value is None:
        return np.nan
    if isinstance(value, (bool, str)) and value in _TRUTH:
        return _TRUTH[value]
    if isinstance(value, (int, float)) and value in (0, 1):
        return float(value)
    raise RefusedError(f"{feature}: {value!r} where a truth value is expected"[:200])


def _text(value: Any, feature: str, kind: str) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    if kind == "boolean":
        return "true" if _truth(value, feature) else "false"
    if not isinstance(value, str):
        raise RefusedError(f"{feature}: {type(value).__name__} where text is expected")
    return value


class OnnxTarget:
    """One session on bytes that were hashed first: weights outside the file cannot slip in.

    :param options: path, features [[name, type]], classes, positive, output (binary, multiclass, regression).
    :raises ValueError: when the model's inputs are not columns of the configuration.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        data = Path(options["path"]).read_bytes()
        self._digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self._data = data
        self._kinds: dict[str, str] = dict(options["features"])
        self._output = options["output"]
        self._positive = options["positive"]
        self._classes: list[str] = score_order(list(options["classes"]))
        self._answers = 0
        self.reset()

    def reset(self) -> None:
        """Load the session anew."""
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1  # sums in a fixed order; more threads also need more address space
        settings.inter_op_num_threads = 1
        settings.use_deterministic_compute = True
        settings.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(self._data, settings, providers=["CPUExecutionProvider"])
        self._inputs = self._session.get_inputs()
        self._names = [output.name for output in self._session.get_outputs()]
        self._width = 0
        by_plain = {_plain(name): name for name in self._kinds}
        self._matrix = len(self._inputs) == 1 and _plain(self._inputs[0].name) not in by_plain
        self._columns = {} if self._matrix else {i.name: by_plain.get(_plain(i.name), "") for i in self._inputs}
        if missing := [name for name, feature in self._columns.items() if not feature]:
            raise ValueError(f"the model wants inputs {missing[:5]} that are no features of the configuration")
        used = set(self._kinds) if self._matrix else set(self._columns.values())
        self._ignored = [name for name, kind in self._kinds.items() if name not in used and kind in _CHECKED]
        if unknown := [i.name for i in self._inputs if i.type not in _DTYPES]:
            raise ValueError(f"inputs {unknown[:5]} have a type that is not supported")

    def describe(self) -> dict[str, Any]:
        """Return what identifies the artefact and its interface."""
        return {
            "kind": "onnx",
            "digest": self._digest,
            "inputs": [[i.name, i.type, [str(size) for size in i.shape]] for i in self._inputs],
            "outputs": [[o.name, o.type] for o in self._session.get_outputs()],
            "classes": self._classes,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        }

    def health(self) -> dict[str, Any]:
        """Return peak resident bytes of this process and the number of rows answered."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {"peak_bytes": peak, "resident_bytes": pages * resource.getpagesize(), "answers": self._answers}

    def state_digest(self) -> str:
        """Return the artefact's digest: an ONNX session keeps nothing between calls."""
        return self._digest

    def predict(self, features: Features, *, each: bool = False) -> Responses:
        """Answer a batch, or its rows one by one."""
        n = rows_of(features)
        self._answers += n
        if not each:
            return self._batch(features, n)
        parts = [self._batch(take(features, slice(i, i + 1)), 1) for i in range(n)]
        width = max((part.scores.shape[1] for part in parts), default=0)
        return join([_widen(part, width) for part in parts]) if parts else refuse_all(0, "", 0)

    def _batch(self, features: Features, n: int) -> Responses:
        try:
            feed = self._feed(features, n)
        except RefusedError as refusal:
            return refuse_all(n, str(refusal), self._width)
        try:
            outputs = self._session.run(self._names, feed)
        except (RuntimeError, ValueError) as error:
            # Out of memory is a failure of the target; anything else that onnxruntime raises is its refusal.
            if "alloc" in str(error).lower():
                raise MemoryError(str(error)[:300]) from error
            return refuse_all(n, f"onnxruntime: {error}"[:300], self._width)
        return self._read(outputs, n)

    def _feed(self, features: Features, n: int) -> dict[str, npt.NDArray[Any]]:
        for name in self._ignored:  # declared, so of the declared type, although this model does not look at it
            for value in _column(features, name, n) if features.get(name, _NUMBERS).dtype != np.float64 else ():
                self._typed(name, value)
        if self._matrix:
            spec = self._inputs[0]
            columns = [self._numeric(features, name, n) for name in self._kinds]
            return {spec.name: _cast(np.column_stack(columns), spec.type, spec.name)}
        feed = {}
        for spec in self._inputs:
            name = self._columns[spec.name]
            if spec.type == "tensor(string)":
                values = _column(features, name, n)
                column: npt.NDArray[Any] = np.array([_text(v, name, self._kinds[name]) for v in values], dtype=object)
            else:
                column = _cast(self._numeric(features, name, n), spec.type, name)
            feed[spec.name] = column.reshape(-1, 1) if len(spec.shape) == 2 else column
        return feed

    def _typed(self, name: str, value: Any) -> None:
        kind = self._kinds[name]
        if kind == "numeric":
            _number(value, name)
        elif kind == "boolean":
            _truth(value, name)
        else:
            _text(value, name, kind)

    def _numeric(self, features: Features, name: str, n: int) -> npt.NDArray[np.float64]:
        column = _column(features, name, n)
        if column.dtype == np.float64:
            return column
        convert = _truth if self._kinds[name] == "boolean" else _number
        return np.array([convert(value, name) for value in column], dtype=np.float64)

    def _read(self, outputs: list[Any], n: int) -> Responses:
        labels: npt.NDArray[Any] = np.full(n, None, dtype=object)
        scores = np.empty((n, 0))
        named = False
        for output in outputs:
            if isinstance(output, list) and output and isinstance(output[0], dict):  # zipmap left on
                order = list(output[0])
                scores = np.array([[row[key] for key in order] for row in output], dtype=np.float64)
                self._classes = [class_text(key) for key in order]
                continue
            array = np.asarray(output)
            if array.dtype.kind == "f" and (self._output == "regression" or array.ndim == 2):
                scores = array.reshape(n, -1).astype(np.float64)
            elif array.size == n:
                labels[:] = [class_text(value) for value in array.reshape(-1)]
                named = True
        if self._output != "regression" and scores.shape[1]:
            scores = self._classed(scores)
            if not named:
                best = np.argmax(np.nan_to_num(scores, nan=-1.0), axis=1)
                labels[:] = [self._classes[i] for i in best]
        self._width = scores.shape[1]
        return Responses(labels, scores, np.full(n, None, dtype=object))

    def _classed(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if scores.shape[1] == 1:  # one probability: of the positive class
            negative = next((name for name in self._classes if name != self._positive), f"not {self._positive}")
            self._classes = [negative, self._positive]
            scores = np.column_stack([1.0 - scores[:, 0], scores[:, 0]])
        if len(self._classes) != scores.shape[1]:
            self._classes = [str(i) for i in range(scores.shape[1])]
        return scores


def _column(features: Features, name: str, n: int) -> npt.NDArray[Any]:
    column = features.get(name)
    return np.full(n, np.nan) if column is None else column


def _cast(values: npt.NDArray[np.float64], onnx_type: str, name: str) -> npt.NDArray[Any]:
    dtype = _DTYPES[onnx_type]
    if dtype is np.object_:
        raise RefusedError(f"{name}: the model wants text")
    if np.issubdtype(dtype, np.floating):
        with np.errstate(over="ignore"):
            cast = values.astype(dtype)
        if (np.isinf(cast)).any():
            raise RefusedError(f"{name}: a number does not fit {onnx_type}")
        return cast
    if not np.isfinite(values).all() or (dtype is not np.bool_ and (values != np.floor(values)).any()):
        raise RefusedError(f"{name}: missing or fractional where the model wants {onnx_type}")
    if (np.abs(values) > 2**31 - 1).any() and dtype is np.int32:
        raise RefusedError(f"{name}: a number does not fit {onnx_type}")
    if (np.abs(values) >= 2**63).any():
        raise RefusedError(f"{name}: a number does not fit {onnx_type}")
    return values.astype(dtype)


def _widen(part: Responses, width: int) -> Responses:
    if part.scores.shape[1] == width:
        return part
    return Responses(part.labels, np.full((part.n, width), np.nan), part.refused)
