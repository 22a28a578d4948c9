"""The state of a decide shard as named chunks, and back. Charts are kept under their digests.

A chunk that cannot be read is refused by name: what it held starts anew, everything else goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from regate.config.errors import PoisonError
from regate.config.model import ModelConfig
from regate.detectors.arrays import Arrays, pack, unpack
from regate.detectors.attack import state as attack_state
from regate.detectors.burn import Burn, Objective
from regate.detectors.cells import Block, Closed, Joiner, OpenCells
from regate.detectors.charts import CHART_FIELDS, POINT_FIELDS
from regate.detectors.clocks import EventClock
from regate.detectors.columns import ModelKey
from regate.detectors.decide import Shard, Source, place
from regate.detectors.decide_model import Model
from regate.detectors.finding import Finding
from regate.detectors.history import NUMBER
from regate.detectors.incidents import Incident
from regate.detectors.label_join import VALUE, Join, Segment
from regate.detectors.notices import Notice
from regate.detectors.outcomes import LabelRows, Predictions
from regate.detectors.profile import Profile
from regate.detectors.prompts import state as prompts_state
from regate.detectors.rhythm import Pace
from regate.detectors.silence import Rhythm
from regate.detectors.validity import Validity
from regate.detectors.watch import ChartState, Watch

# A snapshot record's limit is 900 kB; names, header and padding take the rest.
CHUNK_BYTES = 700_000
PREFIX = "model/"


def dump(shard: Shard) -> dict[str, bytes]:
    """Return the state as chunks; equal states give equal bytes."""
    chunks = {"shard": pack(_shard_meta(shard), {})}
    for key, model in shard.models.items():
        for name, meta, arrays in _model_chunks(key, model):
            chunks[f"{PREFIX}{key}/{name}"] = pack(meta, arrays)
    # One each: the rhythms of a thousand silent models are more than a chunk holds.
    for key, rhythm in shard.silence.models.items():
        chunks[f"{PREFIX}{key}/rhythm"] = pack(_rhythm_meta(key, rhythm), {})
    stand: dict[str, list[Any]] = {}
    for (kind, source, name), first in shard.notices.open.items():
        stand.setdefault(name, []).append([kind, source, _finding(first)])
    for name, listed in stand.items():
        chunks[f"{PREFIX}{name}/notices"] = pack({"name": name, "open": listed}, {})
    return chunks


def load(
    chunks: Mapping[str, bytes], profiles: Mapping[str, Profile], configs: Mapping[ModelKey, ModelConfig]
) -> tuple[Shard, list[str]]:
    """Return the state that `dump` gave, and the names of the chunks that were refused.

    :param profiles: by ``str(ModelKey)``, as they stand in control.
    """
    read: dict[str, tuple[dict[str, Any], Arrays]] = {}
    refused = []
    for name in sorted(chunks):
        try:
            read[name] = unpack(chunks[name])
        except PoisonError:
            refused.append(name)
    shard = Shard()
    if "shard" in read:
        _restore_shard(shard, read["shard"][0])
    for name, (meta, arrays) in read.items():
        if name.endswith("/rhythm"):
            said = None if meta["open"] is None else Finding.model_validate(meta["open"])
            shard.silence.models[ModelKey(**meta["key"])] = Rhythm(meta["last_ms"], meta["sources"], said)
        if name.endswith("/notices"):
            for kind, source, told in meta["open"]:
                shard.notices.open[kind, source, meta["name"]] = Finding.model_validate(told)
        if not name.endswith("/model"):
            continue
        key = ModelKey(**meta["key"])
        prefix = name.removesuffix("model")
        own = {other.removeprefix(prefix): both for other, both in read.items() if other.startswith(prefix)}
        shard.models[key] = _model(meta, arrays, own, profiles.get(str(key)), configs.get(key))
    return shard, refused


def _shard_meta(shard: Shard) -> dict[str, Any]:
    return {
        "open_cell": shard.open_cell,
        "sources": {name: [source.watermark_us, source.idle] for name, source in shard.sources.items()},
        "ticks": shard.silence.ticks,
        "started_ms": shard.silence.started_ms,
        "checked_ms": shard.silence.checked_ms,
        "waiting": [asdict(notice) for notice in shard.notices.waiting],
    }


def _rhythm_meta(key: ModelKey, rhythm: Rhythm) -> dict[str, Any]:
    opened = None if rhythm.open is None else _finding(rhythm.open)
    return {"key": asdict(key), "last_ms": rhythm.last_ms, "sources": rhythm.sources, "open": opened}


def _finding(finding: Finding) -> dict[str, Any]:
    return finding.model_dump(mode="json")


def _restore_shard(shard: Shard, meta: dict[str, Any]) -> None:
    shard.open_cell = meta["open_cell"]
    shard.sources = {name: Source(*values) for name, values in meta["sources"].items()}
    shard.silence.ticks = meta["ticks"]
    shard.silence.started_ms, shard.silence.checked_ms = meta["started_ms"], meta["checked_ms"]
    shard.notices.waiting = [Notice(**{**said, "models": tuple(said["models"])}) for said in meta.get("waiting", ())]
    for key, last_ms, sources, opened in meta.get("rhythms", ()):  # where snapshots had them before `rhythm`
        said = None if opened is None else Finding.model_validate(opened)
        shard.silence.models[ModelKey(**key)] = Rhythm(last_ms, sources, said)


Chunk = tuple[str, dict[str, Any], Arrays]


def _model_chunks(key: ModelKey, model: Model) -> Iterator[Chunk]:
    forming = [model.joiner.forming[stratum] for stratum in sorted(model.joiner.forming)]
    width = len(forming[0].stats) if forming else 0
    meta: dict[str, Any] = {
        "key": asdict(key),
        "layout": model.layout,
        "learned": model.learned,
        "counters": model.counters,
        "pace": [model.pace.cell, model.pace.events],
        "matures_since": 0 if model.maturing is None else model.maturing.since,
        "join": None if model.join is None else _join_meta(model.join),
        "watch": None if model.watch is None else _watch_meta(model.watch),
    }
    marks = [(block.stratum, block.first, block.last, block.historical) for block in forming]
    arrays: Arrays = {
        "forming": np.array(marks, dtype=np.int64).reshape(len(forming), 4),
        "forming_stats": np.array([block.stats for block in forming], dtype=np.int64).reshape(len(forming), width),
    }
    yield "model", meta, arrays
    for number, layout in enumerate(sorted(model.cells)):
        merged = model.cells[layout].merged()
        table = {name: getattr(merged, name) for name in ("cell", "stratum", "stats", "historical")}
        for part, piece in _pieces(table):
            yield f"cells/{number}.{part}", {"layout": layout}, piece
    waiting: list[tuple[str, Sequence[Predictions | LabelRows]]] = [
        ("predictions", model.predictions),
        ("labels", model.labels),
    ]
    for name, rows in waiting:
        for number, one in enumerate(rows):
            for part, piece in _pieces({item.name: getattr(one, item.name) for item in fields(one)}):
                yield f"{name}/{number:06}.{part:06}", {}, piece
    if model.join is not None:
        yield from _join_chunks(model.join)
    if model.maturing is not None and model.maturing.buckets:
        numbers = sorted(model.maturing.buckets)
        counts = np.stack([model.maturing.buckets[number] for number in numbers])
        for part, piece in _pieces({"number": np.array(numbers, dtype=np.int64), "counts": counts}):
            yield f"maturing/{part:06}", {}, piece
    if model.watch is not None:
        yield from _watch_chunks(model.watch)
    if model.attack is not None:
        yield from attack_state.chunks(model.attack)
    if model.prompts is not None:
        yield from prompts_state.chunks(model.prompts)


def _pieces(table: Arrays) -> Iterator[tuple[int, Arrays]]:
    rows = len(next(iter(table.values())))
    if not rows:
        return
    most = max(1, CHUNK_BYTES * rows // max(1, sum(array.nbytes for array in table.values())))
    for number, start in enumerate(range(0, rows, most)):
        yield number, {name: array[start : start + most] for name, array in table.items()}


def _join_meta(join: Join) -> dict[str, Any]:
    return {"capacity": join.capacity, "shift": join.shift, "made": join.made, "counters": join.counters}


def _join_chunks(join: Join) -> Iterator[Chunk]:
    for segment in join.segments:
        arrays: Arrays = {}
        for name in ("predictions", "answered"):
            values: dict[int, int] = getattr(segment, name)
            arrays[f"{name}_id"] = np.fromiter(values.keys(), np.uint64, len(values))
            arrays[name] = np.fromiter((value & VALUE for value in values.values()), np.uint64, len(values))
        marks = (value >> 64 for value in segment.predictions.values())
        arrays["mark"] = np.fromiter(marks, np.uint64, len(segment.predictions))
        yield f"join/{segment.number:012}", {"number": segment.number}, arrays
    waiting: Arrays = {
        "id": np.fromiter(join.waiting.keys(), np.uint64, len(join.waiting)),
        "value": np.fromiter((value for value, _, _ in join.waiting.values()), np.uint64, len(join.waiting)),
        "stratum": np.fromiter((stratum for _, stratum, _ in join.waiting.values()), np.int64, len(join.waiting)),
        "source": np.fromiter((source for _, _, source in join.waiting.values()), np.uint64, len(join.waiting)),
    }
    for part, piece in _pieces(waiting):
        yield f"waiting/{part:06}", {}, piece


def _watch_meta(watch: Watch) -> dict[str, Any]:
    clock = watch.clock
    if not isinstance(clock, EventClock):
        raise TypeError("only event time is kept over restarts")
    return {
        "profile": watch.profile.digest,
        "opened": watch.opened,
        "events": watch.events,
        "blocks": watch.state.blocks,
        "ended_us": clock.ended_us,
        "started_us": clock.started_us,
        "hours": sorted(clock.hours.items()),
        "advisers": [[one.spec.digest, one.alarms] for one in watch.advisers],
        "validity": asdict(watch.validity),
        "incidents": [_incident(incident) for incident in watch.incidents],
    }


def _incident(incident: Incident) -> dict[str, Any]:
    plain = {item.name: getattr(incident, item.name) for item in fields(incident)}
    return {**plain, "finding": _finding(incident.finding)}


def _watch_chunks(watch: Watch) -> Iterator[Chunk]:
    sizes = watch.grid_sizes()
    first = np.concatenate([[0], np.cumsum(sizes)])
    row_bytes = 8 * len(POINT_FIELDS)
    most = max(1, CHUNK_BYTES // row_bytes)
    start = 0
    number = 0
    while start < len(sizes):
        stop = max(start + 1, int(np.searchsorted(first, first[start] + most, side="right")) - 1)
        arrays: Arrays = {
            name: getattr(watch.state, name)[first[start] : first[stop]].astype("<f8" if _real(name) else "<i8")
            for name in POINT_FIELDS
        }
        arrays |= {name: getattr(watch.state, name)[start:stop] for name in CHART_FIELDS}
        arrays["sizes"] = sizes[start:stop]
        yield f"charts/{number:06}", {"digests": [chart.digest for chart in watch.bank.charts[start:stop]]}, arrays
        start, number = stop, number + 1
    for number, burn in enumerate(watch.burns):
        opened = None if burn.open is None else _finding(burn.open)
        about = {
            "name": burn.objective.name,
            "limit": burn.objective.limit,
            "bucket": burn.bucket,
            "since": burn.since,
            "open": opened,
        }
        yield f"burns/{number:06}", about, {"bad": burn.bad, "all": burn.all, "old": burn.old}
    for number, one in enumerate(watch.advisers):
        yield f"advisers/{number:06}", {"digest": one.spec.digest}, {"ring": np.array(one.ring, dtype=np.float64)}
    blocks = watch.history.since(0)
    aligned = max(1, CHUNK_BYTES // (8 * (blocks["stats"].shape[1] + 5)))
    # Cut at multiples of a fixed number, so that only the newest chunk changes between snapshots.
    group = blocks["marks"][:, NUMBER] // aligned
    for value in np.unique(group):
        rows = group == value
        yield f"history/{int(value):012}", {}, {name: array[rows] for name, array in blocks.items()}


def _real(name: str) -> bool:
    return name in {"log2_r", "cusum", "base_centre"}


def _model(
    meta: dict[str, Any],
    arrays: Arrays,
    own: Mapping[str, tuple[dict[str, Any], Arrays]],
    profile: Profile | None,
    config: ModelConfig | None,
) -> Model:
    model = Model(layout=meta["layout"], learned=meta["learned"], counters=meta["counters"])
    model.pace = Pace(*meta["pace"]) if "pace" in meta else Pace()  # snapshots of before had none
    for mark, stats in zip(arrays["forming"].tolist(), arrays["forming_stats"], strict=True):
        model.joiner.forming[mark[0]] = Block(mark[0], mark[1], mark[2], stats.copy(), mark[3])
    for about, table in _named(own, "cells/"):
        rows = Closed(**table)
        model.cells.setdefault(about["layout"], OpenCells(rows.stats.shape[1])).add(rows)
    model.predictions = [Predictions(**_marked(table)) for _, table in _named(own, "predictions/")]
    model.labels = [LabelRows(**_sourced(_marked(table))) for _, table in _named(own, "labels/")]
    if meta["join"] is not None:
        model.join = _join(meta["join"], own)
    if meta["watch"] is not None and profile is not None:
        forming: Joiner = model.joiner
        place(model, _watch(meta["watch"], own, profile), config)
        if model.layout == meta["layout"]:
            model.joiner = forming
            _mature(model, meta.get("matures_since", 0), own)
        if model.attack is not None:
            attack_state.restore(model.attack, own)
        if model.prompts is not None:
            prompts_state.restore(model.prompts, own)
    return model


def _mature(model: Model, since: int, own: Mapping[str, tuple[dict[str, Any], Arrays]]) -> None:
    assert model.maturing is not None
    model.maturing.since = since
    for _, table in _named(own, "maturing/"):
        for number, counts in zip(table["number"].tolist(), table["counts"], strict=True):
            model.maturing.buckets[number] = counts.copy()


def _marked(table: Arrays) -> Arrays:
    return {"mark": np.zeros(len(table["event_id"]), dtype=np.uint64), **table}


def _sourced(table: Arrays) -> Arrays:
    return {"source": np.zeros(len(table["event_id"]), dtype=np.uint64), **table}


def _named(own: Mapping[str, tuple[dict[str, Any], Arrays]], prefix: str) -> list[tuple[dict[str, Any], Arrays]]:
    return [own[name] for name in sorted(own) if name.startswith(prefix)]


def _join(meta: dict[str, Any], own: Mapping[str, tuple[dict[str, Any], Arrays]]) -> Join:
    join = Join(meta["capacity"], meta["shift"], made=meta["made"], counters=meta["counters"])
    for about, table in _named(own, "join/"):
        segment = Segment(about["number"])
        made = table["predictions"]
        marks = table.get("mark", np.zeros_like(made))  # snapshots of before had none
        values = [value | mark << 64 for value, mark in zip(made.tolist(), marks.tolist(), strict=True)]
        segment.predictions.update(zip(table["predictions_id"].tolist(), values, strict=True))
        segment.answered.update(zip(table["answered_id"].tolist(), table["answered"].tolist(), strict=True))
        join.segments.append(segment)
    for _, table in _named(own, "waiting/"):
        source = table.get("source", np.zeros(len(table["id"]), dtype=np.uint64))  # snapshots of before had none
        kept = zip(table["value"].tolist(), table["stratum"].tolist(), source.tolist(), strict=True)
        join.waiting.update(zip(table["id"].tolist(), kept, strict=True))
    return join


def _burn(about: dict[str, Any], table: Arrays) -> Burn:
    bad, total = table["bad"].copy(), table["all"].copy()
    old = table["old"].copy() if "old" in table else np.zeros_like(bad)  # snapshots of before had none, and no limit
    opened = None if about["open"] is None else Finding.model_validate(about["open"])
    objective = Objective(about["name"], 0, 0, 1.0, about.get("limit", ""))
    return Burn(objective, bad, total, old, about["bucket"], about["since"], opened)


def _watch(meta: dict[str, Any], own: Mapping[str, tuple[dict[str, Any], Arrays]], profile: Profile) -> Watch:
    clock = EventClock(profile.budget_period_us, profile.events_per_second, meta["ended_us"], meta["started_us"])
    clock.block_events = profile.block_rows
    clock.hours = {int(hour): int(events) for hour, events in meta["hours"]}
    watch = Watch(profile, clock)
    watch.opened, watch.events = meta["opened"], meta["events"]
    watch.validity = Validity(**meta.get("validity", {}))  # snapshots of before had none
    watch.incidents = [
        Incident(**{**incident, "finding": Finding.model_validate(incident["finding"])})
        for incident in meta["incidents"]
    ]
    kept: dict[str, ChartState] = {}
    for about, table in _named(own, "charts/"):
        first = np.concatenate([[0], np.cumsum(table["sizes"])])
        for index, digest in enumerate(about["digests"]):
            points = slice(first[index], first[index + 1])
            kept[digest] = {name: table[name][points] for name in POINT_FIELDS} | {
                name: table[name][index : index + 1] for name in CHART_FIELDS
            }
    for about, table in _named(own, "burns/"):
        for burn in watch.burns:
            if burn.objective.name == about["name"]:
                burn.take_over(_burn(about, table))
    rings = {about["digest"]: table["ring"].tolist() for about, table in _named(own, "advisers/")}
    for digest, alarms in meta.get("advisers", ()):  # snapshots of before had none
        for one in watch.advisers:
            if one.spec.digest == digest:
                one.restore([tuple(value) for value in rings.get(digest, ())], alarms)
    watch.adopt(kept, meta["blocks"])
    watch.refresh()
    blocks = [table for _, table in _named(own, "history/")]
    if blocks and len({table["stats"].shape[1] for table in blocks}) == 1:
        watch.history.restore({name: np.concatenate([table[name] for table in blocks]) for name in blocks[0]})
    return watch
