"""Control as the roles keep it: hostile records end no shard, and a restart leaves in force what was in force."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from tests.telemetry_streams import CONFIG, KEY, profile

from regate.config.canonical import digest_bytes
from regate.daemon.bus.port import Record
from regate.daemon.control import document_record, profile_records
from regate.daemon.roles import standing as standings
from regate.daemon.roles.decide import DecideCore
from regate.daemon.roles.gate import GateCore
from regate.daemon.roles.observe import ObserveCore
from regate.daemon.roles.standing import Standing
from regate.daemon.roles.validate import ValidateCore
from regate.daemon.shell.core import StepInput, Tick
from regate.daemon.shell.snapshots import MAX_CHUNK
from regate.detectors.arrays import pack

CORES: list[tuple[Any, str]] = [
    (ObserveCore(1), "telemetry-0"),
    (DecideCore(1), "0"),
    (GateCore(1), "0"),
    (ValidateCore(), "0"),
]


def control(kind: str, name: str, document: str, digest: str = "sha256:x", **more: int) -> Record:
    data = {"kind": kind, "name": name, "digest": digest, "document": document, **more}
    value = json.dumps({"type": "io.regate.control.v1", "data": data}).encode()
    return Record("control", 0, 0, 1000, f"{kind}/{name}".encode(), value)


def _profile(meta: dict[str, Any]) -> Record:
    data = pack(meta, {})
    return control("profile-chunk", f"{KEY}#0", base64.b64encode(data).decode(), digest_bytes(data))


def _wide(features: int) -> str:
    document = CONFIG.model_dump(mode="json") | {"features": {f"f{n}": {"type": "text"} for n in range(features)}}
    return json.dumps(document)


HOSTILE = {
    "deep model": control("model", KEY.placement, "[" * 100_000),
    "deep policy": control("policy", "default", "[" * 100_000),
    "empty profile": _profile({"profile": 1}),
    "profile of strange parts": _profile({"profile": 1, "key": {"a": 1}}),
    "infinite weight": control("model", KEY.placement, _wide(1).replace('"text"', '"text", "weight": "inf"')),
    "large model": control("model", KEY.placement, '{"x":"' + "y" * 950_000 + '"}'),
    "model that grows by its defaults": control("model", KEY.placement, _wide(20_000)),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize(("core", "shard"), CORES, ids=[core.name for core, _ in CORES])
def test_no_control_record_ends_a_shard(core: Any, shard: str, name: str) -> None:
    state = core.initial(shard)
    core.step(state, StepInput(control=(HOSTILE[name],), tick=Tick(1000)))
    chunks = core.dump(state)
    assert max(map(len, chunks.values())) < MAX_CHUNK
    assert core.dump(core.load(shard, chunks)) == chunks


def _numbered(records: list[Any]) -> list[Record]:
    return [Record("control", 0, n, 0, record.key, record.value) for n, record in enumerate(records)]


def _reloaded(standing: Standing) -> Standing:
    again, refused = standings.load(standing.dump())
    assert not refused
    assert again.dump() == standing.dump()
    return again


def test_a_refused_configuration_does_not_push_the_good_one_out_of_the_snapshot() -> None:
    good, bad = document_record(CONFIG, 1), control("model", KEY.placement, '{"nope": 1}')
    standing = Standing()
    standing.take(_numbered([good, bad]))
    assert standing.refused == 1
    assert _reloaded(standing).view.models == standing.view.models == {KEY.placement: CONFIG}


def test_half_of_a_new_profile_leaves_the_old_one_in_force_over_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regate.daemon.control.CHUNK", 3 * (len(profile().to_bytes()) // 7))
    old, new = profile(), replace(profile(), notes=("another",))
    first, second = profile_records(old, 1), profile_records(new, 2)
    assert len(second) > 1
    live = Standing()
    live.take(_numbered([*first, *second[:-1]]))
    again = _reloaded(live)
    assert again.view.profiles[str(KEY)].digest == live.view.profiles[str(KEY)].digest == old.digest
    rest = Record("control", 0, 99, 0, second[-1].key, second[-1].value)
    for one in (live, again):
        assert one.take([rest]) == {f"profile/{KEY}"}
        assert one.view.profiles[str(KEY)].digest == new.digest
    assert len(live.records) == len(second)  # nothing of the old one is kept
    gone = Record("control", 0, 100, 0, f"profile/{KEY}".encode(), None)
    assert live.take([gone]) == {f"profile/{KEY}"}
    assert _reloaded(live).view.profiles == live.view.profiles == {}
    assert not live.records
