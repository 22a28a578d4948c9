"""JUnit XML of a run, for CI systems: one suite a scenario, one case a check."""

from __future__ import annotations

import re
from itertools import groupby
from xml.etree.ElementTree import Element, SubElement, tostring

from regate.scenarios.contracts import Check, RunResult

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # by XML 1.0


def junit(result: RunResult) -> bytes:
    """Return the document. Inconclusive counts as a failure: CI must not approve what was not shown."""
    root = Element("testsuites", name=f"regate {result.suite} {result.suite_version}", time=result.seconds)
    for scenario, group in groupby(result.checks, key=lambda check: check.scenario):
        checks = list(group)
        suite = SubElement(
            root,
            "testsuite",
            name=scenario,
            tests=str(len(checks)),
            failures=str(sum(check.outcome in {"fail", "inconclusive"} for check in checks)),
            errors=str(sum(check.outcome == "error" for check in checks)),
            skipped=str(sum(check.outcome == "skipped" for check in checks)),
        )
        for check in checks:
            _case(suite, check)
    body: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return body


def _case(suite: Element, check: Check) -> None:
    case = SubElement(suite, "testcase", classname=check.scenario, name=_plain(check.id))
    tag = {"fail": "failure", "inconclusive": "failure", "error": "error", "skipped": "skipped"}.get(check.outcome)
    if tag:
        SubElement(case, tag, message=_plain(f"{check.outcome}: {described(check)}"))


def described(check: Check) -> str:
    """Return one line: what was observed, its interval, the bound, and why.

    >>> described(Check(id="a", scenario="s", scenario_version="", scenario_digest="", family="f", outcome="error",
    ...                 message="it hung"))
    'it hung'
    """
    if not check.observed:
        return check.message
    interval = f" [{check.ci_low or '-inf'}, {check.ci_high or 'inf'}]" if check.ci_low != check.ci_high else ""
    return f"{check.observed}{interval} {check.comparator} {check.threshold}, n {check.n}: {check.message}"


def _plain(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
