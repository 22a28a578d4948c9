"""The policy document: shipped defaults, refusals with file and line, lint."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from regate.config.errors import ConfigError
from regate.config.loading import load
from regate.config.policy import ORDER, Policy, Rule, lint, rank, shipped_text, worst


def test_the_shipped_policy_is_the_default_in_code() -> None:
    assert Policy.model_validate(yaml.safe_load(shipped_text())) == Policy()
    assert lint(Policy()) == []


def test_an_unknown_key_is_refused_with_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(shipped_text().replace("  dwell_seconds: 300.0", "  dwell_secs: 300.0"))
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "dwell_secs" in text)
    with pytest.raises(ConfigError, match=rf"policy\.yaml:{line}: clear\.dwell_secs: unknown key"):
        load(Policy, path)


@pytest.mark.parametrize(
    "rule",
    [
        {"id": "both", "verdict": "hold", "finding": {"kinds": ["harm"]}, "check": {"outcomes": ["fail"]}},
        {"id": "none", "verdict": "hold"},
        {"id": "loop", "verdict": "hold", "check": {"outcomes": ["fail"]}, "revalidate": True},
        {"id": "kind", "verdict": "hold", "finding": {"kinds": ["vibes"]}},
        {"id": "empty", "verdict": "hold", "finding": {"kinds": []}},
    ],
)
def test_rules_that_mean_nothing_are_refused(rule: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Rule.model_validate(rule)


def test_two_rules_of_one_name_are_refused() -> None:
    rule = Policy().rules[0]
    with pytest.raises(ValueError, match="distinct"):
        Policy(rules=(rule, rule))


def test_one_signer_can_never_be_enough_for_fail_safe() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        Policy.model_validate({"overrides": {"fail_safe_signers": 1}})


def test_lint_names_what_no_rule_speaks_of() -> None:
    problems = lint(Policy(rules=()))
    assert any("harm" in problem for problem in problems)
    assert "no failed check rolls back" in problems


def test_verdicts_are_ordered() -> None:
    assert [rank(verdict) for verdict in ORDER] == [0, 1, 2, 3, 4]
    assert worst() == "approve"
    assert worst("hold", "fail_safe", "roll_back") == "fail_safe"
