"""Loading the catalog: records and suites, every problem named with file and line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regate.config.canonical import digest
from regate.config.errors import ConfigError
from regate.config.loading import line_of, load_documents, parse
from regate.scenarios.catalog.frozen import read_rows
from regate.scenarios.families.registry import FAMILIES
from regate.scenarios.record import LEVELS, Record, Suite
from regate.scenarios.rows import Rows

BUILTIN = Path(__file__).parent
SUITE_PREFIX = "suite-"
HINT = "run `regate validate --list` to see what there is; docs/scenarios.md tells how a record looks"
REVIEW = "somebody must review it first and set `status: active` (docs/scenarios.md, From an incident)"


@dataclass(frozen=True, slots=True)
class Catalog:
    """All records by id, all suites by name."""

    records: dict[str, Record]
    suites: dict[str, Suite]
    frozen: dict[str, Rows] = field(default_factory=dict)  # what stands beside records, by digest

    def suite(self, name: str) -> tuple[Suite, tuple[Record, ...]]:
        """Return a suite and its records, unit level first.

        :raises ConfigError: when the suite, or a scenario in just that version, is not there or is only queued.
        """
        suite = self.suites.get(name)
        if suite is None:
            raise ConfigError(f"there is no suite {name!r}; known: {', '.join(sorted(self.suites))}", hint=HINT)
        found = []
        for entry in suite.scenarios:
            record = self.records.get(entry.id)
            if record is None or record.version != entry.version:
                have = "not in the catalog" if record is None else f"in the catalog as {record.version}"
                raise ConfigError(f"suite {name} names {entry.id} {entry.version}, which is {have}", hint=HINT)
            if record.status == "queued":
                raise ConfigError(f"suite {name} names {entry.id}, which is only queued for the catalog", hint=REVIEW)
            found.append(record)
        return suite, tuple(sorted(found, key=lambda record: LEVELS.index(record.level)))

    def suite_digest(self, name: str) -> str:
        """Return the content address of a suite: its list and every record in it."""
        suite, records = self.suite(name)
        return digest({"suite": suite.model_dump(mode="json"), "records": sorted(r.digest for r in records)})


def load_record(path: Path) -> Record:
    """Load one scenario; its family decides which parameters and checks it may name.

    :raises ConfigError: naming file, line and key.
    """
    data, node = _single(path)
    family = data.get("family") if isinstance(data, dict) else None
    if not isinstance(family, str) or family not in FAMILIES:
        line = line_of(node, ("family",))
        raise ConfigError(f"{path}:{line}: family: one of {', '.join(sorted(FAMILIES))}", hint="docs/scenarios.md")
    record = parse(FAMILIES[family].record, data, node, str(path))
    called = FAMILIES[family].called or family
    if record.id.split("-")[1] != called or path.stem != record.id:
        raise ConfigError(
            f"{path}:{line_of(node, ('id',))}: id: {record.id} must name its family ({called}) and its file",
            hint=f"call the file scn-{called}-NNNN.yaml",
        )
    return record


def load_suite(path: Path) -> Suite:
    """Load one suite."""
    data, node = _single(path)
    return parse(Suite, data, node, str(path))


def load_catalog(folders: Sequence[Path] = ()) -> Catalog:
    """Load the shipped catalog and further folders; an id or a suite name may stand only once.

    :raises ConfigError: naming the file; also when a suite names a scenario that is only queued.
    """
    records: dict[str, Record] = {}
    suites: dict[str, Suite] = {}
    places: dict[str, Path] = {}
    frozen: dict[str, Rows] = {}
    for folder in (BUILTIN, *folders):
        if not folder.is_dir():
            raise ConfigError(f"{folder} is not a folder of scenarios", hint="check --catalog")
        for path in sorted(folder.glob("*.yaml")):
            if path.stem.startswith(SUITE_PREFIX):
                suite = load_suite(path)
                if suite.name in suites:
                    raise ConfigError(f"{path}: suite {suite.name} is there already", hint="give it another name")
                suites[suite.name], places[suite.name] = suite, path
            else:
                record = load_record(path)
                if record.id in records:
                    raise ConfigError(f"{path}: {record.id} is there already", hint="take the next free number")
                records[record.id] = record
                if record.frozen:
                    frozen[record.frozen] = read_rows(folder, record.frozen)
    for name, suite in suites.items():
        for entry in suite.scenarios:
            if entry.id in records and records[entry.id].status == "queued":
                raise ConfigError(
                    f"{places[name]}: suite {name} names {entry.id}, which is only queued for the catalog", hint=REVIEW
                )
    return Catalog(records, suites, frozen)


def _single(path: Path) -> tuple[Any, Any]:
    documents = load_documents(path)
    if len(documents) != 1:
        raise ConfigError(f"{path}: expected one YAML document, found {len(documents)}", hint="one file a scenario")
    return documents[0]
