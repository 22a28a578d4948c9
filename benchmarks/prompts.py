"""Known prompts under another coat: rates by converter, false matches, cost a text.

    python -m benchmarks.prompts --prompts ../shared/data/prompts/prompts_dev.jsonl.gz

Prints a table; coats are the generators of the tests (``tests/prompt_coats.py``), seeded by their names.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tests.benign_texts import benign_texts
from tests.prompt_coats import COATS

from regate.detectors.prompts.canary import encoded
from regate.detectors.prompts.library import Library
from regate.detectors.prompts.normal import normalised, skeleton
from regate.detectors.prompts.prints import print_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, required=True, help="lines of JSON: originals and converted ones")
    parser.add_argument("--benign", type=int, default=10_000)
    asked = parser.parse_args()
    with gzip.open(asked.prompts, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    originals = {row["id"]: row["text"] for row in rows if row["kind"] == "original"}
    library = Library()
    for name, text in originals.items():
        library.add(name, text)
    same = {name: skeleton(normalised(text)) for name, text in originals.items()}
    texts: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for row in rows:
        if row["kind"] == "converted":
            texts[row["converter"]].append((row["src"], row["text"]))
    for coat, put in COATS.items():
        rng = random.Random(coat)
        texts[coat] = [(name, put(originals[name], rng)) for name in sorted(originals)]
    print("converter | known again | canary | by its print | coat | decoders")
    differ = 0
    for coat, some in texts.items():
        found = [(name, library.match(text)) for name, text in some]
        prints = [print_of(text) for _, text in some]
        again = [library.match_print(one) for one in prints]
        by_print = sum(
            one is not None and same[one.id] == same[name] for one, (name, _) in zip(again, some, strict=True)
        )
        differ += sum((one and one.id) != (other and other.id) for one, (_, other) in zip(again, found, strict=True))
        coated = sum(bool(one.coat) for one in prints)
        hits = sum(one is not None and same[one.id] == same[name] for name, one in found)
        told = sum(bool(encoded(text)) for _, text in some)
        by = Counter(one.decoder for _, one in found if one is not None).most_common(2)
        shares = " | ".join(f"{number / len(some):.3f}" for number in (hits, told, by_print, coated))
        print(f"{coat} | {shares} | {by}")
    print(f"{sum(map(len, texts.values()))} texts: {differ} are known otherwise by their print")
    benign = benign_texts(asked.benign, seed=23)
    false = [(one, text[:300]) for text in benign if (one := library.match(text)) is not None]
    told_benign = [(names, text[:300]) for text in benign if (names := encoded(text))]
    print(f"{len(benign)} benign texts: {len(false)} matches, {len(told_benign)} canaries", false, told_benign)
    prints = [print_of(text) for text in benign]
    matches, coats = [library.match_print(one) for one in prints], Counter(one.coat for one in prints)
    print(f"by their prints {sum(one is not None for one in matches)} matches; coats:", coats)
    short = [text[:500] for text in benign if len(text) >= 500][:1_000]
    for name, call in (("match", library.match), ("encoded", encoded), ("print_of", print_of)):
        cost = [min(_cost(call, text) for _ in range(2)) for text in short]
        print(
            f"{name}, 500 characters: µs of CPU, median, 90 %, 99 %", np.rint(np.quantile(cost, [0.5, 0.9, 0.99]) * 1e6)
        )


def _cost(call: Callable[[str], object], text: str) -> float:
    start = time.process_time()
    call(text)
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
