"""Draws a benchmark's figures: matplotlib is in the peers' environment, not in regate's.

python plot_peers.py RESULT.json FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

LOUD = {
    "regate, one chart": "tab:red",
    "regate, whole profile": "tab:orange",
    "oracle": "black",
    "oracle, blocks of 64": "gray",
}


def delays(result: dict[str, Any], folder: Path) -> None:
    kinds = list(dict.fromkeys(curve["change"] for curve in result["curves"]))
    if not kinds:
        return
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.6 * len(kinds), 4.8), sharex=True, squeeze=False)
    names = list(dict.fromkeys(curve["detector"] for curve in result["curves"]))
    quiet = plt.get_cmap("tab20")
    colour = {name: LOUD.get(name, quiet(index % 20)) for index, name in enumerate(names)}
    for axis, kind in zip(axes[0], kinds, strict=True):
        for curve in (curve for curve in result["curves"] if curve["change"] == kind):
            points = [point for point in curve["points"] if point["arl"] and point["median_delay"]]
            loud = curve["detector"] in LOUD
            axis.plot(
                [point["arl"] for point in points],
                [point["median_delay"] for point in points],
                marker="o",
                markersize=4 if loud else 3,
                linewidth=2.2 if loud else 1.0,
                color=colour[curve["detector"]],
                label=curve["detector"],
            )
        axis.set(xscale="log", yscale="log", title=kind, xlabel="realised events to a false alarm")
        axis.grid(visible=True, which="both", alpha=0.25)
    axes[0][0].set_ylabel("median delay, events")
    entries = {name: line for axis in axes[0] for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="lower center", ncols=5, fontsize=7)
    figure.tight_layout(rect=(0, 0.06 + 0.03 * (len(entries) // 5), 1, 1))
    figure.savefig(folder / "delay-against-arl.png", dpi=110)
    plt.close(figure)


def streams(result: dict[str, Any], folder: Path) -> None:
    for stream in result["real"]:
        rows = [row for row in stream["rows"] if row.get("alarm_rows") is not None]
        if not rows:
            continue
        figure, axis = plt.subplots(figsize=(10, 0.8 + 0.3 * len(rows)))
        axis.eventplot([row["alarm_rows"] for row in rows], linelengths=0.7, linewidths=0.9, colors="tab:blue")
        axis.set_yticks(range(len(rows)), [f"{row['detector']} ({row['setting']})" for row in rows], fontsize=7)
        axis.axvspan(0, stream["reference_rows"], color="0.9")
        axis.set_xlim(0, stream["stop_row"])
        axis.set_ylim(-0.7, len(rows) - 0.3)
        if stream["change_row"] is not None:
            axis.axvline(stream["change_row"], color="tab:red", linewidth=1.2)
        axis.set_title(f"{stream['stream']}, {stream['what']}: alarms (grey: reference; red: known change)", fontsize=9)
        axis.set_xlabel("row")
        figure.tight_layout()
        figure.savefig(folder / f"alarms-{stream['stream']}-{stream['what']}.png", dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text())
    delays(found, Path(sys.argv[2]))
    streams(found, Path(sys.argv[2]))
