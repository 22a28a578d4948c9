"""What is known about the labels of reference rows, as sources that live telemetry does not have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.columns import BoolArray, Categorical, Column, FloatArray, Numeric
from regate.detectors.marks import Outcomes

# Nearly all labels of the reference have come after the usual delay.
USUAL = 0.99
AGE = "age"  # minutes from a prediction to its label
# Whether a label is there, came within the usual delay, and was contradicted.
LABELLED, TIMELY, CONTRADICTED = "flag/labelled", "flag/timely", "flag/contradicted"
MADE = "made/"  # the prediction and its cohorts as outcomes spell them


@dataclass(frozen=True)
class Delivery:
    """How the labels of the reference rows came.

    ``age`` is in minutes after the prediction (NaN: no label), ``contradicted`` whether a later label said something
    else, ``mature`` whether the usual delay had passed when the labels were read.
    """

    age: FloatArray | None = None
    contradicted: BoolArray | None = None
    mature: BoolArray | None = None


def usual_delay(delivery: Delivery, configured_seconds: float | None) -> int | None:
    """Return the minutes within which labels usually come; None where neither labels nor configuration say."""
    if configured_seconds is not None:
        return int(np.ceil(configured_seconds / 60))
    if delivery.age is None or not np.isfinite(delivery.age).any():
        return None
    return int(np.quantile(delivery.age[np.isfinite(delivery.age)], USUAL, method="higher"))


def facts(outcomes: Outcomes, delivery: Delivery, delay: int | None) -> dict[str, Column]:
    """Return what is known of the reference rows about their labels, by source.

    ``age`` counts only where it is within the usual delay: later labels are late whenever one looks.
    """
    known = outcomes.known
    found: dict[str, Column] = {LABELLED: _flag(known)}
    found[CONTRADICTED] = _flag(np.zeros_like(known) if delivery.contradicted is None else delivery.contradicted)
    if delay is None:
        return found
    made = np.ones_like(known) if outcomes.predicted is None else outcomes.predicted != 0
    made = made if delivery.mature is None else made & delivery.mature
    timely = known if delivery.age is None else known & (delivery.age <= delay)
    found[TIMELY] = Categorical(np.where(made, timely, -1).astype(np.int32), ("false", "true"))
    for of in ("class", *(f"cohort/{name}" for name, _ in outcomes.shape.cohorts)):
        column = outcomes.column(of)
        if column is not None:
            found[MADE + of] = column
    if delivery.age is not None:
        found[AGE] = Numeric(np.where(timely, delivery.age, np.nan))
    return found


def _flag(values: BoolArray) -> Categorical:
    return Categorical(values.astype(np.int32), ("false", "true"))
