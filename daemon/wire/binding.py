"""Which column of a table serves which field of the contract, by the model's mapping or by the default names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from regate.config.model import FieldMapping, ModelConfig

# Column names of the contract that are never features.
RESERVED = frozenset(
    {
        "event_id",
        "event_time",
        "tenant",
        "model",
        "model_version",
        "deployment",
        "client",
        "prediction",
        "score",
        "scores",
        "label",
        "latency_ms",
        "error",
        "schema_version",
    }
)
SCORE, COHORT, SCORES, COHORTS, INPUTS = "score_", "cohort_", "scores.", "cohorts.", "inputs."
# Columns of this name hold what a person wrote to a model: text, never a category.
PROMPT = "prompt"


@dataclass(frozen=True, slots=True)
class Binding:
    """Column names by field; an empty name means that the table has no such column."""

    fields: dict[str, str] = field(default_factory=dict)  # event_id, event_time, client, prediction, label ...
    features: dict[str, str] = field(default_factory=dict)
    scores: dict[str, str] = field(default_factory=dict)  # class -> column; "" for a single score
    cohorts: dict[str, str] = field(default_factory=dict)

    def absent(self, wanted: Iterable[str]) -> list[str]:
        """Return the features among ``wanted`` that no column serves."""
        return [name for name in wanted if name not in self.features]


def bind(names: Iterable[str], config: ModelConfig) -> Binding:
    """Return the columns that serve each field: the mapped path first, then the default name, flat or nested."""
    have = dict.fromkeys(names)
    mapping = config.mapping
    defaults = FieldMapping()
    fields = {}
    for name in ("event_id", "event_time", "tenant", "model", "model_version", "deployment", "client"):
        fields[name] = _first(have, getattr(mapping, name), getattr(defaults, name))
    for name in ("prediction", "latency_ms", "error", "label"):
        fields[name] = _first(have, getattr(mapping, name), getattr(defaults, name))
    inner = f"{mapping.inputs}." if mapping.inputs else ""
    features = {name: _first(have, inner + name, INPUTS + name, name) for name in config.features}
    return Binding(
        fields=fields,
        features={name: column for name, column in features.items() if column},
        scores=_scores(have, mapping),
        cohorts=_cohorts(have, config),
    )


def _first(have: Mapping[str, None], *candidates: str) -> str:
    return next((name for name in candidates if name in have), "")


def _scores(have: Mapping[str, None], mapping: FieldMapping) -> dict[str, str]:
    single = _first(have, mapping.scores, "score")
    if single:
        return {"": single}
    found = {}
    for prefix in (f"{mapping.scores}.", SCORES, SCORE):
        found = {name.removeprefix(prefix): name for name in have if name.startswith(prefix)}
        if found:
            return found
    return found


def _cohorts(have: Mapping[str, None], config: ModelConfig) -> dict[str, str]:
    nested = f"{config.mapping.cohorts}."
    found = {name: _first(have, nested + name, COHORTS + name, COHORT + name, name) for name in config.cohorts}
    return {name: column for name, column in found.items() if column}
