"""Sections and views: what each kind of statistics counts, and that a profile brings them back."""

from __future__ import annotations

import numpy as np

from regate.detectors.classes import class_hash
from regate.detectors.columns import Categorical, ModelKey, Numeric, Slice
from regate.detectors.marks import Outcomes, OutcomeShape, ages, joined, marks, marks_of
from regate.detectors.probabilities import chosen, sureness
from regate.detectors.ranktable import build_table
from regate.detectors.sections import (
    HITS,
    MISSING,
    PRESENT,
    SUM_Z,
    CategoricalSpec,
    FlagSpec,
    NumericSpec,
    Section,
    placed,
    scored,
)
from regate.detectors.views import Test, event_view, outcome_view

KEY = ModelKey("t", "m", "1", "d")
SHAPE = OutcomeShape("binary", "yes", ("no", "yes"), (("sex", ("f", "m")), ("race", ("a", "b", "c"))))


def rows(n: int = 6) -> Slice:
    zeros = np.zeros(n, dtype=np.int64)
    return Slice(
        KEY,
        n,
        zeros.astype(np.uint64),
        zeros,
        zeros,
        features={"x": Numeric(np.array([0.0, 1.0, np.nan, 3.0, 4.0, 5.0]))},
        prediction=Categorical(np.array([0, 1, 1, 0, -1, 1], dtype=np.int32), ("no", "yes")),
        scores={"yes": np.array([0.1, 0.9, 0.5, 0.25, np.nan, 1.0])},
        latency_ms=np.array([1.0, 2.0, 300.0, 4.0, 5.0, 600.0]),
        error=np.array([False, False, True, False, False, True]),
        cohorts={"sex": Categorical(np.array([0, 0, 1, 1, 0, -1], dtype=np.int32), ("m", "f"))},
    )


def counted(section: Section, part: Slice) -> list[int]:
    (placed_one,) = placed([section], 0)
    into = np.zeros((1, placed_one.width), dtype=np.int64)
    view = event_view(part, np.zeros(part.n, dtype=np.int16), {"late": np.array([True] + [False] * (part.n - 1))})
    placed_one.add(view, np.zeros(part.n, dtype=np.int64), 1, into)
    return [int(value) for value in into[0]]


def test_a_flag_counts_hits_among_its_trials() -> None:
    selected = FlagSpec("s", 0, (Test("class", "is", "yes"),), (Test("cohort/sex", "is", "m"), Test("class", "known")))
    assert counted(selected, rows()) == [2, 1]  # rows 0 and 1; row 4 has no prediction
    assert counted(FlagSpec("slow", 0, (Test("latency_ms", "above", "250"),)), rows()) == [6, 2]
    assert counted(FlagSpec("late", 0, (Test("flag/late", "is", "true"),)), rows()) == [6, 1]
    assert counted(FlagSpec("gone", 0, (Test("cohort/none", "is", "m"),)), rows()) == [6, 0]


def test_a_narrowed_section_leaves_other_rows_out_altogether() -> None:
    table = build_table(np.arange(100.0))
    section = NumericSpec("x|m", 0, (table,), "feature/x", (Test("cohort/sex", "is", "m"),))
    whole, part = counted(NumericSpec("x", 0, (table,)), rows()), counted(section, rows())
    assert (whole[PRESENT], whole[MISSING], part[PRESENT], part[MISSING]) == (5, 1, 3, 0)
    alone = np.array([0.0, 1.0, 4.0])
    assert part[SUM_Z] == int(table.scores[0][table.cells(alone)].sum())


def test_scores_say_how_sure_the_model_is() -> None:
    two = np.array([[0.5, 0.0], [0.5, 1.0]])
    assert sureness("entropy", two).tolist() == [1.0, 0.0]
    assert sureness("margin", two).tolist() == [0.0, 1.0]
    p = np.random.default_rng(2).dirichlet(np.ones(5), 300).T
    p[3, 7] = np.nan
    ordered = np.sort(p, axis=0)
    np.testing.assert_array_equal(sureness("confidence", p), ordered[-1])
    np.testing.assert_array_equal(sureness("margin", p), ordered[-1] - ordered[-2])
    assert np.isnan(sureness("entropy", p)).tolist() == [row == 7 for row in range(300)]
    picked = chosen(None, {"b": np.array([0.2, 0.5]), "a": np.array([0.8, 0.5])})
    assert picked is not None
    assert [picked.categories[code] for code in picked.codes] == ["a", "b"]
    numbers = chosen(Numeric(np.array([1.0, np.nan, 0.0])), {})
    assert numbers is not None
    assert [None if code < 0 else numbers.categories[code] for code in numbers.codes] == ["1", None, "0"]


