"""SEA (Street and Kim 2001): the concept changes, the inputs do not. Harm after each real change, no input drift."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from river.datasets.synth import SEA

from regate.daemon.backtest import Backtest, Options
from regate.daemon.files.table import read_table

EACH, REFERENCE = 5_000, 4_000
THRESHOLDS = (8.0, 9.0, 7.0, 9.5)  # of the concepts: the sum of the first two inputs


def stream(path: Path, concepts: tuple[int, ...], *, score: bool) -> Path:
    """Write concepts one behind the other, answered by the rule of the first; a tenth of labels is turned over."""
    rows, labels = [], []
    for number, concept in enumerate(concepts):
        for row, label in itertools.islice(SEA(variant=concept, seed=11 + number, noise=0.1), EACH):
            rows.append([row[0], row[1], row[2]])
            labels.append(int(label))
    x = np.array(rows)
    distance = x[:, 0] + x[:, 1] - THRESHOLDS[concepts[0]]
    columns: dict[str, Any] = {"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "label": labels}
    columns["prediction"] = (distance > 0).astype(np.int64)
    if score:
        columns["score"] = 1 / (1 + np.exp(-distance))
    pq.write_table(pa.table(columns), path)
    return path


def found(path: Path) -> list[dict[str, Any]]:
    run = Backtest(read_table(path), Options(REFERENCE, calibrate_seconds=3.0))
    run.build()
    return list(run.findings())


@pytest.mark.parametrize("score", [False, True])
@pytest.mark.parametrize("concepts", [(0, 3, 0, 2), (0, 1, 2, 3)])
def test_each_real_change_is_a_finding_of_performance_and_none_of_inputs(
    tmp_path: Path, concepts: tuple[int, ...], score: bool
) -> None:
    findings = found(stream(tmp_path / "sea.parquet", concepts, score=score))
    opened = [one for one in findings if one["type"] == "finding"]
    assert {one["family"] for one in opened} == {"performance"}
    assert not [one for one in opened if one["row"] < EACH]
    for number, concept in enumerate(concepts[1:], start=1):
        if concept == concepts[0]:  # back to what the model knows: nothing is lost
            continue
        start = EACH * number
        harms = [one["row"] - start for one in opened if one["kind"] == "harm" and start <= one["row"] < start + EACH]
        assert harms, f"concept {concept} at row {start}"
        assert min(harms) < 2_500


def test_a_stream_without_a_change_says_nothing(tmp_path: Path) -> None:
    assert found(stream(tmp_path / "sea.parquet", (0, 0, 0, 0), score=True)) == []
