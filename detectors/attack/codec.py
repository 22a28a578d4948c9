"""An attack reference as plain values and arrays, and back: what a profile holds of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from regate.detectors.arrays import Arrays
from regate.detectors.attack import habits
from regate.detectors.attack.clients import EDIT, FRESH, NEAR
from regate.detectors.attack.dependence import BINS, Tree
from regate.detectors.attack.evidence import LANES, SUM_UNIT, UNITS, Tails
from regate.detectors.attack.geometry import Geometry
from regate.detectors.attack.inputs import Inputs
from regate.detectors.attack.lattice import OWN_BITS, POOL_BITS, Lattice
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.resemblance import Resemblance
from regate.detectors.attack.sketch import Sketch
from regate.detectors.attack.tails import Tail
from regate.detectors.attack.training import Training
from regate.detectors.attack.views import KINDS as VIEWS
from regate.detectors.attack.views import View
from regate.detectors.columns import IntArray

_KINDS = (FRESH, EDIT, NEAR)


def packed(reference: AttackReference) -> tuple[dict[str, Any], Arrays]:
    """Return the reference as JSON and arrays."""
    tables = [(kind, name) for kind in _KINDS for name in LANES[kind]]
    own_at = np.flatnonzero(reference.lattice.own)
    pool_at = np.flatnonzero(reference.lattice.pool)
    one, two, three = reference.sketch, reference.geometry, reference.tree
    meta: dict[str, Any] = {
        "names": list(reference.inputs.names),
        "categories": [list(known) for known in reference.inputs.categories],
        "step": one.step,
        "tau": reference.tau,
        "trimmed": list(reference.trimmed),
        "clients": reference.clients,
        "rows": reference.rows,
        "tree_rows": three.rows,
        "resemblance": [reference.resemblance.unlike, reference.resemblance.resembling],
        "views": [],
    }
    arrays: Arrays = {
        "own_at": own_at,
        "own": reference.lattice.own[own_at],
        "pool_at": pool_at,
        "pool": reference.lattice.pool[pool_at],
        "weight": reference.lattice.weight,
        "sampled.sketch": reference.sampled[0],
        "sampled.blocks": reference.sampled[1],
        "sketch.centre": one.centre,
        "sketch.scale": one.scale,
        "sketch.order": one.order,
        "sketch.starts": one.starts,
        "sketch.sign": one.sign,
        "geometry.low": two.low,
        "geometry.high": two.high,
        "geometry.axes": two.axes,
        "geometry.deviation": two.deviation,
        "tree.features": three.features,
        "tree.bounds": three.bounds,
        "tree.left": three.left,
        "tree.right": three.right,
        "tree.ratio": three.ratio,
    }
    for view in reference.views:
        name, own = view.kind.name, view.tails
        every = [own.lanes[place] for place in tables] + [own.sums[kind] for kind in _KINDS]
        said = [[tail.start, tail.scale, tail.above, tail.cap, len(tail.values)] for tail in every]
        meta["views"].append(
            {"name": name, "bar": view.bar, "usual": view.usual, "changes": own.changes, "tails": said}
        )
        arrays |= {
            f"{name}.tails": np.concatenate([tail.values for tail in every]),
            f"{name}.seldom": own.seldom,
            f"{name}.largest": own.largest_tree,
        }
    if reference.training is not None:
        meta["training"] = [reference.training.salt, reference.training.rows, reference.training.usual]
        arrays["training"] = reference.training.bits
    meta["habits"], more = habits.packed(reference.habits)
    arrays |= {f"habits.{name}": array for name, array in more.items()}
    return meta, {f"attack.{name}": array for name, array in arrays.items()}


def unpacked(meta: dict[str, Any], stored: Arrays) -> AttackReference:
    """Return the reference that `packed` gave; counts, which only fitting needs, are gone."""
    arrays = {name.removeprefix("attack."): array for name, array in stored.items() if name.startswith("attack.")}
    own, pool = np.zeros(1 << OWN_BITS, dtype=np.uint8), np.zeros(1 << POOL_BITS, dtype=np.uint8)
    own[arrays["own_at"]], pool[arrays["pool_at"]] = arrays["own"], arrays["pool"]
    pairs: IntArray = np.zeros((len(arrays["tree.left"]), BINS + 1, BINS + 1), dtype=np.int64)
    marginal: IntArray = np.zeros((len(arrays["tree.features"]), BINS + 1), dtype=np.int64)
    return AttackReference(
        inputs=Inputs(tuple(meta["names"]), tuple(tuple(known) for known in meta["categories"])),
        sketch=Sketch(
            arrays["sketch.centre"],
            arrays["sketch.scale"],
            arrays["sketch.order"],
            arrays["sketch.starts"],
            arrays["sketch.sign"],
            meta["step"],
        ),
        lattice=Lattice(own, pool, arrays["weight"]),
        geometry=Geometry(
            arrays["geometry.low"],
            arrays["geometry.high"],
            arrays["geometry.axes"],
            arrays["geometry.deviation"],
        ),
        tree=Tree(
            arrays["tree.features"],
            arrays["tree.bounds"],
            arrays["tree.left"],
            arrays["tree.right"],
            arrays["tree.ratio"],
            pairs,
            marginal,
            meta["tree_rows"],
        ),
        tau=meta["tau"],
        views=tuple(_view(one, arrays) for one in meta["views"]),
        resemblance=Resemblance(*meta["resemblance"]),
        sampled=(arrays["sampled.sketch"], arrays["sampled.blocks"]),
        trimmed=tuple(meta["trimmed"]),
        clients=meta["clients"],
        rows=meta["rows"],
        training=Training(arrays["training"], *meta["training"]) if "training" in meta else None,
        habits=_habits(meta, arrays),
    )


def _view(said: dict[str, Any], arrays: Arrays) -> View:
    name, tables = said["name"], [(kind, lane) for kind in _KINDS for lane in LANES[kind]]
    cuts = np.cumsum([size for *_, size in said["tails"]])[:-1]
    made = []
    for number, (values, (start, scale, above, cap, _)) in enumerate(
        zip(np.split(arrays[f"{name}.tails"], cuts), said["tails"], strict=True)
    ):
        lane = number < len(tables)
        unit = UNITS[tables[number][1]] if lane else SUM_UNIT
        made.append(Tail(values, start, scale, above, cap, unit))
    tails = Tails(
        dict(zip(tables, made[: len(tables)], strict=True)),
        dict(zip(_KINDS, made[len(tables) :], strict=True)),
        arrays[f"{name}.seldom"],
        arrays[f"{name}.largest"],
        said["changes"],
    )
    return View(next(kind for kind in VIEWS if kind.name == name), tails, said["bar"], said["usual"])


def _habits(meta: dict[str, Any], arrays: Arrays) -> habits.Habits:
    own = {name.removeprefix("habits."): array for name, array in arrays.items() if name.startswith("habits.")}
    return habits.unpacked(meta["habits"], own)
