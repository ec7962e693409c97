"""Hosts for people: a line for each, or all there is to know of one. From the values of :mod:`distbal.report`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distbal.columns import BOLD, RED, YELLOW, age, bar, coloured, names, place, safe, size, table, width_of

#: states in which a host is given nothing, or only when nothing else is left
BAD, DOUBTFUL = ("down", "failing", "removed"), ("drain", "off", "suspect")
#: addresses that are named where clients are counted, before the rest is a number
MOST_NAMED = 8

_HEADING = ("HOST", "STATE", "SLOTS", "", "WEIGHT", "LOAD", "JOBS", "FAILED", "WHY")
_RIGHT = (2, 4, 5, 6, 7)
#: columns that go first where a terminal is narrow, and how much of the reasons is worth more than they are
_SPARED, _WHY = (3, 6, 4, 5, 7), 28

Report = Mapping[str, Any]


def hosts_lines(hosts: Sequence[Report], *, width: int | None, colour: bool) -> list[str]:
    """A line for each host, below a heading. Load and failures have a column only where there are any."""
    called = names((host["name"] for host in hosts), width)
    loads = [load_of(host) for host in hosts]
    failures = [sum(host["failures"].values()) for host in hosts]
    rows = [
        (
            name,
            host["state"] + ("*" if host["differs"] else ""),
            f"{host['used']}/{_lendable(host)}",
            bar(host["used"], host["capacity"] or host["slots"]),
            f"{host['weight']:.2f}",
            "" if load is None else f"{load:.2f}",
            str(host["jobs"]),
            str(failed or ""),
            host["why"],
        )
        for name, host, load, failed in zip(called, hosts, loads, failures, strict=True)
    ]
    empty = {5: all(load is None for load in loads), 7: not any(failures)}
    kept = _fitting([column for column in range(len(_HEADING)) if not empty.get(column)], rows, width)
    lines = table(
        [_HEADING[column] for column in kept],
        [[row[column] for column in kept] for row in rows],
        right=[place for place, column in enumerate(kept) if column in _RIGHT],
    )
    if not colour:
        return lines
    marks = [BOLD, *(RED if host["state"] in BAD else YELLOW if host["state"] in DOUBTFUL else "" for host in hosts)]
    return [coloured(line, mark, width) if mark else line for line, mark in zip(lines, marks, strict=True)]


def _fitting(columns: list[int], rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Those columns that leave room for the reasons, without which a state says little."""
    widths = [max(width_of(row[column]) for row in (_HEADING, *rows)) for column in range(len(_HEADING))]
    widths[-1] = min(widths[-1], _WHY)
    for column in _SPARED:
        if width is None or sum(widths[kept] + 2 for kept in columns) - 2 <= width:
            break
        columns = [kept for kept in columns if kept != column]
    return columns


def _lendable(host: Report) -> str:
    """Its slots, and how many of them may be lent now where those are not all, nor none (the state says that)."""
    return f"{host['capacity']}({host['slots']})" if 0 < host["capacity"] < host["slots"] else str(host["slots"])


def load_of(host: Report) -> float | None:
    """The load average that a monitor read; None where none did."""
    for monitor in host["monitors"]:
        load = monitor["facts"].get("load")
        if isinstance(load, int | float) and not isinstance(load, bool):
            return float(load)
    return None


def crowd(clients: Iterable[Report]) -> str:
    """Who they are: one word for each address, in the order of the first from there."""
    count = Counter(safe(client["address"]) or "local" for client in clients)
    told = [f"{address} x{number}" if number > 1 else address for address, number in list(count.items())[:MOST_NAMED]]
    more = len(count) - MOST_NAMED
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")


def clients_lines(clients: Sequence[Report], how_long: str) -> list[str]:
    """A line for each client, below a heading.

    :param how_long: the heading of the time.
    """
    rows = [(str(one["id"]), place(one["address"], one["port"]), one["pool"], age(one["seconds"])) for one in clients]
    return table(("NUMBER", "CLIENT", "POOL", how_long), rows, right=(0, 3))


# -- one host -----------------------------------------------------------------------------------------------------------------


