"""A profile as bytes: canonical JSON in front, raw little-endian arrays behind. Numbers only, no pickle."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from regate.config.errors import ConfigError, PoisonError
from regate.detectors.arrays import pack, unpack
from regate.detectors.columns import FloatArray, IntArray, ModelKey
from regate.detectors.layout import CategoricalSpec, ChartSpec, FeatureSpec, Layout, NumericSpec
from regate.detectors.profile import Calibration, Points, Profile
from regate.detectors.ranktable import RankTable

SCHEMA = 1
_REBUILD = "build it again: regate profile build"
_PLAIN = (
    "budget_period_us",
    "rows",
    "block_rows",
    "events_per_second",
    "budget_events",
    "gap_us",
    "error_cutoff",
    "dropped",
    "notes",
)
_POINTS = ("chart", "a", "b", "centre")


def encode(profile: Profile) -> bytes:
    """Return the profile as bytes; equal profiles give equal bytes."""
    features, arrays = _pack_features(profile.layout.features)
    meta = {
        "profile": SCHEMA,
        "key": asdict(profile.key),
        "strata": profile.layout.strata,
        "time_zone": profile.layout.time_zone,
        "features": features,
        "charts": [asdict(chart) for chart in profile.charts],
        "calibration": asdict(profile.calibration),
        **{name: getattr(profile, name) for name in _PLAIN},
    }
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
    return Profile(
        key=ModelKey(**meta["key"]),
        layout=Layout(_unpack_features(meta["features"], arrays), meta["strata"], meta["time_zone"]),
        charts=tuple(ChartSpec(**{name: _frozen(v) for name, v in chart.items()}) for chart in meta["charts"]),
        points=Points(**{name: arrays[f"points.{name}"] for name in _POINTS}),
        calibration=Calibration(**{name: _frozen(value) for name, value in meta["calibration"].items()}),
        **plain,
    )


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _pack_features(specs: tuple[FeatureSpec, ...]) -> tuple[list[dict[str, Any]], dict[str, npt.NDArray[Any]]]:
    """Return what JSON holds of the features, and their tables one behind the other (1,000 features, 5 arrays)."""
    tables = [table for spec in specs if isinstance(spec, NumericSpec) for table in spec.tables]
    listed: list[dict[str, Any]] = []
    for spec in specs:
        common = {"name": spec.name, "first": spec.first}
        if isinstance(spec, NumericSpec):
            listed.append({**common, "type": "numeric", "tables": len(spec.tables)})
        else:
            listed.append({**common, "type": "categorical", "kept": list(spec.kept), "rare": list(spec.rare)})
    empty: list[FloatArray] = [np.zeros(0)]
    return listed, {
        "tables.rows": np.array([table.rows for table in tables], dtype=np.int64),
        "tables.edges": np.array([table.edges.size for table in tables], dtype=np.int64),
        "edges": np.concatenate(empty + [table.edges for table in tables]),
        "z": _joined([table.z for table in tables]),
        "z2": _joined([table.z2 for table in tables]),
    }


def _joined(parts: list[IntArray]) -> IntArray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _unpack_features(listed: list[dict[str, Any]], arrays: dict[str, npt.NDArray[Any]]) -> tuple[FeatureSpec, ...]:
    sizes = arrays["tables.edges"]
    edges = np.split(arrays["edges"], np.cumsum(sizes))
    z = np.split(arrays["z"], np.cumsum(sizes + 1))
    z2 = np.split(arrays["z2"], np.cumsum(sizes + 1))
    tables = [
        RankTable(edges[index], z[index], z2[index], int(rows)) for index, rows in enumerate(arrays["tables.rows"])
    ]
    specs: list[FeatureSpec] = []
    taken = 0
    for item in listed:
        if item["type"] == "numeric":
            specs.append(NumericSpec(item["name"], item["first"], tuple(tables[taken : taken + item["tables"]])))
            taken += item["tables"]
        else:
            specs.append(CategoricalSpec(item["name"], item["first"], tuple(item["kept"]), tuple(item["rare"])))
    return tuple(specs)
