"""Records to slices: the whole batch at once, whatever mixture of encodings, models and garbage it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from regate.config.model import ModelConfig
from regate.config.settings import Limits
from regate.daemon.bus.port import Record
from regate.daemon.bus.records import any_headers, values_of
from regate.daemon.wire.assemble import Batch, Decoded, assemble
from regate.daemon.wire.binding import bind
from regate.daemon.wire.columnar import to_categorical
from regate.daemon.wire.columns import PartsReader
from regate.daemon.wire.decode_arrow import ArrowGroup, group_streams
from regate.daemon.wire.decode_json import TOO_WIDE, JsonBatch, decode_batch, parts_of
from regate.daemon.wire.explain import explain, schema_problem
from regate.daemon.wire.infer import infer_config, infer_events
from regate.daemon.wire.limits import screen, screen_texts
from regate.daemon.wire.mapping import Layout, label_paths, telemetry_paths
from regate.daemon.wire.reasons import Bad, Reason, Refusal
from regate.daemon.wire.routing import MALFORMED, Router
from regate.detectors.columns import Categorical, IntArray, ModelKey

ARROW = b"application/vnd.apache.arrow.stream"
# An encapsulated Arrow message begins with this continuation mark, which no UTF-8 text can.
ARROW_MARK = b"\xff\xff\xff\xff"
CLOUD_EVENTS = b"application/cloudevents"
NO_ROOM = "more models, versions and deployments on this partition than limits.models"


class Decoder:
    """Decodes telemetry and labels for a fixed set of model configurations.

    :param configs: by (tenant, model); events of other models are decoded by what they look like.
    :param limits: checked before parsing.
    :param salt: 64-bit salt of client hashes.
    """

    def __init__(
        self, configs: Mapping[tuple[str, str], ModelConfig], limits: Limits | None = None, salt: int = 0
    ) -> None:
        self._limits = limits or Limits()
        self._salt = salt
        self._router = Router(configs)
        self._layouts: dict[tuple[str, str, bool, bool], Layout] = {}
        self._met: tuple[int, set[tuple[str, str]]] = 0, set()  # models of as many known keys
        for config in configs.values():  # a mapping that contradicts itself is found at start, not at an event
            self._layout(config, labels=False, envelope=False)
            self._layout(config, labels=True, envelope=False)

    def decode(self, records: Sequence[Record], known: Iterable[ModelKey] = ()) -> Decoded:
        """Return slices and refusals of telemetry records; never raises for what the records hold.

        :param known: keys already met on this partition, counted against `Limits.models`.
        """
        return self._decode(records, set(known), labels=False)

    def decode_labels(self, records: Sequence[Record], known: Iterable[ModelKey] = ()) -> Decoded:
        """Return labels and refusals of label records."""
        return self._decode(records, set(known), labels=True)

    def _decode(self, records: Sequence[Record], known: set[ModelKey], *, labels: bool) -> Decoded:
        into = Decoded()
        self._met = 0, set()
        texts, streams = self._split(records, into)
        if texts:
            self._texts(texts, known, into, labels=labels)
        if streams:
            self._streams(streams, known, into, labels=labels)
        return into

    def _split(self, records: Sequence[Record], into: Decoded) -> tuple[Sequence[Record], Sequence[Record]]:
        """Return JSON and Arrow records; refuse those that are neither by size alone."""
        if not any_headers(records):  # nothing here is worth a call a record
            values = list(filter(None, values_of(records)))
            small = max(map(len, values), default=0) <= self._limits.record_bytes
            if len(values) == len(records) and small and ARROW_MARK[0] not in {value[0] for value in values}:
                return records, ()
        texts: list[Record] = []
        streams: list[Record] = []
        for record in records:
            why = screen(record, self._limits)
            if why is not None:
                into.refused.append(Refusal(record, *why))
            else:
                (streams if _is_arrow(record) else texts).append(record)
        return texts, streams

    def _layout(self, config: ModelConfig, *, labels: bool, envelope: bool) -> Layout:
        place = (config.tenant, config.model, labels, envelope)
        layout = self._layouts.get(place)
        if layout is None:
            paths = label_paths(config) if labels else telemetry_paths(config)
            layout = Layout(paths, envelope=envelope)
            if self._router.configured(config):
                self._layouts[place] = layout
        return layout

    def _full(self, tenant: str, model: str, known: set[ModelKey]) -> bool:
        """Return whether a model that nobody configured comes too late for `Limits.models`.

        Asked before its layout is made, which takes a millisecond: a step full of made-up names would
        last longer than the watchdog allows, again after each restart.
        """
        if len(known) < self._limits.models:
            return False
        if self._met[0] != len(known):
            self._met = len(known), {(key.tenant, key.model) for key in known}
        return (tenant, model) not in self._met[1]

    # JSON

    def _texts(self, records: Sequence[Record], known: set[ModelKey], into: Decoded, *, labels: bool) -> None:
        values = [value or b"" for value in values_of(records)]
        screened = screen_texts(values, self._limits)
        refused = screened.refused
        if refused:
            into.refused += [Refusal(records[position], *why) for position, why in sorted(refused.items())]
            records = [record for position, record in enumerate(records) if position not in refused]
            values = [value or b"" for value in values_of(records)]
        for envelope, positions in _by_envelope(records, values, marked=screened.marked):
            part = [values[p] for p in positions] if len(positions) < len(values) else values
            owners = [records[p] for p in positions] if len(positions) < len(records) else records
            self._events(owners, part, known, into, labels=labels, envelope=envelope)

    def _events(
        self,
        records: Sequence[Record],
        values: Sequence[bytes],
        known: set[ModelKey],
        into: Decoded,
        *,
        labels: bool,
        envelope: bool,
    ) -> None:
        """Decode bare events, or events in envelopes: at once where there is one model, else model by model."""
        only = self._router.only
        if only is not None and values:
            batch = decode_batch(values, self._layout(only, labels=labels, envelope=envelope), self._limits)
            if self._router.all_of(only, batch.gathered):
                others = self._router.foreign(only, [values[p] for p in batch.failed], envelope=envelope)
                if not others:
                    self._take(batch, only, records, values, known, into, labels=labels, envelope=envelope)
                    return
        for (tenant, model), positions in self._router.route(values, envelope=envelope).items():
            config = self._router.find(tenant, model)
            mine = [records[p] for p in positions]
            part = [values[p] for p in positions]
            if config is None and model not in {None, MALFORMED}:
                if self._full(str(tenant or "default"), str(model), known):
                    into.refused += [Refusal(record, Reason.TOO_MANY_MODELS, NO_ROOM, field="model") for record in mine]
                    continue
                config = infer_events(part, str(tenant or "default"), str(model), envelope=envelope, labels=labels)
            if config is None:
                self._explain(mine, part, dict.fromkeys(range(len(part)), ""), self._router.only, into, labels=labels)
                continue
            batch = decode_batch(part, self._layout(config, labels=labels, envelope=envelope), self._limits)
            self._take(batch, config, mine, part, known, into, labels=labels, envelope=envelope)

    def _take(
        self,
        batch: JsonBatch,
        config: ModelConfig,
        records: Sequence[Record],
        values: Sequence[bytes],
        known: set[ModelKey],
        into: Decoded,
        *,
        labels: bool,
        envelope: bool,
    ) -> None:
        self._explain(records, values, batch.failed, config, into, labels=labels)
        n = len(batch.positions)
        if not n:
            return
        columns = batch.gathered.columns
        parts = parts_of(batch.gathered, n, config, envelope=envelope, labels=labels, salt=self._salt)
        parts.bad = [*_schema_bad(columns, n, config, labels=labels, envelope=envelope), *parts.bad]
        keys, key_of = _keys(columns["model_version"], columns["deployment"], n, config)
        assemble(
            Batch(parts, config, keys, key_of, records, np.array(batch.positions, np.int64), None),
            known,
            self._limits.models,
            labels=labels,
            into=into,
        )

    def _explain(
        self,
        records: Sequence[Record],
        values: Sequence[bytes],
        failed: Mapping[int, str],
        config: ModelConfig | None,
        into: Decoded,
        *,
        labels: bool,
    ) -> None:
        for position, said in failed.items():
            if said == TOO_WIDE:
                into.refused.append(Refusal(records[position], Reason.TOO_MANY_FIELDS, said))
                continue
            reason, message, field = explain(values[position], config, labels=labels, fallback=said)
            model = f"{config.tenant}/{config.model}" if config is not None else ""
            into.refused.append(Refusal(records[position], reason, message, model=model, field=field))

    # Arrow

    def _streams(self, records: Sequence[Record], known: set[ModelKey], into: Decoded, *, labels: bool) -> None:
        groups, refused = group_streams([value or b"" for value in values_of(records)], self._limits)
        into.refused += [Refusal(records[position], *why) for position, why in sorted(refused.items())]
        for group in groups:
            for (tenant, model), rows in self._router.route_columns(group.columns, group.n).items():
                config = self._router.find(tenant, model)
                part = group if rows is None else _subset(group, rows)
                if config is None and model and self._full(str(tenant or "default"), str(model), known):
                    into.refused += _whole(part, records, Reason.TOO_MANY_MODELS, NO_ROOM)
                    continue
                if config is None:
                    config = infer_config(part.columns, str(model), str(tenant or "default")) if model else None
                if config is None:
                    said = "model is missing, and more than one model is configured"
                    into.refused += _whole(part, records, Reason.MISSING_FIELD, said)
                    continue
                self._columns(part, config, records, known, into, labels=labels)

    def _columns(
        self,
        group: ArrowGroup,
        config: ModelConfig,
        records: Sequence[Record],
        known: set[ModelKey],
        into: Decoded,
        *,
        labels: bool,
    ) -> None:
        binding = bind(group.columns, config)
        reader = PartsReader(group.columns, group.n, binding, config, strict=True)
        parts = reader.read(labels=labels, salt=self._salt)
        if labels and parts.label is None:
            parts.label = Categorical(np.full(group.n, -1, np.int32), ())
        if parts.event_id is None:
            parts.event_id = np.zeros(group.n, np.uint64)
        version = group.columns.get(binding.fields["model_version"])
        deployment = group.columns.get(binding.fields["deployment"])
        keys, key_of = _column_keys(version, deployment, group.n, config)
        assemble(
            Batch(parts, config, keys, key_of, records, group.record, group.row),
            known,
            self._limits.models,
            labels=labels,
            into=into,
        )


def _is_arrow(record: Record) -> bool:
    if record.headers:
        for name, value in record.headers:
            if name.lower() == "content-type":
                return value.startswith(ARROW)
    return bool(record.value) and record.value[:4] == ARROW_MARK  # type: ignore[index]


def _by_envelope(
    records: Sequence[Record], values: Sequence[bytes], *, marked: bool
) -> list[tuple[bool, Sequence[int]]]:
    """Return the positions of bare events and of structured CloudEvents, by header or by content."""
    if not marked and not any_headers(records):
        return [(False, range(len(values)))]
    wrapped: list[int] = []
    bare: list[int] = []
    for position, (record, value) in enumerate(zip(records, values, strict=True)):
        said = any(name.lower() == "content-type" and text.startswith(CLOUD_EVENTS) for name, text in record.headers)
        (wrapped if said or b'"specversion"' in value else bare).append(position)
    return [(envelope, positions) for envelope, positions in ((False, bare), (True, wrapped)) if positions]


def _schema_bad(
    columns: Mapping[str, Sequence[object]], n: int, config: ModelConfig, *, labels: bool, envelope: bool
) -> list[Bad]:
    """Return the rows whose type, dataschema or schema_version this release does not read."""
    found: list[Bad] = []
    if envelope:
        said = list(zip(*(columns[f"ce:{name}"] for name in ("specversion", "type", "dataschema")), strict=True))
        for kind in set(said):
            why = schema_problem(*kind, labels=labels, config=config)
            if why:
                rows = np.fromiter((row == kind for row in said), np.bool_, n)
                found.append(Bad(rows, Reason.UNKNOWN_SCHEMA, "type", why))
    versions = columns.get("schema_version")
    if versions is not None and set(versions) - {None, 1, "1"}:
        rows = np.fromiter((value not in {None, 1, "1"} for value in versions), np.bool_, n)
        message = "schema_version is not 1; newer telemetry needs a newer regate"
        found.append(Bad(rows, Reason.UNKNOWN_SCHEMA, "schema_version", message))
    return found


def _keys(
    versions: Sequence[object], deployments: Sequence[object], n: int, config: ModelConfig
) -> tuple[list[ModelKey], IntArray]:
    if len(set(versions)) == 1 and len(set(deployments)) == 1:  # nearly every batch, and cheaper than pairs
        versions, deployments = versions[:1], deployments[:1]
    pairs = list(zip(versions, deployments, strict=True))
    place = {pair: code for code, pair in enumerate(dict.fromkeys(pairs))}
    keys: dict[ModelKey, int] = {}
    table = []
    for version, deployment in place:
        key = ModelKey(
            config.tenant,
            config.model,
            config.version if version is None else str(version),
            config.deployment if deployment is None else str(deployment),
        )
        table.append(keys.setdefault(key, len(keys)))
    if len(keys) == 1:
        return list(keys), np.zeros(n, np.int64)
    return list(keys), np.array(table, np.int64)[np.fromiter(map(place.__getitem__, pairs), np.int64, n)]


def _column_keys(version: object, deployment: object, n: int, config: ModelConfig) -> tuple[list[ModelKey], IntArray]:
    missing = Categorical(np.full(n, -1, np.int32), ())
    first = missing if version is None else to_categorical(version)
    second = missing if deployment is None else to_categorical(deployment)
    width = len(second.categories) + 1
    pair = (first.codes.astype(np.int64) + 1) * width + second.codes + 1
    values, starts, inverse = np.unique(pair, return_index=True, return_inverse=True)
    order = np.argsort(starts)  # keys in order of first appearance, as for JSON
    keys: dict[ModelKey, int] = {}
    table = np.zeros(len(values), np.int64)
    for position in order.tolist():
        one, two = divmod(int(values[position]), width)
        key = ModelKey(
            config.tenant,
            config.model,
            first.categories[one - 1] if one else config.version,
            second.categories[two - 1] if two else config.deployment,
        )
        table[position] = keys.setdefault(key, len(keys))
    return list(keys), np.asarray(table[inverse.reshape(-1)], np.int64)


def _subset(group: ArrowGroup, rows: IntArray) -> ArrowGroup:
    columns = {name: array.take(rows) for name, array in group.columns.items()}
    return ArrowGroup(columns, len(rows), group.record[rows], group.row[rows])


def _whole(group: ArrowGroup, records: Sequence[Record], reason: Reason, message: str) -> list[Refusal]:
    """Return the refusals of all rows of a group."""
    found = []
    for owner in np.unique(group.record).tolist():
        rows = group.row[group.record == owner]
        found.append(Refusal(records[owner], reason, message, len(rows), tuple(rows[:16].tolist()), field="model"))
    return found
