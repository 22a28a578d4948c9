"""Small suites for tests: one scenario of the shipped catalog, changed where the test needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import models

from regate.config.canonical import digest_bytes
from regate.config.model import ModelConfig
from regate.scenarios.catalog.loading import Catalog, load_catalog
from regate.scenarios.contracts import Check, RunResult, TargetSpec
from regate.scenarios.families.registry import FAMILIES
from regate.scenarios.record import Record, Suite
from regate.scenarios.rows import Rows
from regate.scenarios.runner import Surroundings, run_suite
from regate.scenarios.sandbox.client import OpenTarget, SandboxedTarget, open_onnx
from regate.scenarios.sandbox.process import Limits

HOSTILE = str(Path(__file__).parent / "hostile_target.py")
HOSTILE_SPEC = TargetSpec(uri="hostile", digest="sha256:" + "0" * 64)


class KeptStore:
    """An artefact store in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> str:
        self.kept[name] = data
        return digest_bytes(data)

    def get(self, name: str) -> bytes:
        return self.kept[name]


def suite_of(records: dict[str, Record]) -> Catalog:
    """A catalog with suite ``default`` of these records."""
    entries = [{"id": name, "version": record.version} for name, record in records.items()]
    suite = Suite.model_validate({"name": "default", "version": "1.0.0", "title": "test", "scenarios": entries})
    return Catalog(records, {"default": suite})


def catalog_of(*changed: tuple[str, dict[str, Any]]) -> Catalog:
    """A catalog with suite ``default`` of shipped scenarios; changes are merged two levels deep."""
    shipped = load_catalog().records
    records = {}
    for name, changes in changed:
        content = shipped[name].content
        for key, value in changes.items():
            content[key] = {**content[key], **value} if isinstance(value, dict) else value
        records[name] = FAMILIES[content["family"]].record.model_validate(content)
    return suite_of(records)


def hostile(behaviour: str, path: str = "") -> OpenTarget:
    """Opens a hostile child instead of an ONNX one."""

    def open_target(
        _spec: TargetSpec, _config: ModelConfig, limits: Limits, cancelled: Callable[[], bool]
    ) -> SandboxedTarget:
        command = [sys.executable, HOSTILE, "{fd}", behaviour, path]
        return SandboxedTarget(command, limits, cancelled=cancelled)

    return open_target


def run(
    target: TargetSpec,
    scenario: str,
    *,
    rows: Rows | None = None,
    changes: dict[str, Any] | None = None,
    record: Record | None = None,
    config: ModelConfig | None = None,
    store: KeptStore | None = None,
    open_target: OpenTarget = open_onnx,
    budget_seconds: float = 60.0,
    **request: Any,
) -> RunResult:
    """Run one scenario on one target."""
    return run_suite(
        models.request(target, **request),
        config or models.config(),
        rows,
        store or KeptStore(),
        budget_seconds=budget_seconds,
        catalog=catalog_of((scenario, changes or {})) if record is None else suite_of({scenario: record}),
        around=Surroundings(open_target, now_ms=lambda: 5_000),
    )


def by_name(result: RunResult) -> dict[str, Check]:
    """Checks by their name without the scenario."""
    return {check.id.split("/", 1)[1]: check for check in result.checks}


def outcomes(result: RunResult) -> dict[str, str]:
    return {name: check.outcome for name, check in by_name(result).items()}
