"""Attackers that adapt to a detector (OARS: Feng, Hooda, Mangaokar, Fawaz, Jha, Prakash: CCS 2023), written anew.

OARS turns a detector's rejection into an oracle, in two parts. *Adapt*: the spread of the proposals and the size of
steps are searched for the smallest that is not rejected. *Resample*: a proposal that is rejected all the same is drawn
again, a little wider. Here four attacks do so: ``hop`` (HopSkipJump) and ``walk`` (Boundary) see classes, ``nes`` and
``square`` scores. Whoever is found goes on under a new account; with ``rotate`` he also leaves an account before it has
asked half of what the shortest one that was found had asked.

Without a leaked verdict there is no oracle, so the same attacks run with what they start from. They know the
normal spread of features, some real rows, and how far they may go.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
from benchmarks.attacks.traffic import Population

FloatArray = npt.NDArray[np.float64]
ROWS = 200  # real rows that an attacker has
SURE = 0.3  # the attacked row is answered with a score so far from .5, or farther
NEAR = 1.5  # the goal: another class, within so many times the smallest change that gives one
TRIES = 3  # how often a rejected proposal is drawn again
TOLERATED = 0.25  # share of probes that may be rejected at the spread that is taken


class Detector(Protocol):
    """What sees every query, in order."""

    def ask(self, x: FloatArray, score: float, account: int) -> bool:
        """Return whether this query raised a finding about its account (or about itself)."""


class Spent(Exception):  # noqa: N818  (an end, not an error)
    """No queries are left, or the goal is reached."""


@dataclass
class Session:
    """One attacker and his queries.

    :param leaked: whether he learns, after each query, that it raised a finding.
    :param whole: features that he rounds, to keep to what real rows hold.
    """

    population: Population
    detector: Detector
    cap: int
    origin: FloatArray
    radius: float
    leaked: bool = False
    rotate: bool = False
    whole: npt.NDArray[np.bool_] | None = None
    low: FloatArray | None = None
    high: FloatArray | None = None
    rows: list[FloatArray] = field(default_factory=list)
    account: list[int] = field(default_factory=list)
    found: list[int] = field(default_factory=list)  # numbers of queries, from 1
    goal: int | None = None
    limit: int | None = None
    _now: int = 0
    _asked: int = 0  # by this account

    def __post_init__(self) -> None:
        self.side = bool(self.population.score(self.origin[None])[0] >= 0.5)

    def ask(self, unit: FloatArray) -> tuple[float, bool]:
        """Ask about a point, in normal spreads from the origin; return how far towards the other class, and rejection.

        :raises Spent: when it is over.
        """
        if len(self.rows) >= self.cap or self.goal is not None:
            raise Spent
        x = self.origin + unit * self.population.scale
        if self.low is not None and self.high is not None:
            x = np.clip(x, self.low, self.high)
        if self.whole is not None:
            x = np.where(self.whole, np.rint(x), x)
        if self.limit is not None and self._asked >= self.limit:
            self._renew()
        score = float(self.population.score(x[None])[0])
        self.rows.append(x)
        self.account.append(self._now)
        self._asked += 1
        told = self.detector.ask(x, score, self._now)
        other = (1.0 - score if self.side else score) - 0.5
        if told:
            self.found.append(len(self.rows))
        within = np.linalg.norm((x - self.origin) / self.population.scale) <= self.radius
        if other > 0 and within:
            self.goal = len(self.rows)
        if told and self.leaked:
            if self.rotate:
                self.limit = max(1, min(self.limit or self._asked, self._asked) // 2)
            self._renew()
        return other, told and self.leaked

    def _renew(self) -> None:
        self._now += 1
        self._asked = 0

    @property
    def clean(self) -> bool:
        """Whether the goal was reached by an account about which nothing was found until then."""
        return self.goal is not None and not any(
            self.account[number - 1] == self.account[self.goal - 1] for number in self.found
        )


@dataclass
class Spread:
    """A size that grows when it is rejected and shrinks slowly otherwise, never below what probes were rejected at."""

    value: float
    least: float
    most: float

    def calibrate(
        self, session: Session, draw: Callable[[float], FloatArray], rounds: int = 5, probes: int = 4
    ) -> None:
        """Search for the smallest size that is not rejected; needs the oracle."""
        if not session.leaked:
            return
        low, high = self.least, self.most
        for _ in range(rounds):
            middle = float(np.sqrt(low * high))
            rejected = sum(session.ask(draw(middle))[1] for _ in range(probes))
            low, high = (middle, high) if rejected > TOLERATED * probes else (low, middle)
        self.value = self.least = high

    def rejected(self) -> None:
        self.value = min(1.5 * self.value, self.most)

    def accepted(self) -> None:
        self.value = max(0.98 * self.value, self.least)


def proposal(session: Session, spread: Spread, draw: Callable[[float], FloatArray]) -> tuple[FloatArray, float] | None:
    """Return a proposal and its answer; a rejected one is drawn again, wider. None when all were rejected."""
    for _ in range(TRIES):
        point = draw(spread.value)
        other, rejected = session.ask(point)
        if not rejected:
            spread.accepted()
            return point, other
        spread.rejected()
    return None


def _unit(rng: np.random.Generator, width: int) -> FloatArray:
    direction = rng.normal(size=width)
    return np.asarray(direction / np.linalg.norm(direction))


def _around(point: FloatArray, rng: np.random.Generator) -> Callable[[float], FloatArray]:
    return lambda size: point + size * _unit(rng, len(point))


def _cloud(point: FloatArray, rng: np.random.Generator) -> Callable[[float], FloatArray]:
    return lambda size: point + size * rng.normal(size=len(point))


def _halve(session: Session, point: FloatArray, least: float) -> FloatArray:
    """Return a point of the other class nearer to the origin; a rejection ends the search early."""
    low, high = 0.0, 1.0
    while (high - low) * np.linalg.norm(point) > least:
        middle = 0.5 * (low + high)
        other, rejected = session.ask(middle * point)
        if rejected:
            break
        low, high = (low, middle) if other > 0 else (middle, high)
    return high * point


def hop(session: Session, rng: np.random.Generator, start: FloatArray) -> None:
    """HopSkipJump: to the boundary, the gradient there from classes of points around, a step along it."""
    width = len(start)
    point = _halve(session, start, 0.1)
    spread = Spread(0.1, 0.01, 4.0)
    spread.calibrate(session, _around(point, rng))
    turn = 1
    while True:
        total, mean, drawn = np.zeros(width), 0.0, []
        for _ in range(10 + 2 * turn):
            got = proposal(session, spread, _around(point, rng))
            if got is not None:
                drawn.append((got[0] - point, 1.0 if got[1] > 0 else -1.0))
        if drawn:
            mean = float(np.mean([sign for _, sign in drawn]))
            total = np.sum([(sign - mean if abs(mean) < 1 else sign) * step for step, sign in drawn], axis=0)
        gradient = total / (np.linalg.norm(total) + 1e-12)
        step = float(np.linalg.norm(point)) / np.sqrt(turn)
        for _ in range(6):
            other, rejected = session.ask(point + step * gradient)
            if other > 0 and not rejected:
                point = point + step * gradient
                break
            step *= 0.5
        point = _halve(session, point, max(0.02, 0.5 * spread.value if session.leaked else 0.02))
        turn += 1


def walk(session: Session, rng: np.random.Generator, start: FloatArray) -> None:
    """Boundary: a step around the origin, a step towards it, kept when the class is still the other one."""
    width = len(start)
    point = start
    around, towards = Spread(0.1, 0.02, 1.5), Spread(0.05, 0.01, 0.7)

    def trial(size: float) -> FloatArray:
        far = np.linalg.norm(point)
        side = point + size * far * _unit(rng, width)
        return np.asarray(side / np.linalg.norm(side) * far * (1.0 - towards.value))

    around.calibrate(session, trial)
    while True:
        got = proposal(session, around, trial)
        if got is None:
            towards.rejected()
        elif got[1] > 0:
            point = got[0]
            towards.value = min(1.1 * towards.value, towards.most)
        else:
            towards.value = max(0.9 * towards.value, towards.least)


def nes(session: Session, rng: np.random.Generator, start: FloatArray) -> None:
    """NES: the gradient of the score from Gaussian proposals, a step, all within the radius."""
    width = len(start)
    point = np.zeros(width)
    spread, step = Spread(0.05, 0.005, 3.0), Spread(0.25 * session.radius, 0.05, session.radius)
    spread.calibrate(session, _cloud(point, rng))
    best = session.ask(point)[0]
    while True:
        gradient = np.zeros(width)
        for _ in range(6):
            got = proposal(session, spread, _cloud(point, rng))
            if got is not None:
                gradient += (got[1] - best) * (got[0] - point)
        moved = point + step.value * gradient / (np.linalg.norm(gradient) + 1e-12)
        moved *= min(1.0, 0.999 * session.radius / (np.linalg.norm(moved) + 1e-12))
        other, rejected = session.ask(moved)
        if rejected:
            step.rejected()
        elif other > best:
            point, best = moved, other
        else:
            step.accepted()


def square(session: Session, rng: np.random.Generator, start: FloatArray) -> None:
    """Square: corners of a box within the radius, some of the features redrawn at a time."""
    width = len(start)
    size = 0.999 * session.radius / np.sqrt(width)
    point = size * rng.choice([-1.0, 1.0], width)
    share = Spread(0.3, 1.0 / width, 1.0)

    def redrawn(part: float) -> FloatArray:
        out = point.copy()
        some = rng.choice(width, max(1, round(part * width)), replace=False)
        out[some] = size * rng.choice([-1.0, 1.0], len(some))
        return out

    best = session.ask(point)[0]
    share.calibrate(session, redrawn)
    while True:
        got = proposal(session, share, redrawn)
        if got is not None and got[1] > best:
            point, best = got


Attack = Callable[[Session, np.random.Generator, FloatArray], None]
ATTACKS: dict[str, Attack] = {"hop": hop, "walk": walk, "nes": nes, "square": square}


@dataclass(frozen=True, slots=True)
class Mode:
    """What the attacker knows and does."""

    text: str
    leaked: bool = False
    rotate: bool = False
    valid: bool = False  # only values as real rows have them


MODES = (
    Mode("no verdict"),
    Mode("verdict leaked", leaked=True),
    Mode("verdict leaked, accounts rotate", leaked=True, rotate=True),
    Mode("verdict leaked, accounts rotate, valid values", leaked=True, rotate=True, valid=True),
)


def ran(population: Population, detector: Detector, name: str, mode: Mode, cap: int, seed: int) -> Session:
    """Run one episode to its goal or its last query."""
    rng = np.random.default_rng((seed, 60, len(name)))
    own = population.draw(rng, ROWS)
    side = population.score(own) >= 0.5
    at = int(np.flatnonzero(np.abs(population.score(own) - 0.5) > SURE)[0])
    origin, others = own[at], own[side != side[at]]
    nearest = int(np.argmin(np.linalg.norm((others - origin) / population.scale, axis=1)))
    # The model is a logistic regression, so the smallest change is known; the attackers of scores are told how far.
    score = float(population.score(origin[None])[0])
    smallest = abs(np.log(score / (1.0 - score))) / float(np.linalg.norm(population.weights))
    whole = (own == np.rint(own)).all(axis=0)
    session = Session(
        population,
        detector,
        cap,
        origin,
        NEAR * smallest,
        mode.leaked,
        mode.rotate,
        whole if mode.valid else None,
        own.min(axis=0) if mode.valid else None,
        own.max(axis=0) if mode.valid else None,
    )
    with contextlib.suppress(Spent):
        ATTACKS[name](session, rng, (others[nearest] - origin) / population.scale)
    return session
