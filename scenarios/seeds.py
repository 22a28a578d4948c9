"""Random streams by path: a root seed and a path give a generator that no other path shares.

Adding a scenario, a check or a feature therefore changes the random numbers of no other.
"""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, *path: str) -> np.random.Generator:
    """Return the generator of one path under one root seed.

    >>> float(generator(1, "a").random()) == float(generator(1, "a").random())
    True
    >>> float(generator(1, "a").random()) == float(generator(1, "b").random())
    False
    """
    # The length of each step is hashed with it, so that ("ab", "c") and ("a", "bc") differ.
    text = b"".join(len(step.encode()).to_bytes(4, "big") + step.encode() for step in path)
    words = np.frombuffer(hashlib.sha256(text).digest(), dtype=">u4").astype(np.uint32)
    root = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([*root, *words.tolist()])))
