"""A guess as a commented YAML file: what was decided by the sample, and what a person has to decide."""

from __future__ import annotations

import json
import re

from regate.config.model import Feature, FieldMapping, ModelConfig
from regate.daemon.wire.guess import Guess, Seen

# Words that YAML 1.1 reads as something else than text.
_SPECIAL = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "~"}
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_ -]*[A-Za-z0-9_]|[A-Za-z_]")


def plain(text: str) -> str:
    """Return a text as a YAML scalar.

    >>> plain("age"), plain("no"), plain("a: b")
    ('age', '"no"', '"a: b"')
    """
    return text if _PLAIN.fullmatch(text) and text.lower() not in _SPECIAL else json.dumps(text)


def comment(text: str, width: int = 160) -> str:
    """Return a text that cannot leave its comment line."""
    return re.sub(r"[^\x20-\x7e\xa0-\ud7ff]", "?", text)[:width]


def to_yaml(guess: Guess, source: str) -> str:
    """Return the configuration file; `regate check-config` accepts it as it is."""
    config = guess.config
    lines = [
        f"# Model configuration written by `regate init` from {comment(source)}.",
        "# Look it over, then: regate check-config FILE, regate apply -f FILE",
        "apiVersion: regate/v1",
        "kind: Model",
        f"tenant: {plain(config.tenant)}",
        f"model: {plain(config.model)}",
        f"version: {json.dumps(config.version)}  # of events that do not say",
        f"deployment: {plain(config.deployment)}  # of events that do not say",
        "# Strata (hour, weekday) and reports count in this zone; an IANA name such as Europe/Berlin.",
    ]
    if guess.zone:
        lines.append(f"# The sample's times carry the offset {comment(guess.zone)}.")
    lines += [f"time_zone: {config.time_zone}", *_features(guess), *_output(config, guess), *_cohorts(guess)]
    lines += _mapping(config.mapping)
    lines += ["privacy:  # keep, hash or drop", "  client: hash", ""]
    return "\n".join(lines)


def _features(guess: Guess) -> list[str]:
    lines = [
        "# Types: numeric, categorical, boolean, text, vector. Seen ranges are comments: declare minimum and maximum",
        "# only where a value outside is impossible, because such a value is refused.",
        "features:",
    ]
    for name, feature in guess.config.features.items():
        given = [f"type: {feature.type}"]
        given += [f"privacy: {feature.privacy}"] if feature.privacy != "keep" else []
        given += ["watch: false"] if not feature.watch else []
        lines.append(f"  {plain(name)}: {{{', '.join(given)}}}{_seen(feature, guess.seen.get(name))}")
    return lines


def _seen(feature: Feature, seen: Seen | None) -> str:
    if seen is None or not seen.n:
        return ""
    parts = []
    if seen.low is not None:
        parts.append(f"seen {seen.low:.6g} to {seen.high:.6g}")
    elif feature.type in {"categorical", "boolean"}:
        parts.append("seen " + ", ".join(seen.values[:6]) + (" ..." if seen.different > 6 else ""))
    if seen.different:
        parts.append(f"{seen.different} different")
    if seen.missing:
        parts.append(f"{100 * seen.missing / seen.n:.1f} % missing")
    return comment("  # " + "; ".join(parts)) if parts else ""


def _output(config: ModelConfig, guess: Guess) -> list[str]:
    output = config.output
    lines = ["output:", f"  type: {output.type}  # binary, multiclass or regression"]
    if output.classes:
        lines.append("  classes: [" + ", ".join(json.dumps(name) for name in output.classes) + "]")
        lines.append(f"  positive: {json.dumps(output.positive)}  # the class that a single score speaks of")
    if guess.labels:
        lines.append(f"# Label candidates: {comment(', '.join(guess.labels))}.")
    return lines


def _cohorts(guess: Guess) -> list[str]:
    lines = []
    if guess.cohorts:
        lines.append(f"# Cohort candidates among the features: {comment(', '.join(guess.cohorts))}.")
    lines.append("cohorts: [" + ", ".join(json.dumps(name) for name in guess.config.cohorts) + "]")
    return lines


def _mapping(mapping: FieldMapping) -> list[str]:
    given = mapping.model_dump()
    usual = FieldMapping().model_dump()
    lines = ["# Where each field stands in a payload: dotted paths. Fields at their usual place are left out."]
    changed = [f"  {name}: {json.dumps(path)}" for name, path in given.items() if path != usual[name]]
    return [*lines, "mapping:" if changed else "mapping: {}", *changed]
