"""What a loop says of itself, and that libraries speak in the same form."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

from regate.daemon import log
from regate.daemon.shell.counters import KEPT_STEPS, Counters


def test_the_summary_gives_percentiles_in_milliseconds() -> None:
    counters = Counters()
    for number in range(1, 101):
        counters.stepped(number / 100)
    said = counters.summary()
    assert (said["steps"], said["step_ms_p50"], said["step_ms_p95"], said["step_ms_max"]) == (100, 500, 950, 1000)


def test_a_loop_that_has_not_stepped_has_a_summary() -> None:
    assert Counters().summary()["step_ms_p95"] == 0


def test_old_durations_are_forgotten_but_steps_are_counted() -> None:
    counters = Counters()
    for _ in range(KEPT_STEPS + 5):
        counters.stepped(0.001)
    assert (counters.steps, len(counters.step_seconds)) == (KEPT_STEPS + 5, KEPT_STEPS)


def test_a_library_cannot_break_the_form_of_the_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    before = root.level
    try:
        log.configure("info")
        logging.getLogger("apscheduler").warning("skipped\n{}")
        logging.getLogger("kafka").info("chatter")
    finally:
        root.setLevel(before)
        structlog.reset_defaults()  # the captured stream ends with this test
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["event"], said["library"], said["detail"]) == ("library", "apscheduler", "skipped\n{}")
