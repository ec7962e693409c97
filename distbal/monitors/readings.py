"""Readings at the border: monitors are other people's code, so what one answers is looked at before it is believed. Pure.

First whether it is a reading at all (:func:`validate_reading`): a weight that is NaN would compare as nothing does. Then it is
made fit to be kept and shown (:func:`tidy`): texts often come from a host, so they are cut, and are one printable line.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from distbal.hostspec import MOST_SLOTS
from distbal.interfaces import Fact, Reading

#: characters of a reason; of a fact's name; of a fact that is a text
MOST_REASON, MOST_NAME, MOST_TEXT = 200, 40, 200
#: how many facts are kept of one reading, and texts of one fact
MOST_FACTS, MOST_TEXTS = 20, 50
#: what other programs, and JSON, take for a whole number
MOST_NUMBER = 2**63
#: sentences about one reading: a bug repeats itself
_MOST_SAID = 10


def validate_reading(reading: object) -> list[str]:
    """What is wrong with an answer that should be a :class:`Reading`, in sentences; an empty list where nothing is.

    Lengths are no mistake: see :func:`tidy`.
    """
    if not isinstance(reading, Reading):
        return [f"a Reading is wanted, not {_kind(reading)}"]
    return list(islice(_mistakes(reading), _MOST_SAID))


def tidy(reading: Reading) -> Reading:
    """A valid reading as it is kept and shown: its texts on one printable line each, and all of it within the bounds above."""
    return replace(
        reading,
        reason=one_line(reading.reason, MOST_REASON),
        weight=None if reading.weight is None else float(reading.weight),
        took=None if reading.took is None else float(reading.took),
        slots=None if reading.slots is None else min(reading.slots, MOST_SLOTS),
        facts={one_line(name, MOST_NAME): _cut(fact) for name, fact in islice(reading.facts.items(), MOST_FACTS)},
    )


def one_line(text: str, most: int) -> str:
    """A text on one line: spaces for whatever parts words, ``?`` for what cannot be printed, ``...`` for what is too much.

    :param most: characters, at least 4.
    """
    if text.isprintable() and len(text) <= most:
        return text.strip()
    # far more than is kept: what is cut away needs no looking at
    words = " ".join(text[: most * 20].split())
    line = "".join(letter if letter.isprintable() else "?" for letter in words[: most + 1])
    return line if len(line) <= most else f"{line[: most - 3]}..."


def _cut(fact: Fact) -> Fact:
    if isinstance(fact, str):
        return one_line(fact, MOST_TEXT)
    if isinstance(fact, tuple):
        return tuple(one_line(text, MOST_TEXT) for text in fact[:MOST_TEXTS])
    return fact


def _mistakes(reading: Reading) -> Iterable[str]:
    for name in ("up", "certain"):
        if not isinstance(getattr(reading, name), bool):
            yield f"{name} is True or False, not {_kind(getattr(reading, name))}"
    if not isinstance(reading.reason, str):
        yield f"reason is a text, not {_kind(reading.reason)}"
    if reading.weight is not None and not (_is_number(reading.weight) and 0 <= reading.weight <= 1):
        yield f"weight is None or a number from 0.0 to 1.0, not {_kind(reading.weight)}"
    if reading.took is not None and not (_is_number(reading.took) and reading.took >= 0):
        yield f"took is None or seconds, 0 or more, not {_kind(reading.took)}"
    if reading.slots is not None and not (_is_whole(reading.slots) and reading.slots >= 1):
        yield f"slots is None or a whole number, 1 or more, not {_kind(reading.slots)}"
    if not isinstance(reading.facts, Mapping):
        yield f"facts is a mapping, not {_kind(reading.facts)}"
        return
    facts: Mapping[Any, Any] = reading.facts
    for name, fact in islice(facts.items(), MOST_FACTS):
        if not isinstance(name, str) or not name.strip():
            yield f"a fact's name is a text, not {_kind(name)}"
        elif not _is_fact(fact):
            wanted = "a text, a number, True, False or a tuple of texts"
            yield f"the fact {one_line(name, MOST_NAME)} is {wanted}, not {_kind(fact)}"


def _is_fact(value: object) -> bool:
    if isinstance(value, tuple):
        return all(isinstance(text, str) for text in value)
    return isinstance(value, str | bool) or _is_number(value)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -MOST_NUMBER <= value < MOST_NUMBER


def _kind(value: object) -> str:
    """A value as it can be named in a sentence, however large it is and whatever its own ``repr`` does."""
    if value is None or isinstance(value, bool | float):
        return str(value)
    if isinstance(value, int):
        return str(value) if _is_whole(value) else "a huge number"
    if isinstance(value, str):
        return "an empty text" if not value else f"the text {one_line(value, MOST_NAME)!r}"
    return f"of the type {one_line(type(value).__name__, MOST_NAME)}"
