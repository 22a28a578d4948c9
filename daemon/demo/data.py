"""The demo's data: loan applications from River's Agrawal generator, in three parts.

Applicants are steady, then the *population* changes (poorer applicants ask for larger loans: a
change of inputs, the rule that decides who repays stays), then the *concept* changes (for one
application in three another rule decides).
Nothing here knows about detectors, and the daemon is not told where the parts begin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

STEADY_RULE = 6  # .67 (salary + commission) - .2 loan - 20,000 > 0; age and region play no part
CHANGED_RULE = 4  # age, salary and loan decide
CHANGED_SHARE = 3  # one application in three follows the new rule once the concept changes
PERTURBATION = 0.02  # noise on the numeric inputs after labelling, so that no model is perfect
START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
SPACING_US = 20_000_000  # an application every 20 seconds
NUMERIC = ("salary", "commission", "age", "hvalue", "hyears", "loan")
DISCRETE = ("elevel", "car", "zipcode")


@dataclass(frozen=True, slots=True)
class Parts:
    """Row counts of the file: what the model and the profile learn from, then the three parts."""

    learned: int
    steady: int
    population: int
    concept: int

    @property
    def truth(self) -> dict[str, int]:
        """Return the first row of each change (absent parts are left out)."""
        found = {}
        if self.population:
            found["population changes"] = self.learned + self.steady
        if self.concept:
            found["concept changes"] = self.learned + self.steady + self.population
        return found


def _rows(rule: int, seed: int) -> Iterator[tuple[dict[str, float], int]]:
    from river.datasets.synth import Agrawal

    yield from Agrawal(classification_function=rule, seed=seed, perturbation=PERTURBATION)


def _accepts(row: dict[str, float], draw: float) -> bool:
    """Keep poor applicants with large loans more often than others."""
    strain = (row["loan"] - 250_000) / 145_000 - (row["salary"] - 85_000) / 37_500
    return bool(draw < 1 / (1 + np.exp(-strain)))


def _take(rule: int, seed: int, count: int, *, changed: bool) -> tuple[list[dict[str, float]], list[int]]:
    draws = np.random.default_rng([seed, rule])
    rows: list[dict[str, float]] = []
    labels: list[int] = []
    for row, group in _rows(rule, seed):
        if len(rows) >= count:
            break
        if not changed or _accepts(row, draws.random()):
            rows.append(row)
            labels.append(1 - int(group))  # Agrawal's group A (0) is granted
    return rows, labels


def applications(parts: Parts, seed: int) -> pa.Table:
    """Return the applications as a table with the column names of telemetry files."""
    rows, labels = _take(STEADY_RULE, seed, parts.learned + parts.steady, changed=False)
    for count, changed in ((parts.population, 0), (parts.concept, parts.concept // CHANGED_SHARE)):
        kept, outcomes = _take(STEADY_RULE, seed + 1 + changed, count - changed, changed=True)
        other, others = _take(CHANGED_RULE, seed + 2, changed, changed=True)
        order = np.random.default_rng([seed, count, changed]).permutation(count)
        rows += [(kept + other)[i] for i in order]
        labels += [(outcomes + others)[i] for i in order]
    columns: dict[str, pa.Array] = {
        "event_time": pa.array(START_US + SPACING_US * np.arange(len(rows)), pa.timestamp("us", tz="UTC"))
    }
    for name in NUMERIC:
        columns[name] = pa.array(np.array([row[name] for row in rows], dtype=np.float64).round(2))
    for name in DISCRETE:
        columns[name] = pa.array([f"{name}_{int(row[name])}" for row in rows]).dictionary_encode()
    ages: npt.NDArray[np.float64] = np.array([row["age"] for row in rows])
    bands = np.where(ages < 40, "under_40", np.where(ages < 60, "40_to_59", "60_and_over"))
    columns["cohort_age_band"] = pa.array(bands).dictionary_encode()
    regions = ["north" if row["zipcode"] < 3 else "middle" if row["zipcode"] < 6 else "south" for row in rows]
    columns["cohort_region"] = pa.array(regions).dictionary_encode()
    columns["label"] = pa.array(labels, pa.int64())
    return pa.table(columns)


def write_applications(path: Path, parts: Parts, seed: int) -> None:
    """Write the applications as Parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(applications(parts, seed), path)
