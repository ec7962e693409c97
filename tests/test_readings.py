"""What monitors answer is looked at, and made fit to be shown: nonsense is told in words, and nothing of it gets through."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.hostspec import MOST_SLOTS
from distbal.interfaces import Reading
from distbal.monitors.readings import (
    MOST_FACTS,
    MOST_NAME,
    MOST_REASON,
    MOST_TEXT,
    MOST_TEXTS,
    one_line,
    tidy,
    validate_reading,
)


@pytest.mark.parametrize(
    "reading",
    [
        Reading(up=True),
        Reading(up=False, reason="refused the connection", certain=True),
        Reading(up=True, weight=0, took=0, slots=1),
        Reading(up=True, weight=1.0, took=0.25, slots=64),
        Reading(
            up=True, facts={"load": 0.5, "cpus": 4, "busy": False, "system": "Linux", "compilers": ("gcc", "clang"), "none": ()}
        ),
        Reading(up=True, facts=MappingProxyType({"load": -1})),
    ],
)
def test_good_ones_are_left_alone(reading: Reading) -> None:
    assert validate_reading(reading) == []
    assert tidy(reading) == reading


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"up": 1}, "up is True or False, not 1"),
        ({"up": None}, "up is True or False, not None"),
        ({"up": "down"}, "up is True or False, not the text 'down'"),
        ({"certain": 0}, "certain is True or False, not 0"),
        ({"reason": b"idle"}, "reason is a text, not of the type bytes"),
        ({"reason": None}, "reason is a text, not None"),
        ({"weight": float("nan")}, "weight is None or a number from 0.0 to 1.0, not nan"),
        ({"weight": 1.01}, "weight is None or a number from 0.0 to 1.0, not 1.01"),
        ({"weight": -0.1}, "weight is None or a number from 0.0 to 1.0, not -0.1"),
        ({"weight": True}, "weight is None or a number from 0.0 to 1.0, not True"),
        ({"weight": "0.5"}, "weight is None or a number from 0.0 to 1.0, not the text '0.5'"),
        ({"took": float("inf")}, "took is None or seconds, 0 or more, not inf"),
        ({"took": -1}, "took is None or seconds, 0 or more, not -1"),
        ({"slots": 0}, "slots is None or a whole number, 1 or more, not 0"),
        ({"slots": 4.0}, "slots is None or a whole number, 1 or more, not 4.0"),
        ({"slots": True}, "slots is None or a whole number, 1 or more, not True"),
        ({"slots": 10**5000}, "slots is None or a whole number, 1 or more, not a huge number"),
        ({"facts": None}, "facts is a mapping, not None"),
        ({"facts": [("load", 1)]}, "facts is a mapping, not of the type list"),
        ({"facts": {1: "load"}}, "a fact's name is a text, not 1"),
        ({"facts": {"": "load"}}, "a fact's name is a text, not an empty text"),
        ({"facts": {"\n": "load"}}, "a fact's name is a text, not the text ''"),
        ({"facts": {"load": None}}, "the fact load is a text, a number, True, False or a tuple of texts, not None"),
        ({"facts": {"load": float("nan")}}, "the fact load is a text, a number, True, False or a tuple of texts, not nan"),
        ({"facts": {"l\n": ["a"]}}, "the fact l is a text, a number, True, False or a tuple of texts, not of the type list"),
        (
            {"facts": {"load": ("a", 1)}},
            "the fact load is a text, a number, True, False or a tuple of texts, not of the type tuple",
        ),
    ],
)
def test_each_nonsense_has_its_sentence(wrong: dict[str, Any], said: str) -> None:
    assert validate_reading(Reading(**({"up": True} | wrong))) == [said]


@pytest.mark.parametrize("answer", [None, True, "up", {"up": True}, Reading])
def test_what_is_no_reading(answer: object) -> None:
    [said] = validate_reading(answer)
    assert said.startswith("a Reading is wanted, not ")


def test_all_mistakes_are_told_and_not_a_thousand() -> None:
    assert len(validate_reading(Reading(up=1, weight=2, slots=0))) == 3  # type: ignore[arg-type]
    facts = {f"fact{number}": None for number in range(1000)}
    assert len(validate_reading(Reading(up=True, facts=facts))) == 10  # type: ignore[arg-type]


def test_one_that_says_too_much_is_cut() -> None:
    reading = tidy(
        Reading(
            up=True,
            reason="x" * 1_000_000,
            facts={f"{number:050}": "y" * 1_000_000 for number in range(5)}
            | {f"{number}": ("z" * 999,) * 999 for number in range(99)},
        )
    )
    assert reading.reason == "x" * (MOST_REASON - 3) + "..."
    assert len(reading.facts) <= MOST_FACTS
    assert all(len(name) <= MOST_NAME for name in reading.facts)
    assert reading.facts["0"] == ("z" * (MOST_TEXT - 3) + "...",) * MOST_TEXTS
    assert len(json.dumps(reading.facts)) < MOST_FACTS * MOST_TEXTS * (MOST_TEXT + 10)


def test_numbers_are_of_one_type() -> None:
    reading = tidy(Reading(up=True, weight=1, took=2, slots=10**9))
    assert (type(reading.weight), type(reading.took), reading.slots) == (float, float, MOST_SLOTS)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        (" idle ", "idle"),
        ("two\r\nlines\tand\x00more", "two lines and?more"),
        ("\x1b[31mred", "?[31mred"),
        ("na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve", "na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve"),
        ("\ud800", "?"),
        ("0123456789", "0123456789"),
        ("0123456789a", "0123456..."),
        ("\n" * 500, ""),
    ],
)
def test_one_line(text: str, line: str) -> None:
    assert one_line(text, 10 if len(text) < 12 else 40) == line


@given(st.text(max_size=300), st.integers(4, 50))
def test_any_text_becomes_a_line(text: str, most: int) -> None:
    line = one_line(text, most)
    assert len(line) <= most
    assert line.isprintable()
    assert one_line(line, most) == line
    line.encode()
