"""One peer library behind one file protocol; run by the interpreter of the environment that has the library.

    python serve.py LIBRARY

Reads one path a line from standard input: a JSON job. Writes the result beside it (`out` of the job) and answers
with a line. The arrays of a job are in its npz: `reference` [groups, rows, width], `streams` [groups, streams, rows,
width], `change` [groups, streams] (first row after the change, or the number of rows: none).

mode "alarms": the detector learns from the reference, watches a stream, and after each alarm goes back to what it
was after the reference. mode "scores": the library's statistic as it goes, for levels to be chosen afterwards.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

# Warnings and bars of a library must not reach the answers.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def alarms(library: Any, job: dict[str, Any], arrays: Any) -> dict[str, Any]:
    began = time.perf_counter()
    found: list[dict[str, Any]] = []
    total = watched = 0
    for group, streams in enumerate(arrays["streams"]):
        fitted = library.fit(job["call"], job["level"], arrays["reference"][group])
        for stream, values in enumerate(streams[: job["streams"]]):
            if total >= job["most_alarms"] or time.perf_counter() - began > job["seconds"]:
                return {"streams": found, "events": watched, "cut": True}
            change, rows = int(arrays["change"][group, stream]), values.shape[0]
            hits: list[int] = []
            prepared, at = library.prepare(job["call"], values), 0
            while at < rows:
                hit = library.first(copy.deepcopy(fitted), prepared, at)
                at = rows if hit is None else hit + 1
                if hit is not None:
                    hits.append(hit)
                    if hit >= change:  # the delay is known
                        break
            total += len(hits)
            watched += at
            found.append({"group": group, "stream": stream, "alarms": hits})
    return {"streams": found, "events": watched, "cut": False}


def scores(library: Any, job: dict[str, Any], arrays: Any) -> dict[str, Any]:
    began = time.perf_counter()
    found: list[dict[str, Any]] = []
    every, lead, post = job["every"], job["lead"], job["post"]
    for group, streams in enumerate(arrays["streams"]):
        statistic = library.fit(job["call"], None, arrays["reference"][group])
        for stream, values in enumerate(streams[: job["streams"]]):
            if time.perf_counter() - began > job["seconds"]:
                return {"streams": found, "cut": True}
            change, rows = int(arrays["change"][group, stream]), values.shape[0]
            start, stop = 0, rows
            if change < rows:
                start = max(change - lead, 0) // every * every
                stop = min(change + post, rows)
            given = library.scores(statistic, values[start:stop])
            found.append({"group": group, "stream": stream, "start": start, "scores": _plain(given)})
    return {"streams": found, "cut": False}


def _plain(values: Any) -> list[float | None]:
    return [None if not np.isfinite(value) else float(f"{value:.7g}") for value in np.asarray(values, dtype=float)]


def main() -> None:
    library = importlib.import_module(sys.argv[1])
    ANSWERS.write("ready\n")
    ANSWERS.flush()
    for line in sys.stdin:
        job = json.loads(Path(line.strip()).read_text())
        began = time.perf_counter()
        try:
            with np.load(job["arrays"]) as arrays:
                result = (alarms if job["mode"] == "alarms" else scores)(library, job, dict(arrays))
        except Exception as error:  # noqa: BLE001  (a peer's failure is a row of the table)
            result = {"error": f"{type(error).__name__}: {error}"}
        result["took"] = time.perf_counter() - began
        Path(job["out"]).write_text(json.dumps(result))
        ANSWERS.write("done\n")
        ANSWERS.flush()


if __name__ == "__main__":
    main()
