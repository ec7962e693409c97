"""Figures, and how they are shown: a table for people, JSON for programs, both from the same rows."""

from __future__ import annotations

import datetime as dt
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import distbal
import twisted

#: the columns of the table
COLUMNS = ("", "distbal", "beside", "ratio", "middle half", "target", "")


@dataclass
class Row:
    """One figure.

    :ivar what: of what, in words.
    :ivar unit: of ``ours`` and ``beside``.
    :ivar ours: the median of the rounds.
    :ivar beside: the peer's, where there is one; ``peer`` says which.
    :ivar ratio: the median of the rounds' ratios, which others' load on the machine moves less than it moves their parts.
    :ivar spread: within which the middle half of the rounds lie: of the ratio where there is one, else of ``ours``.
    :ivar target: in words; ``met`` None where there is none.
    :ivar rounds: all of them, ours and the peer's.
    """

    what: str
    unit: str
    ours: float
    beside: float | None = None
    peer: str = ""
    ratio: float | None = None
    spread: tuple[float, float] = (0.0, 0.0)
    target: str = ""
    met: bool | None = None
    rounds: dict[str, list[float]] = field(default_factory=dict)


def single(what: str, unit: str, values: Sequence[float], *, at_most: float | None = None) -> Row:
    """A figure that stands alone.

    :param values: one a round.
    :param at_most: its target.
    """
    ours = statistics.median(values)
    row = Row(what, unit, ours, spread=_middle(values), rounds={"distbal": list(values)})
    if at_most is not None:
        row.target, row.met = f"<= {at_most:g} {unit}", ours <= at_most
    return row


def paired(
    what: str, unit: str, ours: Sequence[float], peer: str, theirs: Sequence[float], *, at_most: float | None = None
) -> Row:
    """A figure beside a peer's, round by round.

    :param at_most: the target of the ratio.
    """
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    row = Row(what, unit, statistics.median(ours), statistics.median(theirs), peer, statistics.median(ratios))
    row.spread, row.rounds = _middle(ratios), {"distbal": list(ours), peer: list(theirs)}
    if at_most is not None and row.ratio is not None:
        row.target, row.met = f"<= {at_most:g}", row.ratio <= at_most
    return row


@dataclass
class Part:
    """Rows that were measured together.

    :ivar notes: what a reader has to know of them.
    """

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


Progress = Callable[[str], None]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "processors": os.cpu_count(),
        "model": model[0] if model else platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "twisted": twisted.__version__,
        "distbal": distbal.__version__,
        "load": round(os.getloadavg()[0], 2),
    }


def table(parts: Sequence[Part]) -> str:
    """All rows, aligned, and the notes under each part."""
    lines: list[tuple[str, ...] | str] = [COLUMNS]
    for part in parts:
        lines += ["", part.title]
        lines += [_cells(row) for row in part.rows]
        lines += [f"  ({note})" for note in part.notes]
    cells = [line for line in lines if isinstance(line, tuple)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    return "\n".join(line if isinstance(line, str) else _aligned(line, widths) for line in lines)


def as_json(about: dict[str, Any], parts: Sequence[Part]) -> str:
    return json.dumps({"machine": about, "parts": [asdict(part) for part in parts]}, indent=1) + "\n"


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first, *others, last = line
    middle = (cell.rjust(width) for cell, width in zip(others, widths[1:-1], strict=True))
    return "  ".join((first.ljust(widths[0]), *middle, last)).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    low, high = row.spread
    ratio = row.ratio is not None
    return (
        f"  {row.what}",
        _with_unit(row.ours, row.unit),
        "" if row.beside is None else _with_unit(row.beside, row.unit),
        "" if row.ratio is None else f"{row.ratio:.2f}",
        f"{low:.2f} - {high:.2f}" if ratio else f"{_short(low)} - {_short(high)}",
        row.target,
        "" if row.met is None else "met" if row.met else "MISSED",
    )


def _middle(values: Sequence[float]) -> tuple[float, float]:
    """Between which two values the middle half of the rounds lie."""
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def _with_unit(value: float, unit: str) -> str:
    return f"{_short(value)} {unit}"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
