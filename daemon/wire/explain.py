"""The slow path: why one record that the fast path refused is refused, in a stable code and a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from regate.config.model import ModelConfig
from regate.daemon.wire.label import Label
from regate.daemon.wire.mapping import IDENTITY, read_path
from regate.daemon.wire.reasons import Reason
from regate.daemon.wire.telemetry import LABEL_TYPE, TELEMETRY_TYPE, Telemetry

Why = tuple[Reason, str, str]  # reason, message, field
_FIELDS = ("event_id", "event_time", *IDENTITY, "client", "prediction", "scores")


class _Refused(Exception):  # noqa: N818  (carries an answer out of the parser's callbacks, it is no error)
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(Reason.DUPLICATE_KEY, f"the key {twice!r} stands twice in one object")
    return found


def _constant(name: str) -> Any:
    raise _Refused(Reason.NON_FINITE, f"{name} is not a JSON number")


def _real(text: str) -> float:
    value = float(text)
    if value in {float("inf"), float("-inf")}:
        raise _Refused(Reason.NON_FINITE, "a number is larger than a float holds")
    return value


def _whole(text: str) -> int:
    # 309 digits leave float64; Python itself refuses to read more than 4,300.
    if len(text) > 308:
        raise _Refused(Reason.NON_FINITE, "an integer is larger than a float holds")
    return int(text)


def parse_strictly(value: bytes) -> Any:
    """Return the plain data of a JSON text.

    :raises _Refused: for duplicate keys, non-finite numbers, half surrogates, and what is not JSON.
    """
    try:
        text = value.decode()
        data = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_real, parse_int=_whole)
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        raise _Refused(Reason.NOT_UTF8, f"invalid UTF-8 at byte {error.start}: {error.reason}") from error
    except UnicodeEncodeError as error:
        raise _Refused(Reason.NOT_UTF8, "half of a surrogate pair in a text") from error
    except RecursionError as error:
        raise _Refused(Reason.TOO_DEEP, "nested too deep to read") from error
    except ValueError as error:
        raise _Refused(Reason.NOT_JSON, f"not JSON: {error}") from error
    if not isinstance(data, dict):
        raise _Refused(Reason.NOT_JSON, "not a JSON object")
    return data


def explain(value: bytes, config: ModelConfig | None, *, labels: bool, fallback: str) -> Why:
    """Return reason, message and field of a refused JSON record; ``fallback`` is what the fast path said."""
    try:
        data = parse_strictly(value)
    except _Refused as refused:
        return refused.reason, str(refused), ""
    event, why = _event(data, config, labels=labels)
    if why is not None:
        return why
    contract: type[Telemetry | Label] = Label if labels else Telemetry
    plain = _unmapped(event, config, labels=labels) if config is not None else event
    try:
        contract.model_validate(plain)
    except ValidationError as error:
        return _first(error)
    if config is not None and config.output.type == "regression":
        for name in ("prediction", "label"):
            outcome = plain.get(name)
            if outcome is not None and not _CHECKS["numeric"][0](outcome):
                return Reason.WRONG_TYPE, f"{name}: expected a number, got {type(outcome).__name__}", name
    if config is not None and not labels and isinstance(plain.get("inputs"), dict):
        why = _features(plain["inputs"], config)
        if why is not None:
            return why
    return Reason.INVALID, fallback or "the record breaks the contract", ""


def _event(data: dict[str, Any], config: ModelConfig | None, *, labels: bool) -> tuple[dict[str, Any], Why | None]:
    if "specversion" not in data:
        return data, None
    why = schema_problem(
        data.get("specversion"), data.get("type"), data.get("dataschema"), labels=labels, config=config
    )
    if why:
        return data, (Reason.UNKNOWN_SCHEMA, why, "type")
    inner = data.get("data")
    if not isinstance(inner, dict):
        return data, (Reason.MISSING_FIELD if inner is None else Reason.WRONG_TYPE, "data is not a JSON object", "data")
    event = dict(inner)
    if not labels and config is not None and read_path(inner, config.mapping.event_id) is None:
        event.setdefault("event_id", data.get("id"))
    return event, None


def schema_problem(spec: Any, kind: Any, schema: Any, *, labels: bool, config: ModelConfig | None) -> str:
    """Return why a CloudEvent's schema is not one that this release reads; empty when it is."""
    wanted = LABEL_TYPE if labels else TELEMETRY_TYPE
    if spec != "1.0":
        return "specversion is not 1.0"
    if not isinstance(kind, str) or (kind != wanted and (kind.startswith("io.regate.") or _default_layout(config))):
        return f"type is not {wanted}; newer telemetry needs a newer regate"
    if schema is not None and kind == wanted and not str(schema).rstrip("/").endswith(("/v1", ".v1", ".v1.json")):
        return "dataschema is not version 1; newer telemetry needs a newer regate"
    return ""


def _default_layout(config: ModelConfig | None) -> bool:
    # A mapping speaks for the layout of somebody else's events, whatever type they carry.
    return config is None or config.mapping == type(config.mapping)()


def _unmapped(event: dict[str, Any], config: ModelConfig, *, labels: bool) -> dict[str, Any]:
    mapping = config.mapping
    names = (*_FIELDS, "label") if labels else (*_FIELDS, "latency_ms", "error")
    plain = {name: read_path(event, getattr(mapping, name)) for name in names}
    if plain["event_id"] is None:
        plain["event_id"] = event.get("event_id")
    if not labels:
        plain["inputs"] = read_path(event, mapping.inputs) if mapping.inputs else event
        plain["payload"] = event.get("payload")
        cohorts = read_path(event, mapping.cohorts) if mapping.cohorts else None
        plain["cohorts"] = cohorts
    if _default_layout(config):
        plain["schema_version"] = event.get("schema_version")
    return {name: value for name, value in plain.items() if value is not None}


def _first(error: ValidationError) -> Why:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    top = str(problem["loc"][0]) if problem["loc"] else ""
    kind, message = problem["type"], f"{where}: {problem['msg']}"
    if kind == "missing":
        return Reason.MISSING_FIELD, f"{where} is missing", top
    if top == "schema_version":
        return Reason.UNKNOWN_SCHEMA, "schema_version is not 1; newer telemetry needs a newer regate", top
    if kind == "finite_number" or "out of range" in problem["msg"]:
        return Reason.NON_FINITE, message, top
    if top == "event_time":
        return Reason.BAD_TIME, "event_time is no time", top
    return Reason.WRONG_TYPE, message, top


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "numeric": (lambda v: isinstance(v, int | float) and not isinstance(v, bool), "a number"),
    "categorical": (lambda v: isinstance(v, str | int | float | bool), "a text, a number or a boolean"),
    "boolean": (lambda v: isinstance(v, bool), "true or false"),
    "text": (lambda v: isinstance(v, str), "a text"),
    "vector": (
        lambda v: isinstance(v, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in v),
        "a list of numbers",
    ),
}


def _features(inputs: dict[str, Any], config: ModelConfig) -> Why | None:
    for name, feature in config.features.items():
        value = inputs.get(name)
        fits, wanted = _CHECKS[feature.type]
        if value is not None and not fits(value):
            return Reason.WRONG_TYPE, f"{name}: expected {wanted}, got {type(value).__name__}", name
    return None
