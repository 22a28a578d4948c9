"""The profile builder: from reference rows to tables, margins, charts and a calibrated threshold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from regate.config.errors import ConfigError
from regate.config.model import ModelConfig
from regate.detectors.accumulate import stratum_of
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.habits import labels_of
from regate.detectors.attack.reference import AttackReference
from regate.detectors.bootstrap import grouped
from regate.detectors.calibrate import DEFAULT_TRAFFIC, calibrate
from regate.detectors.candidate import Candidate, Plan, Reference, points_of
from regate.detectors.cells import BLOCK_EVENTS
from regate.detectors.columns import Column, ModelKey, Slice
from regate.detectors.gaps import gap_table
from regate.detectors.labelled import Delivery
from regate.detectors.layout import RARE_BELOW, STRATA_COUNT, Layout
from regate.detectors.marks import COHORT_BITS, Cohorts, OutcomeShape
from regate.detectors.outcomes import reference_outcomes
from regate.detectors.power import with_power
from regate.detectors.profile import Profile
from regate.detectors.prompts import reference as prompts
from regate.detectors.prompts.reference import LARGEST_SHARE, PromptReference
from regate.detectors.registry import candidates, sections
from regate.detectors.river_adapter import RiverSpec
from regate.detectors.river_rates import river_specs
from regate.detectors.sections import placed
from regate.detectors.service import objectives, unheard

Progress = Callable[[str, float], None]

DAY_US = 86_400_000_000
# Fewer rows than this cannot be halved and still show dependence over a block.
MIN_ROWS = 200
# Of one attribute: groups beyond the largest are too small to say anything about.
MAX_COHORTS = 16
_TOLD_CLIENTS = 20


def build_profile(
    config: ModelConfig,
    key: ModelKey,
    reference: Slice,
    labels: Column | None = None,
    *,
    delivery: Delivery | None = None,
    block_rows: int = BLOCK_EVENTS,
    budget_events: float | None = None,
    events_per_second: float | None = None,
    calibrate_seconds: float | None = None,
    seed: int = 0,
    trained: Slice | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Build the profile of one model version from its reference rows, oldest first.

    :param labels: the outcome of each row, missing where it is not known.
    :param delivery: how those labels came, where that is known.
    :param budget_events: events in which one false alarm is nominal; overrides the traffic that
        ``events_per_second`` (or else the configuration) and the budget period give.
    :param trained: rows that the model was trained on, for the training-record probe; they are not stored.
    :param calibrate_seconds: bounds the simulation, as an amount of work, so that the result does not
        depend on the machine; 0 leaves the ceiling.
    :raises ConfigError: when there are too few rows, or nothing can be watched.
    """
    if reference.n < MIN_ROWS:
        raise ConfigError(
            f"{reference.n} reference rows, at least {MIN_ROWS} are needed", hint="take a longer reference"
        )
    tell = progress or _silent
    tell("tables", 0.0)
    sample, error_cutoff = _reference(config, reference, labels, delivery or Delivery())
    tell("margins", 0.1)
    chosen, dropped = _chosen(candidates(sample), config.detection.max_charts)
    watched, more = _prompts(config, key, reference)
    # How data come is watched whatever they say: alone it would be a profile of nothing. Beside prompts it is enough.
    told = [candidate.spec for candidate in chosen if watched is not None or candidate.spec.family != "data_quality"]
    if not any(spec.watchable for spec in told):
        reasons = "; ".join(f"{spec.name}: {spec.reason}" for spec in told[:5])
        raise ConfigError(
            f"no chart can be watched with this reference ({reasons or 'no feature is watched'})",
            hint="take a longer reference, or other features: regate profile build --reference-rows",
        )
    period_us = int(config.detection.period_days * DAY_US / config.detection.false_alarms)
    rate = events_per_second if events_per_second is not None else config.detection.events_per_second
    traffic = budget_events if budget_events is not None else _per_period(rate, period_us)
    seconds = config.detection.calibrate_seconds if calibrate_seconds is None else calibrate_seconds
    chosen, calibration = calibrate(
        sample, chosen, traffic, block_rows=block_rows, seconds=seconds, seed=seed, progress=tell
    )
    attack, said = _attack(config, sample, seed, trained)
    said = (*said, *_uncounted(config, attack))
    profile = Profile(
        key=key,
        layout=sample.layout,
        charts=tuple(replace(candidate.spec, digest=candidate.digest) for candidate in chosen),
        points=points_of(chosen),
        calibration=calibration,
        budget_period_us=period_us,
        rows=reference.n,
        block_rows=block_rows,
        events_per_second=rate,
        budget_events=traffic,
        gaps_us=gap_table(reference.event_time_us, config.time_zone),
        error_cutoff=error_cutoff,
        dropped=dropped,
        objectives=objectives(config.detection.service, sample.layout),
        notes=(*_unwatched_features(config), *unheard(config.detection.service, sample.layout), *said, *more),
        attack=attack,
        prompts=watched,
    )
    return with_power(replace(profile, river=_river(config, sample, chosen, traffic, block_rows)))


