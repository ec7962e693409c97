"""Complaints about strangers: the first are told, the rest counted, and nobody fills a disk or the memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, LogLevel, capturedLogs, formatEvent

from distbal.complaints import BURST, PERIOD, Complaints


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def complain(clock: Clock) -> Complaints:
    return Complaints(Logger("distbal.strangers"), clock.seconds)


def texts(events: Sequence[LogEvent]) -> list[str | None]:
    return [formatEvent(event) for event in events]


def test_a_complaint_is_a_warning_with_fields(complain: Complaints) -> None:
    with capturedLogs() as events:
        complain("{address} said {what}", address="10.0.0.9", what="boo")
    (event,) = events
    assert formatEvent(event) == "10.0.0.9 said boo"
    assert (event["log_level"], event["address"], event["log_namespace"]) == (LogLevel.warn, "10.0.0.9", "distbal.strangers")


def test_what_strangers_say_is_no_format(complain: Complaints) -> None:
    with capturedLogs() as events:
        complain("{address} said {what}", address="10.0.0.9", what="{address!r} {nothing}")
    assert texts(events) == ["10.0.0.9 said {address!r} {nothing}"]


def test_a_flood_is_ten_lines_and_a_number(complain: Complaints, clock: Clock) -> None:
    with capturedLogs() as events:
        for number in range(5000):
            complain("{number} is at the door", number=number)
            clock.advance(PERIOD / 5001)
    assert len(events) == BURST == 10
    assert texts(events)[:2] == ["0 is at the door", "1 is at the door"]
    assert texts(events)[-1] == "9 is at the door (more of these within a minute are only counted)"
    clock.advance(8 * 3600)
    with capturedLogs() as events:
        complain("{number} is at the door", number=5000)
        complain("{number} is at the door", number=5001)
    # long after: so "in the last minute" would be a lie
    assert texts(events) == ["5000 is at the door (and 4990 more like this before)", "5001 is at the door"]
    assert events[0]["suppressed"] == 4990


def test_ten_a_minute_are_all_told(complain: Complaints, clock: Clock) -> None:
    with capturedLogs() as events:
        for _ in range(3):
            for _ in range(BURST):
                complain("knock")
            clock.advance(PERIOD)
        complain("knock")
    assert len(events) == 3 * BURST + 1
    assert all(event["suppressed"] == 0 for event in events)


def test_a_new_period_begins_with_the_first_complaint_after_the_old_one(complain: Complaints, clock: Clock) -> None:
    with capturedLogs() as events:
        for _ in range(BURST + 3):
            complain("knock")
        clock.advance(PERIOD - 0.1)
        complain("knock")
        assert len(events) == BURST, "still the same minute"
        clock.advance(0.1)
        for _ in range(BURST + 1):
            complain("knock")
    assert len(events) == 2 * BURST
    assert events[BURST]["suppressed"] == 4
    assert [event["suppressed"] for event in events[BURST + 1 :]] == [0] * (BURST - 1)


def test_kinds_are_counted_apart(complain: Complaints) -> None:
    with capturedLogs() as events:
        for number in range(100):
            complain("one {number}", number=number)
        complain("another {number}", number=100)
    assert len(events) == BURST + 1
    assert texts(events)[-1] == "another 100"


def test_strangers_do_not_grow_the_memory(complain: Complaints, clock: Clock) -> None:
    """The kind is the format, which the code names; however many addresses and words come in, it is one kind."""
    with capturedLogs():
        for number in range(1000):
            complain("{address} said {what}", address=f"10.0.{number // 256}.{number % 256}", what="x" * number)
            complain("{address} is a stranger", address=f"10.0.{number // 256}.{number % 256}")
            clock.advance(1)
    assert len(complain._kinds) == 2
