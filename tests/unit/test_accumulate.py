from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from regate.detectors.accumulate import accumulate, accumulate_outcomes, stratum_of
from regate.detectors.columns import Categorical, Column, ModelKey, Numeric, Slice
from regate.detectors.layout import Layout
from regate.detectors.marks import Outcomes
from regate.detectors.ranktable import build_table
from regate.detectors.sections import CategoricalSpec, NumericSpec
from regate.detectors.views import event_view, outcome_view

KEY = ModelKey("t", "m", "1", "d")
REFERENCE = np.arange(1000.0)
LAYOUT = Layout(
    (
        NumericSpec("x", 1, (build_table(REFERENCE),)),
        CategoricalSpec("c", 6, kept=("red", "blue"), rare=("teal",)),
    ),
    "none",
    "UTC",
)


def rows(**features: Column) -> Slice:
    n = next(len(c.values) if isinstance(c, Numeric) else len(c.codes) for c in features.values())
    zeros = np.zeros(n, dtype=np.int64)
    return Slice(KEY, n, zeros.astype(np.uint64), zeros, zeros, features=dict(features))


def sums(part: Slice, group: list[int], groups: int) -> list[list[int]]:
    zeros = np.zeros(part.n, dtype=np.int16)
    return accumulate(LAYOUT, event_view(part, zeros), np.array(group), groups).tolist()


def test_columns_count_what_they_say() -> None:
    x = Numeric(np.array([np.nan, -5.0, 500.0, 2000.0]))
    c = Categorical(np.array([0, 1, 2, -1], dtype=np.int32), ("blue", "teal", "never seen"))
    z, z2 = LAYOUT.sections[0].tables[0].score(np.array([500.0]))  # type: ignore[union-attr]
    both = sums(rows(x=x, c=c), [0, 0, 1, 1], 2)
    #   events | present missing ... outside | present missing other unseen red blue | outcomes errors
    assert both[0][0] == 2
    assert (both[0][1], both[0][2], both[0][5]) == (1, 1, 1)
    assert both[0][6:12] == [2, 0, 1, 0, 0, 1]
    assert both[1][6:12] == [1, 1, 1, 1, 0, 0]
    assert both[1][12:] == [0, 0]
    top = LAYOUT.sections[0].tables[0].z[-1]  # type: ignore[union-attr]
    assert both[1][3] == round(float(z[0]) * 65536) + int(top)
    assert both[1][4] > round(float(z2[0]) * 65536)


def test_a_column_that_is_not_there_or_of_another_type_is_missing() -> None:
    c = Categorical(np.array([0, 0], dtype=np.int32), ("red",))
    assert sums(rows(c=c), [0, 0], 1)[0][1:3] == [0, 2]
    assert sums(rows(x=c, c=Numeric(np.zeros(2))), [0, 0], 1)[0][1:3] == [0, 2]
    assert sums(rows(x=Numeric(np.zeros(2)), c=Numeric(np.zeros(2))), [0, 0], 1)[0][6:8] == [0, 2]


def test_outcomes_stand_in_the_last_two_columns() -> None:
    out = accumulate_outcomes(LAYOUT, outcome_view(Outcomes(np.array([1, 0, 1]))), np.array([0, 1, 1]), 3)
    assert out[:, -2:].tolist() == [[1, 1], [2, 1], [0, 0]]
    assert out[:, :-2].sum() == 0


def test_each_stratum_has_its_own_table() -> None:
    layout = Layout((NumericSpec("x", 1, (build_table(REFERENCE), build_table(REFERENCE + 1e6))),), "none", "UTC")
    part = rows(x=Numeric(np.array([500.0, 500.0 + 1e6])))
    out = accumulate(layout, event_view(part, np.array([0, 1], dtype=np.int16)), np.array([0, 1]), 2)
    assert out[0].tolist() == out[1].tolist()


def test_strata_follow_local_time_through_the_change_of_clocks() -> None:
    def at(*moment: int) -> int:
        return int(datetime(*moment, tzinfo=UTC).timestamp() * 1e6)  # type: ignore[arg-type, misc]

    # Berlin went from +1 to +2 on 2026-03-29 at 01:00 UTC.
    times = np.array([at(2026, 3, 29, 0, 30), at(2026, 3, 29, 1, 30), at(2026, 3, 30, 1, 30)])
    assert stratum_of(times, "hour", "Europe/Berlin").tolist() == [1, 3, 3]
    assert stratum_of(times, "weekday", "Europe/Berlin").tolist() == [6, 6, 0]
    assert stratum_of(times, "hour_of_week", "UTC").tolist() == [144, 145, 1]
    assert stratum_of(times, "none", "UTC").tolist() == [0, 0, 0]
