"""The bank of decoders, and all that they open in a text, code within code too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from regate.detectors.prompts import ciphers, encodings, spellings
from regate.detectors.prompts.language import letters, reads
from regate.detectors.prompts.normal import LONGEST
from regate.detectors.prompts.opened import Opened

# Code within code is opened once more, in at most so many texts: without it one text could open into hundreds.
_MOST_TEXTS = 16


@dataclass(frozen=True, slots=True)
class Decoder:
    """One way to read a text."""

    name: str
    read: Callable[[str], Opened | None]

    def opened(self, text: str) -> Opened | None:
        """Return what is found in a text, cut to the longest that is looked at."""
        found = self.read(text[:LONGEST])
        return None if found is None else Opened(found.text[:LONGEST], found.payload[:LONGEST])

    def __call__(self, text: str) -> str | None:
        """Return the text with the code opened in its place; None where there is none."""
        found = self.opened(text)
        return None if found is None else found.text


# What these open may be code again.
ENCODINGS = (
    Decoder("tags", encodings.from_tags),
    Decoder("selectors", encodings.from_selectors),
    Decoder("unseen bits", encodings.from_unseen_bits),
    Decoder("ecoji", encodings.from_ecoji),
    Decoder("offset", encodings.from_offset),
    Decoder("base64", encodings.from_base64),
    Decoder("hex", encodings.from_hex),
    Decoder("base32", encodings.from_base32),
    Decoder("percent", encodings.from_percent),
    Decoder("entities", encodings.from_entities),
    Decoder("escapes", encodings.from_escapes),
    Decoder("bits", encodings.from_bits),
    Decoder("codes", encodings.from_codes),
    Decoder("morse", spellings.from_morse),
    Decoder("nato", spellings.from_nato),
    Decoder("algebra", spellings.from_algebra),
)
# These too, if it does not read like a language yet: letters shifted and turned.
CIPHERS = (
    Decoder("spaced", spellings.from_spaced),
    Decoder("rot13", ciphers.from_rot13),
    Decoder("rot47", ciphers.from_rot47),
    Decoder("caesar", ciphers.from_caesar),
    Decoder("atbash", ciphers.from_atbash),
    Decoder("vigenere", ciphers.from_vigenere),
    Decoder("reversed", spellings.from_reversed),
)
# These open so many texts that nothing is sought behind them.
TURNS = (
    Decoder("leet", spellings.from_leet),
    Decoder("reversed in words", spellings.from_reversed_in_words),
    Decoder("reversed words", spellings.from_reversed_words),
)
DECODERS = (*ENCODINGS, *CIPHERS, *TURNS)


def opened_in(text: str) -> list[tuple[Decoder, Opened]]:
    """Return what each decoder opens in a text."""
    return list(_lazily(text))


def readings(text: str, opened: Iterable[tuple[Decoder, Opened]] | None = None) -> Iterator[tuple[str, Opened]]:
    """Yield all that the bank opens in a text, with the names of the decoders: ``hex``, then ``hex, rot13``.

    :param opened: what `opened_in` gave, where it is known.
    """
    first: list[tuple[str, Opened]] = []
    for decoder, found in _lazily(text) if opened is None else opened:
        yield decoder.name, found
        if decoder in ENCODINGS or (decoder in CIPHERS and not reads(letters(found.text))):
            first.append((decoder.name, found))
    left = _MOST_TEXTS
    for name, outer in first:
        for decoder, found in _lazily(outer.text):
            if found.text != text:
                yield f"{name}, {decoder.name}", found
                left -= 1
            if left == 0:
                return


def _lazily(text: str) -> Iterator[tuple[Decoder, Opened]]:
    for decoder in DECODERS:
        found = decoder.opened(text)
        if found is not None:
            yield decoder, found
