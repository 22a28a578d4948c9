"""A print: all that is ever needed of a text to know it again, of bounded size and without its words.

Hashes are made under the model's salt, so that no table of common texts serves for all models. A salt is no secret key:
who has it and guesses a text can check the guess.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regate.detectors.prompts.canary import encoded
from regate.detectors.prompts.decoders import opened_in, readings
from regate.detectors.prompts.disguise import disguised
from regate.detectors.prompts.language import letters, score
from regate.detectors.prompts.minhash import SLOTS, ByteArray, shingles, signature
from regate.detectors.prompts.normal import LONGEST, normalised, skeleton

AnchorArray = npt.NDArray[np.uint32]

# With fewer distinct shingles two texts are alike by chance: such a text is known by its exact form only.
LEAST_SHINGLES = 40
# Anchors: the runs of ten characters with the least hashes, a known text's least are 32. Of every eight of a text one
# is kept, at least 64: so a known one of some size is seen in a text of up to 8,000 characters, whatever their lengths.
ANCHOR = 10
ANCHORS = 64
ONE_IN = 8
MOST_ANCHORS = 1_024
MOST_DECODED_ANCHORS = 256  # of what decoders open: each of them would cost as much again
# Of all that decoders open, the two that read best: what a known text was opened by is the first in nineteen of
# twenty cases, and hardly ever the third.
DECODED = 2
# Shorter ones hold no code of which anything could be known.
LEAST_CODED = 24
PLAIN = "plain"
DISGUISE = "disguise"
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a text, as hashes."""

    decoder: str  # "plain", or the decoders that opened it
    digest: int  # of the skeleton, 64 bits
    shingles: int  # distinct ones; few: only the digest counts, the rest is empty
    signature: ByteArray  # uint8[64], zeros for a short one
    anchors: AnchorArray  # lower halves of the least hashes, up to `MOST_ANCHORS`; a library's direct look has all


@dataclass(frozen=True, slots=True)
class Print:
    """A text as it is, and as the best decoders read it."""

    readings: tuple[Reading, ...]
    coat: str  # of the canary: decoders that opened text, or "disguise"; empty: none
    length: int  # characters

    @property
    def coated(self) -> int:
        """Return the place of the reading behind the coat: what was opened, or what a disguise reads like."""
        for name in (self.coat, self.coat.partition(", ")[0]):
            for place, one in enumerate(self.readings):
                if one.decoder == name:
                    return place
        return 0  # opened or not, it has one form: spaced letters and unseen characters go in the normal form


def print_of(text: str, salt: int = 0) -> Print:
    """Return the print of a text; it costs some 400 µs for 500 characters, nearly all of it in decoders."""
    length, text = len(text), text[:LONGEST]
    seen = {skeleton(normalised(text))}
    made = [reading(next(iter(seen)), salt)]
    if len(text) < LEAST_CODED:
        return Print(tuple(made), "", length)
    opened = opened_in(text)
    coats = encoded(text, opened)
    found = [(name in coats, score(letters(one.text)), name, one.text) for name, one in readings(text, opened)]
    for _, _, name, whole in sorted(found, key=lambda one: (not one[0], -one[1])):
        form = skeleton(normalised(whole))
        if form not in seen:
            seen.add(form)
            made.append(reading(form, salt, name, MOST_DECODED_ANCHORS))
            if len(made) > DECODED:
                break
    # Of several that open a payload the one whose reading is kept.
    coat = next((one.decoder for one in made if one.decoder in coats), coats[0] if coats else "")
    if not coat and disguised(text):
        coat = DISGUISE
    return Print(tuple(made), coat, length)


def reading(form: str, salt: int = 0, decoder: str = PLAIN, most: int | None = MOST_ANCHORS) -> Reading:
    """Return a skeleton's hashes; of its anchors one in eight, up to ``most``, None: all of them."""
    hashes = shingles(form, salt=salt)
    short = len(hashes) < LEAST_SHINGLES
    own = np.zeros(SLOTS, dtype=np.uint8) if short else signature(hashes)
    kept = np.zeros(0, dtype=np.uint64) if short else shingles(form, ANCHOR, salt)
    if most is not None:
        kept = kept[: max(ANCHORS, min(len(kept) // ONE_IN, most))]
    return Reading(decoder, digest_of(form, salt), len(hashes), own, (kept & _LOW).astype(np.uint32))


def digest_of(form: str, salt: int = 0) -> int:
    """Return the hash of a skeleton."""
    key = salt.to_bytes(8, "little")
    made = hashlib.blake2b(form.encode("utf-8", "surrogatepass"), digest_size=8, key=key)
    return int.from_bytes(made.digest(), "little")