def test_a_mark_brings_score_cohorts_and_age_to_the_outcome() -> None:
    part = rows()
    cell = np.full(part.n, 7200)
    mark = marks_of(part, SHAPE, cell)
    label = np.array([class_hash(name) for name in ("no", "no", "yes", "yes", "no", "yes")], dtype=np.uint64)
    found = Outcomes(np.array([0, 1, 0, 1, 0, 0]), None, label, mark, ages(mark, 7200 + 600), SHAPE)
    score, sex, race = found.column("score"), found.column("cohort/sex"), found.column("cohort/race")
    assert isinstance(score, Numeric)
    assert isinstance(sex, Categorical)
    assert isinstance(race, Categorical)
    np.testing.assert_allclose(score.values, part.scores["yes"], atol=1e-5)
    assert [None if code < 0 else sex.categories[code] for code in sex.codes] == ["m", "m", "f", "f", "m", None]
    assert race.codes.tolist() == [-1] * 6
    age, loss, residual = (found.column(name) for name in ("age", "loss", "residual"))
    assert isinstance(age, Numeric)
    assert age.values.tolist() == [10.0] * 6
    assert isinstance(loss, Numeric)
    assert loss.values[2] == 1.0 or abs(loss.values[2] - 1.0) < 1e-3  # half a chance is one bit
    assert isinstance(residual, Numeric)
    assert abs(residual.values[1] + 0.9) < 1e-4
    both = joined([found, found.some(np.array([True] * 2 + [False] * 4))])
    assert both.n == 8
    assert both.mark is not None
    assert both.mark[-2:].tolist() == mark[:2].tolist()


def test_outcome_sections_count_by_cohort() -> None:
    mark = marks(4, None, {"sex": Categorical(np.array([0, 1, 1, 1], dtype=np.int32), ("m", "f"))}, SHAPE)
    found = Outcomes(np.array([1, 1, 0, 1]), mark=mark, shape=SHAPE)
    section = FlagSpec("f", 0, (Test("wrong", "is", "true"),), (Test("cohort/sex", "is", "f"),))
    into = np.zeros((2, 2), dtype=np.int64)
    section.add(outcome_view(found), np.array([0, 0, 1, 1]), 2, into)
    assert into[:, PRESENT].tolist() == [1, 2]
    assert into[:, HITS].tolist() == [1, 1]


def test_sections_come_back_from_what_they_pack() -> None:
    tables = (build_table(np.arange(300.0)), build_table(np.arange(50.0)))
    tests = (Test("cohort/sex", "is", "m"),)
    for section in (
        NumericSpec("x", 4, tables, "latency_ms", tests),
        CategoricalSpec("c", 9, ("a",), ("b",), "class"),
        FlagSpec("f", 2, tests, tests),
    ):
        meta, arrays = section.pack()
        again = type(section).unpack({**meta, "first": section.first}, arrays)
        packed, other = again.pack()
        assert (packed, again.first, again.width) == (meta, section.first, section.width)
        assert all((other[name] == arrays[name]).all() for name in arrays)


def test_rows_score_by_the_table_of_their_own_stratum() -> None:
    tables = (build_table(np.arange(100.0)), build_table(np.arange(100.0) + 50.0))
    part = rows()
    strata = np.array([0, 1, 0, 1, 0, 1], dtype=np.int16)
    z, _ = scored(NumericSpec("x", 0, tables), event_view(part, strata))
    assert z[0] == tables[0].scores[0][tables[0].cells(np.array([0.0]))][0]
    assert z[3] == tables[1].scores[0][tables[1].cells(np.array([3.0]))][0]
    assert z[2] == 0.0
