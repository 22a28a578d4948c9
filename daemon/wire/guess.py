"""Candidates for a model's configuration from a sample of its events: proposals for a person, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from regate.config.errors import ConfigError
from regate.config.model import FieldMapping, ModelConfig
from regate.daemon.wire.binding import COHORT, COHORTS, SCORE, SCORES
from regate.daemon.wire.columnar import WrongTypeError, class_text, to_categorical, to_floats
from regate.daemon.wire.infer import infer_config

# Last parts of a path, as senders name them, best first.
NAMES: dict[str, tuple[str, ...]] = {
    "event_id": ("event_id", "eventid", "prediction_id", "inference_id", "request_id", "requestid", "uuid", "id"),
    "event_time": ("event_time", "timestamp", "@timestamp", "time", "ts", "created_at", "datetime", "date"),
    "tenant": ("tenant", "tenant_id"),
    "model": ("model", "model_name", "modelname"),
    "model_version": ("model_version", "modelversion", "version"),
    "deployment": ("deployment", "environment", "env"),
    "client": ("client", "client_id", "user_id", "account_id", "api_key_id", "user", "caller"),
    "prediction": ("prediction", "predicted", "y_pred", "predicted_class", "decision", "output"),
    "scores": ("scores", "score", "probability", "probabilities", "y_pred_proba", "proba"),
    "latency_ms": ("latency_ms", "latency", "duration_ms", "elapsed_ms"),
    "error": ("error", "exception", "failed"),
    "label": ("label", "y_true", "ground_truth", "actual", "outcome", "target"),
}
# Words of attributes that fairness is usually asked about.
_COHORT_WORDS = re.compile(
    r"sex|gender|race|ethnic|age|nation|country|region|religion|marital|disab|segment|language", re.IGNORECASE
)
MAX_COHORT_VALUES = 12


@dataclass(frozen=True, slots=True)
class Seen:
    """What the sample says of one column."""

    n: int
    missing: int
    different: int
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()  # up to twelve


@dataclass(frozen=True, slots=True)
class Guess:
    """A configuration, what was seen of each feature, and what a person should look at."""

    config: ModelConfig
    seen: dict[str, Seen] = field(default_factory=dict)
    cohorts: tuple[str, ...] = ()  # features that look like cohort attributes
    labels: tuple[str, ...] = ()  # columns that look like outcomes
    zone: str = ""  # the offset that the sample's times carry


def guess(columns: Mapping[str, pa.Array], model: str, *, events: bool) -> Guess:
    """Return what a sample looks like.

    :param columns: flattened columns, dotted paths.
    :param events: whether they come from a topic, where the mapping must name every path.
    :raises ConfigError: when nothing in it could be a feature.
    """
    mapping = _mapping(columns, events=events)
    taken = {getattr(mapping, name) for name in NAMES}
    inner = f"{mapping.inputs}." if mapping.inputs else ""
    if not any(name.startswith(inner) for name in columns):  # a flat file: `bind` finds features by their bare names
        inner = ""
    spoken = {f"{mapping.scores}.", f"{mapping.cohorts}.", SCORES, COHORTS} - {"."}
    inputs = {}
    for name, array in columns.items():
        mine = name.startswith(inner) and name not in taken and not name.startswith(tuple(spoken))
        # Beside an object that holds ids or times stand more of the kind, not features.
        if mine and (inner or name.rpartition(".")[0] not in _parents(taken) - {""}):
            inputs[name.removeprefix(inner)] = array
    outcomes = {"prediction": mapping.prediction, "label": mapping.label}
    rest = {name: columns[path] for name, path in outcomes.items() if path in columns}
    rest |= {n: a for n, a in columns.items() if n.startswith((SCORE, SCORES, COHORT, COHORTS))}
    config = infer_config({**inputs, **rest}, model)
    if not config.features:
        raise ConfigError("the sample has no column that could be a feature", hint="look at the file or the topic")
    config = config.model_copy(update={"mapping": mapping})
    seen = {name: describe(inputs[name]) for name in config.features if name in inputs}
    cohorts = tuple(
        name
        for name, what in seen.items()
        if config.features[name].type in {"categorical", "boolean"}
        and 2 <= what.different <= MAX_COHORT_VALUES
        and _COHORT_WORDS.search(name)
    )
    labels = tuple(name for name in columns if _last(name) in NAMES["label"])
    return Guess(config, seen, cohorts, labels, _offset(columns.get(mapping.event_time)))


def _last(path: str) -> str:
    return path.rpartition(".")[2].lower()


def _parents(paths: set[str]) -> set[str]:
    return {path.rpartition(".")[0] for path in paths}


def _mapping(columns: Mapping[str, pa.Array], *, events: bool) -> FieldMapping:
    found: dict[str, str] = {}
    for name, words in NAMES.items():
        candidates = [path for word in words for path in columns if _last(path) == word]
        if candidates:
            found[name] = min(candidates, key=lambda path: path.count("."))
    if not events and found.get("scores") == "score":
        del found["scores"]  # `bind` finds it in a file, and what `produce` sends has it at its usual place
    objects = {path.rpartition(".")[0] for path in columns if "." in path}
    if any(path.startswith("inputs.") for path in columns):
        found["inputs"] = "inputs"
    elif objects:
        # The object with most members that nothing else names is where the inputs stand.
        free = [path.rpartition(".")[0] for path in columns if path not in found.values()]
        best = max(sorted(objects), key=free.count)
        found["inputs"] = best if free.count(best) >= free.count("") else ""
    elif events:
        found["inputs"] = ""
    for name in ("scores", "cohorts"):
        path = next((path for path in objects if _last(path) == name), "")
        if path:
            found[name] = path
    return FieldMapping(**found)


def describe(array: pa.Array) -> Seen:
    """Return what one column holds."""
    missing = int(array.null_count)
    try:
        if pa.types.is_boolean(array.type) or not _numeric(array):
            texts = to_categorical(array)
            values = tuple(sorted(texts.categories)[:MAX_COHORT_VALUES])
            return Seen(len(array), missing, len(texts.categories), values=values)
        values_ = to_floats(array)
    except (WrongTypeError, pa.ArrowException):
        return Seen(len(array), missing, 0)
    finite = values_[np.isfinite(values_)]
    missing = len(array) - len(finite)
    if not len(finite):
        return Seen(len(array), missing, 0)
    return Seen(len(array), missing, len(np.unique(finite)), float(finite.min()), float(finite.max()))


def _numeric(array: pa.Array) -> bool:
    kind = array.type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _offset(array: pa.Array | None) -> str:
    """Return the one offset from UTC that all texts of a time column carry, empty when there is none."""
    if array is None or not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        return ""
    ends = pc.extract_regex(array, pattern=r"(?P<offset>[+-]\d\d:?\d\d)$")
    found = {class_text(value["offset"]) for value in ends.to_pylist() if value is not None}
    return (found.pop() or "") if len(found) == 1 else ""
