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
    print("converter | known again | canary | decoders")
    for coat, some in texts.items():
        found = [(name, library.match(text)) for name, text in some]
        hits = sum(one is not None and same[one.id] == same[name] for name, one in found)
        told = sum(bool(encoded(text)) for _, text in some)
        by = Counter(one.decoder for _, one in found if one is not None).most_common(2)
        print(f"{coat} | {hits / len(some):.3f} | {told / len(some):.3f} | {by}")
    benign = benign_texts(asked.benign, seed=23)
    false = [(one, text[:300]) for text in benign if (one := library.match(text)) is not None]
    told_benign = [(names, text[:300]) for text in benign if (names := encoded(text))]
    print(f"{len(benign)} benign texts: {len(false)} matches, {len(told_benign)} canaries", false, told_benign)
    short = [text[:500] for text in benign if len(text) >= 500][:1_000]
    for name, call in (("match", library.match), ("encoded", encoded)):
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
