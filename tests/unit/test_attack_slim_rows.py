"""Slim rows made fast are those made plainly: one value, one feature and one sum at a time."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from benchmarks.attacks.traffic import Population, benign, pictures, table
from tests.attack_traffic import rows_of

from regate.detectors.attack import sketch
from regate.detectors.attack.dependence import BINS
from regate.detectors.attack.fitting import fitted
from regate.detectors.attack.inputs import LARGEST, bits_of, mixed, scrambled, stacked
from regate.detectors.attack.lattice import OWN_LEAST, POOL_LEAST, own_place, pool_place
from regate.detectors.attack.queries import PARTS, WIDTH
from regate.detectors.attack.reference import LEAST_PIECE, AttackReference, margins
from regate.detectors.attack.training import made, total
from regate.detectors.columns import Categorical, Column, FloatArray, Numeric, Slice

POPULATIONS = {"table": table(5), "narrow": table(5, 8), "pictures": pictures(5, 5)}


def with_codes(rows: Slice) -> Slice:
    """Return rows whose fourth feature is a category."""
    column = rows.features["f003"]
    assert isinstance(column, Numeric)
    code = Categorical(column.values.astype(np.int32), tuple(f"c{number}" for number in range(40)))
    return replace(rows, features={**rows.features, "f003": code})


def odd(rows: Slice, seed: int) -> Slice:
    """Return rows with everything that may stand in a column, and one column less."""
    rng = np.random.default_rng((seed, 91))
    found: dict[str, Column] = {}
    for name, column in rows.features.items():
        at = rng.random(rows.n)
        if isinstance(column, Categorical):
            known = (*column.categories, "never seen")
            codes = np.where(at < 0.05, -1, np.where(at > 0.95, len(known) - 1, column.codes))
            found[name] = Categorical(codes.astype(np.int32), known)
        else:
            # The first fifth of the rows is as it was: a piece without anything odd takes the short ways.
            strange = [np.nan, -np.nan, np.inf, -np.inf, 1e300, -0.0, 5e-324]
            values = np.where(at < 0.1, rng.choice(strange, rows.n), column.values + (at > 0.9) * 0.37)
            found[name] = Numeric(np.where(np.arange(rows.n) < rows.n // 5, column.values, values))
    del found["f006"]
    return replace(rows, features=found)


@pytest.fixture(scope="module", params=POPULATIONS)
def population(request: pytest.FixtureRequest) -> Population:
    return POPULATIONS[request.param]


@pytest.fixture(scope="module")
def reference(population: Population) -> AttackReference:
    rows = with_codes(rows_of(benign(population, 60, 30, 1)))
    found = fitted(rows, tuple(rows.features))
    assert isinstance(found, AttackReference)
    return found


@pytest.fixture(scope="module")
def asked(population: Population) -> Slice:
    return odd(with_codes(rows_of(benign(population, 70, 30, 2))), 3)


def plain_matrix(reference: AttackReference, rows: Slice) -> FloatArray:
    """Return the matrix, a value at a time where it has categories."""
    x = np.full((rows.n, len(reference.inputs.names)), np.nan)
    for at, (name, known) in enumerate(zip(reference.inputs.names, reference.inputs.categories, strict=True)):
        column = rows.features.get(name)
        if isinstance(column, Numeric):
            x[:, at] = np.clip(column.values, -LARGEST, LARGEST)
        elif column is not None:
            for row, code in enumerate(column.codes.tolist()):
                text = column.categories[code]
                x[row, at] = np.nan if code < 0 else known.index(text) if text in known else len(known)
    return x


def test_the_matrix(reference: AttackReference, asked: Slice) -> None:
    x = plain_matrix(reference, asked)
    assert np.array_equal(reference.inputs.matrix(asked), x, equal_nan=True)
    part = stacked(reference.inputs.columns(asked), slice(10, 20))
    assert np.array_equal(part, x[10:20], equal_nan=True)


def test_patterns_and_hashes(reference: AttackReference, asked: Slice) -> None:
    x = plain_matrix(reference, asked)
    single = np.where(np.isnan(x), np.float32("nan"), x.astype(np.float32)) + np.float32(0)
    pattern = (single.astype(np.float32).view(np.uint32).astype(np.int64) + 32) >> 6
    assert np.array_equal(bits_of(x), pattern)
    hashed = mixed(bits_of(x))
    found = np.zeros((len(x), WIDTH), dtype=np.uint8)
    for block in range(min(x.shape[1], WIDTH)):
        words = np.zeros(len(x), dtype=np.uint64)
        for feature in range(block, x.shape[1], WIDTH):
            words += hashed[:, feature]
        found[:, block] = scrambled(words) >> np.uint64(56)
    assert np.array_equal(reference.queries(asked).blocks, found)
    assert np.array_equal(sketch.block_hashes(hashed), found)


def test_the_parts(reference: AttackReference, asked: Slice) -> None:
    hashed = mixed(bits_of(plain_matrix(reference, asked)))
    for width in (1, 7, PARTS, PARTS + 3, 2 * PARTS, 3 * PARTS + 1):
        some = np.concatenate([hashed] * -(-width // hashed.shape[1]), axis=1)[:, :width]
        some = scrambled(some + np.arange(width, dtype=np.uint64))
        found = np.zeros((len(some), PARTS), dtype=np.uint8)
        for part in range(min(width, PARTS)):
            found[:, part] = [int(one) & 255 for one in some[:, part::PARTS].min(axis=1)]
        assert np.array_equal(sketch.part_hashes(some), found)
        assert np.array_equal(sketch.part_hashes(np.asfortranarray(some)), found)
    assert np.array_equal(reference.queries(asked).parts, sketch.part_hashes(hashed))


def test_the_sketch(reference: AttackReference, asked: Slice) -> None:
    one, x = reference.sketch, plain_matrix(reference, asked)
    z = np.clip(np.nan_to_num((x - one.centre) / one.scale, nan=0.0, posinf=1e3, neginf=-1e3), -1e3, 1e3)
    whole = np.rint(z * 65536.0)[:, one.order] * one.sign
    summed = np.add.reduceat(whole, one.starts, axis=1) / 65536.0
    assert np.array_equal(one.coordinates(one.scaled(x)), summed)
    steps = np.clip(np.rint(summed / one.step), -127, 127)
    assert np.array_equal(reference.queries(asked).sketch[:, : steps.shape[1]], steps)


@pytest.mark.parametrize("counting", [False, True])
def test_what_is_off_the_lattice(reference: AttackReference, asked: Slice, counting: bool) -> None:
    one, x = reference.lattice, plain_matrix(reference, asked)
    # A feature that says nothing is not asked.
    one = replace(one, weight=one.weight * (np.arange(x.shape[1]) != 1))
    bits = bits_of(x)
    hashed = mixed(bits)
    counted = (np.arange(len(x)) % 3 == 0) if counting else np.zeros(len(x), dtype=np.bool_)
    less = counted[:, None].astype(np.int64)
    own, pool = one.own[own_place(hashed)].astype(np.int64), one.pool[pool_place(bits)].astype(np.int64)
    off = np.where(own < 255, own - less, own) < OWN_LEAST
    both = np.where(pool < 255, pool - less, pool) < POOL_LEAST
    weights = np.where(off, np.where(both, one.weight[1], one.weight[0]), 0.0)
    blocks = np.stack([weights[:, block::WIDTH].sum(axis=1) for block in range(WIDTH)], axis=1)
    assert (weights > 0).mean() > 0.05
    assert np.array_equal(one.off(hashed, bits, counted if counting else None).by_block(len(x)), blocks)
    columns = np.asfortranarray(hashed), np.asfortranarray(bits)
    assert np.array_equal(one.off(*columns, counted if counting else None).by_block(len(x)), blocks)


def test_the_place(reference: AttackReference, asked: Slice) -> None:
    one, x = reference.geometry, plain_matrix(reference, asked)
    centre, scale = reference.sketch.centre, reference.sketch.scale
    z = np.clip(np.nan_to_num((x - centre) / scale, nan=0.0), -1e6, 1e6)
    beyond = (np.maximum(z - one.high, 0.0) + np.maximum(one.low - z, 0.0)).sum(axis=1)
    axes, mean = one.axes[:, :-1], one.axes[:, -1]
    along = (z - mean) @ axes
    residual = np.sqrt(np.maximum(np.square(z - mean).sum(axis=1) - (along * along).sum(axis=1), 0.0))
    far = np.sqrt(np.square(along / one.deviation).sum(axis=1))
    plain = np.stack([beyond, residual, far], axis=1)
    # Not to the bit: sums of unrounded numbers keep the order in which they were added.
    assert np.allclose(one.score(z), plain, rtol=1e-9, atol=1e-6)
    assert np.allclose(one.score(np.asfortranarray(z)), plain, rtol=1e-9, atol=1e-6)
    next_to_nothing = replace(reference.sketch, scale=np.where(np.arange(x.shape[1]) == 0, 1e-320, scale))
    with np.errstate(over="ignore"):
        scaled = next_to_nothing.scaled(np.where(np.isnan(x), 0.0, np.clip(x, -1e10, 1e10)))
        assert not np.isfinite(scaled).all()
        assert np.isfinite(one.score(scaled)).all()
        assert np.abs(next_to_nothing.coordinates(scaled)).max() <= 1e3 * x.shape[1]


def test_the_tree(reference: AttackReference, asked: Slice) -> None:
    one, x = reference.tree, plain_matrix(reference, asked)
    bins = np.empty((len(x), len(one.features)), dtype=np.int64)
    for place, feature in enumerate(one.features):
        bins[:, place] = np.searchsorted(one.bounds[place], x[:, feature], side="right")
        bins[np.isnan(x[:, feature]), place] = BINS
    assert np.array_equal(one.binned(x), bins)
    plain = one.ratio[np.arange(len(one.left)), bins[:, one.left], bins[:, one.right]].sum(axis=1)
    assert np.allclose(one.score(x), plain, rtol=1e-12, atol=1e-12)


def test_pieces_leave_no_seam(reference: AttackReference, asked: Slice) -> None:
    whole = reference.queries(asked)
    assert whole.n > LEAST_PIECE
    for size in (1, 100):
        for start in range(0, 300, size):
            part = reference.queries(asked.cut(slice(start, start + size)))
            for item in fields(part):
                assert np.array_equal(getattr(part, item.name), getattr(whole, item.name)[start : start + size])
    assert reference.queries(asked.cut(slice(0, 0))).n == 0


def test_training_rows_are_known_by_one_number() -> None:
    hashed = np.random.default_rng(1).integers(0, 1 << 63, (500, 6)).astype(np.uint64)
    training = made(np.concatenate([hashed, hashed[:100]]), 3)
    assert training.rows == 500
    assert training.has(total(hashed)).all()
    assert training.has(total(hashed + np.uint64(1))).mean() < 0.05


def test_the_margin_of_two_classes_is_that_of_many(asked: Slice) -> None:
    p = np.random.default_rng(2).random(asked.n)
    two = replace(asked, scores={"a": p, "b": 1.0 - p})
    three = replace(asked, scores={"a": p, "b": 1.0 - p, "c": np.zeros(asked.n)})
    assert np.array_equal(margins(two), margins(three))
