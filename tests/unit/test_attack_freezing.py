"""Incident to scenario: shrunk as far as it goes, written without who asked, and loaded again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmarks.attacks.traffic import ATTACKS, Traffic, attack, benign, benign_client, table, woven
from tests.attack_traffic import client_hash, rows_of
from typer.testing import CliRunner

from regate.config.errors import ConfigError
from regate.config.model import Feature, ModelConfig
from regate.config.settings import Limits
from regate.daemon.bus.memory import MemoryBus
from regate.daemon.bus.port import OutRecord, TopicSpec
from regate.daemon.cli.main import app
from regate.daemon.files.table import read_table
from regate.daemon.freezing import Asked, atlas_of, frozen
from regate.daemon.profiles import events_of_topic, read_profile
from regate.daemon.validate.lanes import lanes_of
from regate.daemon.wire.encode import EventEncoder
from regate.daemon.wire.hashing import hash_texts
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.queries import Queries, ordered
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.shrinking import first_alarm, shortest
from regate.scenarios.catalog.loading import load_catalog
from regate.scenarios.families.attack_replay import AttackReplayRecord, distinct

POPULATION = table(3)
QUICK = ("--calibrate-seconds", "0")


def incident(kind: str, seed: int = 0) -> Traffic:
    rng = np.random.default_rng((9, seed))
    parts = [("evil", kind, attack(POPULATION, kind, rng, 120))]
    for number, what in enumerate(("fresh", "jitter", "what-if", "ab")):
        parts.append((f"good{number}", what, benign_client(POPULATION, what, rng, 60)))
    return woven(POPULATION, parts, rng)


@pytest.fixture(scope="module")
def reference() -> AttackReference:
    normal = rows_of(benign(POPULATION, 120, 30, 1))
    made = fitted(normal, tuple(normal.features))
    assert isinstance(made, AttackReference)
    return made


def of_client(reference: AttackReference, traffic: Traffic, client: str) -> Queries:
    rows = rows_of(traffic)
    assert rows.client is not None
    return ordered(reference.queries(rows.some(rows.client == client_hash(client))))


@pytest.mark.parametrize("kind", ATTACKS)
def test_neither_the_first_nor_the_last_query_can_be_left_out(reference: AttackReference, kind: str) -> None:
    found = 0
    for seed in range(3):
        queries = of_client(reference, incident(kind, seed), "evil")
        run = shortest(reference, queries)
        if run is None:
            continue
        found += 1
        whole = first_alarm(reference, queries)
        assert whole is not None
        assert run.stop <= whole.row + 1  # the first alarm, and none of those that come later
        alone = first_alarm(reference, queries.some(slice(run.start, run.stop)))
        assert alone is not None
        assert (alone.row, alone.lanes) == (run.stop - run.start - 1, run.alarm.lanes)
        assert first_alarm(reference, queries.some(slice(run.start + 1, run.stop))) is None
        assert first_alarm(reference, queries.some(slice(run.start, run.stop - 1))) is None
    assert found >= {"mix": 0, "boundary walk": 2}.get(kind, 3)  # who mixes real values, or walks, may stay unseen


def test_what_a_client_asked_before_his_attack_is_left_out(reference: AttackReference) -> None:
    rng = np.random.default_rng(31)
    usual = POPULATION.draw(rng, 300)
    evil = attack(POPULATION, "finite differences", rng, 60)
    queries = of_client(reference, woven(POPULATION, [("evil", "x", np.concatenate([usual, evil]))], rng), "evil")
    run = shortest(reference, queries)
    assert run is not None
    assert run.start >= 290
    assert run.stop - run.start <= 25


def test_normal_queries_have_nothing_to_shrink(reference: AttackReference) -> None:
    assert shortest(reference, of_client(reference, incident("noise"), "good0")) is None


# --- the verb -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("freeze")
    pq.write_table(pa.table(benign(POPULATION, 120, 30, 1).columns()), made / "normal.parquet")
    pq.write_table(pa.table(incident("finite differences").columns()), made / "incident.parquet")
    done = CliRunner().invoke(
        app,
        ["profile", "build", str(made / "normal.parquet"), "-o", str(made / "m.profile"), *QUICK],
    )
    assert done.exit_code == 0, done.output
    return made


def freeze(folder: Path, out: Path, *more: str, client: str = "evil", source: str = "incident.parquet") -> dict:
    told = ["--profile", str(folder / "m.profile"), "--from", str(folder / source), "--out", str(out), "--json"]
    done = CliRunner().invoke(app, ["patterns", "freeze", "--client", client, *told, *more])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_an_incident_becomes_a_queued_record(folder: Path, tmp_path: Path) -> None:
    told = freeze(folder, tmp_path / "queue", "--incident", "i-17", "--actor", "ann")
    library = load_catalog([tmp_path / "queue"])
    record = library.records[told["id"]]
    assert isinstance(record, AttackReplayRecord)
    assert record.status == "queued"
    assert record.authors == ("ann",)
    assert record.parents == ("i-17",)
    assert record.provenance.incident == "i-17"
    assert record.provenance.profile == read_profile(folder / "m.profile").digest
    assert record.provenance.asked == 120
    assert record.provenance.view == "client"
    assert "AML.T0043.001" in record.taxonomy.atlas
    rows = library.frozen[record.frozen]
    assert record.id == f"scn-attack-{record.frozen.removeprefix('sha256:')[:8]}"
    assert record.detect_within_n == distinct(rows.features, rows.n) == told["detect_within_n"]
    assert rows.n == told["queries"] < 30
    heard = lanes_of(read_profile(folder / "m.profile")).hear(rows)
    assert heard.row == rows.n - 1
    assert lanes_of(read_profile(folder / "m.profile")).hear(rows.pick(np.arange(1, rows.n))).row is None
    assert dict(heard.lanes).keys() >= record.provenance.lanes.keys()
    times = incident("finite differences").time_us
    assert record.provenance.first is not None
    assert record.provenance.last is not None
    first, last = record.provenance.first.timestamp() * 1e6, record.provenance.last.timestamp() * 1e6
    assert times[0] <= first < last <= times[-1]


def test_nothing_written_says_who_asked(folder: Path, tmp_path: Path) -> None:
    freeze(folder, tmp_path)
    names = {"evil", f"{int(hash_texts(['evil'])[0]):016x}", str(int(hash_texts(["evil"])[0]))}
    files = list(tmp_path.iterdir())
    assert len(files) == 2
    for path in files:
        assert not [name for name in names if name.encode() in path.read_bytes()], path
    (rows,) = load_catalog([tmp_path]).frozen.values()
    assert set(rows.columns()) == {*(f"feature:f{number:03}" for number in range(14)), "prediction", "score:"}


def test_a_client_may_be_named_as_findings_do(folder: Path, tmp_path: Path) -> None:
    hexed = f"{int(hash_texts(['evil'])[0]):016x}"
    by_name, by_hash = freeze(folder, tmp_path / "a"), freeze(folder, tmp_path / "b", client=hexed)
    assert by_name["id"] == by_hash["id"]


def test_onset_and_until_are_rows_or_times(folder: Path, tmp_path: Path) -> None:
    traffic = incident("finite differences")
    half = int(np.flatnonzero(traffic.client == "evil")[60])
    moment = datetime.fromtimestamp(int(traffic.time_us[half]) / 1e6, UTC).isoformat()
    by_row, by_time = (freeze(folder, tmp_path / str(n), "--onset", at) for n, at in enumerate((str(half), moment)))
    assert by_row["asked"] == by_time["asked"] == 60
    assert by_row["id"] == by_time["id"]
    early = freeze(folder, tmp_path / "early", "--until", str(half))
    assert early["asked"] == 60
    with pytest.raises(ConfigError, match="nothing in that time"):
        freeze(folder, tmp_path, "--onset", "999999")
    with pytest.raises(ConfigError, match="no time"):
        freeze(folder, tmp_path, "--onset", "noon")


def test_what_cannot_be_frozen_says_so(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="raise no finding over the 60 queries of this client alone"):
        freeze(folder, tmp_path, client="good0")
    with pytest.raises(ConfigError, match="no event is of that client") as caught:
        freeze(folder, tmp_path, client="nobody-7")
    assert "nobody-7" not in caught.value.message
    freeze(folder, tmp_path)
    with pytest.raises(ConfigError, match="there already"):
        freeze(folder, tmp_path)
    with pytest.raises(ConfigError, match="needs a model configuration"):
        freeze(folder, tmp_path, source="nowhere")


def test_a_profile_without_lanes_is_no_profile_to_freeze_with(folder: Path) -> None:
    whole = read_table(folder / "incident.parquet")
    blind = replace(read_profile(folder / "m.profile"), attack=None)
    with pytest.raises(ConfigError, match="has no attack lanes"):
        frozen(Asked(whole.whole, whole.config).of("evil"), blind)


def private(folder: Path, tmp_path: Path) -> ModelConfig:
    """Features with secrets: a category to hash, a category and a number to drop; a cohort."""
    for name in ("normal", "incident"):
        told = pq.read_table(folder / f"{name}.parquet")
        n = told.num_rows
        for column, values in (
            ("town", [f"town-{number % 5}" for number in range(n)]),
            ("name", [f"secret-{number}" for number in range(n)]),
            ("salary", [123456.5] * n),
            ("cohort_sex", ["secret-sex"] * n),
        ):
            told = told.append_column(column, pa.array(values))
        pq.write_table(told, tmp_path / f"{name}.parquet")
    features = {f"f{number:03}": Feature(type="numeric") for number in range(14)}
    return ModelConfig(
        model="normal",
        features=features
        | {
            "town": Feature(type="categorical", privacy="hash"),
            "name": Feature(type="categorical", privacy="drop"),
            "salary": Feature(type="numeric", privacy="hash"),
        },
        cohorts=("sex",),
    )


def test_private_features_stay_out_as_the_configuration_says(folder: Path, tmp_path: Path) -> None:
    config = private(folder, tmp_path)
    (tmp_path / "m.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    told = ["--config", str(tmp_path / "m.yaml"), "--calibrate-seconds", "0", "-o", str(tmp_path / "m.profile")]
    done = CliRunner().invoke(app, ["profile", "build", str(tmp_path / "normal.parquet"), *told])
    assert done.exit_code == 0, done.output
    freeze(tmp_path, tmp_path / "queue", "--config", str(tmp_path / "m.yaml"))
    (rows,) = load_catalog([tmp_path / "queue"]).frozen.values()
    assert set(rows.features) == {*(f"f{number:03}" for number in range(14)), "town"}
    written = b"".join(path.read_bytes() for path in (tmp_path / "queue").iterdir())
    for secret in (b"town-", b"secret", b"salary", np.float64(123456.5).tobytes(), b"sex"):
        assert secret not in written
    dropped = config.model_copy(update={"privacy": {"client": "drop"}})
    with pytest.raises(ConfigError, match="carry no clients"):
        Asked(read_table(tmp_path / "incident.parquet", dropped).whole, dropped).of("evil")


def test_a_topic_gives_the_same_rows_as_the_file(folder: Path) -> None:
    data = read_table(folder / "incident.parquet")
    bus = MemoryBus()
    bus.admin().create([TopicSpec("telemetry", 3)])
    writer, times = bus.writer(), data.event_time_us()
    assert times is not None
    for row, value in enumerate(EventEncoder(data).json(0, data.rows, times)):
        writer.send(OutRecord("telemetry", value, partition=row % 3, timestamp_ms=int(times[row]) // 1000))
    writer.flush()
    events = events_of_topic(bus, "telemetry", data.config, None, None, Limits(), lambda *_: None)
    profile = read_profile(folder / "m.profile")
    of_file = frozen(Asked(data.whole, data.config).of("evil"), profile)
    of_topic = frozen(Asked(events, data.config).of("evil"), profile)
    assert of_topic.rows.digest() == of_file.rows.digest()


def test_techniques_follow_from_the_lanes() -> None:
    assert atlas_of(["step", "tree"]) == ("AML.T0043.001",)
    assert atlas_of(["margin", "novelty"]) == ("AML.T0015", "AML.T0024")
    assert atlas_of(["training record"]) == ("AML.T0024.000",)


def test_the_model_of_profile_and_configuration_must_be_the_same(folder: Path, tmp_path: Path) -> None:
    other = read_table(folder / "incident.parquet").config.model_copy(update={"model": "other"})
    (tmp_path / "o.yaml").write_text(json.dumps(other.model_dump(mode="json")))
    with pytest.raises(ConfigError, match="default/other"):
        freeze(folder, tmp_path, "--config", str(tmp_path / "o.yaml"))


def test_every_lane_has_its_technique() -> None:
    from regate.daemon.freezing import ATLAS
    from regate.detectors.attack.evidence import LANES

    known = {lane for lanes in ATLAS.values() for lane in lanes}
    assert {lane for lanes in LANES.values() for lane in lanes} | {"training record"} == known
