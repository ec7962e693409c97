"""Text for terminals: widths, cuts, durations, and nothing that a terminal would obey."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distbal.columns import (
    PLAIN,
    RED,
    age,
    bar,
    coloured,
    cut,
    day_and_time,
    finished,
    padded,
    place,
    safe,
    size,
    table,
    width_of,
)
from tests.reports import texts


def test_columns_line_up_by_their_width_on_the_screen() -> None:
    assert table(("NAME", "N", "WHY"), [("宽宽", "7", "a\tb"), ("abcdef", "12345", "")], right=(1,)) == [
        "NAME        N  WHY",
        "宽宽        7  a?b",
        "abcdef  12345",
    ]


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("abcdef", None, "abcdef"),
        ("abcdef", 6, "abcdef"),
        ("abcdef", 5, "ab..."),
        ("abcdef", 3, "..."),
        ("abcdef", 1, "."),
        ("abcdef", 0, ""),
        ("宽宽宽", 5, "宽..."),
        ("宽宽宽", 6, "宽宽宽"),
        ("e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"),
    ],
)
def test_cuts(text: str, width: int | None, shown: str) -> None:
    assert cut(text, width) == shown


@given(texts, st.integers(0, 40))
def test_nothing_is_wider_than_it_may_be_nor_obeyed(text: str, width: int) -> None:
    shown = cut(safe(text), width)
    assert width_of(shown) <= width
    assert shown.isprintable()
    assert safe(safe(text)) == safe(text)
    assert width_of(padded(shown, 40)) == 40
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in shown)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0.0s"),
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (192, "3m12s"),
        (3599.9, "1h00m"),
        (7500, "2h05m"),
        (273600, "3d4h"),
    ],
)
def test_ages(seconds: float, shown: str) -> None:
    assert age(seconds) == shown


def test_bars_are_full_only_where_nothing_is_free() -> None:
    assert [bar(used, 100) for used in (0, 1, 50, 99, 100, 120)] == [
        "[..........]",
        "[#.........]",
        "[#####.....]",
        "[#########.]",
        "[##########]",
        "[##########]",
    ]


def test_sizes_clients_and_moments() -> None:
    assert [size(number) for number in (0, 1023, 1536, 5 << 20, 1023 << 10, 3 << 60)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5.0 MiB",
        "1.0 MiB",
        "3072.0 PiB",
    ]
    assert [place("10.0.0.9", 4711), place("fd00::9", 4711), place("fd00::9", 0), place("", 0)] == [
        "10.0.0.9:4711",
        "[fd00::9]:4711",
        "[fd00::9]",
        "local",
    ]
    assert day_and_time(1e30) == "?"
    assert len(day_and_time(1764230000.5)) == 19


def test_only_what_is_coloured_here_has_colour() -> None:
    assert finished([coloured("\x1b[2Jdown for good", RED, 8), f"{RED}mine{PLAIN}"], 10) == (
        f"{RED}?[2Jd...{PLAIN}\n?[31mmi...\n"
    )
