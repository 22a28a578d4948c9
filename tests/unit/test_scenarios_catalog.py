"""Records, suites and seeds: checked with file and line, content-addressed, and independent of each other."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from regate.config.errors import ConfigError
from regate.daemon.freezing import ANY, ATLAS
from regate.scenarios.catalog.loading import BUILTIN, load_catalog, load_record
from regate.scenarios.families.registry import FAMILIES
from regate.scenarios.seeds import generator

FUZZING = BUILTIN / "scn-fuzzing-0001.yaml"


def broken(tmp_path: Path, old: str, new: str, source: Path = FUZZING) -> Path:
    text = source.read_text()
    assert old in text
    path = tmp_path / source.name
    path.write_text(text.replace(old, new, 1))
    return path


def test_the_default_suite_holds_every_family() -> None:
    suite, records = load_catalog().suite("default")
    # Replayed attacks come from incidents: none is shipped.
    assert {record.family for record in records} == set(FAMILIES) - {"attack_replay"}
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", load_catalog().suite_digest(suite.name))
    assert [record.level for record in records] == ["unit", "component", "component", "end_to_end"]


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("failure_mode: unsafe_input", "failure_mod: unsafe_input", None, "unknown key"),
        ("cases: 240", "cases: 199", "cases: 199", "greater than or equal to 200"),
        ("AML.T0043", "T0043", "atlas", "pattern"),
        ("version: 1.0.0", "version: v1.0", "version: v1.0", "pattern"),
        ("family: fuzzing", "family: fuzzy", "family: fuzzy", "one of"),
        ("id: scn-fuzzing-0001", "id: scn-fairness-0001", "id: scn", "must name its family"),
        ("- {kind: permutation}", "- {kind: rotation}", "rotation", "tag"),
        ("  noise: {comparator", "  nois: {comparator", "nois", "Input should be"),
        ("bound: 0.05, min_n: 8", "bound: 0.05, min_m: 8", "min_m", "unknown key"),
    ],
)
def test_a_wrong_record_is_refused_with_file_line_and_key(
    old: str, new: str, line: str | None, what: str, tmp_path: Path
) -> None:
    path = broken(tmp_path, old, new)
    with pytest.raises(ConfigError) as caught:
        load_record(path)
    assert what in caught.value.message
    named = [int(number) for number in re.findall(re.escape(str(path)) + r":(\d+)", caught.value.message)]
    assert named
    if line:
        lines = path.read_text().splitlines()
        assert any(line in lines[number - 1] for number in named), (named, caught.value.message)


def test_a_relation_without_a_bound_is_refused(tmp_path: Path) -> None:
    path = broken(tmp_path, "    - {kind: duplicates}\n", "")
    with pytest.raises(ConfigError, match="must bound exactly"):
        load_record(path)


def test_fewer_than_three_relations_are_refused(tmp_path: Path) -> None:
    path = broken(tmp_path, "    - {kind: duplicates}\n    - {kind: noise, relative: 1.0e-7}\n", "")
    with pytest.raises(ConfigError, match="at least 3"):
        load_record(path)


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path = broken(tmp_path, "title: Hostile", "title: !!python/object/apply:os.getcwd []\nx: Hostile")
    with pytest.raises(ConfigError):
        load_record(path)


def test_the_digest_is_of_content_and_not_of_layout(tmp_path: Path) -> None:
    record = load_record(FUZZING)
    rewritten = tmp_path / FUZZING.name
    rewritten.write_text(yaml.safe_dump(yaml.safe_load(FUZZING.read_text()), sort_keys=True))
    assert load_record(rewritten).digest == record.digest
    assert load_record(broken(tmp_path, "cases: 240", "cases: 241")).digest != record.digest


def test_a_suite_names_exact_versions(tmp_path: Path) -> None:
    (tmp_path / "suite-mine.yaml").write_text(
        "name: mine\nversion: 1.0.0\ntitle: t\nscenarios:\n  - {id: scn-fuzzing-0001, version: 9.9.9}\n"
    )
    with pytest.raises(ConfigError, match=r"in the catalog as 1\.0\.0"):
        load_catalog([tmp_path]).suite("mine")


def test_an_id_stands_once(tmp_path: Path) -> None:
    (tmp_path / FUZZING.name).write_text(FUZZING.read_text())
    with pytest.raises(ConfigError, match="is there already"):
        load_catalog([tmp_path])


@pytest.mark.shared
def test_every_atlas_id_stands_in_atlas(shared_data: Path) -> None:
    known = set(re.findall(r"\bid: (AML\.T\d{4}(?:\.\d{3})?)\b", (shared_data / "atlas/ATLAS.yaml").read_text()))
    assert len(known) > 50
    used = {name for record in load_catalog().records.values() for name in record.taxonomy.atlas}
    assert used
    assert used <= known
    assert {*ATLAS, ANY} <= known


def test_paths_give_independent_streams() -> None:
    first = generator(1, "scn-a", "cases").random(1000)
    assert np.array_equal(first, generator(1, "scn-a", "cases").random(1000))
    for other in (generator(1, "scn-a", "base"), generator(2, "scn-a", "cases"), generator(1, "scn-", "acases")):
        assert abs(np.corrcoef(first, other.random(1000))[0, 1]) < 0.15
    assert not np.array_equal(generator(2**33 + 1, "a").random(4), generator(1, "a").random(4))


def test_a_stream_is_the_same_on_every_machine() -> None:
    assert generator(7, "scn-fuzzing-0001", "1", "cases").integers(0, 10**9, 3).tolist() == [
        181848624,
        619860982,
        487354070,
    ]