def _attack(
    config: ModelConfig, reference: Reference, seed: int, trained: Slice | None
) -> tuple[AttackReference | None, tuple[str, ...]]:
    """Return what attack lanes compare with, or why there are none; what a person should look at is told too."""
    weight = config.detection.families.get("attack", 1.0)
    if weight <= 0:
        return None, ()
    watched = tuple(n for n, one in config.features.items() if one.watch and one.type not in {"text", "vector"})
    if "attack" not in config.detection.families and (reference.rows.client is None or not reference.rows.client.any()):
        # By region a change of the population looks like an attack more easily: it takes somebody who asks for it.
        said = "reference events carry no client; `families: {attack: 1}` turns on those by region, whoever asks"
        return None, (f"no attack lanes: {said}",)
    found = fitted(reference.rows, watched, seed, trained, weight)
    if isinstance(found, str):
        return None, (found,)
    if not found.trimmed:
        return found, (f"attack lanes: {found.clients} clients in the reference, so attacks are seen by region only",)
    odd = ", ".join(f"{client:016x}" for client in found.trimmed[:_TOLD_CLIENTS])
    labels = labels_of(reference.outcomes, reference.rows.client, reference.delivery.contradicted)
    asked = replace(found.habits.volume, asked=config.detection.distinct_queries_per_day or 0)
    found = replace(found, habits=replace(found.habits, labels=labels, volume=asked))
    kept_out = f"attack lanes: {len(found.trimmed)} of {found.clients} clients kept out for review: {odd}"
    return found, (kept_out, *found.habits.notes())


def _uncounted(config: ModelConfig, attack: AttackReference | None) -> tuple[str, ...]:
    """Return that a budget of distinct queries was set and nobody counts: it takes the attack lanes by client."""
    if config.detection.distinct_queries_per_day is None or (attack is not None and attack.habits.volume.asked):
        return ()
    return ("distinct_queries_per_day: off, there are no attack lanes by client",)


def _prompts(config: ModelConfig, key: ModelKey, rows: Slice) -> tuple[PromptReference | None, tuple[str, ...]]:
    """Return what prompts compare with, or why they are not watched."""
    weight = config.detection.families.get("attack", 1.0)
    names = tuple(name for name, one in config.features.items() if one.type == "text" and one.watch)
    if weight <= 0 or not names:
        return None, ()
    found = prompts.fitted(rows, names, key.tenant, key.model, weight)
    if not isinstance(found, PromptReference):
        return None, () if found is None else (found,)
    said = f"prompts: {found.coded} of {found.texts} texts of the reference are in code"
    off = "" if found.bound < LARGEST_SHARE else "; too many to tell a client's share from it: only patterns and spread"
    return found, (said + off,)


def _river(
    config: ModelConfig, reference: Reference, chosen: list[Candidate], traffic: float | None, block_rows: int
) -> tuple[RiverSpec, ...]:
    """Return the configured River detectors with their false alarms on the reference, in blocks of rows."""
    if not config.detection.river:
        return ()
    runs = np.cumsum(np.r_[0, np.diff(reference.stratum) != 0])
    within = np.arange(reference.rows.n) - np.flatnonzero(np.r_[True, np.diff(runs) != 0])[runs]
    place = np.r_[True, (np.diff(runs) != 0) | (np.diff(within // block_rows) != 0)]
    statistics = grouped(reference, np.cumsum(place) - 1, int(place.sum()))
    return river_specs(
        config, chosen, statistics, reference.stratum[place].astype(np.int64), (traffic or DEFAULT_TRAFFIC) / block_rows
    )


def _silent(_stage: str, _share: float) -> None:
    return


def _per_period(events_per_second: float | None, period_us: int) -> float | None:
    return None if events_per_second is None else events_per_second * period_us / 1e6


def _reference(
    config: ModelConfig, rows: Slice, labels: Column | None, delivery: Delivery
) -> tuple[Reference, float | None]:
    """Return the reference with its layout, and above which error an outcome of a regression is wrong."""
    strata = config.detection.strata
    stratum = stratum_of(rows.event_time_us, strata, config.time_zone)
    outcomes, cutoff = reference_outcomes(rows, labels, config.output, _cohorts(config, rows))
    own = sections(Plan(config, rows, stratum, range(STRATA_COUNT[strata]), outcomes, delivery))
    shape = OutcomeShape() if outcomes is None else outcomes.shape
    layout = Layout(placed(own.events, 1), strata, config.time_zone, shape=shape)
    layout = replace(layout, outcome_sections=placed(own.outcomes, layout.outcomes + 2))
    return Reference(config, layout, rows, stratum, outcomes, delivery), cutoff


def _cohorts(config: ModelConfig, rows: Slice) -> Cohorts:
    """Return the declared attributes with the categories that the reference knows well enough to watch."""
    found: list[tuple[str, tuple[str, ...]]] = []
    places = 1
    for name in config.cohorts:
        column = rows.cohorts.get(name)
        if column is None:
            continue
        counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.categories))
        order = sorted(range(counts.size), key=lambda code: (-counts[code], column.categories[code]))
        kept = tuple(column.categories[code] for code in order[:MAX_COHORTS] if counts[code] >= RARE_BELOW)
        places *= len(kept) + 1
        if kept and places < 1 << COHORT_BITS:  # what does not fit into a mark is not watched by outcomes
            found.append((name, kept))
    return tuple(found)


def _chosen(found: list[Candidate], most: int) -> tuple[list[Candidate], tuple[str, ...]]:
    """Return the ``most`` heaviest charts in their own order, and the names of the others."""
    order = sorted(range(len(found)), key=lambda index: (-found[index].spec.weight, index))
    keep = set(order[:most])
    return (
        [candidate for index, candidate in enumerate(found) if index in keep],
        tuple(candidate.spec.name for index, candidate in enumerate(found) if index not in keep),
    )


def _unwatched_features(config: ModelConfig) -> tuple[str, ...]:
    return tuple(
        f"{name}: {'no chart for ' + feature.type if feature.watch else 'watch is off'}"
        for name, feature in config.features.items()
        if not feature.watch or feature.type in {"text", "vector"}
    )
