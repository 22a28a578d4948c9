"""The demo as a user runs it: a broker of its own, the daemon as a process, nothing scripted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


def demo(folder: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "regate.daemon.cli.main", "demo", "--json", "--folder", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_steady_demo_approves_and_finds_nothing(tmp_path: Path) -> None:
    told = demo(tmp_path / "demo", "--steady", "--seconds", "20")
    assert told["findings"] == []
    assert [run["outcome"] for run in told["runs"] if run["role"] == "serving"][-1] == "pass"
    assert told["decisions"][-1]["effective_verdict"] == "approve"


def test_demo_notices_the_change_runs_the_suite_again_and_closes_the_gate(tmp_path: Path) -> None:
    told = demo(tmp_path / "demo")
    findings = [finding for finding in told["findings"] if finding["type"] == "finding"]
    kinds = [finding["kind"] for finding in findings]
    assert kinds[:1] == ["change"], findings
    assert "harm" in kinds
    assert findings[0]["subject"] in {"salary", "commission", "loan"}
    causes = {decision["trigger"]["kind"] for decision in told["decisions"]}
    assert "harm" in causes
    verdicts = [decision["effective_verdict"] for decision in told["decisions"]]
    assert "approve" in verdicts
    assert verdicts[-1] != "approve"
    assert len(told["runs"]) >= 2
