"""The benchmark of pairs of tools, in its smallest form: what it counts is what was told."""

from __future__ import annotations

from benchmarks.attacks import pairings
from benchmarks.attacks.pairings import FAMILIES, FAMILY, Figures
from benchmarks.attacks.traffic import table


def test_every_tool_has_one_family() -> None:
    assert sum(len(tools) for tools in FAMILIES.values()) == len(FAMILY)


def test_tools_are_known_again_and_not_taken_for_each_other() -> None:
    figures = Figures()
    tools = ("finite differences", "zoo", "noise", "simba", "mix")
    pairings.counted(table(5), 5, tools, 1, figures)
    assert figures.unlike == 18  # of 20 ordered pairs, without the two of one family
    assert figures.both_found >= 12
    assert figures.mistaken == []
    known = [one for told in figures.like.values() for one in told]
    assert len(known) >= 3
    assert sum(known) >= len(known) - 1
    for way in pairings.WAYS:
        assert sorted(figures.again[way])[len(figures.again[way]) // 2] <= 3, way
    assert figures.others == 0
