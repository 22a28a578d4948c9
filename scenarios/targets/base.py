"""What every target offers: describe, predict, health, reset, and a digest of its state.

This module is imported by the sandbox child, so it depends on numpy alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

# Columns by feature name: float64 (NaN is missing) or object (str, bool, int, float, None is missing).
Features = Mapping[str, npt.NDArray[Any]]
ObjectArray = npt.NDArray[np.object_]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Responses:
    """Answers for ``n`` rows.

    ``labels``: class names [n], None where refused and for regression; ``scores``: float64 [n, k], one
    column a class (k = 1 for regression: the value; k = 0: the model has no scores), NaN where refused;
    ``refused``: the reason [n], None where the model answered.
    """

    labels: ObjectArray
    scores: FloatArray
    refused: ObjectArray

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Return which rows were answered [n]."""
        return np.array([reason is None for reason in self.refused], dtype=np.bool_)


def rows_of(features: Features) -> int:
    """Return the number of rows of a batch."""
    return len(next(iter(features.values()))) if features else 0


def take(features: Features, index: npt.NDArray[np.int64] | slice) -> dict[str, npt.NDArray[Any]]:
    """Return the rows at ``index``, in that order."""
    return {name: column[index] for name, column in features.items()}


def refuse_all(n: int, reason: str, width: int) -> Responses:
    """Return ``n`` refusals with one reason."""
    reasons = np.full(n, reason, dtype=object)
    return Responses(np.full(n, None, dtype=object), np.full((n, width), np.nan), reasons)


def join(parts: list[Responses]) -> Responses:
    """Return the answers of several batches as one; all must have the same score width."""
    return Responses(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.refused for part in parts]),
    )


def class_text(value: Any) -> str:
    """Return a class as telemetry writes it: 1 and 1.0 are "1", True is "true"."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return value.decode() if isinstance(value, bytes) else str(value)


def score_order(classes: Iterable[str]) -> list[str]:
    """Return classes in the order of scikit-learn's score columns: sorted, as numbers where all are."""
    names = list(classes)
    numeric = all(re.fullmatch(r"-?\d+(\.\d+)?", name) for name in names)
    return sorted(names, key=float) if numeric else sorted(names)


class Target(Protocol):
    """A model under validation."""

    def describe(self) -> dict[str, Any]:
        """Return kind, artefact digest, classes, library versions; the same for the same artefact."""

    def predict(self, features: Features, *, each: bool = False) -> Responses:
        """Answer a batch. ``each`` runs the rows one by one, so that one bad row refuses only itself."""

    def health(self) -> dict[str, Any]:
        """Return what the target says of itself now: resident memory and the number of answers so far."""

    def reset(self) -> None:
        """Return to the state after loading."""

    def state_digest(self) -> str:
        """Return the digest of everything that may change an answer."""
