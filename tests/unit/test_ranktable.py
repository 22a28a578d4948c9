from __future__ import annotations

import numpy as np
import pytest

from regate.detectors.numerics import UNIT
from regate.detectors.ranktable import MAX_CELLS, build_table, index_of

RNG = np.random.default_rng(5)
SAMPLES = {
    "continuous": RNG.lognormal(size=20_000),
    "counts": RNG.poisson(2.0, 5000).astype(float),
    "two values": (RNG.random(3000) < 0.1).astype(float),
    "heavy tie": np.where(RNG.random(30_000) < 0.6, 0.0, RNG.exponential(size=30_000)),
    "constant": np.full(500, 7.25),
    "short": np.array([1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_reference_itself_has_mean_0_and_square_1(name: str) -> None:
    z, z2 = build_table(SAMPLES[name]).score(SAMPLES[name])
    # Clipping at 4 and integer units cost at most a thousandth.
    assert abs(float(z.mean())) < 2e-3
    assert float(z2.mean()) == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_tables_stay_small_ascending_and_inside_the_clip(name: str) -> None:
    table = build_table(SAMPLES[name])
    assert table.edges.size < MAX_CELLS
    assert (np.diff(table.edges) > 0).all()
    assert table.z.size == table.z2.size == table.edges.size + 1
    assert np.abs(table.z).max() <= 4 * UNIT
    assert (np.diff(table.z) >= 0).all()


def test_a_tie_gets_the_expected_score_of_its_whole_share() -> None:
    values = np.repeat([0.0, 1.0], [900, 100])
    z, z2 = build_table(values).score(np.array([0.0, 1.0]))
    # E[z | lowest 90 %] = -density(1.2816) / .9
    assert z.tolist() == pytest.approx([-0.19500, 1.75498], abs=1e-4)
    # By Jensen the conditional means vary less than the scores themselves.
    assert 0.9 * z[0] ** 2 + 0.1 * z[1] ** 2 < 1.0
    assert 0.9 * z2[0] + 0.1 * z2[1] == pytest.approx(1.0, abs=1e-3)


def test_values_outside_of_the_reference_get_the_outermost_scores() -> None:
    values = np.linspace(0.0, 1.0, 1000)
    table = build_table(values)
    z, _ = table.score(np.array([-1e9, -1e-9, 1.0 + 1e-9, 1e9]))
    assert z[0] == z[1] < -3.0
    assert z[2] == z[3] > 3.0
    assert table.cells(np.array([-1.0]))[0] == 0
    assert table.cells(np.array([2.0]))[0] == table.edges.size


def test_missing_values_have_their_own_cell_and_do_not_make_a_table() -> None:
    values = np.array([np.nan, 1.0, 2.0, np.nan])
    table = build_table(values)
    assert table.rows == 2
    assert table.cells(values).tolist()[0] == table.edges.size + 1
    assert build_table(np.full(10, np.nan)).rows == 0


def test_a_departure_from_a_constant_is_as_strong_as_can_be() -> None:
    z, _ = build_table(np.full(20_000, 3.0)).score(np.array([3.0, 3.5, 2.5]))
    assert z.tolist() == pytest.approx([0.0, 4.0, -4.0], abs=0.1)


@pytest.mark.parametrize("name", [*sorted(SAMPLES), "spread over all magnitudes", "denormal"])
def test_the_bucket_index_finds_what_a_binary_search_finds(name: str) -> None:
    sample = {
        "spread over all magnitudes": RNG.choice([-1.0, 1.0], 9000) * 10.0 ** RNG.uniform(-300, 300, 9000),
        "denormal": RNG.integers(-3000, 3000, 9000) * 5e-324,
    }.get(name, SAMPLES.get(name))
    assert sample is not None
    table = build_table(sample)
    edges = table.edges
    probe = np.concatenate(
        (sample, edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf), RNG.permutation(sample) * 1.0001)
    )
    probe = np.append(probe, [1.7e308, -1.7e308, 0.0, -0.0, np.nan])
    expected = np.searchsorted(edges, probe, side="right")
    expected[-1] = edges.size + 1
    assert table.cells(probe).tolist() == expected.tolist()


def test_the_index_is_used_where_it_pays() -> None:
    assert index_of(build_table(SAMPLES["continuous"]).edges) is not None
    assert index_of(build_table(SAMPLES["two values"]).edges) is None
