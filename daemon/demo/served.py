"""From a file with labels to a served model: train on the first rows, answer the rest, profile what is normal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from regate.config.canonical import digest_bytes
from regate.config.errors import ConfigError
from regate.config.model import Baseline, ModelConfig, Output, ReferenceRows, Target
from regate.daemon.demo.model import Columns, check_label, export, predict, train
from regate.daemon.files import Table, read_table
from regate.detectors.build import Progress, build_profile
from regate.detectors.columns import Categorical, Column, Numeric, cut_column
from regate.detectors.profile import Profile

TRAIN_SHARE, REFERENCE_SHARE = 0.15, 0.2
MOST_TRAIN, MOST_REFERENCE = 20_000, 20_000
FEWEST = 1000  # rows to train on, and to call normal: fewer support neither


@dataclass(frozen=True, slots=True)
class Served:
    """A model in service: its configuration, what is normal, and the rows that are still to come."""

    config: ModelConfig
    profile: Profile
    stream: Table
    train_rows: int
    reference_rows: int
    accuracy: float  # on the reference rows, which the model did not learn from


def _cut(rows: int) -> tuple[int, int]:
    train_rows = min(MOST_TRAIN, int(rows * TRAIN_SHARE))
    reference = min(MOST_REFERENCE, int(rows * REFERENCE_SHARE))
    if train_rows < FEWEST or reference < FEWEST:
        least = int(FEWEST / min(TRAIN_SHARE, REFERENCE_SHARE)) + 1
        raise ConfigError(f"{rows} rows are too few for a demo", hint=f"give a file of at least {least} rows")
    return train_rows, reference


def model_columns(table: Table) -> Columns:
    """Return the features as the model takes them: float64 with NaN, or text with an empty string for missing."""
    found: Columns = {}
    for name, column in table.whole.features.items():
        if isinstance(column, Numeric):
            found[name] = column.values
        else:
            names = np.array([*column.categories, ""], dtype=object)
            found[name] = names[column.codes]  # -1 is missing: the last entry
    return found


def _text(column: Column | None) -> npt.NDArray[Any] | None:
    if column is None:
        return None
    if isinstance(column, Categorical):
        return np.array([*column.categories, ""], dtype=object)[column.codes].astype(str)
    whole = column.values[np.isfinite(column.values)]
    if whole.size and (whole == np.round(whole)).all():
        return np.array([str(int(value)) if np.isfinite(value) else "" for value in column.values])
    raise ConfigError("the label is a continuous number", hint="the demo serves a classifier: give it classes")


def _rows(columns: Columns, start: int, stop: int) -> Columns:
    return {name: values[start:stop] for name, values in columns.items()}


def serve(
    path: Path, folder: Path, *, events_per_second: float, calibrate_seconds: float, seed: int, progress: Progress
) -> Served:
    """Train, export, answer every later row, and build the profile.

    Writes ``model.onnx``, ``baseline.onnx``, ``served.parquet`` (rows with predictions) and the reference rows of it
    into the folder.

    :raises ConfigError: when the file has no label, or too few rows.
    """
    table = read_table(path)
    label = check_label(_text(table.labels()), str(path))
    train_rows, reference_rows = _cut(table.rows)
    columns = model_columns(table)
    progress("training", 0.0)
    learned, known = _rows(columns, 0, train_rows), label[:train_rows]
    candidate = export(train(learned, known, simple=False, seed=seed), learned, folder / "model.onnx")
    fallback = export(train(learned, known, simple=True, seed=seed), learned, folder / "baseline.onnx")
    progress("serving", 0.0)
    answered, scores = _answer(folder / "model.onnx", _rows(columns, train_rows, table.rows))
    classes = tuple(sorted(set(known)))
    served = folder / "served.parquet"
    pq.write_table(_with_answers(table, train_rows, answered, scores, label[train_rows:], classes), served)
    config = _configured(served, table, classes, folder, candidate.digest, fallback.digest)
    rest = read_table(served, config)
    right = answered[:reference_rows] == label[train_rows : train_rows + reference_rows]
    reference = folder / "reference.parquet"
    pq.write_table(pq.read_table(served).slice(0, reference_rows), reference)
    rows = ReferenceRows(uri=str(reference.resolve()), digest=digest_bytes(reference.read_bytes()))
    config = config.model_copy(update={"reference": rows})
    profile = build_profile(
        config,
        rest.key,
        rest.slice(0, reference_rows),
        _known(rest, reference_rows),
        events_per_second=events_per_second,
        calibrate_seconds=calibrate_seconds,
        seed=seed,
        progress=progress,
    )
    stream = folder / "stream.parquet"
    pq.write_table(pq.read_table(served).slice(reference_rows), stream)
    return Served(config, profile, read_table(stream, config), train_rows, reference_rows, float(right.mean()))


def _known(table: Table, rows: int) -> Column | None:
    labels = table.labels()
    return None if labels is None else cut_column(labels, slice(0, rows))


def _answer(path: Path, columns: Columns) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.float64]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return predict(session, columns)


def _with_answers(
    table: Table,
    start: int,
    answered: npt.NDArray[np.str_],
    scores: npt.NDArray[np.float64],
    label: npt.NDArray[Any],
    classes: tuple[str, ...],
) -> pa.Table:
    own = {"label", "prediction", "score", *(name for name in table.columns if name.startswith("score_"))}
    columns = {name: array.slice(start) for name, array in table.columns.items() if name not in own}
    columns["prediction"] = pa.array(answered)
    if len(classes) == 2:
        columns["score"] = pa.array(scores[:, 1])
    else:
        columns |= {f"score_{name}": pa.array(scores[:, index]) for index, name in enumerate(classes)}
    columns["label"] = pa.array(label.astype(str))
    return pa.table(columns)


def _configured(
    served: Path, table: Table, classes: tuple[str, ...], folder: Path, digest: str, fallback: str
) -> ModelConfig:
    inferred = read_table(served).config
    kind = "binary" if len(classes) == 2 else "multiclass"
    return inferred.model_copy(
        update={
            "model": table.key.model,
            "version": "2",
            "output": Output(type=kind, classes=classes, positive=classes[-1]),
            "target": Target(uri=str((folder / "model.onnx").resolve()), digest=digest),
            "baseline": Baseline(
                name=table.key.model,
                version="1",
                target=Target(uri=str((folder / "baseline.onnx").resolve()), digest=fallback),
            ),
        }
    )
