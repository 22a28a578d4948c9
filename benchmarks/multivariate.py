"""Correlations: what is found where only the dependence of features changes, and how often nothing is called a change.

python -m benchmarks.multivariate flip [--streams 40]    correlations 0 -> .6, same margins, 8 features, all families
python -m benchmarks.multivariate null [--streams 12]    alarms of the family alone where nothing changes
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numpy as np
from benchmarks.calibration.loop import KEY, blocks_of, numeric_config, numeric_rows, ratio, watch
from scipy.signal import lfilter

from regate.config.model import Detection, ModelConfig
from regate.detectors.build import build_profile
from regate.detectors.cells import Block
from regate.detectors.charts import Bank
from regate.detectors.clocks import RowClock, row_cells
from regate.detectors.columns import Slice
from regate.detectors.finding import Finding
from regate.detectors.profile import Profile
from regate.detectors.watch import Watch

FEATURES, REFERENCE, AT, ROWS = 8, 20_000, 6_400, 12_800
R = 0.6


def named(z: np.ndarray) -> Slice:
    return numeric_rows({f"x{number:02}": row for number, row in enumerate(z)})


def alike(rng: np.random.Generator, features: int, rows: int, r: float) -> np.ndarray:
    """Return normal rows whose features all have correlation ``r`` with each other."""
    z = rng.standard_normal((features, rows))
    return np.sqrt(r) * rng.standard_normal(rows) + np.sqrt(1.0 - r) * z


def all_pairs(rng: np.random.Generator, z: np.ndarray) -> None:
    z[:] = alike(rng, *z.shape, R)


def one_pair(rng: np.random.Generator, z: np.ndarray) -> None:
    z[:2] = alike(rng, 2, z.shape[1], R)


def profile_of(rows: Slice, config: ModelConfig, budget: float, seed: int) -> Profile:
    return build_profile(config, KEY, rows, budget_events=budget, calibrate_seconds=20.0, seed=seed)


def findings_of(profile: Profile, rows: Slice) -> list[Finding]:
    stats = blocks_of(profile, rows)
    cells = row_cells(np.arange(len(stats)) * 64).tolist()
    blocks = [Block(0, cell, cell, row, 0) for cell, row in zip(cells, stats, strict=True)]
    return [one for one in Watch(profile, RowClock(1e6, rows.n)).take(blocks) if one.type == "finding"]


def measure_flip(streams: int, references: int = 4) -> None:
    config = numeric_config([f"x{number:02}" for number in range(FEATURES)])
    made = [np.random.default_rng((1, seed)).standard_normal((FEATURES, REFERENCE)) for seed in range(references)]
    profiles = [profile_of(named(z), config, 1e6, seed) for seed, z in enumerate(made)]
    for name, flip in (("all pairs", all_pairs), ("one pair", one_pair)):
        delays, others, before = [], 0, 0
        for seed in range(streams):
            rng = np.random.default_rng((2, seed))
            z = rng.standard_normal((FEATURES, ROWS))
            flip(rng, z[:, AT:])
            found = findings_of(profiles[seed % references], named(z))
            before += sum(one.detected_us < AT for one in found)
            others += sum(one.family != "multivariate_drift" for one in found)
            first = [one.detected_us + 1 - AT for one in found if one.detected_us >= AT]
            delays.append(float(first[0]) if first else np.inf)
        told = {
            "flip": name,
            "streams": streams,
            "found_within_400": int((np.array(delays) <= 400).sum()),
            "delay_median": float(np.median(delays)),
            "delay_max": float(np.max(delays)),
            "findings_before": before,
            "findings_of_other_families": others,
        }
        print(json.dumps(told), flush=True)


def tailed(rng: np.random.Generator, features: int, rows: int) -> np.ndarray:
    """Return uncorrelated features that are large together: dependence of higher order."""
    return np.exp(0.7 * rng.standard_normal(rows)) * rng.standard_normal((features, rows))


def moving(rng: np.random.Generator, features: int, rows: int) -> np.ndarray:
    """Return features of which each depends on its own past."""
    return lfilter([np.sqrt(1.0 - 0.49)], [1.0, -0.7], rng.standard_normal((features, rows + 500)), axis=1)[:, 500:]


NULLS: dict[str, tuple[int, int, Callable[[np.random.Generator, int, int], np.ndarray]]] = {
    "independent": (FEATURES, REFERENCE, lambda rng, p, n: rng.standard_normal((p, n))),
    "short reference": (FEATURES, 4_000, lambda rng, p, n: rng.standard_normal((p, n))),
    "correlated": (FEATURES, REFERENCE, lambda rng, p, n: alike(rng, p, n, R)),
    "24 correlated": (24, REFERENCE, lambda rng, p, n: alike(rng, p, n, R)),
    "large together": (FEATURES, REFERENCE, tailed),
    "AR(.7)": (FEATURES, REFERENCE, moving),
}


def measure_null(streams: int, rows: int = 200_000, budget: float = 64_000.0) -> None:
    for name, (features, reference, make) in NULLS.items():
        config = numeric_config([f"x{number:02}" for number in range(features)])
        off = {"feature_drift": 0.0, "data_quality": 0.0}
        config = config.model_copy(update={"detection": Detection.model_validate({"families": off})})
        alarms, unwatchable, tau = [], 0, 1.0
        for seed in range(streams):
            whole = named(make(np.random.default_rng((3, seed)), features, reference + rows))
            profile = profile_of(whole.cut(slice(0, reference)), config, budget, seed)
            bank = Bank(profile)
            unwatchable += len(profile.unwatchable)
            tau = max([tau, *(chart.tau for chart in profile.charts)])
            alarms.append(len(watch(bank, blocks_of(profile, whole.cut(slice(reference, None))), budget)))
        told = ratio(sum(alarms), streams * rows / budget)
        print(
            json.dumps({"null": name, **told, "by_stream": alarms, "unwatchable": unwatchable, "tau": round(tau, 2)}),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("flip", "null"))
    parser.add_argument("--streams", type=int)
    asked = parser.parse_args()
    if asked.what == "flip":
        measure_flip(asked.streams or 40)
    else:
        measure_null(asked.streams or 12)


if __name__ == "__main__":
    main()
