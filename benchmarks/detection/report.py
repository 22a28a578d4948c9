"""The result as a table that a person can read. Every sentence here is made from the numbers."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.detection.peers import LEFT_OUT
from benchmarks.detection.run import ORACLE, WHOLE, Results
from benchmarks.detection.scoring import Delays, median_ratio
from benchmarks.detection.streams import CHANGES, LAWS

# Rows that are no detector to be ahead of.
FRAME = ("oracle", "dummy", "never")
SETTINGS = {"matched": "equal run length", "nominal": "its own budget", "default": "its default"}


def compared(found: Results) -> list[dict[str, Any]]:
    """Return regate's whole profile against each peer, on each law and change where both ran, at equal run length."""
    rows = [*found.compared]
    for (law, name, setting, change), theirs in found.delays.items():
        if setting != "matched" or name.startswith((*FRAME, "regate")):
            continue
        own = found.delays.get((law, WHOLE, "matched", change))
        if own is None:  # peers that were run alone
            continue
        both = {"law": law, "change": change, "peer": name}
        rows.append({**both, **_verdict(_cut(own, theirs.horizon), theirs), "matched": _matched(found, law, name)})
    return rows


def _matched(found: Results, law: str, name: str) -> bool:
    return not any(
        "off the target" in row["notes"]
        for row in found.rows
        if (row["law"], row["detector"], row["setting"]) == (law, name, "matched")
    )


def _cut(delays: Delays, horizon: int) -> Delays:
    """Return delays as a shorter horizon would have seen them."""
    horizon = min(horizon, delays.horizon)
    return Delays(tuple(one for one in delays.found if one <= horizon), delays.runs, horizon)


def _verdict(own: Delays, theirs: Delays) -> dict[str, Any]:
    if math.isinf(own.median) and math.isinf(theirs.median):
        mine, other = own.within(own.horizon), theirs.within(theirs.horizon)
        verdict = "ahead" if mine[1] > other[2] else "behind" if mine[2] < other[1] else "level"
        return {"verdict": verdict, "own": None, "theirs": None, "found": [round(mine[0], 3), round(other[0], 3)]}
    ratio, low, high = median_ratio(own, theirs)
    verdict = "ahead" if high < 1.0 else "behind" if low > 1.0 else "level"
    return {
        "verdict": verdict,
        "own": own.median if math.isfinite(own.median) else None,
        "theirs": theirs.median if math.isfinite(theirs.median) else None,
        "ratio": round(ratio, 2) if math.isfinite(ratio) else None,
        "interval": [round(low, 2), round(high, 2) if math.isfinite(high) else None],
        "found": [round(own.within(own.horizon)[0], 3), round(theirs.within(theirs.horizon)[0], 3)],
    }


def markdown(found: Results, real: list[dict[str, Any]], about: dict[str, Any]) -> str:
    lines = [
        "# Detection, beside the peers",
        "",
        f"Made by `{about['command']}` (seed {about['seed']}); {about['machine']}. Not edited by hand.",
        "",
        f"Every row is set, on streams where nothing changes, to one false alarm in {about['target']:,.0f} events;",
        "what it then realised on other such streams stands beside it. A delay is the number of events from the change",
        "to the alarm: median with its 95 % interval, and the share found within 3,000 events (or within the horizon).",
        "Nothing was tuned on a stream with a change. Errors are harm, all else is change.",
        "",
        "## Against the oracle",
        "",
        "A CUSUM that sees every event and knows both laws. One chart of regate's, the one that the change is about.",
        "",
        "| change | stream | delay / oracle | 95 % | over an oracle that decides by blocks |",
        "|---|---|---|---|---|",
    ]
    texts = {change.name: change.text for change in CHANGES}
    pairs: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for one in found.ratios:
        pairs.setdefault((one["change"], one["law"]), {})[one["over"]] = one
    for (change, law), both in pairs.items():
        best = both[ORACLE]
        stepped = next(one for name, one in both.items() if name != ORACLE)
        interval = f"{_number(best['low'])} to {_number(best['high'])}"
        cells = (texts[change], law, _number(best["ratio"]), interval, _number(stepped["ratio"]))
        lines.append(f"| {' | '.join(cells)} |")
    iid = [one["ratio"] for one in found.ratios if one["over"] == ORACLE and one["law"].endswith("/iid")]
    if iid:
        lines += ["", f"Median over kinds of change on independent events: {_number(_median(iid))}."]
    lines += _laws(found, texts) + _ahead(found, texts) + _real(real)
    lines += ["", "## Not run", ""]
    lines += [f"- {name}: {why}" for name, why in LEFT_OUT.items()]
    lines += [f"- {one['detector']} on {one['law']}: {one['why']}" for one in found.not_run]
    lines += [f"- {name}" for name in about["missing"]]
    return "\n".join(lines) + "\n"


