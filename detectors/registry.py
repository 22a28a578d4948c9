"""The detector families, in the order in which their charts stand in a profile."""

from __future__ import annotations

from collections.abc import Callable

from regate.detectors import feature_drift, performance
from regate.detectors.candidate import Candidate, Reference

Family = Callable[[Reference], list[Candidate]]

# A new family is a module with `charts(reference)` and a line here.
FAMILIES: dict[str, Family] = {
    feature_drift.FAMILY: feature_drift.charts,
    performance.FAMILY: performance.charts,
}


def candidates(reference: Reference) -> list[Candidate]:
    """Return the charts that all families propose for a reference."""
    return [candidate for charts in FAMILIES.values() for candidate in charts(reference)]
