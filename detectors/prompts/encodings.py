"""Decoders of what machines write: base64, base32, hexadecimal, escapes, entities, codes, bits, hidden characters.

All patterns are runs of one class, or pairs whose parts share no character: the time is linear in the text.
"""

from __future__ import annotations

import base64
import binascii
import html
import re

from regate.detectors.prompts.opened import Opened, readable, replaced
from regate.detectors.prompts.tables import ECOJI

# Shorter runs are words, names and numbers: of any 16 letters some decode to printable characters.
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{24,}(?:\r?\n[A-Za-z0-9+/_-]{24,})*(?:\r?\n[A-Za-z0-9+/_-]{1,76}(?==))?={0,2}")
_BASE32 = re.compile(r"[A-Z2-7]{24,}={0,6}")
_HEX = re.compile(r"(?:(?:0x|\\x|%|=)?[0-9a-fA-F]{2}[ \n:,;-]{0,2}){16,}")
_HEX_NOISE = re.compile(r"0x|[^0-9a-fA-F]")
_PERCENT = re.compile(r"(?:[%=][0-9a-fA-F]{2})+")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_ESCAPE = re.compile(r"\\u\{?([0-9a-fA-F]{4,6})\}?|\\U([0-9a-fA-F]{8})|\\x([0-9a-fA-F]{2})|U\+([0-9a-fA-F]{4,6})[ ,]?")
_BITS = re.compile(r"[01][01 \n,]{62,}")
_CODES = re.compile(r"[0-9]{2,3}(?:[ ,;\n]{1,2}[0-9]{2,3}){15,}")
_TAGS = re.compile("[\U000e0020-\U000e007e\U000e2010-\U000e2027]{8,}")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_UNSEEN_BITS = re.compile("[\u200b-\u200d\u2060-\u2064\ufeff]")
_ECOJI = re.compile(f"[{''.join(ECOJI)}]" + f"[\n{''.join(ECOJI)}]{{15,}}")
_PICTURE = re.compile("[\U0001f000-\U0001f9ff]")
_STRANGE = re.compile("[\u2000-\U000dffff]")
_FIRST_PICTURE = 0x1F300
_MOST_CODE = 0x10FFFF
# An address of a web search is written so too; a whole text without a space and with so many spaces in code is not.
_CODED_SPACES = 12


def from_base64(text: str) -> Opened | None:
    """Open long runs of base64, of either alphabet, in one line or many."""

    def opens(run: str) -> str | None:
        plain = re.sub(r"[\r\n=]", "", run).replace("-", "+").replace("_", "/")
        plain = plain[: len(plain) - (len(plain) % 4 == 1)]
        return readable(base64.b64decode(plain + "=" * (-len(plain) % 4)))

    return replaced(_BASE64, opens, text)


def from_base32(text: str) -> Opened | None:
    """Open long runs of base32 in capitals."""

    def opens(run: str) -> str | None:
        plain = run.rstrip("=")
        plain = plain[: len(plain) - {1: 1, 3: 1, 6: 1}.get(len(plain) % 8, 0)]
        try:
            return readable(base64.b32decode(plain + "=" * (-len(plain) % 8)))
        except binascii.Error:
            return None

    return replaced(_BASE32, opens, text)


