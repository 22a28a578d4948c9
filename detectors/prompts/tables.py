"""Alphabets as data: what looks like a letter, and what stands for one."""

# ruff: noqa: RUF001, RUF003 - ambiguous letters are what the table is about

from __future__ import annotations

# Other alphabets' letters that look like Latin ones and that NFKD leaves alone. Capitals and small letters stand apart
# where they look like different letters (Greek Η and η).
_LOOKALIKES = {
    "a": "аΑАαɑᴀɐᗅᎪꓮ∀Λ∆ǻ",
    "b": "ВвΒβʙьЬᏴᗷꓐƄɓß฿",
    "c": "сСϲᴄⅽᏟꓚƈ¢ɔ©",
    "d": "ԁᴅɗᎠᗪꓓđðɖ",
    "e": "еЕΕεᴇєЄɛǝҽᎬꓰ€℮",
    "f": "ғꜰϝƒᖴꓝſɟ",
    "g": "ɡɢԍᏀꓖǥցƃ",
    "h": "һНнΗʜհᎻꓧħɥҺ",
    "i": "іІΙιɪıӏӀ¡ᎥꓲɩƖ∣ǃᴉ",
    "j": "јЈϳᴊյᎫꓙɉɾʝ",
    "k": "кКΚκᴋƙᏦꓗʞĸ",
    "l": "ⅼʟℓᏞꓡłꞁɭ",
    "m": "мМΜϺᴍⅿᎷꓟɯɱ",
    "n": "ոΝηɴпПᑎꓠŋɲñᴎ",
    "o": "оОΟοσᴏօסοᎾꓳøØθΘ๏०০",
    "p": "рРΡρᴘᏢꓑþƥ",
    "q": "ԛզɊϙʠ",
    "r": "гʀᎡꓣɍɹяЯᴦʁ",
    "s": "ѕЅꜱՏᏚꓢʂꞅ§",
    "t": "тТΤτᴛᎢꓔŧƭʇ†",
    "u": "υᴜսմᑌꓴʊцμ",
    "v": "νᴠѵѴᏙꓦʌⅴ∨",
    "w": "ԝшωᴡѡᎳꓪʍɯ",
    "x": "хХΧχ×ⅹ᙭ꓫϰж",
    "y": "уУΥγʏүҮᎩꓬʎɣ¥",
    "z": "ᴢΖζʐᏃꓜƶȥʒ",
}
# Rarer ones by code point, of the confusables that Unicode lists (Technical Standard 39).
_RARE = """
a 237a 102a0 16f40 / b 13cf 1472 15af a7b4 10282 102a1 10301 / c 3a3 2ca4 2ca5 102a2 10302 10415 1043d 1051c 118e9
118f2 1f74c / d 13e7 146f 15de a4d2 / e 22ff 2d39 ab32 10286 118a6 118ae / f 584 1e9d a798 a799 ab35 10287 102a5 10525
118a2 118c2 1d213 / g 18d 13f3 1d83 / h 13c2 157c 2c8e 102cf / i 2373 a647 118c3 / j 148d / k 16d5 2c94 10518 / l 1c0
5c0 5d5 5df 627 661 6f1 7ca 14aa 16c1 23fd 2502 2c92 2cd0 2d4f 1028a 10309 10320 1041b 10526 118a3 118b2 16f16 16f28
1d22a 1e8c7 / m 15f0 16d6 2c98 102b0 10311 / n 57c 2c9a 10513 / o 647 665 6be 6c1 6d5 6f5 7c0 a66 ae6 b20 b66 be6 c02
c66 c82 ce6 d02 d20 d66 d82 e50 ed0 101d 1040 10ff 12d0 1d11 2c9e 2c9f 2d54 3007 ab3d 10292 102ab 10404 1042c 104c2
104ea 10516 114d0 118b5 118c8 118d7 118e0 / p 146d 2374 2ca2 2ca3 10295 / q 563 2d55 / r 13d2 1587 2c85 ab47 ab48 ab81
104b4 16f35 1d216 / s 1bd 13d5 10296 10420 10448 118c1 16f3a / t 22a4 27d9 2ca6 10297 102b1 10315 118bc 16f0a 1f768 /
u 28b 1200 222a 22c3 a79f ab4e ab52 104ce 104f6 118b8 118d8 16f42 / v 5d8 667 6f7 142f 22c1 2d38 a6df 1051d 11706
118a0 118c0 16f08 1d20d / w 561 13d4 1170a 1170e 1170f 118e6 118ef / x 1541 157d 166e 16b7 2573 292b 292c 2a2f 2cac
2d5d a7b3 10290 102b4 10317 10322 10527 118ec / y 10e7 13bd 1d8c 1eff 2ca8 ab5a 102b2 118a4 118dc 16f43 / z 102f5
118a9 118c4 118e5
"""
_BRAILLE = (
    "\u2801\u2803\u2809\u2819\u2811\u280b\u281b\u2813\u280a\u281a\u2805\u2807\u280d\u281d\u2815\u280f\u281f\u2817"
    "\u280e\u281e\u2825\u2827\u283a\u282d\u283d\u2835"
)
_LATIN = "abcdefghijklmnopqrstuvwxyz"
# Blocks of 26 letters in order: circled and squared negatives, regional indicators (flags).
_BLOCKS = (0x1F150, 0x1F170, 0x1F1E6)

CONFUSABLES: dict[int, str] = {ord(other): letter for letter, others in _LOOKALIKES.items() for other in others}
for _row in _RARE.split("/"):
    CONFUSABLES |= {int(code, 16): _row.split()[0] for code in _row.split()[1:]}
