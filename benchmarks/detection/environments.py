"""The peers' own environments: made once under .bench/, from the pins beside this file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.detection.link import ENVIRONMENTS

PINS = Path(__file__).parent
HOMES = ("peers", "peers-alibi")


def make(home: str, pins: Path = PINS) -> str | None:
    """Make an environment where there is none; return why it could not be made, None when it is there.

    :param pins: folder of the file that names its packages.
    """
    folder, failed = ENVIRONMENTS / home, ENVIRONMENTS / f"{home}.failed"
    if (folder / "made").exists() or (folder / "bin" / "python").exists():
        return None
    if failed.exists():
        return failed.read_text().strip()
    print(f"making .bench/{home} from benchmarks/{pins.name}/{home}.txt (minutes, once)", flush=True)
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(pins / f"{home}.txt")],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            lines = done.stderr.strip().splitlines()
            why = f"could not be installed: {lines[-1] if lines else 'without a word'}"
            ENVIRONMENTS.mkdir(exist_ok=True)
            failed.write_text(why + "\n")
            return why
    (folder / "made").touch()
    return None
