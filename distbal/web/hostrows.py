"""The table of hosts: a group of rows for each, with all that is known of it; what is long is behind its name.

A host may have 65535 slots: of those the first are drawn, and the rest is counted.
"""

from __future__ import annotations

from distbal.report import Differs, HostReport, Monitored, Said
from distbal.web.overview import client_chip, icon
from distbal.web.words import NONE, fact, many, number, precise, share, since, text

#: slots that are drawn of one host, used ones first
MOST_SLOTS = 64
#: with more hosts than this, slots are drawn without words until their row is opened
ROOMY = 30
#: the columns: what they sort by (a place in data-v; n for the name), their title, their class, and what they mean
COLUMNS = (
    ("n", "Host", "", "its name, as clients are told; opens what there is to tell of it"),
    ("0", "State", "", "how it is"),
    ("1", "Slots", "", "how many are lent, of how many that may be; and who has them, for how long"),
    ("2", "Load", "n", "its load average over one minute, where a monitor tells it"),
    ("3", "Weight", "n", "the share of its slots that it is given now"),
    ("4", "Jobs", "n", "jobs since the start"),
    ("5", "Seconds", "n", "that the ended ones of them took, together"),
    ("6", "Average", "n", "seconds that one of them took, on the average"),
    ("7", "Failed", "n", "jobs that it failed since the start"),
)
#: the states in the order of how much they want a look
SEVERITY = ("failing", "down", "suspect", "drain", "off", "removed", "full", "ready")


def head() -> str:
    """The row of titles."""
    cells = "".join(
        f'<th scope="col" class="{kind}" data-k="{key}" title="{text(what)}">{title}</th>' for key, title, kind, what in COLUMNS
    )
    return f"<thead><tr>{cells}</tr></thead>"


def row(host: HostReport, now: float, at: float | None) -> str:
    """One host.

    :param now: when it was so, in seconds since 1970.
    :param at: the same, for the words that tell how long ago something was; None leaves them to the script.
    """
    name, state = text(host["name"]), host["state"]
    load, shown_load = _load(host["monitors"])
    ended = host["jobs"] - host["used"]
    each = host["seconds"] / ended if ended > 0 else None
    failed = sum(host["failures"].values())
    order = (SEVERITY.index(state), host["used"], load, host["weight"], host["jobs"], host["seconds"], each, failed)
    values = " ".join("-" if value is None else f"{value:g}" for value in order)
    searched = text(" ".join([host["address"], *host["pools"]]))
    return (
        f'<tbody data-n="{name}" data-s="{state}" data-v="{values}" data-w="{searched}"><tr class="h">'
        f'<th scope="row"><details><summary>{name}</summary></details></th>'
        f'<td class="st s-{state}">{icon(state)}{state}</td>'
        f'<td><div class="sl"><span class="use"><b>{number(host["used"])}</b>/{number(host["capacity"])}</span>'
        f'<div class="slots">{slots(host, now, at)}</div>{_note(host, at)}</div></td>'
        f'<td class="n" data-l="load">{shown_load}</td>'
        f'<td class="n{" low" if host["weight"] < 1 else ""}" data-l="weight">{share(host["weight"])}</td>'
        f'<td class="n" data-l="jobs">{number(host["jobs"])}</td>'
        f'<td class="n" data-l="seconds">{number(host["seconds"])}</td>'
        f'<td class="n" data-l="average">{NONE if each is None else precise(each)}</td>'
        f'<td class="n{" bad" if failed else ""}" data-l="failed" title="{text(_failures(host))}">{number(failed)}</td></tr>'
        f'<tr class="more"><td colspan="{len(COLUMNS)}"><div class="facts">{_more(host, at)}</div></td></tr></tbody>'
    )


def slots(host: HostReport, now: float, at: float | None) -> str:
    """Its slots: who is in each and for how long, those that are free, and those that may not be lent now."""
    clients = host["clients"]
    shown = "".join(client_chip(client, now, at) for client in clients[:MOST_SLOTS])
    room = MOST_SLOTS - min(MOST_SLOTS, len(clients))
    free = max(0, host["capacity"] - len(clients))
    kept = max(0, host["slots"] - max(host["capacity"], len(clients)))
    drawn_free = min(free, room)
    drawn_kept = min(kept, room - drawn_free)
    left = [
        f"{number(count)} {what}"
        for count, what in (
            (len(clients) - MOST_SLOTS, "in use"),
            (free - drawn_free, "free"),
            (kept - drawn_kept, "not lent now"),
        )
        if count > 0
    ]
    rest = f'<span class="rest">and {", ".join(left)}</span>' if left else ""
    return shown + '<i class="f"></i>' * drawn_free + '<i class="k"></i>' * drawn_kept + rest


def _load(monitors: list[Monitored]) -> tuple[float | None, str]:
    for monitor in monitors:
        load = monitor["facts"].get("load")
        if isinstance(load, int | float):
            cpus = monitor["facts"].get("cpus")
            return load, f"{load:.1f}" + (f"<small>/{text(cpus)}</small>" if cpus else "")
    return None, NONE


