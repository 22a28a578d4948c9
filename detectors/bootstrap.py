"""What the future looks like if nothing changes: block bootstraps of the reference itself.

*Worlds.* A world is a random half of the reference's segments, scored with the final tables. A half's offset
from the whole has the variance of the future's offset from it (for independent rows both are 1/N, since the
half is off by (F2 - F1)/2). Simulating many worlds averages alarms over the errors that a reference of this
length makes, instead of depending on the one error that this one made.

Segments are as long as the reference's dependence demands, and no longer: the fewer the distinct stretches, the
more one chance excursion in the reference is repeated, and the less the bootstrap says about seldom alarms.

*Late.* Where there is dependence, circular blocks of the second half as well: what a reference that moves
will go on from. Independent rows have no such thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from regate.detectors.accumulate import accumulate, accumulate_outcomes
from regate.detectors.candidate import Candidate, Reference, points_of
from regate.detectors.columns import FloatArray, IntArray
from regate.detectors.dependence import sums_variance
from regate.detectors.layout import EVENTS
from regate.detectors.numerics import exp2
from regate.detectors.views import outcome_view

# Ways to cut the same rows into blocks: the more, the more distinct blocks a short reference gives.
PHASES = 16
# Random halves. Their offsets are what the calibration averages over.
WORLDS = 32
# A segment holds so many reaches of the longest dependence, so that few blocks straddle a seam.
REACHES = 8
# A piece holds so many; what its seams cut is made up for.
PIECE_REACHES = 2
# A block's share of the variance of sums over so many blocks stands for what an alarm is made of.
LONG_BLOCKS = 16
# Independent rows are recombined in pieces of this many.
LEAST_PIECE = 4
# The squared error of a variance, times the number of independent sums: 2 for normal ones, more where what varies is
# how much they vary.
CLUSTERED = 16.0
# What varies is known no better than from stretches of so many rows, however short a block is.
STRETCH_ROWS = 64
# Longest segments: so many a half; but at least a block of 1,024 where dependence is that long.
SEGMENTS_A_HALF = 8
# The stretch of a column stays within so many standard errors of its variance over pieces.
MATCH_DEVIATIONS = 4.0
MATCHED_CELLS = 1 << 25
# Distinct blocks made for each world from short pieces.
WORLD_BLOCKS = 2000
# The table of E of all blocks and points stays under this.
TABLE_BYTES = 128 << 20
# A block's log2 E is bounded to keep R finite; an alarm needs far less.
MAX_LOG2_E = 500.0


@dataclass(frozen=True)
class Blocks:
    """Blocks made from the reference.

    ``following[i]`` comes after block i, ``worlds`` is ``int64[worlds, starts]``: where segments of a world begin;
    each is ``segment_blocks`` long. ``late`` lists the starts in the second half (empty: rows are independent).
    """

    statistics: FloatArray
    stratum: IntArray
    following: IntArray
    worlds: IntArray
    late: IntArray
    segment_blocks: int
    distinct: float  # how many different blocks there can be; infinite where pieces are recombined
    rows: float  # mean rows a block
    error: float  # relative standard error of the spread of long sums, from this reference

    def lengthened(self, period: float, most: float) -> float:
        """Return E[period^error] over references: by what a period grows so that the mean rate keeps the budget."""
        return float(min(np.exp(0.5 * np.square(self.error * np.log(max(period, 1.0)))), most))


def make_blocks(reference: Reference, block_rows: int, points: int, reach: int, seed: int) -> Blocks:
    """Return the blocks to simulate with; ``reach`` is the longest dependence of any chart, in rows."""
    most = max(TABLE_BYTES // (8 * max(points, 1)), 64)
    piece = min(_doubled(PIECE_REACHES * reach if reach > 1 else LEAST_PIECE), block_rows)
    # Matching pieces takes the statistics of every single row; too many of them are cut into whole blocks instead.
    light = reach == 1 or reference.rows.n * reference.layout.width <= MATCHED_CELLS
    if reach <= block_rows and len(reference.strata) == 1 and light:
        return _recombined(reference, block_rows, piece, most, seed)
    return _cut(reference, block_rows, _doubled(REACHES * reach), reach, most, np.random.default_rng((seed, 3)))


def _doubled(least: int) -> int:
    return 1 << max(least - 1, 1).bit_length()


def grouped(reference: Reference, group: IntArray, groups: int) -> IntArray:
    """Return ``int64[groups, D]``: the statistics of the reference, telemetry and outcomes, summed by ``group``."""
    fine = accumulate(reference.layout, reference.events_view, group, groups)
    if reference.outcomes is not None:
        known = reference.outcomes.known
        view = outcome_view(reference.outcomes.some(known), reference.stratum[known])
        fine += accumulate_outcomes(reference.layout, view, group[known], groups)
    return fine


def _recombined(reference: Reference, block_rows: int, piece: int, most: int, seed: int) -> Blocks:
    """Make each world's blocks from short pieces of its own half of the reference."""
    pieces = reference.rows.n // piece
    group = np.minimum(np.arange(reference.rows.n) // piece, pieces)
    fine = grouped(reference, group, int(group[-1]) + 1)[:pieces].astype(np.float64)
    if piece > LEAST_PIECE:
        fine = _matched(reference, fine, piece, block_rows)
    each = int(np.clip(most // WORLDS, 2, WORLD_BLOCKS))
    rng = np.random.default_rng((seed, 3))
    halves = _halves(pieces, rng)
    made = [_joined(fine, own, block_rows // piece, each, rng) for own in halves]
    count = WORLDS * each
    return Blocks(
        statistics=np.concatenate(made),
        stratum=np.zeros(count, dtype=np.int64),
        following=np.arange(count),  # never used: a segment is one block
        worlds=np.arange(count).reshape(WORLDS, each),
        late=np.zeros(0, dtype=np.int64),
        segment_blocks=1,
        distinct=float("inf"),
        rows=float(block_rows // piece * piece),
        error=float(np.sqrt(2.0 * piece / reference.rows.n)),
    )


def _joined(fine: FloatArray, own: IntArray, pieces: int, count: int, rng: np.random.Generator) -> FloatArray:
    """Return ``count`` blocks of so many pieces each.

    Every piece comes equally often: else the mean of a world is off by what its blocks happened to draw.
    """
    wanted = count * pieces
    drawn = np.concatenate([rng.permutation(own) for _ in range(-(-wanted // own.size))])[:wanted]
    total = np.zeros((count, fine.shape[1]))
    for piece in drawn.reshape(pieces, count):
        total += fine[piece]
    return total


def _matched(reference: Reference, fine: FloatArray, piece: int, block_rows: int) -> FloatArray:
    """Stretch each column about its mean, so that blocks of pieces vary as blocks of consecutive rows do.

    Seams between pieces cut dependence, and the variance of a few hundred pieces is not well known.
    """
    rows = np.arange(reference.rows.n)
    single = grouped(reference, rows, rows.size).astype(np.float64)
    stretched = fine.copy()
    for column in range(EVENTS + 1, fine.shape[1]):
        now = float(fine[:, column].var()) * (block_rows // piece)
        if now > 0:
            # Of long sums, a block's share: blocks that follow each other depend on each other too.
            long = LONG_BLOCKS * block_rows
            wanted = float(sums_variance(single[:, column], long)[-1]) / LONG_BLOCKS
            noise = MATCH_DEVIATIONS * np.sqrt(2.0 / fine.shape[0])
            factor = np.sqrt(np.clip(wanted / now, 1.0 / (1.0 + noise), 1.0 + noise))
            mean = fine[:, column].mean()
            stretched[:, column] = mean + (fine[:, column] - mean) * factor
    return stretched


def _cut(
    reference: Reference, block_rows: int, segment_rows: int, reach: int, most: int, rng: np.random.Generator
) -> Blocks:
    """Cut the reference into blocks of consecutive rows of one stratum, in several phases."""
    n, stratum = reference.rows.n, reference.stratum
    phases = int(np.clip(most // max(n // block_rows, 1), 1, min(PHASES, block_rows)))
    grain = max(1, block_rows // phases)
    new_run = np.r_[True, stratum[1:] != stratum[:-1]]
    run = np.cumsum(new_run) - 1
    within = np.arange(n) - np.flatnonzero(new_run)[run]
    grain_of = _numbered(run, within // grain)
    first_row = np.flatnonzero(np.r_[True, grain_of[1:] != grain_of[:-1]])
    fine = grouped(reference, grain_of, first_row.size)
    segment_rows = max(block_rows, min(segment_rows, max(1024, n // (2 * SEGMENTS_A_HALF))))
    segment_rows = min(segment_rows, max(n // 4, 1))
    segment_starts = np.arange(0, n - segment_rows + 1, segment_rows)
    statistics, strata, following, late, segments = [], [], [], [], []
    offset = 0
    for phase in range(phases):
        block = _numbered(run[first_row], (within[first_row] + phase * grain) // block_rows)
        starts = np.flatnonzero(np.r_[True, block[1:] != block[:-1]])
        begins = first_row[starts]
        statistics.append(np.add.reduceat(fine, starts, axis=0))
        strata.append(stratum[begins])
        middle = min(int(np.searchsorted(begins, reference.halves[1].start)), starts.size - 1)
        following.append(offset + np.r_[1 : starts.size, middle])
        late.append(offset + np.arange(middle, starts.size))
        segments.append(offset + np.minimum(np.searchsorted(begins, segment_starts), starts.size - 1))
        offset += starts.size
    begin = np.stack(segments, axis=1)
    mean_rows = n * phases / offset
    return Blocks(
        statistics=np.concatenate(statistics).astype(np.float64),
        stratum=np.concatenate(strata).astype(np.int64),
        following=np.concatenate(following).astype(np.int64),
        worlds=begin[_halves(begin.shape[0], rng)].reshape(WORLDS, -1).astype(np.int64),
        late=np.concatenate(late).astype(np.int64),
        distinct=n / block_rows,
        error=float(np.sqrt(CLUSTERED * max(STRETCH_ROWS, block_rows, reach) / n)),
        segment_blocks=max(1, int(segment_rows / mean_rows)),
        rows=mean_rows,
    )


def _halves(count: int, rng: np.random.Generator) -> IntArray:
    """Return ``int64[worlds, count // 2]``: random halves, each beside the other half of the same draw."""
    half = max(1, count // 2)
    drawn = [rng.permutation(count) for _ in range(WORLDS // 2)]
    return np.stack([part for order in drawn for part in (order[:half], order[-half:])])


def _numbered(run: IntArray, part: IntArray) -> IntArray:
    """Return a number for each distinct (run, part) pair of rows, in order."""
    return np.cumsum(np.r_[False, (run[1:] != run[:-1]) | (part[1:] != part[:-1])])


def block_evidence(blocks: Blocks, chosen: list[Candidate]) -> tuple[FloatArray, IntArray]:
    """Return E of each block and grid point of the watchable charts, and the chart of each point."""
    points = points_of(chosen)
    watched = np.array([candidate.spec.watchable for candidate in chosen])
    at = np.flatnonzero(watched[points.chart])
    chart = points.chart[at]
    s = np.array([candidate.spec.s_column for candidate in chosen])[chart]
    n = np.array([candidate.spec.n_column for candidate in chosen])[chart]
    evidence = np.empty((blocks.stratum.size, at.size))
    for start in range(0, blocks.stratum.size, 512):  # in pieces: the intermediate tables are as large as the result
        rows = slice(start, start + 512)
        a, b = points.a[blocks.stratum[rows]][:, at], points.b[blocks.stratum[rows]][:, at]
        log_e = blocks.statistics[rows][:, s] * a + blocks.statistics[rows][:, n] * b
        evidence[rows] = exp2(np.minimum(log_e, MAX_LOG2_E))
    return evidence, chart