def _median(values: list[float | None]) -> float | None:
    known = sorted(math.inf if value is None else value for value in values)
    middle = 0.5 * (known[(len(known) - 1) // 2] + known[len(known) // 2])
    return middle if math.isfinite(middle) else None


def _number(value: float | None) -> str:
    if value is None:
        return "not found"
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.2f}"


def _laws(found: Results, texts: dict[str, str]) -> list[str]:
    lines = []
    for law in LAWS:
        rows = [row for row in found.rows if row["law"] == law.name]
        if not rows:
            continue
        changes = list(dict.fromkeys(name for row in rows for name in row["changes"]))
        heads = "".join(f" {texts[name]} | found |" for name in changes)
        lines += ["", f"## {law.name}", "", f"| detector | set to | events to a false alarm |{heads} notes |"]
        lines.append("|---|---|---|" + "---|---|" * len(changes) + "---|")
        for row in sorted(rows, key=lambda row: (row["setting"] != "matched", _order(row, changes))):
            lines.append(_line(row, changes))
    return lines


def _order(row: dict[str, Any], changes: list[str]) -> float:
    known = [row["changes"][name]["median"] for name in changes if name in row["changes"]]
    return float(known[0]) if known and known[0] is not None else math.inf


def _line(row: dict[str, Any], changes: list[str]) -> str:
    arl = row["arl"]
    length = (
        "none" if not arl["alarms"] else f"{_number(arl['value'])} ({_number(arl['low'])} to {_number(arl['high'])})"
    )
    cells = ""
    for name in changes:
        one = row["changes"].get(name)
        if one is None:
            cells += " | |"
            continue
        interval = f" ({_number(one['low'])} to {_number(one['high'])})" if one["median"] is not None else ""
        cells += f" {_number(one['median'])}{interval} | {one['within']:.0%} |"
    return f"| {row['detector']} | {SETTINGS[row['setting']]} | {length} |{cells} {row['notes']} |"


def _ahead(found: Results, texts: dict[str, str]) -> list[str]:
    rows = compared(found)
    count = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("ahead", "level", "behind")}
    lines = [
        "",
        "## Who is ahead",
        "",
        "regate's whole profile (all its charts under one budget) against each peer where both ran, at equal run",
        f"length: ahead in {count['ahead']}, level (the ratio's interval holds 1) in {count['level']}, behind in",
        f"{count['behind']} of {len(rows)} rows.",
    ]
    for verdict, title in (("behind", "Where regate is behind"), ("level", "Where they are level")):
        some = [row for row in rows if row["verdict"] == verdict]
        if not some:
            continue
        heads = "| change | stream | peer | regate, median | peer, median | found | peer's run length |"
        lines += ["", f"### {title}", "", heads, "|---|---|---|---|---|---|---|"]
        for row in some:
            shares = f"{row['found'][0]:.0%} / {row['found'][1]:.0%}"
            length = "as wanted" if row["matched"] else "off by more than 15 %"
            cells = (texts[row["change"]], row["law"], row["peer"], _number(row["own"]), _number(row["theirs"]))
            lines.append(f"| {' | '.join(cells)} | {shares} | {length} |")
    return lines


def _real(real: list[dict[str, Any]]) -> list[str]:
    if not real:
        return []
    lines = [
        "",
        "## Real streams",
        "",
        "Alarms on the rows after the reference, each restarting its detector: no law is known, so they are not right",
        "or wrong, except before a known change. `10k`: one alarm in 10,000 events on bootstraps of the reference.",
    ]
    for stream in real:
        known = "" if stream["change_row"] is None else f", known to change at row {stream['change_row']:,}"
        span = f"rows {stream['reference_rows']:,} to {stream['stop_row']:,}, {stream['features']} features{known}"
        lines += ["", f"**{stream['stream']}**: {span}", ""]
        lines += ["| detector | set to | alarms | before the known change | first after it |", "|---|---|---|---|---|"]
        for row in stream["rows"]:
            lines.append(_alarms(row, stream["change_row"]))
    return lines


def _alarms(row: dict[str, Any], change: int | None) -> str:
    alarms = row["alarm_rows"]
    if alarms is None:
        return f"| {row['detector']} | {row['setting']} | not run: {row['notes']} | | |"
    before = "" if change is None else str(sum(at < change for at in alarms))
    first = "" if change is None else next((f"{at:,}" for at in alarms if at >= change), "none")
    return f"| {row['detector']} | {row['setting']} | {len(alarms)} | {before} | {first} |"
