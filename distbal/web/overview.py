"""The top of the page: the farm in four figures, and who waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from distbal import insidewords
from distbal.report import STATES, Client, HostReport, InsideReport, StatusReport
from distbal.web.words import number, share, since, text

#: waiters that are shown; the rest is counted
MOST_WAITERS = 60
#: clients have a tint each, of so many
TINTS = 8
#: icons of the states, drawn in a square of 16 by 16, so that they are told apart by their shapes
ICONS = {
    "ready": '<circle cx="8" cy="8" r="5.5" fill="none" stroke="currentColor" stroke-width="2.5"/>',
    "full": '<circle cx="8" cy="8" r="6.5" fill="currentColor"/>',
    "suspect": '<path d="M8 1.5 15 14.5H1Z" fill="none" stroke="currentColor" stroke-width="2" stroke-linejoin="round"/>',
    "drain": '<path d="M2 2.5h12M8 5v9M4 10l4 4 4-4" fill="none" stroke="currentColor" stroke-width="2.2"/>',
    "off": '<path d="M2.5 8h11" stroke="currentColor" stroke-width="3"/>',
    "failing": '<path d="M2.5 2.5l11 11m0-11l-11 11" stroke="currentColor" stroke-width="3"/>',
    "down": '<path d="M2 2h12v12H2Z" fill="currentColor"/>',
    "removed": '<path d="M2.5 2.5h11v11h-11Z" fill="none" stroke="currentColor" stroke-width="2" stroke-dasharray="2.5 2"/>',
}


def sprite() -> str:
    """The icons, to be referred to."""
    symbols = "".join(f'<symbol id="i-{name}" viewBox="0 0 16 16">{shape}</symbol>' for name, shape in ICONS.items())
    return f'<svg class="sprite" aria-hidden="true">{symbols}</svg>'


def icon(state: str) -> str:
    """A state's."""
    return f'<svg class="i" aria-hidden="true"><use href="#i-{state}"/></svg>'


@lru_cache(maxsize=4096)
def tint(address: str) -> int:
    """The tint of a client: the same wherever it is shown, and whenever."""
    value = 0
    for char in address:
        value = (value * 31 + ord(char)) % 8191
    return value % TINTS


def client_chip(client: Client, now: float, at: float | None) -> str:
    """One client, and for how long."""
    name = client["address"] or "local"
    pool = "" if client["pool"] == "default" else f' <i class="pool">{text(client["pool"])}</i>'
    moment = since(now - client["seconds"], at)
    return f'<span class="c c{tint(name)}"><b>{text(name)}</b>{pool}{moment}</span>'


def totals(status: StatusReport, hosts: Iterable[HostReport], at: float | None) -> str:
    """The farm in four figures.

    :param at: now, for the words that tell how long ago something was; None leaves them to the script.
    """
    sums, counts = status["totals"], status["counts"]
    used, capacity, waiting = sums["used"], sums["capacity"], sums["waiting"]
    states = Counter(host["state"] for host in hosts)
    shown = "".join(
        f'<span class="s-{state}" title="{text(words)}">{icon(state)}{number(states[state])} {state}</span>'
        for state, words in reversed(STATES.items())
        if states[state]
    )
    lent = f"{share(used / capacity)} of what may be lent" if capacity else "nothing may be lent"
    aside = "" if capacity == sums["slots"] else f"; {number(sums['slots'])} in the file"
    longest = (
        f"the longest for {since(status['at'] - sums['longest_wait'], at)}" if waiting else "whoever asks is served at once"
    )
    if not waiting and used >= capacity:
        longest = "the next one will"
    gone = " · ".join(f"{number(counts[name])} {name}" for name in ("withdrawn", "refused") if counts.get(name))
    return (
        f'<div class="tile"><h2>Slots in use</h2><p class="big"><b>{number(used)}</b> / {number(capacity)}</p>'
        f"<p>{lent}{aside}</p></div>"
        f'<div class="tile{" busy" if waiting else ""}"><h2>Waiting</h2><p class="big"><b>{number(waiting)}</b></p>'
        f"<p>{longest}</p></div>"
        f'<div class="tile{" bad" if sums["out"] else ""}"><h2>Hosts in service</h2>'
        f'<p class="big"><b>{number(sums["hosts"] - sums["out"])}</b> / {number(sums["hosts"])}</p>'
        f'<p class="states">{shown}</p></div>'
        f'<div class="tile"><h2>Jobs</h2><p class="big"><b>{number(counts.get("granted", 0))}</b></p>'
        f"<p>in {since(status['started'], at)}{f' · {gone}' if gone else ''}</p></div>"
        f"{_inside(status['inside'])}"
    )


def _inside(inside: InsideReport) -> str:
    """How the daemon itself is: of the lag in steps, so that a page where nothing happens is sent nothing."""
    troubles = "".join(f' <span class="trouble">{text(words)}</span>' for words in insidewords.troubles(inside))
    return f'<p class="inside">The event loop is {insidewords.lag(inside, rough=True)}.{troubles}</p>'


def queue(status: StatusReport, at: float | None) -> str:
    """Who waits, the longest first."""
    waiters = status["waiters"]
    if not waiters:
        return '<p class="none">Nobody waits.</p>'
    chips = "".join(f"<li>{client_chip(waiter, status['at'], at)}</li>" for waiter in waiters[:MOST_WAITERS])
    by_client = Counter(waiter["address"] or "local" for waiter in waiters)
    most = ", ".join(f"{text(name)} ({number(count)})" for name, count in by_client.most_common(5))
    if len(waiters) <= MOST_WAITERS:
        return f'<ol class="chips">{chips}</ol>'
    rest = f"and {number(len(waiters) - MOST_WAITERS)} more"
    return f'<ol class="chips">{chips}</ol><p class="rest">{rest}. Most are of {most}.</p>'


def in_words(status: StatusReport) -> str:
    """The same in one line, for the window's title."""
    sums = status["totals"]
    waiting = f", {number(sums['waiting'])} waiting" if sums["waiting"] else ""
    return f"{number(sums['used'])}/{number(sums['capacity'])}{waiting}"
