"""The result as one table that a person can read, missed attacks in it like the others."""

from __future__ import annotations

from typing import Any

from benchmarks.attacks.measure import PLAIN, WAYS, interval

DETECTORS = ("lanes", "Blacklight", "PRADA")
BOUND = 3e-5


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}".removesuffix(".0")


def short(one: dict[str, Any] | None) -> str:
    """Return median, and found of all where not all were.

    >>> short({"found": 6, "of": 6, "median": 3.0})
    '3'
    >>> short({"found": 2, "of": 6, "median": None})
    '- (2/6)'
    """
    if one is None:
        return ""
    if not one["found"]:
        return "missed"
    share = "" if one["found"] == one["of"] else f" ({one['found']}/{one['of']})"
    return f"{number(one['median'])}{share}"


def before(one: dict[str, Any]) -> str:
    """Return found before the goal, of the episodes that reached it."""
    text = f"{one['before']}/{one['reached']}" if one["reached"] else "-"
    return text + (f", clean {one['clean']}" if one.get("clean") else "")


HEADS = ("by", "data", "attack", "queries", "found", "median", "95 %", "before the goal",
         *(way for way in WAYS if way != PLAIN), "Blacklight", "its before", "PRADA", "its before")  # fmt: skip


def line(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one attack."""
    own = row["lanes"][PLAIN]
    peers: list[str] = []
    for name in DETECTORS[1:]:
        one = row.get(name, {}).get(PLAIN)
        peers += ["", ""] if one is None else [short(one), before(one)]
    return (
        row["by"],
        row["data"],
        row["attack"],
        str(row["queries"]),
        f"{own['found']}/{own['of']}" if own["found"] else "missed",
        number(own["median"]),
        number(own["p95"]),
        before(own),
        *(short(row["lanes"].get(way)) for way in WAYS if way != PLAIN),
        *peers,
    )


def rate(count: int, queries: int) -> str:
    """Return a count and the Poisson 95 % interval of its rate a query."""
    low, high = interval(count)
    return f"{count} ({low / queries:.1e} to {high / queries:.1e})" if queries else str(count)


def table(heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *(f"| {' | '.join(one)} |" for one in lines)]


def pooled(normal: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return normal behaviour by kind over all data, and the sum of all."""
    sums: dict[str, dict[str, Any]] = {}
    for row in normal:
        for kind in (row["kind"], "all"):
            one = sums.setdefault(kind, {"data": "all", "kind": kind})
            for name in ("queries", "clients", *DETECTORS):
                one[name] = one.get(name, 0) + row[name]
    return [*(one for kind, one in sums.items() if kind != "all"), *([sums["all"]] if sums else [])]


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """Return a sentence for what our lanes find in less than half of the episodes, as it comes plain."""
    some = [row for row in rows if row["lanes"][PLAIN]["median"] is None]
    out = [f"Found in half of the episodes or more: {len(rows) - len(some)} of {len(rows)} rows."]
    by: dict[str, list[str]] = {}
    for row in some:
        by.setdefault(f"{row['by']}, {row['data']}", []).append(row["attack"])
    if by:
        out += ["Not:", "", *(f"- {where}: {'; '.join(names)}" for where, names in by.items())]
    return out


def together(rows: list[dict[str, Any]]) -> list[str]:
    """Return what each detector finds of all episodes by ART, however they come, and how much of it in time."""
    art = [row for row in rows if row["by"] == "ART"]
    if not art:
        return []
    lines = []
    for way in WAYS:
        cells: list[str] = []
        for name in DETECTORS:
            some = [row[name][way] for row in art]
            found, of = (sum(one[what] for one in some) for what in ("found", "of"))
            before, reached = (sum(one[what] for one in some) for what in ("before", "reached"))
            cells += [f"{found}/{of} ({found / of:.0%})", f"{before}/{reached}"]
        lines.append((way, *cells))
    heads = ("way", *(head for name in DETECTORS for head in (f"{name}: found", "before the goal")))
    return ["", "## All episodes by ART", "", *table(heads, lines)]


def markdown(result: dict[str, Any]) -> str:
    """Return the report."""
    about, rows, normal = result["about"], result["rows"], result["normal"]
    lines = [
        "# Attacks, beside Blacklight and PRADA",
        "",
        f"Made by `{about['command']}` (seed {about['seed']}); {about['machine']}. Not edited by hand.",
        "",
        "Each row is one attack: ART (Adversarial Robustness Toolbox, scikit-learn targets), own (`traffic.py`), log",
        "(logged attacks), OARS (`oars.py`). Numbers are attack queries until the first finding, median and 95 % over",
        "episodes, missed ones counted as never (-). *Before the goal*: found before the attack had what it wanted, of",
        "the episodes that got it. *1, 3 between*: so many normal queries of the same client after each. *Id a query*,",
        "*id each 5*: a new client id so often. *Clean* (OARS): goals reached by an account about which nothing was",
        "found. Where the verdict is leaked each detector answers its own attacker; regate leaks none.",
        "",
        *missed(rows),
        *together(rows),
        "",
        "## Attacks",
        "",
        *table(HEADS, [line(row) for row in rows]),
        "",
        "## Normal clients",
        "",
        "False findings, with the Poisson 95 % interval of their rate a query. Ours may tell of a client twice; one",
        "that a peer has flagged counts once. Both peers watch each client alone here: with one store for everybody,",
        "as against attacks, Blacklight would flag more. PRADA cannot speak of a client before its 100th query.",
        "*Long*: clients of more than 100 queries; the references of the generated data have none.",
        "",
    ]
    heads = ("data", "kind", "queries", "clients", "lanes", "Blacklight", "PRADA")
    lines += table(heads, [_normal(row) for row in pooled(normal)])
    some = [row for row in normal if row["lanes"]]
    if some:
        lines += ["", "Where ours were:", "", *table(heads, [_normal(row) for row in some])]
    if normal:
        every = pooled(normal)[-1]
        high = interval(every["lanes"], 0.9)[1] / every["queries"]
        held = "within" if high <= BOUND else "above"
        lines += [
            "",
            f"All together: {every['lanes'] / every['queries']:.1e} false findings a query, upper 95 % limit",
            f"{high:.1e}: {held} the {BOUND:.0e} aimed at.",
        ]
    beside = sum(row.get("false", 0) for row in rows)
    lines += [f"Beside the attacks above, normal clients were told {beside} times (the same ones in many rows)."]
    lines += ["", "## Cost", "", "µs a query, and bytes held after the normal traffic: all, and a query.", ""]
    heads = ("data", "features", "queries", "clients", *DETECTORS)
    lines += table(heads, [_cost(one) for one in result["cost"]])
    lines += ["", "Lanes grow with clients, to a fixed bound; the peers with queries, without one."]
    if about["missing"]:
        lines += ["", "## Not run", "", *(f"- {one}" for one in about["missing"])]
    return "\n".join(lines) + "\n"


def _normal(row: dict[str, Any]) -> tuple[str, ...]:
    counts = (rate(row[name], row["queries"]) for name in DETECTORS)
    return (row["data"], row["kind"], f"{row['queries']:,}", f"{row['clients']:,}", *counts)


def _cost(one: dict[str, Any]) -> tuple[str, ...]:
    cells = (
        f"{one[name]['us']} µs, {one[name]['bytes'] / 1e6:.1f} MB, {one[name]['bytes'] / one['queries']:.0f} B"
        for name in DETECTORS
    )
    return (one["data"], str(one["features"]), f"{one['queries']:,}", f"{one['clients']:,}", *cells)
