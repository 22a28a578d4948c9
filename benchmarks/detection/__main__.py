"""Drift detectors beside each other, at equal realised run length: regate, its peers, and what frames them.

    python -m benchmarks.detection                                   # all laws; about 25 minutes on two cores
    python -m benchmarks.detection --quick                           # independent events only, a few minutes
    python -m benchmarks.detection --streams ../shared/data/streams  # real streams too, from a folder of Parquet files

Makes the peers' environments under .bench/ when they are not there, and says what could not be installed.
Writes REPORT.md, report.json and plots.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.detection import environments
from benchmarks.detection.link import WORKERS, Link, PeerError, interpreter
from benchmarks.detection.peers import PEERS
from benchmarks.detection.real import RealBench
from benchmarks.detection.report import compared, markdown
from benchmarks.detection.run import Bench, Results, full, plain, quick


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--streams", type=Path, help="folder of real streams; without it those tables are missing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "report")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", help="peers whose name holds this text")
    parser.add_argument("--join", action="store_true", help="run those of --only alone and put them into the report")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    began = time.perf_counter()
    missing = [f"environment {home}: {why}" for home in environments.HOMES if (why := environments.make(home))]
    peers = tuple(peer for peer in PEERS if not options.only or options.only.lower() in peer.name.lower())
    size = (quick if options.quick else full)(options.seed)
    real: list[dict[str, Any]] = []

    def save(found: Results) -> None:
        more = (
            [*missing]
            if real
            else [*missing, f"real streams: {'not yet' if options.streams else 'no --streams given'}"]
        )
        about = {
            "command": "python -m benchmarks.detection"
            + (" --quick" if options.quick else "")
            + (" --streams FOLDER" if options.streams else ""),
            "seed": options.seed,
            "target": size.target,
            "machine": f"Python {platform.python_version()}, {time.perf_counter() - began:.0f} s",
            "missing": more,
        }
        write(options.out, found, real, about)

    with tempfile.TemporaryDirectory() as folder:
        link = Link(Path(folder))
        try:
            before = joining(options.out, options.only) if options.join else None
            if before is not None:
                earlier, real, told = before
                laws = {
                    law.name for law in size.laws for one in peers if law.inputs in one.inputs and law.null in one.nulls
                }
                size = replace(size, laws=tuple(law for law in size.laws if law.name in laws))
                Bench(size, link, peers, alone=True, found=earlier).run(lambda now: write(options.out, now, real, told))
                return
            found = Bench(size, link, peers).run(save)
            if options.streams is not None:
                on_real = RealBench(options.streams, link, size.target, size.effort, options.seed, peers)
                for stream in on_real.run():
                    real.append(stream)
                    save(found)
                missing += [f"real stream {name}: not in {options.streams.name}" for name in on_real.missing]
        finally:
            link.close()
    save(found)
    draw(options.out)
    print(f"written to {options.out}")


def joining(out: Path, only: str) -> tuple[Results, list[dict[str, Any]], dict[str, Any]]:
    """Return an earlier report without the peers that are run again, its real streams, and what it said of itself."""
    said = json.loads((out / "report.json").read_text())

    def kept(name: str) -> list[dict[str, Any]]:
        who = "peer" if name == "compared" else "detector"
        return [one for one in said[name] if only.lower() not in one[who].lower()]

    found = Results(kept("rows"), said["ratios"], said["curves"], kept("not_run"), compared=kept("compared"))
    found.not_run = [{**one, "why": plain(one["why"])} for one in found.not_run]
    about = {**said["about"], "command": f"{said['about']['command']}; then --only {only} --join"}
    return found, said["real"], about


def write(out: Path, found: Results, real: list[dict[str, Any]], about: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result = {
        "about": about,
        "rows": found.rows,
        "ratios": found.ratios,
        "compared": compared(found),
        "curves": found.curves,
        "real": real,
        "not_run": found.not_run,
    }
    path = out / "report.json"
    path.write_text(json.dumps(result, indent=0) + "\n")
    (out / "REPORT.md").write_text(markdown(found, real, about))


def draw(out: Path) -> None:
    """Draw what was written; matplotlib is in the peers' environment."""
    try:
        subprocess.run(
            [str(interpreter("peers")), str(WORKERS / "plot_peers.py"), str(out / "report.json"), str(out)], check=True
        )
    except (PeerError, subprocess.CalledProcessError) as error:
        print(f"no plots: {error}")


if __name__ == "__main__":
    main()
