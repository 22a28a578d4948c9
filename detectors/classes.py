"""Classes as 64-bit values."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=4_096)
def class_hash(text: str) -> int:
    """Return the 64-bit value of a class. Spellings of one number, and of true and false, are one class.

    >>> class_hash("1.0") == class_hash("1") == class_hash("true")
    True
    """
    spelled = {"true": "1", "false": "0"}.get(text.lower(), text)
    try:
        number = float(spelled)
        spelled = f"{number:.17g}" if np.isfinite(number) else spelled
    except ValueError:
        pass
    value = int.from_bytes(hashlib.blake2b(spelled.encode(), digest_size=8).digest(), "little")
    return value or 1
