"""Text for terminals: columns that line up, lines that end where the terminal does, and nothing in them that it would obey.

Names, reasons and addresses come from files, monitors and people elsewhere: :func:`safe` is for each of them. Widths are those
of the screen, on which most letters take one column, East Asian ones two, and accents of their own none. Pure, and of the
standard library alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from unicodedata import combining, east_asian_width

RED, YELLOW, BOLD, DIM, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[2m", "\x1b[0m"
#: cells of a bar
BAR = 10
#: what stands where something was cut
ELLIPSIS = "..."


def safe(text: object) -> str:
    """The text without anything that a terminal would obey: control characters, line ends, half characters become "?"."""
    text = str(text)
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def width_of(text: str) -> int:
    """How many columns it takes on the screen."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    return 0 if combining(char) else 2 if east_asian_width(char) in "WF" else 1


def cut(text: str, width: int | None) -> str:
    """The text where it fits, else its beginning and dots.

    :param width: columns, 0 or more; None for no end.
    """
    if width is None or width_of(text) <= width:
        return text
    room = width - len(ELLIPSIS)
    if room < 1:
        return ELLIPSIS[: max(0, width)]
    return _beginning(text, room) + ELLIPSIS


def _beginning(text: str, room: int) -> str:
    if text.isascii():
        return text[:room]
    for place, char in enumerate(text):
        room -= _columns(char)
        if room < 0:
            return text[:place]
    return text


def padded(text: str, width: int, *, right: bool = False) -> str:
    """The text with spaces to this many columns, behind it or (``right``) before it."""
    spaces = " " * (width - width_of(text))
    return spaces + text if right else text + spaces


def table(heading: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Lines of columns that line up, :func:`safe`.

    :param right: numbers of the columns, from 0, that end at one place.
    """
    cells = [[safe(cell) for cell in row] for row in (heading, *rows)]
    widths = [max(map(width_of, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            padded(cell, size, right=column in right) for column, (cell, size) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def names(texts: Iterable[str], width: int | None) -> list[str]:
    """Names for a first column, which takes no more than half of the terminal."""
    return [cut(safe(text), None if width is None else max(len(ELLIPSIS) + 1, width // 2)) for text in texts]


def bar(used: int, slots: int, cells: int = BAR) -> str:
    """How full it is: something wherever anything is lent, all of it only where nothing is free."""
    filled = cells if used >= slots else min(cells - 1, -(-used * cells // slots))
    return f"[{'#' * filled}{'.' * (cells - filled)}]"


def age(seconds: float) -> str:
    """A duration in its two largest units: ``0.4s``, ``12s``, ``3m12s``, ``2h05m``, ``3d4h``.

    :param seconds: 0 or more; less is taken for 0.
    """
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600}h"


def day_and_time(at: float) -> str:
    """A moment where the reader is: ``2026-11-27 12:03:11``.

    :param at: seconds since 1970.
    """
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    except (OverflowError, ValueError, OSError):
        return "?"


def size(number: int) -> str:
    """A number of bytes: ``512 B``, ``1.5 MiB``."""
    if number < 1024:
        return f"{number} B"
    amount, unit = number / 1024, 0
    while amount >= 999.95 and unit < 4:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f} {'KMGTP'[unit]}iB"


def many(number: int, thing: str) -> str:
    """``1 host``, ``2 hosts``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def place(address: str, port: int) -> str:
    """A client, as people write it: ``10.0.0.9:4711``, ``[fd00::9]:4711``; ``local`` for one on a Unix socket."""
    if not address:
        return "local"
    host = f"[{address}]" if ":" in address else address
    return safe(f"{host}:{port}" if port else host)


def finished(lines: Iterable[str], width: int | None) -> str:
    """Lines as text, each :func:`safe` and cut at the width."""
    return "".join(f"{line if isinstance(line, Coloured) else cut(safe(line), width)}\n" for line in lines)


class Coloured(str):
    """A line that is safe and cut, in a colour: the one thing that may say something to the terminal."""

    __slots__ = ()


def coloured(line: str, code: str, width: int | None) -> Coloured:
    """A whole line in a colour."""
    return Coloured(f"{code}{cut(safe(line), width)}{PLAIN}")
