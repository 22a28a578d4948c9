"""Streams whose law is known before and after a change, and what an oracle makes of each event.

A law says what kind of input a stream has and what makes its null difficult; a change says what happens
to it. Everything is drawn from seeds: equal arguments give equal streams.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter
from scipy.special import ndtr, ndtri, stdtrit

from regate.detectors.cells import BLOCK_EVENTS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Inputs = Literal["numeric", "rate", "joint"]
Null = Literal["iid", "ar5", "heavy", "seasonal"]
What = Literal["change", "harm"]

RHO = 0.5
PERIOD = 288
SEASON_SHARE = 2.0 / 3.0  # of a numeric stream's variance
RATE, RATE_SWING = 0.1, 0.5  # base rate, and how far a season moves it, relatively
JOINT = 8
BLOCK = BLOCK_EVENTS
# The change falls anywhere in a window of this many rows: no detector's blocks or windows may be lucky.
PHASES = 500


@dataclass(frozen=True, slots=True)
class Law:
    """What a stream is when nothing changes."""

    inputs: Inputs
    null: Null

    @property
    def name(self) -> str:
        return f"{self.inputs}/{self.null}"

    @property
    def width(self) -> int:
        return JOINT if self.inputs == "joint" else 1

    @property
    def rho(self) -> float:
        return RHO if self.null == "ar5" else 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to a stream; ``size`` is a shift in sigma, a ratio, a rate or a correlation."""

    name: str
    inputs: Inputs
    what: What
    size: float
    text: str


LAWS = (
    *(Law("numeric", null) for null in ("iid", "ar5", "heavy", "seasonal")),
    *(Law("rate", null) for null in ("iid", "ar5", "seasonal")),
    *(Law("joint", null) for null in ("iid", "ar5", "heavy", "seasonal")),
)
CHANGES = (
    Change("mean", "numeric", "change", 0.5, "mean + .5 sigma"),
    Change("scale", "numeric", "change", 1.5, "spread x 1.5"),
    Change("shape", "numeric", "change", 0.8, "two humps, same mean and variance"),
    Change("rate20", "rate", "harm", 0.20, "error rate .10 -> .20"),
    Change("rate13", "rate", "harm", 0.13, "error rate .10 -> .13"),
    Change("correlation", "joint", "change", 0.6, "correlation 0 -> .6 between 8 features, margins unchanged"),
)


def changes_of(law: Law) -> tuple[Change, ...]:
    return tuple(change for change in CHANGES if change.inputs == law.inputs)


@dataclass(frozen=True, slots=True)
class Margin:
    """Law of one value: a unit-variance base, moved and stretched."""

    base: Literal["normal", "t3", "humps"] = "normal"
    loc: float = 0.0
    scale: float = 1.0
    hump: float = 0.0  # half the distance between two humps

    @property
    def spread(self) -> float:
        return float(np.sqrt(1.0 - self.hump**2))

    def log_density(self, x: FloatArray) -> FloatArray:
        z = (x - self.loc) / self.scale
        if self.base == "normal":
            base = -0.5 * z * z - 0.5 * np.log(2 * np.pi)
        elif self.base == "t3":
            # Student's t with 3 degrees of freedom over sqrt(3): density 2 / (pi (1 + z^2)^2).
            base = np.log(2.0 / np.pi) - 2.0 * np.log1p(z * z)
        else:
            up, down = (z - self.hump) / self.spread, (z + self.hump) / self.spread
            base = np.logaddexp(-0.5 * up * up, -0.5 * down * down) - np.log(2 * self.spread * np.sqrt(2 * np.pi))
        return np.asarray(base - np.log(self.scale))

    def to_normal(self, x: FloatArray) -> FloatArray:
        z = (x - self.loc) / self.scale
        if self.base == "normal":
            return np.asarray(z)
        low = -np.abs(z)  # in the lower tail nothing cancels
        return np.asarray(-np.sign(z) * ndtri(np.maximum(self.below(low), 1e-300)))

    def below(self, z: FloatArray) -> FloatArray:
        if self.base == "t3":
            return np.asarray(0.5 + (z / (1.0 + z * z) + np.arctan(z)) / np.pi)
        return np.asarray(0.5 * (ndtr((z - self.hump) / self.spread) + ndtr((z + self.hump) / self.spread)))

    def from_normal(self, y: FloatArray) -> FloatArray:
        if self.base == "normal":
            return np.asarray(self.loc + self.scale * y)
        at, value = _quantiles(self.base, self.hump)
        return np.asarray(self.loc + self.scale * np.interp(y, at, value))


