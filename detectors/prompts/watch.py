"""Prompts of one model: prints wait for their watermark; known ones and texts in code become incidents.

Three lanes. *Recurrence*: a pattern of the library is seen again, in whatever coat. *Coded*: a client's texts are in
code more often than any client's of the reference. *Spread*: one text in code, known or not, comes from many clients.
What is frequent and plain (templates, boilerplate) is normal life, and so is code that the reference had.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp, lgamma, log
from typing import Any

from regate.detectors.arrays import Arrays
from regate.detectors.attack.sign import Sign
from regate.detectors.attack.signs import Signs
from regate.detectors.attack.watch import hex_name
from regate.detectors.columns import ModelKey
from regate.detectors.finding import Finding
from regate.detectors.prompts.bets import HIGH, HITS, LOW, SINCE, TEXTS, UNIT, Bets
from regate.detectors.prompts.library import ANCHORS, CONTAINED, NEAR, Library, Match
from regate.detectors.prompts.minhash import SLOTS
from regate.detectors.prompts.normal import normalised, skeleton
from regate.detectors.prompts.prints import PLAIN, Print, Reading, reading
from regate.detectors.prompts.recent import Recent, Sent, empty
from regate.detectors.prompts.reference import LARGEST_SHARE, PromptReference
from regate.detectors.prompts.rows import Prints, joined, name_of, ordered, texts_of

# Incidents of which a print is kept, so that a person who confirms one makes a pattern of it.
MOST_KEPT = 256
# By chance: a slot of two English texts agrees so often, and a phrase of ten characters stands in both.
_SLOT, _PHRASE = 0.2, 0.02

Name = Callable[[int], str]


@dataclass(slots=True)
class PromptWatch:
    """State: waiting prints, known patterns, texts in code that came lately, bets by client, open incidents."""

    key: ModelKey
    profile_digest: str
    reference: PromptReference
    library: Library = field(init=False)
    recent: Recent = field(init=False)
    kept: Library = field(init=False)  # by incident: what was seen
    bets: Bets = field(default_factory=Bets)
    signs: Signs = field(default_factory=Signs)
    waiting: list[Prints] = field(default_factory=list)
    plain: set[str] = field(default_factory=set)  # patterns that normal texts match: told in a coat only
    texts: int = 0
    coded: int = 0
    lost: bool = False  # a snapshot held more known patterns than could be read back
    timed: bool = True  # False: a backtest by rows, whose numbers stand for times; incidents do not end
    _usual: Library = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        salt = self.reference.salt
        self.library, self.recent = Library(salt=salt), empty(salt)
        self.kept = Library(MOST_KEPT, salt=salt)
        self._usual = self.reference.usual_library()

    def learn(self, pattern: str, known: str | Reading) -> bool:
        """Take a pattern: its text, or hashes under this model's salt; False when there is nothing to know it by."""
        if isinstance(known, str):
            form = skeleton(normalised(known))
            if not form:
                return False
            known = reading(form, self.reference.salt)
        self.library.add_reading(pattern, known)
        alone = Library(1, salt=self.reference.salt)
        alone.add_reading(pattern, known)
        self.plain.discard(pattern)
        if self.reference.matches(alone):
            self.plain.add(pattern)
        self.plain &= set(self.library.ids())
        return True

    def confirm(self, incident: str, pattern: str) -> bool:
        """Make a pattern of what an incident was about; False when that is not known (any more)."""
        meta, arrays = self.kept.entries()
        if incident not in meta["ids"]:
            return False
        row = meta["ids"].index(incident)
        anchors = arrays["anchors"][row, : arrays["held"][row]]
        number = int(arrays["shingles"][row])
        seen = Reading(PLAIN, int(arrays["digest"][row]), number, arrays["signature"][row], anchors)
        return self.learn(pattern, seen)

    def revised(self, reference: PromptReference, profile_digest: str) -> None:
        """Compare with another reference from now on; what is known and what is open stays."""
        self.profile_digest = profile_digest
        if reference.digest == self.reference.digest:
            return
        self.reference, self._usual = reference, reference.usual_library()
        self.bets = Bets()
        self._see_plain()

    def given_up(self, closed_us: int, why: str) -> list[Finding]:
        """End all incidents, because nobody watches these texts any more; return the revisions."""
        return [_named(finding) for finding in self.signs.end_all(closed_us, why)]

    def learn_all(self, said: dict[str, Any], arrays: Arrays) -> None:
        """Take what `Library.entries` of another library of this model gave.

        :raises PoisonError: when it is damaged, or of another salt.
        """
        self.library.restore(said, arrays)
        self._see_plain()

    def forget(self, beginning: str) -> None:
        """Drop the patterns whose id begins so."""
        for one in [one for one in self.library.ids() if one.startswith(beginning)]:
            self.library.remove(one)
        self.plain &= set(self.library.ids())

    def _see_plain(self) -> None:
        """Look which patterns normal texts match."""
        self.plain.clear()
        sample = self.reference.sample
        for row in range(sample.n):
            match = self.library.match_readings((sample.reading(row),), used=False)
            if match is not None:
                self.plain |= {match.id, *match.also}

    def take(self, prints: Prints) -> None:
        """Keep prints until their time has closed."""
        if prints.n:
            self.waiting.append(prints)

    def close(self, before_us: int, name: Name = hex_name) -> list[Finding]:
        """Look at all prints before a time, in order; return what they say, and what has ended."""
        found: list[Finding] = []
        if self.waiting:
            everything = joined(self.waiting)
            ripe = everything.time_us < before_us
            self.waiting = [] if bool(ripe.all()) else [everything.some(~ripe)]
            found = self._decide(everything.some(ripe), name)
        return [*found, *self._told([], before_us, name)] if self.signs.open and self.timed else found

    def decide(self, prints: Prints, name: Name = hex_name) -> list[Finding]:
        """Look at prints now; return what they say, and what has ended."""
        return self._decide(prints, name)

    def _decide(self, prints: Prints, name: Name) -> list[Finding]:
        prints = ordered(prints)
        found: list[Finding] = []
        for first, stop in texts_of(prints):
            time_us, client = int(prints.time_us[first]), int(prints.client[first])
            one = prints.text(first, stop)
            self.texts += 1
            seen = self._signs(one, int(prints.coat[first]), client, time_us)
            if seen or self.signs.open:
                told = self._told([sign for sign, _ in seen], time_us, name)
                new = [finding for finding in told if finding.type == "finding"]
                for finding in new:
                    self.kept.add_reading(finding.id, seen[0][1])
                found += told
        return found

    def _told(self, signs: list[Sign], now_us: int, name: Name) -> list[Finding]:
        told = self.signs.take(signs, now_us, self.key, self.profile_digest, name, lambda _: self.texts)
        return [_named(finding) for finding in told]

    def _signs(self, one: Print, coat: int, client: int, time_us: int) -> list[tuple[Sign, Reading]]:
        """Return what one text says, with what was seen of it."""
        found: list[tuple[Sign, Reading]] = []
        match = self.library.match_print(one)
        if match is not None and (match.id not in self.plain or one.coat or match.decoder != PLAIN):
            seen = next(own for own in one.readings if own.decoder == match.decoder)
            found.append((self._again(match, one, client, time_us), seen))
        behind = one.readings[one.coated] if one.coat else None
        hit = behind is not None and self._usual.match_readings((behind,), used=False) is None
        if self.reference.bound < LARGEST_SHARE:
            own = self.bets.take(client, self.reference.bound, self.reference.bar, time_us, hit=hit)
            if own is not None and behind is not None:
                found.append((self._in_code(own, one, client, time_us), behind))
        if hit and behind is not None:
            self.coded += 1
            others = tuple(own for own in one.readings if own is not behind)
            sent = self.recent.take((behind, *others), coat, client, time_us)
            if len(sent.clients) >= self.reference.many:
                found.append((self._spread(sent, time_us), behind))
        return found

    def _again(self, match: Match, one: Print, client: int, time_us: int) -> Sign:
        coat = f"in {match.decoder}" if match.decoder != PLAIN else f"in {one.coat}" if one.coat else "as it was"
        what = f"holds {match.similarity:.0%} of" if match.contained else f"is {match.similarity:.0%}"
        said = f"{{subject}}: a text of {one.length} characters {what} the known prompt {match.id}, {coat}"
        subject = "" if client else f"pattern:{match.id}"
        level, bar = _chance(match.similarity, contained=match.contained), _chance(contained=match.contained)
        level, bar = (value - log(len(self.library)) for value in (level, bar))
        return Sign("recurrence", subject, time_us, time_us, 1, "texts", level, bar, said, client)

    def _in_code(self, own: list[int], one: Print, client: int, time_us: int) -> Sign:
        reference = self.reference
        said = (
            f"{own[HITS]} of {own[TEXTS]} texts of {{subject}} are in code, last in {one.coat}; "
            f"of the reference's {reference.coded} of {reference.texts}"
        )
        level = max(own[LOW : HIGH + 1]) / UNIT
        subject = "" if client else "unnamed clients"
        return Sign("coded", subject, time_us, own[SINCE], own[TEXTS], "texts", level, reference.bar, said, client)

    def _spread(self, sent: Sent, time_us: int) -> Sign:
        # Each further client sends any code at all by chance at most so often.
        rare = -log(self.reference.bound)
        level, bar = (rare * (number - 1) for number in (len(sent.clients), self.reference.many))
        coats = ", ".join(name_of(code) for code in sent.coats)
        subject = f"pattern:{sent.digest:016x}"
        (since_us, _, times), count = sent.times, len(sent.clients)
        said = f"{subject}: one text in code ({coats}) came {times} times, from {count} clients"
        return Sign("spread", subject, time_us, since_us, count, "clients", level, bar, said)


def _named(finding: Finding) -> Finding:
    """Return a finding under the name of its lane."""
    lane = finding.detector.rpartition("/")[2]
    kind = "recurrence" if lane == "recurrence" else "attack"
    return finding.model_copy(update={"detector": f"prompts/{lane}", "kind": kind})


def _chance(similarity: float | None = None, *, contained: bool) -> float:
    """Return -ln of the probability that unrelated texts agree so well; without a number, as well as a match must."""
    parts, share, least = (ANCHORS, _PHRASE, CONTAINED) if contained else (SLOTS, _SLOT, NEAR)
    hits = min(round((least if similarity is None else similarity) * parts), parts)
    logs = [
        lgamma(parts + 1) - lgamma(k + 1) - lgamma(parts - k + 1) + k * log(share) + (parts - k) * log(1.0 - share)
        for k in range(hits, parts + 1)
    ]
    most = max(logs)
    return -(most + log(sum(exp(one - most) for one in logs)))
