"""A model configuration from a sample of its events: types by what is there, never a range by guess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from regate.config.model import Feature, ModelConfig, Output
from regate.daemon.wire.binding import COHORT, COHORTS, INPUTS, PROMPT, RESERVED, SCORE, SCORES
from regate.daemon.wire.columnar import class_text

# Labels with more different values than this, or with fractions, are amounts and not classes.
MAX_CLASSES = 20
# Prose is long, and nearly every value differs; a category is short or repeats.
PROSE_CHARS, PROSE_SHARE = 40, 0.5
# What pandas calls a row number that it writes to a file.
INDEX = ("__index_level_", "Unnamed: 0")
# Types are read from this many rows at most: the first ones decide for the whole file.
SAMPLE_ROWS = 50_000


def infer_config(columns: Mapping[str, pa.Array], model: str, tenant: str = "default") -> ModelConfig:
    """Return the configuration that the column names and types speak for.

    :param columns: flattened columns (`regate.daemon.wire.columnar.flatten`).
    """
    nested = any(name.startswith(INPUTS) for name in columns)
    features = {}
    for name, array in columns.items():
        feature = feature_name(name, nested=nested)
        kind = _feature_type(feature, array) if feature else None
        if kind is not None:
            features[feature] = kind
    return ModelConfig(
        tenant=tenant,
        model=model,
        features=features,
        cohorts=tuple(dict.fromkeys(cohort_name(name) for name in columns if cohort_name(name))),
        output=_output(columns),
    )


def infer_events(
    values: Sequence[bytes], tenant: str, model: str, *, envelope: bool, labels: bool
) -> ModelConfig | None:
    """Return what the events of a model without configuration look like; None when its name is no name.

    Events must have the default layout. A feature that fewer than a tenth of the events carry is left out, so that
    events which each bring a key of their own cannot widen the columns beyond ten times what they hold.
    """
    kinds: dict[str, Counter[type]] = {}
    outcomes: Counter[type] = Counter()
    for value in values:
        try:
            event = msgspec.json.decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue  # the layout refuses it again, and says why
        event = event.get("data") if envelope and isinstance(event, dict) else event
        if not isinstance(event, dict):
            continue
        outcomes[type(event.get("label" if labels else "prediction"))] += 1
        inputs = event.get("inputs")
        for name, item in inputs.items() if isinstance(inputs, dict) else ():
            kinds.setdefault(name, Counter())[type(item)] += 1
    features = {
        name: feature
        for name, seen in kinds.items()
        if sum(seen.values()) * 10 >= len(values) and (feature := _feature_of(seen)) is not None
    }
    try:
        output = Output(type="regression") if outcomes[float] and not outcomes[str] + outcomes[bool] else Output()
        return ModelConfig(tenant=tenant, model=model, features=features, output=output)
    except ValidationError:
        return None


def _feature_of(seen: Counter[type]) -> Feature | None:
    given = set(seen) - {type(None)}
    if list in given or dict in given:
        return Feature(type="vector", watch=False) if given == {list} else None
    if given == {bool}:
        return Feature(type="boolean")
    return Feature(type="numeric" if given <= {int, float} else "categorical")


def cohort_name(column: str) -> str:
    """Return the cohort attribute that a column holds, or an empty text."""
    return next((column.removeprefix(prefix) for prefix in (COHORT, COHORTS) if column.startswith(prefix)), "")


def feature_name(column: str, *, nested: bool) -> str:
    """Return the feature that a column holds, or an empty text when it is another field."""
    if nested:
        return column.removeprefix(INPUTS) if column.startswith(INPUTS) else ""
    taken = not column or column in RESERVED or column.startswith((SCORE, COHORT, SCORES, COHORTS, *INDEX))
    return "" if taken else column


def _feature_type(name: str, array: pa.Array) -> Feature | None:
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    if pa.types.is_boolean(kind):
        return Feature(type="boolean")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return Feature(type="numeric")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        text = name == PROMPT or _is_prose(array)
        return Feature(type="text", privacy="hash", watch=False) if text else Feature(type="categorical")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return Feature(type="vector", watch=False)
    if pa.types.is_null(kind):
        return Feature(type="numeric")
    return None  # times and binary values are no features


def _is_prose(array: pa.Array) -> bool:
    sample = array.slice(0, SAMPLE_ROWS)
    if pa.types.is_dictionary(sample.type):
        sample = sample.dictionary_decode()
    sample = sample.drop_null()
    if not len(sample):
        return False
    mean = pc.mean(pc.utf8_length(sample)).as_py()
    return bool(mean > PROSE_CHARS and pc.count_distinct(sample).as_py() > PROSE_SHARE * len(sample))


def _output(columns: Mapping[str, pa.Array]) -> Output:
    scored = [name.removeprefix(p) for p in (SCORE, SCORES) for name in columns if name.startswith(p)]
    outcome = next((columns[name] for name in ("prediction", "label") if name in columns), None)
    if outcome is None:
        return _classes(scored) if scored else Output()
    values = pc.unique(outcome.slice(0, SAMPLE_ROWS)).drop_null()
    if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
        whole = all(float(value).is_integer() for value in values.to_pylist())
        if not whole or len(values) > MAX_CLASSES:
            return Output(type="regression")
    if len(values) > MAX_CLASSES and not scored:
        return Output(type="multiclass")
    return _classes([*scored, *(class_text(value) or "" for value in values.to_pylist())])


def _classes(names: list[str]) -> Output:
    classes = tuple(sorted({name for name in names if name}))
    if not classes:
        return Output()
    positive = next((name for name in ("1", "true") if name in classes), classes[-1])
    return Output(type="binary" if len(classes) <= 2 else "multiclass", classes=classes, positive=positive)
