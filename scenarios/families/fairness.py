"""Fairness: demographic parity over declared cohorts and their intersection, as difference and as ratio.

For each pair of groups the rate of the positive outcome is compared: difference with Newcombe's interval (1998,
method 10), ratio with MOVER-R (Newcombe 2016), Bonferroni over the pairs, so that the statement about the worst
pair holds at the stated confidence. The .8 of the default ratio is the four-fifths rule (29 CFR 1607.4 D).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from regate.config.model import ModelConfig, Strict
from regate.scenarios.intervals import Interval, absolute, difference, exact, ratio, wilson, z_of
from regate.scenarios.population import smoothed, synthetic
from regate.scenarios.record import Bound, Record
from regate.scenarios.subject import Answers, Family, Judgement, Measured, Plan, Step, Subject, judged, predictions
from regate.scenarios.targets.base import Responses

Check = Literal["difference", "ratio", "difference_intersection", "ratio_intersection"]
NAMES: tuple[Check, ...] = ("difference", "ratio", "difference_intersection", "ratio_intersection")
OTHER = "(other)"  # groups too rare to be judged alone are judged together


class Parameters(Strict):
    """Which cohorts and how many rows."""

    attributes: tuple[str, ...] = ()  # empty: the configuration's cohorts
    intersection: bool = True
    rows_per_group: int = Field(default=1000, ge=1000)
    rare_ratio: float = Field(default=0.02, ge=0, lt=0.5)  # a smaller share of the rows counts as rare
    bins: int = Field(default=2, ge=2, le=10)  # slices of a numeric cohort, at its quantiles


class FairnessRecord(Record):
    """A scenario of this family. ``min_n`` of a bound counts real rows of the smaller group, not generated ones."""

    family: Literal["fairness"]
    parameters: Parameters
    expected: dict[Check, Bound]

    @model_validator(mode="after")
    def _complete(self) -> FairnessRecord:
        if set(self.expected) != set(NAMES):
            raise ValueError(f"expected must bound exactly {sorted(NAMES)}")
        return self


def plan(record: FairnessRecord, subject: Subject) -> Plan:
    """Return one batch a group, at least ``rows_per_group`` rows each.

    Where rows are given, a group is drawn from its own rows, smoothed where it has too few; the intervals then
    count its real rows. Without rows the population is generated from the schema, and cohorts must be features.
    """
    names = record.parameters.attributes or subject.config.cohorts
    if not names:
        return Plan(blocked=("skipped", "no cohorts are declared; name them under `cohorts` of the model"))
    columns, missing = cohort_columns(record, subject, names)
    if missing:
        return Plan(blocked=("inconclusive", f"no data for cohorts {missing}"))
    levels: dict[str, npt.NDArray[np.object_]] = dict(columns)
    if record.parameters.intersection:
        for first, second in combinations(columns, 2):
            levels[f"{first}*{second}"] = _crossed(columns[first], columns[second])
    steps: list[Step] = []
    notes: dict[str, Any] = {"levels": {}, "config": subject.config, "rare": {}}
    pool = _pool(record, subject)
    for level, raw in levels.items():
        values, rare = _fold_rare(raw, record.parameters.rare_ratio)
        notes["levels"][level], notes["rare"][level] = {}, rare
        for group in sorted({value for value in values if value is not None}):
            index = np.flatnonzero(values == group)
            n = max(record.parameters.rows_per_group, min(len(index), 4 * record.parameters.rows_per_group))
            random = subject.random(record, level, group)
            batch = smoothed(pool, index, random, n, tuple(level.split("*")))
            steps.append(Step(f"{level}={group}", batch))
            notes["levels"][level][group] = min(n, len(index))
    return Plan(tuple(steps), notes)


def _pool(record: FairnessRecord, subject: Subject) -> Subject:
    """Return the subject with rows: its own, or a generated population of the schema."""
    if subject.rows is not None and subject.rows.n:
        return subject
    from regate.scenarios.rows import Rows  # noqa: PLC0415  (pyarrow is loaded only where a run needs it)

    n = 8 * record.parameters.rows_per_group
    rows = Rows(synthetic(subject, subject.random(record, "population"), n), source="reference")
    return replace(subject, rows=rows)


def cohort_columns(
    record: FairnessRecord, subject: Subject, names: tuple[str, ...]
) -> tuple[dict[str, npt.NDArray[np.object_]], list[str]]:
    """Return the group of every row by attribute, and the attributes that nobody has."""
    rows = _pool(record, subject).rows
    assert rows is not None
    found: dict[str, npt.NDArray[Any]] = {}
    missing = []
    for name in names:
        column: npt.NDArray[Any] | None = rows.cohorts.get(name, rows.features.get(name))
        if column is None:
            missing.append(name)
        elif column.dtype == np.float64:
            found[name] = _sliced(column, record.parameters.bins)
        else:
            found[name] = column
    return found, missing


def _sliced(column: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.object_]:
    edges = np.unique(np.nanquantile(column, np.linspace(0, 1, bins + 1)[1:-1]))
    codes = np.searchsorted(edges, column, side="left")
    names = [f"<= {edges[i]:.6g}" if i < len(edges) else f"> {edges[-1]:.6g}" for i in range(len(edges) + 1)]
    out = np.array([names[code] for code in codes], dtype=object)
    out[np.isnan(column)] = None
    return out


def _crossed(first: npt.NDArray[np.object_], second: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    pairs = zip(first, second, strict=True)
    return np.array([None if a is None or b is None else f"{a}*{b}" for a, b in pairs], dtype=object)


def _fold_rare(values: npt.NDArray[np.object_], share: float) -> tuple[npt.NDArray[np.object_], list[str]]:
    known = [value for value in values if value is not None]
    names, counts = np.unique(np.array(known, dtype=str), return_counts=True)
    rare = [str(name) for name, count in zip(names, counts, strict=True) if count < share * len(known)]
    if not rare:
        return values, []
    folded = values.copy()
    folded[np.isin(values.astype(str), rare)] = OTHER
    return folded, rare


def judge(record: FairnessRecord, plan_: Plan, answers: Answers, _measured: Measured) -> Sequence[Judgement]:
    """Return difference and ratio for every attribute and intersection."""
    config: ModelConfig = plan_.notes["config"]
    cut = median_value(answers, config)
    found: list[Judgement] = []
    least = min(bound.min_n for bound in record.expected.values())
    for level, planned in plan_.notes["levels"].items():
        # Rare groups that are few even together are named in the message, and not judged.
        groups = {name: n for name, n in planned.items() if name != OTHER or n >= least}
        pairs = list(combinations(groups, 2))
        keys = NAMES[2:] if "*" in level else NAMES[:2]
        if not pairs:
            found += [_alone(record, level, key) for key in keys]
            continue
        selected = {group: selection(answers[f"{level}={group}"], config, cut) for group in groups}
        found += [_worst(record, level, key, pairs, selected, groups, plan_.notes["rare"][level]) for key in keys]
    return found


def median_value(answers: Answers, config: ModelConfig) -> float:
    """Return the value above which a regression answer counts as positive."""
    if config.output.type != "regression":
        return 0.0
    return float(np.nanmedian(np.concatenate([predictions(part, config) for part in answers.values()])))


def selection(responses: Responses, config: ModelConfig, cut: float) -> float:
    """Return the rate of the positive outcome; a refusal is not a positive outcome."""
    values = predictions(responses, config)
    chosen = values > cut if config.output.type == "regression" else values == config.output.positive
    return float(np.mean(chosen))


def _worst(
    record: FairnessRecord,
    level: str,
    key: Check,
    pairs: list[tuple[str, str]],
    selected: dict[str, float],
    groups: dict[str, int],
    rare: list[str],
) -> Judgement:
    """Return the judgement on the pair that decides: one that is surely past the bound, else the least sure one."""
    bound = record.expected[key]
    z = z_of(bound.confidence, len(pairs))
    rates = {group: wilson(selected[group] * n, n, z) for group, n in groups.items()}
    entries: list[tuple[float, Interval, tuple[str, str]]] = []
    for pair in pairs:
        low, high = sorted(pair, key=lambda group: rates[group].value)
        interval = (
            absolute(difference(rates[high], rates[low]))
            if key.startswith("difference")
            else ratio(rates[low], rates[high])
        )
        if key.startswith("ratio") and rates[high].value == 0:
            interval = exact(1.0)  # nobody is selected anywhere: no disparity, and the other checks will say more
        entries.append((_sureness(bound, interval), interval, (low, high)))
    _, interval, (low, high) = max(entries, key=lambda entry: entry[0])
    n = min(groups.values())
    message = f"{level}: {low} {selected[low]:.3f} against {high} {selected[high]:.3f}"
    message += f"; rare, judged together: {', '.join(rare[:10])}" if rare else ""
    return judged(f"{key}:{level}", bound, interval, n, message, key=key)


def _sureness(bound: Bound, interval: Interval) -> float:
    """Rank pairs: those past the bound by their sure side first, else by how far the unsure side reaches."""
    if bound.comparator == "<=":
        return 10 + interval.low if interval.low > bound.bound else interval.high - bound.bound
    return 10 - interval.high if interval.high < bound.bound else bound.bound - interval.low


def _alone(record: FairnessRecord, level: str, key: Check) -> Judgement:
    nothing = Interval(float("nan"), float("nan"), float("nan"))
    return judged(f"{key}:{level}", record.expected[key], nothing, 0, f"{level}: fewer than two groups", key=key)


FAMILY = Family("fairness", FairnessRecord, plan, judge)
