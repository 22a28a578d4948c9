"""Events that never became rows: what was wrong with them, as statistics of the model that they named."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.cells import CELL_US, Fragments, group_rows
from regate.detectors.columns import IntArray, ModelKey
from regate.detectors.data_quality import flag_name
from regate.detectors.observe import Observed, Partition, Watched
from regate.detectors.sections import HITS, PRESENT


@dataclass(frozen=True, slots=True)
class Refused:
    """Events of one model that never became rows: when they arrived, how many, and what was wrong (a flag's name)."""

    key: ModelKey
    arrival_us: IntArray
    count: IntArray
    flag: str


def observe_refused(state: Partition, refused: Refused, model: Watched) -> Observed | None:
    """Return what refused events give; None for a model without a profile, of which nothing is compared."""
    profile = model.profile
    if profile is None:
        return None
    spec = next((one for one in profile.layout.sections if one.name == flag_name(refused.flag)), None)
    if spec is None:
        return None
    cell = np.maximum(refused.arrival_us // CELL_US, state.watermark_us // CELL_US)
    groups = group_rows(cell, profile.stratum(refused.arrival_us))
    stats = np.zeros((len(groups.cell), profile.layout.width), dtype=np.int64)
    count = np.bincount(groups.group, weights=refused.count, minlength=len(stats)).astype(np.int64)
    stats[:, spec.first + PRESENT] = stats[:, spec.first + HITS] = count
    nothing: IntArray = np.zeros(len(stats), dtype=np.int64)
    last = int(refused.arrival_us.max())
    return Observed(
        refused.key, Fragments(refused.key, model.layout, groups.cell, groups.stratum, stats, nothing, last)
    )