def _failures(host: HostReport) -> str:
    return ", ".join(f"{count} {how}" for how, count in sorted(host["failures"].items()))


def _note(host: HostReport, at: float | None) -> str:
    """Why it is as it is, who says so and since when; and what differs from the file. Nothing where there is neither."""
    parts = []
    if host["why"] or host["state"] == "suspect":
        parts.append(f'<span class="why">{text(host["why"])}{_when(host, at)}</span>')
    parts += [f'<span class="differs">{_differs(one, at)}</span>' for one in host["differs"] if one["key"] != "admin"]
    parts += [
        f'<span class="trouble">{text(one["source"])} cannot ask: {text(one["trouble"])}</span>'
        for one in host["monitors"]
        if one["trouble"]
    ]
    return f'<div class="note">{"".join(parts)}</div>' if parts else ""


def _when(host: HostReport, at: float | None) -> str:
    """Since when the reason that is shown holds, and by whom."""
    if host["state"] in ("down", "drain"):
        admin = next((one for one in host["differs"] if one["key"] == "admin"), None)
        return "" if admin is None else f" <small>{text(admin['by'])}, {since(admin['at'], at, ago=True)}</small>"
    said = [one for one in host["said"] if not one["up"]]
    return f" <small>{since(min(one['at'] for one in said), at, ago=True)}</small>" if said else ""


def _differs(one: Differs, at: float | None) -> str:
    value = share(float(one["value"])) if one["key"] == "weight" else text(one["value"])
    if one["key"] == "there":
        what = "was added to those of the file" if one["value"] else "was removed; the file has it"
    else:
        what = f"{one['key']} {value}" + ("" if one["file"] is None else f"; the file says {text(one['file'])}")
    why = f": {text(one['why'])}" if one["why"] else ""
    return f"{what}{why} <small>{text(one['by'])}, {since(one['at'], at, ago=True)}</small>"


def _more(host: HostReport, at: float | None) -> str:
    facts = [
        ("address", text(host["address"])),
        ("rank", number(host["rank"])),
        ("slots", f"{number(host['slots'])} in all, {number(host['capacity'])} may be lent"),
        ("jobs", f"{number(host['jobs'])}, {number(host['seconds'])} s in all"),
        ("pools", text(", ".join(host["pools"]))),
        ("options", text(host["options"])),
        ("failed", text(_failures(host))),
        ("sent", _bytes(host["sent"]) if host["sent"] else ""),
        ("received", _bytes(host["received"]) if host["received"] else ""),
    ]
    listed = "".join(f"<div><dt>{name}</dt> <dd>{value}</dd></div>" for name, value in facts if value)
    return f"<dl>{listed}</dl>{_said(host['said'], at)}{_monitors(host['monitors'], at)}"


def _said(said: list[Said], at: float | None) -> str:
    if not said:
        return "<p>Nobody says anything of it, and so it is up.</p>"
    lines = "".join(
        f"<tr><th scope='row'>{text(one['source'])}</th><td>{'up' if one['up'] else '<b>down</b>'}</td>"
        f"<td>{'' if one['weight'] is None else share(one['weight'])}</td><td>{text(one['reason'])}</td>"
        f"<td>{since(one['at'], at, ago=True)}</td></tr>"
        for one in said
    )
    titles = "".join(f"<th scope='col'>{title}</th>" for title in ("source", "says", "weight", "why", "when"))
    return f"<table><caption>What is said of it</caption><thead><tr>{titles}</tr></thead>{lines}</table>"


def _monitors(monitors: list[Monitored], at: float | None) -> str:
    if not monitors:
        return ""
    lines = "".join(
        f"<tr><th scope='row'>{text(one['source'])}</th><td>{_answer(one)}</td><td>{_facts(one)}</td>"
        f"<td>{since(one['at'], at, ago=True) if one['at'] else 'never'}</td><td>{_checks(one)}</td></tr>"
        for one in monitors
    )
    titles = "".join(f"<th scope='col'>{title}</th>" for title in ("monitor", "last answer", "facts", "when", "checks"))
    return f"<table><caption>Who asks it</caption><thead><tr>{titles}</tr></thead>{lines}</table>"


def _answer(one: Monitored) -> str:
    if one["trouble"]:
        return f"<b>cannot ask:</b> {text(one['trouble'])}"
    if one["up"] is None:
        return "none yet"
    return f"{'up' if one['up'] else '<b>down</b>'}{': ' if one['reason'] else ''}{text(one['reason'])}"


def _facts(one: Monitored) -> str:
    return ", ".join(f"{text(name)} {fact(value)}" for name, value in one["facts"].items())


def _checks(one: Monitored) -> str:
    found = [f"{number(one['checks'])}"]
    for name, word in (("failed", "down"), ("late", "late"), ("troubled", "not made")):
        count: int = one[name]  # type: ignore[literal-required]
        if count:
            found.append(f"{number(count)} {word}")
    if one["bugs"]:
        found.append(f"<b>{many(one['bugs'], 'bug')}</b>")
    took = f"; the last took {precise(one['took'])}" if one["checks"] else ""
    return ", ".join(found) + took


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
