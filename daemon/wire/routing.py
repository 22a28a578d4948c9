"""Whose event it is: tenant and model of each record, read by a layout of just these two fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from regate.config.model import FieldMapping, ModelConfig
from regate.daemon.wire.columnar import WrongTypeError, to_categorical
from regate.daemon.wire.decode_json import decode_each
from regate.daemon.wire.mapping import Gathered, Layout, identity_paths
from regate.detectors.columns import IntArray

Owner = tuple[str | None, str | None]  # tenant, model; None where the event does not say
# Stands for the model of a record that does not even say whose it is; no name may hold this character.
MALFORMED = "\x00"


class Router:
    """Finds the configuration of each event. ``only`` is set when just one model is configured."""

    def __init__(self, configs: Mapping[tuple[str, str], ModelConfig]) -> None:
        self._configs = dict(configs)
        self.only = next(iter(self._configs.values())) if len(self._configs) == 1 else None
        mappings = [config.mapping for config in self._configs.values()]
        # Later ones are asked only for the records that the earlier ones leave open.
        self._paths = list(dict.fromkeys((m.tenant, m.model) for m in [*mappings, FieldMapping()]))
        self._layouts: dict[tuple[tuple[str, str], bool], Layout] = {}

    def configured(self, config: ModelConfig) -> bool:
        """Return whether this very configuration was given, not inferred."""
        return self._configs.get((config.tenant, config.model)) is config

    def find(self, tenant: str | None, model: str | None) -> ModelConfig | None:
        """Return the configuration that an event belongs to; what the event leaves out must be unambiguous."""
        if model is None:
            only = self.only
            return only if only is not None and tenant in {None, only.tenant} else None
        if tenant is not None:
            return self._configs.get((tenant, model))
        named = [config for (_, name), config in self._configs.items() if name == model]
        return named[0] if len(named) == 1 else self._configs.get(("default", model))

    def all_of(self, config: ModelConfig, gathered: Gathered) -> bool:
        """Return whether no decoded event names another tenant or model."""
        tenants, models = gathered.columns.get("tenant", ()), gathered.columns.get("model", ())
        return not (set(tenants) - {None, config.tenant} or set(models) - {None, config.model})

    def foreign(self, config: ModelConfig, values: Sequence[bytes], *, envelope: bool) -> bool:
        """Return whether any of these records, which the layout of a model refused, names another model."""
        if not values:
            return False
        owners = self.route(values, envelope=envelope)
        return any(model != MALFORMED and self.find(tenant, model) is not config for tenant, model in owners)

    def _layout(self, paths: tuple[str, str], *, envelope: bool) -> Layout:
        place = (paths, envelope)
        if place not in self._layouts:
            mapping = FieldMapping(tenant=paths[0], model=paths[1])
            self._layouts[place] = Layout(identity_paths(mapping), envelope=envelope)
        return self._layouts[place]

    def route(self, values: Sequence[bytes], *, envelope: bool) -> dict[Owner, list[int]]:
        """Return the positions of the records of each owner, owners in order of first appearance."""
        owners: list[Owner] = [(None, MALFORMED)] * len(values)
        open_positions = list(range(len(values)))
        for paths in self._paths:
            layout = self._layout(paths, envelope=envelope)
            part = [values[p] for p in open_positions]
            rows, failed = decode_each(layout.decoder.decode, part)
            positions = [p for place, p in enumerate(open_positions) if place not in failed]
            if rows:
                columns = layout.gather(rows).columns
                said = list(zip(columns["tenant"], columns["model"], strict=True))
                resolved = {owner for owner in set(said) if self.find(*owner) is not None}
                for position, owner in zip(positions, said, strict=True):
                    if owner in resolved or owners[position][1] in {None, MALFORMED}:
                        owners[position] = owner
                done = {p for p, owner in zip(positions, said, strict=True) if owner in resolved}
                open_positions = [p for p in open_positions if p not in done]
            if not open_positions:
                break
        found: dict[Owner, list[int]] = {}
        for position, owner in enumerate(owners):
            found.setdefault(owner, []).append(position)
        return found

    def route_columns(self, columns: Mapping[str, pa.Array], n: int) -> dict[Owner, IntArray | None]:
        """Return the rows of each owner of an Arrow group; None stands for all rows."""
        best: dict[Owner, IntArray | None] = {(None, None): None}
        for tenant, model in self._paths:
            found = _owners(columns.get(tenant), columns.get(model), n)
            if found is not None:
                best = found
                if all(self.find(*owner) is not None for owner in found):
                    return found
        return best


def _owners(tenant: pa.Array | None, model: pa.Array | None, n: int) -> dict[Owner, IntArray | None] | None:
    if tenant is None and model is None:
        return None
    try:
        parts = [None if array is None else to_categorical(array) for array in (tenant, model)]
    except (WrongTypeError, pa.ArrowException):
        return None
    names = [("",) if part is None else part.categories for part in parts]
    zero = np.full(n, -1, np.int64)
    codes = [zero if part is None else part.codes.astype(np.int64) for part in parts]
    width = len(names[1]) + 1
    pair = (codes[0] + 1) * width + codes[1] + 1
    values, starts, inverse = np.unique(pair, return_index=True, return_inverse=True)
    found: dict[Owner, IntArray | None] = {}
    for position in np.argsort(starts).tolist():
        one, two = divmod(int(values[position]), width)
        owner = (names[0][one - 1] if one else None, names[1][two - 1] if two else None)
        found[owner] = None if len(values) == 1 else np.flatnonzero(inverse.reshape(-1) == position)
    return found
