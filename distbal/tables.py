"""Answers of the verbs, for people: aligned tables and sentences, from the values that ``--json`` prints.

Pure, and of the standard library alone: the command line makes its tables of what the daemon answers, the shell over SSH of what
it was returned, and both look the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distbal.verbs import Verb


def render(verb: Verb, answer: Mapping[str, Any], *, width: int | None = None, colour: bool = False) -> str:
    """An answer as text, with a newline at its end.

    :param answer: what the verb returned.
    :param width: columns of the terminal, at which lines are cut; None for whole lines.
    :param colour: mark what is not well.
    """
    if "text" in answer:
        warnings = [f"warning: {warning}" for warning in answer.get("warnings", ())]
        return "\n".join([str(answer["text"]), *warnings, ""])
    raise NotImplementedError(verb.name)


def table(heading: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> list[str]:
    """Lines of columns that line up.

    :param right: numbers of the columns, from 0, that end at one place.
    """
    widths = [max(len(row[column]) for row in (heading, *rows)) for column in range(len(heading))]
    return [
        "  ".join(
            f"{cell:>{size}}" if column in right else f"{cell:{size}}"
            for column, (cell, size) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heading, *rows)
    ]
