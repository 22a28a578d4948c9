"""How often River's detectors alarm where nothing changes, measured on the reference when a profile is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scipy.special import gammaincinv

from regate.config.errors import ConfigError
from regate.config.model import ModelConfig, RiverDetector
from regate.detectors.candidate import Candidate
from regate.detectors.columns import FloatArray, IntArray
from regate.detectors.layout import ChartSpec
from regate.detectors.numerics import UNIT
from regate.detectors.river_adapter import BINARY, TREES, Adviser, RiverSpec, make, tree_score, value_of

# Share of the false-alarm budget that all River detectors together may use.
SHARE = 0.1
MAX_TREE_FEATURES = 16
# No alarm in n blocks bounds the rate by 3 / n.
RULE_OF_THREE = 3.0


def river_specs(
    config: ModelConfig, chosen: Sequence[Candidate], blocks: IntArray, stratum: IntArray, blocks_per_period: float
) -> tuple[RiverSpec, ...]:
    """Return the detectors of a profile with their false alarms on the reference.

    :param blocks: ``int64[blocks, D]``, the reference in blocks, in order.
    :raises ConfigError: when a detector names a chart that is not there, or cannot take its parameters.
    """
    asked = config.detection.river
    allowed = SHARE / max(len(asked), 1) / max(blocks_per_period, 1.0)
    found = []
    for one in asked:
        spec = _spec(one, chosen, round(allowed, 12))
        rate, cut = _measured(spec, blocks, stratum)
        found.append(replace(spec, rate=round(rate, 9), cut=cut))
    return tuple(found)


def _spec(asked: RiverDetector, chosen: Sequence[Candidate], allowed: float) -> RiverSpec:
    if asked.detector == TREES:
        heard = [c for c in chosen if c.spec.form == "mean" and c.spec.family == "feature_drift"][:MAX_TREE_FEATURES]
    else:
        heard = [candidate for candidate in chosen if candidate.spec.name == asked.chart]
    if not heard or (asked.detector in BINARY and heard[0].spec.form != "indicator"):
        near = ", ".join(c.spec.name for c in chosen if c.spec.form == "indicator" or asked.detector not in BINARY)
        raise ConfigError(
            f"detection.river: {asked.detector} cannot listen to {asked.chart or 'numeric features'!r}",
            hint=f"charts that it can: {near[:400] or 'none'}",
        )
    strata = heard[0].centre.size
    return RiverSpec(
        detector=asked.detector,
        chart=heard[0].spec.name,
        parameters=tuple(sorted(asked.parameters.items())),
        columns=tuple((c.spec.s_column, c.spec.n_column) for c in heard),
        centres=tuple(tuple(_centre(c.spec, c.centre, which) for c in heard) for which in range(strata)),
        unit=1.0 if heard[0].spec.form == "indicator" else float(UNIT),
        trusted=asked.trusted,
        rate=0.0,
        allowed=allowed,
    )


def _centre(spec: ChartSpec, centre: FloatArray, stratum: int) -> float:
    return float(UNIT) if spec.form == "scale" else float(centre[stratum])


def _measured(spec: RiverSpec, blocks: IntArray, stratum: IntArray) -> tuple[float, float]:
    """Return the upper 95 % limit of alarms a block on the reference, and the trees' cut."""
    if spec.detector == TREES:
        return RULE_OF_THREE / max(len(blocks) // 2, 1), _largest_score(spec, blocks, stratum)
    adviser = Adviser(spec)
    count = sum(adviser.step(stats, int(which)) for stats, which in zip(blocks, stratum, strict=True))
    return float(gammaincinv(count + 1.0, 0.95)) / max(len(blocks), 1), 0.0


def _largest_score(spec: RiverSpec, blocks: IntArray, stratum: IntArray) -> float:
    made = make(TREES, dict(spec.parameters))
    values = [value_of(spec, stats, int(which)) for stats, which in zip(blocks, stratum, strict=True)]
    scores = [tree_score(made, value) for value in values if value is not None]
    return round(max(scores[len(scores) // 2 :], default=0.0), 9)