CONFUSABLES |= {block + place: letter for block in _BLOCKS for place, letter in enumerate(_LATIN)}
CONFUSABLES |= {ord(cell): letter for cell, letter in zip(_BRAILLE, _LATIN, strict=True)}
# The tag block repeats ASCII, unseen; converters shift whole texts there, quotation marks and dashes too.
TAGS: dict[int, str] = {0xE0000 + code: chr(code) for code in [*range(0x20, 0x7F), *range(0x2010, 0x2028)]}

# Seen by nobody: zero width, joiners, bidi controls, soft hyphen, tatweel, fillers, variation selectors, tag ends.
UNSEEN = (
    "\u00ad\u034f\u061c\u0640\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e001f\U000e007f\U000e0100-\U000e01ef"
)

_MORSE = """
a.- b-... c-.-. d-.. e. f..-. g--. h.... i.. j.--- k-.- l.-.. m-- n-. o--- p.--. q--.- r.-. s... t- u..- v...- w.--
x-..- y-.-- z--.. 0----- 1.---- 2..--- 3...-- 4....- 5..... 6-.... 7--... 8---.. 9----.
"""
# Punctuation and the sign of an error.
_MORSE_MARKS = """
.----. .-..-. ---... .--.-. --..-- .-.-.- -.-.-- ..--.. -....- -..-. .-.-. -...- -.--. -.--.- .-... -.-.-. ..--.-
...-..- ........
"""
MORSE: dict[str, str] = {sign[1:]: sign[0] for sign in _MORSE.split()}
MORSE |= dict.fromkeys(_MORSE_MARKS.split(), " ")

_NATO = """
alfa bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa quebec romeo sierra
tango uniform victor whiskey xray yankee zulu alpha juliet whisky x-ray
"""
NATO: dict[str, str] = {word: word[0] for word in _NATO.split()}
NATO["<space>"] = NATO["(space)"] = NATO["space"] = " "

_LEET_PAIRS = r"h|-| u|_| m/\/\ m|\/| w\/\/ n|\| a/-\ a/\ v\/ b|3 d|) p|> k|< o() x>< r|2 f|="
LEET_PAIRS: dict[str, str] = {pair[1:]: pair[0] for pair in _LEET_PAIRS.split()}
LEET = str.maketrans("0123456789@$!|+(€£", "oizeasgtbgasiitcel")

# log2 of how much likelier a letter is after another than any letter is, in fifths, from -4 (0) to +3 (z): rows are the
# first letter. Counted in English documentation without spaces.
BIGRAMS = """
7jlj09f4h08snt0j0tpuhc3bj0 q9h9x993pk0t74pa0jkbr008o0 r3f8s60rm0ko63x90jfti400b0 siglxh88u23eedoe0gmojae280
ocnqhle6j00kjrgiattq9ddh60 r8ebom65u00jbevc0oksn579b0 ocgfwgcpr00jhllg0qopm9e041 u6b8z702r00ac7p90gdob04060
jhnhili000bmlxrd0esr0g0b0d sdheybc7imb8absj98sbp59573 qdedzgebr34leihe0dpke4j4a0 rdekwd74u10q88pe09mona70l0
vj9ax931p00eiepu0akfk44050 pborphq4m07dbepi0aruic94a0 fhhlaqc0d06lnwfl0vjnmeh000 u37cu84dj01s75rl0sjon340m0
c87b7756b44hda9d7kdcz9aa53 t9ggxdh1r07bkkqc0mnnhaa0f0 pcleti8jr0aeehol3fqvk8d5a0 p9fcsc0wt00bbcqf0omkj5d1h0
jhidq8c0h00sqr4m0tst000000 y4c9z554r00395g706d7061000 s5b9t95vz0098ip80kif83f000 tfniog9cu35chhir0fmta9dhi6
phljhjcbn44nklqs0lqrdcj656 u7c9zd49o26hgaid2adea1b9ad
"""
# In ten thousand letters.
LETTERS: tuple[int, ...] = (806, 158, 347, 359, 1200, 265, 176, 325, 735, 23, 56, 450, 290)
LETTERS += (690, 692, 314, 19, 703, 712, 927, 303, 104, 106, 72, 148, 20)

# The alphabet of Ecoji, version 1: 1,024 signs of ten bits each, in order of their code points.
_ECOJI = """
f004 f0cf f170-f171 f17e-f17f f18e f191-f19a f1e6-f1ff f201-f202 f21a f22f f232-f23a f250-f251 f300-f321 f324-f393
f396-f397 f399-f39b f39e-f3cc f3ce-f3f0 f3f3-f3f5 f3f7-f4d0 f4d2-f4fd f4ff-f53d f549-f54e f550-f567 f56f-f570
f573-f57a f587 f58a-f58d f590 f595-f596 f5a4-f5a5 f5a8 f5b1-f5b2 f5bc f5c2-f5c4 f5d1-f5d3 f5dc-f5de f5e1 f5e3 f5e8
f5ef f5f3 f5fa-f64a f64c-f64f f680-f6c5 f6cb-f6d2 f6e0-f6e5 f6e9 f6eb-f6ec f6f0 f6f3-f6f9 f910-f93a f93c-f93e
f940-f945 f947-f970 f973-f976 f97a f97c-f9a2 f9b0-f9b9 f9c0-f9c2 f9d0-f9d5
"""


def _spans(text: str) -> list[int]:
    ends = [[int("1" + end, 16) for end in span.split("-")] for span in text.split()]
    return [code for span in ends for code in range(span[0], span[-1] + 1)]


ECOJI: dict[str, int] = {chr(code): place for place, code in enumerate(_spans(_ECOJI))}
# Padding: nothing more, and four that stand for the last two bits.
ECOJI |= {"\u2615": 0, "\u269c": 0, "\U0001f3cd": 256, "\U0001f4d1": 512, "\U0001f64b": 768}