def from_hex(text: str) -> Opened | None:
    """Open runs of at least 16 bytes in hexadecimal, with or without separators."""

    def opens(run: str) -> str | None:
        digits = _HEX_NOISE.sub("", run)
        return readable(bytes.fromhex(digits[: len(digits) // 2 * 2]))

    return replaced(_HEX, opens, text)


def from_percent(text: str) -> Opened | None:
    """Open URL percent codes and quoted-printable; the payload is runs of codes, or a whole text without spaces."""
    if "%" not in text and "=" not in text:
        return None

    def opens(run: str) -> str:
        return bytes.fromhex(run.replace("%", "").replace("=", "")).decode("utf-8", "replace")

    found = replaced(_PERCENT, opens, text, least=3)
    if found is None:
        return None
    whole = " " not in text and "://" not in text and found.payload.count(" ") >= _CODED_SPACES
    return found._replace(text=found.text.replace("=\n", ""), payload=found.text if whole else found.payload)


def from_entities(text: str) -> Opened | None:
    """Open HTML entities; only numeric ones hide anything."""
    if "&" not in text:
        return None
    hidden: list[str] = []

    def opens(run: str) -> str:
        got = html.unescape(run)
        if run.startswith("&#"):
            hidden.append(got)
        return got

    found = replaced(_ENTITY, opens, text, least=3)
    return None if found is None else found._replace(payload="".join(hidden))


def from_escapes(text: str) -> Opened | None:
    r"""Open ``\u0041``, ``\x41``, ``\U00000041`` and ``U+0041``."""
    if "\\" not in text and "U+" not in text:
        return None

    def opens(run: str) -> str | None:
        code = int(re.sub(r"[^0-9a-fA-F]", "", run), 16)
        return chr(code) if code <= _MOST_CODE else None

    return replaced(_ESCAPE, opens, text, least=8)


def from_bits(text: str) -> Opened | None:
    """Open zeros and ones: groups that are characters, or an unbroken run of groups of eight or seven."""

    def opens(run: str) -> str | None:
        groups = re.split(r"[ \n,]+", run.strip(" \n,"))
        if len(groups) < 8:
            whole = "".join(groups)
            for size in (8, 7, 16):
                got = _characters([whole[at : at + size] for at in range(0, len(whole) - size + 1, size)])
                if got:
                    return got
            return None
        return _characters(groups)

    return replaced(_BITS, opens, text)


def from_codes(text: str) -> Opened | None:
    """Open lists of ASCII codes in decimal."""

    def opens(run: str) -> str | None:
        codes = [int(code) for code in re.findall(r"[0-9]+", run)]
        return readable(bytes(codes)) if all(code < 256 for code in codes) else None

    return replaced(_CODES, opens, text)


def from_tags(text: str) -> Opened | None:
    """Open the Unicode tag block, which repeats ASCII unseen."""
    return (
        None if text.isascii() else replaced(_TAGS, lambda run: "".join(chr(ord(sign) - 0xE0000) for sign in run), text)
    )


def from_selectors(text: str) -> Opened | None:
    """Open bytes that are written as variation selectors, behind one sign or many."""
    signs = [] if text.isascii() else _SELECTORS.findall(text)
    if len(signs) < 16:
        return None
    codes = [ord(sign) for sign in signs]
    found = readable(bytes(code - 0xFE00 if code < 0xE0000 else code - 0xE0100 + 16 for code in codes))
    return None if found is None else Opened(_SELECTORS.sub("", text) + "\n" + found, found)


def from_unseen_bits(text: str) -> Opened | None:
    """Open bits that are written in two kinds of unseen characters."""
    signs = "" if text.isascii() else "".join(_UNSEEN_BITS.findall(text))
    kinds = sorted(set(signs))
    if len(signs) < 64 or len(kinds) != 2:
        return None
    for zero, one in (kinds, kinds[::-1]):
        bits = signs.translate({ord(zero): "0", ord(one): "1"})
        size = len(bits) // 8
        found = readable(int(bits[: size * 8], 2).to_bytes(size, "big"))
        if found is not None:
            return Opened(_UNSEEN_BITS.sub("", text) + "\n" + found, found)
    return None


def from_ecoji(text: str) -> Opened | None:
    """Open Ecoji: four emoji are five bytes."""

    def opens(run: str) -> str | None:
        return _tens([ECOJI[sign] for sign in run if sign != "\n"])

    return replaced(_ECOJI, opens, text) if _PICTURE.search(text) else None


def from_offset(text: str) -> Opened | None:
    """Open text that is written in signs of another block: bytes, or ten bits a sign, from the block's first one on."""
    signs = [] if text.isascii() else _STRANGE.findall(text)
    if len(signs) < 24 or len(signs) * 2 < len(text):
        return None
    codes = [ord(sign) for sign in signs]
    low, high = min(codes), max(codes)
    if high - low >= 1024:
        return None
    for base in dict.fromkeys((low & ~0xFF, low & ~0x3FF, _FIRST_PICTURE)):
        values = [code - base for code in codes]
        if min(values) < 0 or max(values) >= 1024:
            continue
        found = readable(bytes(values)) if max(values) < 256 else _tens(values)
        if found is not None:
            return Opened(_STRANGE.sub("", text) + "\n" + found, found)
    return None


def _tens(values: list[int]) -> str | None:
    """Return the text of ten bits a value."""
    values = values + [0] * (-len(values) % 4)
    data = bytearray()
    for a, b, c, d in zip(values[::4], values[1::4], values[2::4], values[3::4], strict=True):
        data += (a << 30 | b << 20 | c << 10 | d).to_bytes(5, "big")
    return readable(bytes(data).rstrip(b"\0"))


def _characters(groups: list[str]) -> str | None:
    codes = [int(group, 2) for group in groups if 5 <= len(group) <= 32]
    codes = [code for code in codes if code <= _MOST_CODE]
    if len(codes) * 10 < len(groups) * 9:  # the last one may be cut
        return None
    return readable("".join(map(chr, codes)).encode("utf-8", "ignore"))