def host_lines(host: Report, at: float, *, width: int | None, colour: bool) -> list[str]:
    """All there is to know of one host, in sections.

    :param at: the report's moment, in seconds since 1970.
    """
    state = host["state"] + (f": {host['why']}" if host["why"] else "")
    mark = RED if host["state"] in BAD else YELLOW if host["state"] in DOUBTFUL else BOLD
    first = f"{host['name']}: {state}"
    lines = [coloured(first, mark, width) if colour else first, *_facts(host)]
    sections = (
        ("differs from the file:", _differs(host, at)),
        ("said:", _said(host, at)),
        ("monitors:", _monitors(host, at)),
        ("clients:", clients_lines(host["clients"], "FOR") if host["clients"] else []),
    )
    for title, found in sections:
        if found:
            lines += ["", coloured(title, BOLD, width) if colour else title, *(f"  {line}" for line in found)]
    return lines


def _facts(host: Report) -> list[str]:
    failures = ", ".join(f"{number} {how}" for how, number in host["failures"].items())
    load = load_of(host)
    facts = (
        ("slots", f"{host['used']} of {host['slots']} lent, {host['capacity']} may be {bar(host['used'], host['slots'])}"),
        ("weight", f"{host['weight']:g}"),
        ("load", "" if load is None else f"{load:.2f}"),
        ("rank", str(host["rank"])),
        ("pools", ", ".join(host["pools"])),
        ("address", host["address"]),
        ("options", host["options"]),
        ("jobs", f"{host['jobs']}, those that ended took {age(host['seconds'])}"),
        ("failures", failures or "none"),
        ("traffic", f"{size(host['sent'])} to it, {size(host['received'])} from it" if host["sent"] else ""),
    )
    return [f"  {name:8}  {value}" for name, value in facts if value]


def _said(host: Report, at: float) -> list[str]:
    rows = [
        (
            one["source"],
            "up" if one["up"] else "down",
            "" if one["weight"] is None else f"{one['weight']:.2f}",
            f"{age(at - one['at'])} ago",
            "" if one["expires"] is None else f"{age(one['expires'] - at)}",
            one["reason"],
        )
        for one in host["said"]
    ]
    return table(("SOURCE", "SAYS", "WEIGHT", "WHEN", "FOR", "WHY"), rows, right=(2, 3, 4)) if rows else []


def _monitors(host: Report, at: float) -> list[str]:
    lines: list[str] = []
    rows = []
    for one in host["monitors"]:
        found = "-" if one["up"] is None else "up" if one["up"] else "down"
        asked = f"{age(at - one['at'])} ago" if one["at"] else "never"
        rows.append(
            (
                one["source"],
                found,
                "" if one["weight"] is None else f"{one['weight']:.2f}",
                asked,
                f"{one['took'] * 1000:.1f} ms",
                str(one["checks"]),
                str(one["failed"] + one["troubled"] + one["late"] + one["bugs"]),
                one["reason"],
            )
        )
    if not rows:
        return []
    lines = table(("MONITOR", "FOUND", "WEIGHT", "ANSWERED", "TOOK", "CHECKS", "BAD", "WHAT"), rows, right=(2, 3, 4, 5, 6))
    told = [lines[0]]
    for line, one in zip(lines[1:], host["monitors"], strict=True):
        told.append(line)
        if one["trouble"]:
            told.append(f"  cannot ask: {one['trouble']}")
        if one["paused_until"] is not None:
            told.append(f"  pauses after a bug, for {age(one['paused_until'] - at)}")
        if one["facts"]:
            told.append("  " + ", ".join(f"{name} {_fact(fact)}" for name, fact in one["facts"].items()))
    return told


def _fact(fact: object) -> str:
    if isinstance(fact, list):
        return " ".join(map(_fact, fact)) or "none"
    if isinstance(fact, float):
        return f"{fact:g}"
    return str(fact)


def _differs(host: Report, at: float) -> list[str]:
    rows = [
        (
            one["key"],
            _value(one["value"]),
            "" if one["file"] is None else _value(one["file"]),
            one["by"],
            f"{age(at - one['at'])} ago",
            one["why"],
        )
        for one in host["differs"]
    ]
    return table(("KEY", "IS", "FILE", "BY", "WHEN", "WHY"), rows, right=(4,)) if rows else []


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
