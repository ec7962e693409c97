"""How the daemon itself is, in words: for ``distbal status`` and ``top``, the shell over SSH and the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distbal.columns import many

#: seconds that the event loop may be late before that is something to look at
LONG = 0.3
#: steps in which the lag is told where each change of the words costs something, in seconds, and their words
STEPS = ((0.01, "less than 10 ms"), (0.03, "10 to 30 ms"), (0.1, "30 to 100 ms"), (LONG, "0.1 to 0.3 s"), (1.0, "0.3 to 1 s"))


def span(seconds: float) -> str:
    """A lag: ``3 ms``, ``1.2 s``."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def roughly(seconds: float) -> str:
    """The same in steps, so that it seldom changes."""
    return next((words for bound, words in STEPS if seconds < bound), f"{seconds:.0f} s")


def lag(inside: Mapping[str, Any], *, rough: bool = False) -> str:
    """The event loop's, as a sentence."""
    told = inside["lag"]
    if rough:
        return f"late by {roughly(told['minute'])} at most in the last minute"
    return f"late by {span(told['most'])} at most in the last 10 s, {span(told['minute'])} in the last minute"


def room(inside: Mapping[str, Any]) -> str:
    """For whom there is room, as the end of a sentence; "" where that is not known."""
    left = inside["room"]
    return "" if left is None else f"room for {many(left, 'more client')}"


def troubles(inside: Mapping[str, Any]) -> list[str]:
    """What is to be looked at, each as a sentence; none where all is well."""
    found = []
    if bugs := _counted(inside["bugs"]):
        found.append(f"bugs met: {bugs}; the log has them")
    if inside["room"] == 0:
        found.append("no room for more clients: the limit on open descriptors is reached")
    if bounds := _counted(inside["bounds"]):
        found.append(f"bounds hit: {bounds}")
    if inside["log_trouble"]:
        found.append(f"the log cannot be written: {inside['log_trouble']}")
    if inside["log_lost"]:
        found.append(f"{many(inside['log_lost'], 'line')} of the log lost")
    keeper = inside.get("keeper")
    if keeper and keeper["gone"]:
        found.append(f"the keeper is gone, and a crash would lose every job: {keeper['gone']}")
    if keeper and keeper["restarts"]:
        found.append(f"started anew {many(keeper['restarts'], 'time')}; {keeper['last']}")
    if lost := inside.get("lost"):
        found.append(f"{many(lost, 'connection')} lost that had just come when the daemon before was killed")
    if inside["lag"]["minute"] >= LONG:
        found.append(f"everybody was held up for {span(inside['lag']['minute'])} in the last minute")
    return found


def _counted(counts: Mapping[str, int]) -> str:
    """Those that are there, the most frequent first."""
    there = sorted(((name, count) for name, count in counts.items() if count), key=lambda one: -one[1])
    return ", ".join(f"{count} {name}" for name, count in there)