@cache
def _quantiles(base: str, hump: float) -> tuple[FloatArray, FloatArray]:
    """Values at normal scores: np.interp on it is exact to 1e-6 where streams ever are."""
    at = np.linspace(-7.0, 7.0, 14_001)
    if base == "t3":
        half = stdtrit(3, ndtr(-np.abs(at))) / np.sqrt(3.0)
        return at, np.asarray(-np.sign(at) * half)
    margin = Margin("humps", hump=hump)
    low, high = np.full(at.size, -8.0), np.full(at.size, 8.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        above = margin.below(middle) > ndtr(at)
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return at, 0.5 * (low + high)


def margins(law: Law, change: Change | None) -> tuple[Margin, Margin]:
    """Return the margins before and after a change, of the part of a stream that its season leaves."""
    before = Margin("t3" if law.null == "heavy" else "normal")
    if change is None or change.inputs != "numeric":
        return before, before
    if change.name == "mean":
        return before, Margin(before.base, loc=change.size / noise(law))
    if change.name == "scale":
        return before, Margin(before.base, scale=change.size)
    return before, Margin("humps", hump=change.size)


def noise(law: Law) -> float:
    return float(np.sqrt(1.0 - SEASON_SHARE)) if law.null == "seasonal" else 1.0


def _wave(start: int, rows: int) -> FloatArray:
    return np.asarray(np.sin(2 * np.pi * np.arange(start, start + rows) / PERIOD))


def _season(law: Law, start: int, rows: int) -> FloatArray:
    if law.null != "seasonal":
        return np.zeros(rows)
    return np.sqrt(2.0 * SEASON_SHARE) * _wave(start, rows)


def _rates(law: Law, rate: float, start: int, rows: int) -> FloatArray:
    swing = RATE_SWING * _wave(start, rows) if law.null == "seasonal" else np.zeros(rows)
    return rate * (1.0 + swing)


def draw(
    law: Law, change: Change | None, rng: np.random.Generator, rows: int, at: IntArray, start: int = 0
) -> FloatArray:
    """Return ``float64[streams, rows, width]``; stream m changes at row ``at[m]`` (``rows``: never).

    :param start: row number of the first row, which the season counts from.
    """
    after = np.arange(rows) >= at[:, None]
    if law.inputs == "rate":
        return _draw_rate(law, change, rng, after, start)[:, :, None]
    shocks = rng.standard_normal((at.size, rows, law.width))
    if change is not None and law.inputs == "joint":
        mixed = shocks @ np.linalg.cholesky(_correlation(change.size)).T
        shocks = np.where(after[:, :, None], mixed, shocks)
    if law.rho:
        shocks[:, 1:] *= np.sqrt(1.0 - law.rho**2)
        shocks = lfilter([1.0], [1.0, -law.rho], shocks, axis=1)
    before, later = margins(law, change)
    value = before.from_normal(shocks)
    if later != before:
        value = np.where(after[:, :, None], later.from_normal(shocks), value)
    return np.asarray(_season(law, start, rows)[None, :, None] + noise(law) * value)


def _draw_rate(
    law: Law, change: Change | None, rng: np.random.Generator, after: npt.NDArray[np.bool_], start: int
) -> FloatArray:
    streams, rows = after.shape
    rate = np.broadcast_to(_rates(law, RATE, start, rows), after.shape)
    if change is not None:
        rate = np.where(after, _rates(law, change.size, start, rows), rate)
    fresh = rng.random((streams, rows)) < rate
    if law.rho:
        # With probability rho an event repeats the one before: lag-1 correlation rho, and the rate is kept.
        renewed = rng.random((streams, rows)) >= law.rho
        renewed[:, 0] = True
        last = np.maximum.accumulate(np.where(renewed, np.arange(rows), 0), axis=1)
        fresh = np.take_along_axis(fresh, last, axis=1)
    return fresh.astype(np.float64)


def log_ratio(law: Law, change: Change, streams: FloatArray, start: int = 0) -> FloatArray:
    """Return ``float64[streams, rows]``: log of the likelihood after over that before, given the past."""
    rows = streams.shape[1]
    if law.inputs == "rate":
        return _rate_ratio(law, change, streams[:, :, 0], start)
    left = (streams - _season(law, start, rows)[None, :, None]) / noise(law)
    before, later = margins(law, change)
    if law.inputs == "joint":
        shock = _shocks(law, before.to_normal(left))
        sigma = _correlation(change.size)
        form = np.linalg.inv(sigma) - np.eye(law.width)
        square = np.einsum("mti,ij,mtj->mt", shock, form, shock, optimize=True)
        return np.asarray(-0.5 * np.linalg.slogdet(sigma)[1] - 0.5 * square)
    return np.asarray((_log_density(law, later, left) - _log_density(law, before, left))[:, :, 0])


def _log_density(law: Law, margin: Margin, x: FloatArray) -> FloatArray:
    density = margin.log_density(x)
    if law.rho:
        normal = margin.to_normal(x)
        shock = _shocks(law, normal)
        shrunk = np.full(x.shape[1], np.log(1.0 - law.rho**2) / 2.0)
        shrunk[0] = 0.0
        density = density - 0.5 * shock**2 + 0.5 * normal**2 - shrunk[None, :, None]
    return density


def _shocks(law: Law, normal: FloatArray) -> FloatArray:
    if not law.rho:
        return normal
    shock = normal.copy()
    shock[:, 1:] = (normal[:, 1:] - law.rho * normal[:, :-1]) / np.sqrt(1.0 - law.rho**2)
    return shock


def _rate_ratio(law: Law, change: Change, hit: FloatArray, start: int) -> FloatArray:
    rows = hit.shape[1]

    def given_past(rate: float) -> FloatArray:
        now = np.broadcast_to(_rates(law, rate, start, rows), hit.shape)
        if not law.rho:
            return now
        return np.concatenate((now[:, :1], law.rho * hit[:, :-1] + (1.0 - law.rho) * now[:, 1:]), axis=1)

    before, after = given_past(RATE), given_past(change.size)
    return np.asarray(np.where(hit > 0, np.log(after / before), np.log((1.0 - after) / (1.0 - before))))


def _correlation(rho: float) -> FloatArray:
    return np.asarray((1.0 - rho) * np.eye(JOINT) + rho)


@dataclass(frozen=True, slots=True)
class Batch:
    """Streams watched against one reference: ``streams[m]`` changes at row ``change[m]``, or never."""

    reference: FloatArray  # [rows, width]
    streams: FloatArray  # [streams, rows, width]
    change: IntArray  # [streams]
    number: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is drawn. A side has its own references: what is tuned on one is judged on the other."""

    references: int
    reference_rows: int
    null_streams: int  # per reference
    null_rows: int
    runs: int  # streams with a change, per reference
    before: int
    after: int
    seed: int

    @property
    def null_events(self) -> int:
        return self.references * self.null_streams * self.null_rows

    @property
    def change_rows(self) -> int:
        return -(-(self.before + PHASES + self.after) // BLOCK) * BLOCK

    def batches(self, law: Law, change: Change | None, side: Literal["tune", "judge"]) -> Iterator[Batch]:
        """Yield one batch for each reference, the same ones each time."""
        for number in range(self.references):
            reference = draw(
                law,
                None,
                self._rng(law.name, side, "reference", number),
                self.reference_rows,
                np.array([self.reference_rows]),
            )[0]
            rng = self._rng(law.name, side, "null" if change is None else change.name, number)
            if change is None:
                rows, at = self.null_rows, np.full(self.null_streams, self.null_rows)
            else:
                rows, at = self.change_rows, self.before + rng.integers(PHASES, size=self.runs)
            yield Batch(reference, draw(law, change, rng, rows, at, self.reference_rows), at, number)

    def _rng(self, *what: str | int) -> np.random.Generator:
        return np.random.default_rng((self.seed, zlib.crc32("/".join(map(str, what)).encode())))
