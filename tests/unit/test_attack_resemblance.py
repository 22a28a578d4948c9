"""Sessions: who keeps some of his values from query to query resembles himself; how they join makes no attacker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.attacks.traffic import Population, benign, benign_client, pictures, real, woven
from tests.attack_traffic import rows_of

from regate.detectors.attack import resemblance
from regate.detectors.attack.clients import Clients
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.memory import Memory
from regate.detectors.attack.reference import AttackReference
from regate.detectors.attack.resemblance import Resemblance

POPULATIONS = {"real": real(3, 48), "pictures": pictures(3, 6)}
PLAIN = ("fresh", "retries", "what-if", "jitter")


@pytest.fixture(scope="module", params=POPULATIONS)
def population(request: pytest.FixtureRequest) -> Population:
    return POPULATIONS[request.param]


@pytest.fixture(scope="module")
def reference(population: Population) -> AttackReference:
    """Return a reference that has no sessions."""
    rows = rows_of(benign(population, 200, 40, 1, PLAIN))
    found = fitted(rows, tuple(rows.features))
    assert isinstance(found, AttackReference)
    return found


def weights(reference: AttackReference, population: Population, kind: str) -> np.ndarray:
    """Return how far each query but the first of one client is unlike the one before."""
    rng = np.random.default_rng(5)
    made = woven(population, [("one", kind, benign_client(population, kind, rng, 400))], rng)
    queries = reference.queries(rows_of(made))
    return reference.resemblance.of(Clients().take(queries, reference.tau), queries.n)[1:]


def test_a_session_resembles_itself_and_separate_cases_do_not(
    reference: AttackReference, population: Population
) -> None:
    # Seven of ten queries of a session keep half of the values of the one before.
    assert (weights(reference, population, "session") < 0.5).mean() > 0.5
    assert (weights(reference, population, "fresh") > 0.5).mean() > 0.9


def test_sessions_that_no_reference_has_are_not_found(reference: AttackReference, population: Population) -> None:
    rng = np.random.default_rng(8)
    # Most clients ask separate cases: what lifted everybody would be nobody's.
    parts = [(f"s{number}", "session", benign_client(population, "session", rng, 60)) for number in range(100)]
    parts += [(f"f{number}", "fresh", benign_client(population, "fresh", rng, 30)) for number in range(200)]
    rows = rows_of(woven(population, parts, rng))
    queries = reference.queries(rows)
    assert Memory(reference).take(queries) == []
    blind = Memory(replace(reference, resemblance=Resemblance(unlike=100.0, resembling=101.0)))
    assert len(blind.take(queries)) >= 2  # taken for mixes


def test_a_reference_of_one_row_has_no_pairs() -> None:
    assert resemblance.fitted(np.zeros((1, 32), dtype=np.uint8), 0) == Resemblance()
