"""A second change, in another feature, 5,000 rows after the first: is it found, and as soon as alone?

    python -m benchmarks.second_change             # 100 streams of each pair of changes
    python -m benchmarks.second_change --runs 20

The whole product watches: an incident is open about the first feature while the second one moves.
"""

from __future__ import annotations

import argparse
import math

import numpy as np
from benchmarks.calibration.loop import BLOCK, blocks_of, numeric_config, numeric_rows
from benchmarks.calibration.loop import KEY as MODEL

from regate.detectors.build import build_profile
from regate.detectors.cells import BLOCK_CELLS, Block
from regate.detectors.clocks import RowClock
from regate.detectors.columns import FloatArray
from regate.detectors.profile import Profile
from regate.detectors.watch import Watch

FEATURES = 8
BEFORE, APART, AFTER = 2_000, 5_000, 6_000
KINDS = {"mean +.5": (0.5, 1.0), "mean +.3": (0.3, 1.0), "spread x 1.5": (0.0, 1.5), "spread x 1.2": (0.0, 1.2)}


def stream(rng: np.random.Generator, changes: list[tuple[int, int, str]]) -> dict[str, FloatArray]:
    """Return columns in which ``(feature, row, kind)`` change."""
    values = rng.standard_normal((BEFORE + APART + AFTER, FEATURES))
    for feature, row, kind in changes:
        shift, ratio = KINDS[kind]
        values[row:, feature] = values[row:, feature] * ratio + shift
    return {f"x{index}": np.ascontiguousarray(values[:, index]) for index in range(FEATURES)}


def delay(profile: Profile, columns: dict[str, FloatArray], feature: str, row: int, budget_events: float) -> float:
    """Return the rows from a change to the first finding that names its feature; infinite when there is none."""
    rows = numeric_rows(columns)
    watch = Watch(profile, RowClock(budget_events, rows.n))
    for index, stats in enumerate(blocks_of(profile, rows)):
        for finding in watch.step(Block(0, index * BLOCK_CELLS, index * BLOCK_CELLS, stats, 0)):
            named = finding.type == "finding" and finding.subject == feature
            if named and (index + 1) * BLOCK > row:
                return (index + 1) * BLOCK - row
    return math.inf


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--budget-events", type=float, default=1e6)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng((options.seed, 0))
    reference = {f"x{index}": rng.standard_normal(20_000) for index in range(FEATURES)}
    profile = build_profile(
        numeric_config(list(reference)), MODEL, numeric_rows(reference), budget_events=options.budget_events
    )
    second = BEFORE + APART
    print(f"seed {options.seed}, {options.runs} streams a row, one false alarm in {options.budget_events:,.0f} events")
    for first_kind in ("mean +.5", "spread x 1.5"):
        for kind in KINDS:
            alone, after = [], []
            for run in range(options.runs):
                made = [
                    stream(np.random.default_rng((options.seed, 1, run)), changes)
                    for changes in ([(1, second, kind)], [(0, BEFORE, first_kind), (1, second, kind)])
                ]
                for found, columns in zip((alone, after), made, strict=True):
                    found.append(delay(profile, columns, "x1", second, options.budget_events))
            share = sum(math.isfinite(one) for one in after) / len(after)
            middle = float(np.median(alone)), float(np.median(after))
            print(
                f"{first_kind:>12}, then {kind:>12}: alone {middle[0]:6.0f}, second {middle[1]:6.0f}, "
                f"ratio {middle[1] / middle[0]:.2f}, found {share:.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
