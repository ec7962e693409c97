"""Figures and times as people read them, and text made safe for HTML. script.js keeps times going, by the same rules."""

from __future__ import annotations

from html import escape as _escape
from typing import Any

#: stands where there is nothing to tell
NONE = "\N{EN DASH}"
MINUTE, HOUR, DAY = 60, 3600, 86400


def text(value: object) -> str:
    """Anything as text of HTML, in elements and in quoted attributes."""
    return _escape(str(value), quote=True)


def lasting(seconds: float) -> str:
    """How long: ``0 s``, ``12 s``, ``3 min``, ``5 h 12``, ``3 d``."""
    whole = int(max(0.0, seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min"
    if whole < DAY:
        return f"{whole // HOUR} h {whole % HOUR // MINUTE:02}"
    return f"{whole // DAY} d"


def precise(seconds: float) -> str:
    """How long something took that is over: exact where it was short."""
    seconds = max(0.0, seconds)
    if seconds < 0.1:
        return f"{seconds * 1000:.{1 if seconds < 0.01 else 0}f} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    return lasting(seconds)


def number(value: float) -> str:
    """A whole number with its thousands apart (by a space that does not break)."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def share(value: float) -> str:
    """A share as percents."""
    return f"{value:.0%}"


def since(moment: float, at: float | None, *, ago: bool = False) -> str:
    """An element that tells how long ago something was; the script keeps it going.

    :param moment: then, in seconds since 1970.
    :param at: now, in the same; None leaves the words to the script, and the text is the same however late it is made.
    :param ago: with that word.
    """
    words = "" if at is None else lasting(at - moment)
    return f'<time data-t="{moment:.1f}">{words}</time>{" ago" if ago else ""}'


def fact(value: Any) -> str:
    """What a monitor learnt, of whatever type, as text of HTML."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return text(", ".join(map(str, value)))
    return text(value)


def many(count: float, what: str) -> str:
    """``1 host``, ``2 hosts``."""
    return f"{number(count)} {what}{'' if count == 1 else 's'}"
