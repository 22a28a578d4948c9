"""docs/cli.md says what `--help` says, docs/configuration.md what the typed settings say."""

from __future__ import annotations

from pathlib import Path

import pytest

from regate.daemon.cli.reference import configuration_text, reference_text

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_what_the_verbs_say() -> None:
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert written == reference_text(), "stale; run: python -m regate.daemon.cli.reference docs"


def test_the_page_has_every_key_of_the_settings() -> None:
    written = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert written == configuration_text(), "stale; run: python -m regate.daemon.cli.reference docs"
    for key in ("false_alarms", "max_lag_seconds", "bootstrap_servers", "allowed_lateness_seconds", "reference"):
        assert f"| `{key}` |" in written


def test_the_terminal_does_not_change_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    before = reference_text()
    for name, value in (("COLUMNS", "40"), ("TERMINAL_WIDTH", "40"), ("FORCE_COLOR", "1"), ("NO_COLOR", "")):
        monkeypatch.setenv(name, value)
    assert reference_text() == before
