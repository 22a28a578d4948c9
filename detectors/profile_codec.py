"""A profile as bytes: canonical JSON in front, raw little-endian arrays behind. Numbers only, no pickle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from regate.config.errors import ConfigError, PoisonError
from regate.detectors.arrays import pack, unpack
from regate.detectors.attack.codec import packed, unpacked
from regate.detectors.burn import Objective
from regate.detectors.columns import ModelKey
from regate.detectors.layout import ChartSpec, Layout
from regate.detectors.marks import OutcomeShape
from regate.detectors.profile import Calibration, Points, Profile
from regate.detectors.prompts import reference as prompts
from regate.detectors.registry import SECTIONS
from regate.detectors.river_adapter import RiverSpec
from regate.detectors.sections import Linked, Section

SCHEMA = 4
_REBUILD = "build it again: regate profile build"
_PLAIN = (
    "budget_period_us",
    "rows",
    "block_rows",
    "events_per_second",
    "budget_events",
    "gaps_us",
    "error_cutoff",
    "dropped",
    "notes",
)
_POINTS = ("chart", "a", "b", "centre")


def encode(profile: Profile) -> bytes:
    """Return the profile as bytes; equal profiles give equal bytes."""
    layout = profile.layout
    listed, arrays = _pack_sections((*layout.sections, *layout.outcome_sections))
    meta = {
        "profile": SCHEMA,
        "key": asdict(profile.key),
        "strata": layout.strata,
        "time_zone": layout.time_zone,
        "shape": asdict(layout.shape),
        "sections": listed,
        "of_telemetry": len(layout.sections),
        "charts": [asdict(chart) for chart in profile.charts],
        "objectives": [asdict(one) for one in profile.objectives],
        "river": [asdict(spec) for spec in profile.river],
        "calibration": asdict(profile.calibration),
        **{name: getattr(profile, name) for name in _PLAIN},
    }
    if profile.attack is not None:
        meta["attack"], more = packed(profile.attack)
        arrays |= more
    if profile.prompts is not None:
        meta["prompts"], more = prompts.packed(profile.prompts)
        arrays |= more
    return pack(meta, arrays | {f"points.{name}": getattr(profile.points, name) for name in _POINTS})


def decode(data: bytes) -> Profile:
    """Return the profile that ``data`` holds.

    :raises ConfigError: when the bytes are not a whole profile, or one of a newer schema.
    """
    try:
        meta, arrays = unpack(data)
    except PoisonError as error:
        raise ConfigError(f"this is not a whole regate profile: {error.message}", hint=_REBUILD) from error
    schema = meta.get("profile")
    if schema != SCHEMA:
        raise ConfigError(
            f"the profile has schema {schema}, this regate reads {SCHEMA}",
            hint="install the version that built it, or " + _REBUILD,
        )
    plain = {name: _frozen(meta[name]) for name in _PLAIN}
    sections = _unpack_sections(meta["sections"], arrays)
    cut = meta["of_telemetry"]
    shape = OutcomeShape(**{name: _frozen(value) for name, value in meta["shape"].items()})
    return Profile(
        key=ModelKey(**meta["key"]),
        layout=Layout(sections[:cut], meta["strata"], meta["time_zone"], sections[cut:], shape),
        charts=tuple(ChartSpec(**{name: _frozen(v) for name, v in chart.items()}) for chart in meta["charts"]),
        objectives=tuple(Objective(**one) for one in meta["objectives"]),
        river=tuple(RiverSpec(**{name: _frozen(v) for name, v in spec.items()}) for spec in meta["river"]),
        points=Points(**{name: arrays[f"points.{name}"] for name in _POINTS}),
        calibration=Calibration(**{name: _frozen(value) for name, value in meta["calibration"].items()}),
        attack=unpacked(meta["attack"], arrays) if "attack" in meta else None,
        prompts=prompts.unpacked(meta["prompts"], arrays) if "prompts" in meta else None,
        **plain,
    )


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _pack_sections(sections: Sequence[Section]) -> tuple[list[dict[str, Any]], dict[str, npt.NDArray[Any]]]:
    """Return what JSON holds of the sections, and arrays pooled by name: few, however many features."""
    listed: list[dict[str, Any]] = []
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    for section in sections:
        meta, arrays = section.pack()
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        listed.append({"type": section.type, "first": section.first, "meta": meta, "shapes": shapes})
        for name, array in arrays.items():
            parts.setdefault(f"{section.type}.{name}", []).append(array.ravel())
    return listed, {name: np.concatenate(pieces) for name, pieces in parts.items()}


def _unpack_sections(listed: list[dict[str, Any]], arrays: dict[str, npt.NDArray[Any]]) -> tuple[Section, ...]:
    taken: dict[str, int] = {}
    found = []
    for item in listed:
        own = {}
        for name, shape in item["shapes"].items():
            pool = f"{item['type']}.{name}"
            start = taken.get(pool, 0)
            taken[pool] = start + int(np.prod(shape, dtype=np.int64))
            own[name] = arrays[pool][start : taken[pool]].reshape(shape)
        kind = SECTIONS.get(item["type"])
        if kind is None:
            raise ConfigError(
                f"the profile has statistics of type {item['type']!r}, which this regate does not know", hint=_REBUILD
            )
        found.append(kind.unpack({**item["meta"], "first": item["first"]}, own))
    return tuple(one.linked(found) if isinstance(one, Linked) else one for one in found)
