"""Traffic of a model that takes prompts: benign texts of many clients, and who sends others in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
from tests.benign_texts import benign_texts
from tests.telemetry_streams import CONFIG as PLAIN
from tests.telemetry_streams import START_US, telemetry

from regate.config.model import Feature
from regate.detectors.build import build_profile
from regate.detectors.columns import Categorical, ModelKey, Slice
from regate.detectors.profile import Profile

KEY = ModelKey("default", "chat", "1", "production")
CONFIG = PLAIN.model_copy(
    update={"model": "chat", "features": {**PLAIN.features, "prompt": Feature(type="text", privacy="hash")}}
)
ROWS = 1_500


@lru_cache(maxsize=1)
def everyday() -> tuple[str, ...]:
    """Return benign texts, one in three of them a template that many send."""
    texts = benign_texts(1_000, seed=41)
    return tuple(text[:900] for text in texts)


def column(texts: list[str | None]) -> Categorical:
    """Return texts as a column of a slice."""
    place = {text: code for code, text in enumerate(dict.fromkeys(text for text in texts if text is not None))}
    codes = [-1 if text is None else place[text] for text in texts]
    return Categorical(np.array(codes, dtype=np.int32), tuple(place))


def traffic(
    rows: int = ROWS,
    *,
    seed: int,
    start_us: int = START_US,
    sent: Mapping[int, tuple[str, int]] | None = None,
) -> Slice:
    """Return events of forty clients.

    :param sent: by row, another text and the client that sends it.
    """
    rng = np.random.default_rng(seed)
    events, _ = telemetry(rows, seed=seed, start_us=start_us, key=KEY)
    usual = everyday()
    first = 0 if seed % 2 else len(usual) // 2  # reference and traffic share the templates only
    texts: list[str | None] = [usual[first + int(k)] for k in rng.integers(0, len(usual) // 2, rows)]
    for row in np.flatnonzero(rng.random(rows) < 0.3):
        texts[row] = usual[int(row) % 5]
    client = (1_000 + rng.integers(0, 40, rows)).astype(np.uint64)
    for row, (text, who) in (sent or {}).items():
        texts[row], client[row] = text, who
    return replace(events, client=client, texts={"prompt": column(texts)})


@lru_cache(maxsize=1)
def profile() -> Profile:
    """Return a profile at the ceiling, built once."""
    rows = traffic(seed=3, start_us=START_US - 10**9 * 3600)
    return build_profile(CONFIG, KEY, rows, calibrate_seconds=0, events_per_second=50.0)
