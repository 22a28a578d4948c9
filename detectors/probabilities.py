"""What a model's scores say besides the class: how sure it is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from regate.detectors.columns import MISSING_CODE, Categorical, Column, FloatArray, IntArray, Numeric

# A probability of 0 has entropy 0, not NaN.
_TINY = 1e-12


def class_matrix(scores: Mapping[str, FloatArray]) -> tuple[tuple[str, ...], FloatArray] | None:
    """Return class names and probabilities ``float64[classes, n]``; a single score speaks of "1" against "0".

    NaN in any class makes a row NaN. None when there are no scores, or they are no probabilities of classes.
    """
    if not scores:
        return None
    if len(scores) == 1:
        ((name, values),) = scores.items()
        return ("0" if name != "0" else "1", name or "1"), np.stack([1.0 - values, values])
    names = tuple(sorted(name for name in scores if name))
    return (names, np.stack([scores[name] for name in names])) if len(names) > 1 else None


SURENESS = ("confidence", "margin", "entropy")


def sureness(kind: str, p: FloatArray) -> FloatArray:
    """Return the ``confidence`` (largest probability), ``margin`` (to the second) or ``entropy`` (bits) of each row.

    :param p: probabilities ``float64[classes, n]``, at least two classes, from 0 to 1; NaN makes its row NaN.

    >>> {kind: float(sureness(kind, np.array([[0.75], [0.25]]))[0].round(3)) for kind in SURENESS}
    {'confidence': 0.75, 'margin': 0.5, 'entropy': 0.811}
    """
    if kind == "entropy":
        return np.asarray(-(p * np.log2(np.maximum(p, _TINY))).sum(axis=0))
    first: FloatArray = np.maximum(p[0], p[1])
    if kind == "confidence":
        return np.asarray(p.max(axis=0))
    # Two largest by hand: to sort the classes of each row costs five times as much.
    second: FloatArray = np.minimum(p[0], p[1])
    for other in p[2:]:
        second = np.maximum(second, np.minimum(first, other))
        first = np.maximum(first, other)
    return np.asarray(first - second)


def chosen(prediction: Column | None, scores: Mapping[str, FloatArray]) -> Categorical | None:
    """Return the predicted class as categories: the prediction itself, else the class that the scores speak for."""
    if isinstance(prediction, Categorical):
        return prediction
    if prediction is not None:
        return _spelled(prediction)
    found = class_matrix(scores)
    if found is None:
        return None
    names, p = found
    known = ~np.isnan(p).any(axis=0)
    # Of two equal scores the later class: a score of exactly .5 speaks for the positive one, as everywhere.
    best: IntArray = p.shape[0] - 1 - np.argmax(np.nan_to_num(p, nan=-1.0)[::-1], axis=0)
    return Categorical(np.where(known, best, MISSING_CODE).astype(np.int32), names)


def _spelled(column: Numeric) -> Categorical:
    distinct, inverse = np.unique(column.values, return_inverse=True)
    known = distinct[~np.isnan(distinct)]
    names = tuple(f"{value:.17g}" for value in known)
    codes = np.where(inverse < known.size, inverse, MISSING_CODE)
    return Categorical(codes.astype(np.int32), names)
