"""Every family by name: the one place to add one."""

from __future__ import annotations

from regate.scenarios.families import attack_replay, fairness, fuzzing, load, production_window
from regate.scenarios.subject import Family

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (fuzzing.FAMILY, fairness.FAMILY, load.FAMILY, production_window.FAMILY, attack_replay.FAMILY)
}
