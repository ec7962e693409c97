"""Bugs: each is counted, the first of a kind is logged in full, and however many follow, the log has a line a minute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock
from twisted.logger import formatEvent
from twisted.python.failure import Failure

from distbal.bugs import MOST_KNOWN, PERIOD, PLACES, Bugs, signature
from distbal.logs import Logger
from tests.support import LoggedErrors

LOG = Logger(namespace="distbal.tested")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bugs(clock: Clock) -> Bugs:
    return Bugs(clock.seconds)


def one_bug() -> None:
    raise ValueError("one")


def another_bug() -> None:
    raise ValueError("another")


def meet(bugs: Bugs, what: Callable[[], None], times: int = 1) -> None:
    for number in range(times):
        with bugs.survived("connection", LOG, "connection {number} is ended", number=number):
            what()


def texts(errors: LoggedErrors) -> list[str]:
    return [str(formatEvent(event)) for event in errors.flush()]


def test_a_bug_ends_the_block_alone_and_is_logged_with_its_context(bugs: Bugs, logged_errors: LoggedErrors) -> None:
    meet(bugs, one_bug)
    (event,) = logged_errors.flush()
    assert event["log_failure"].value.args == ("one",)
    assert "one_bug" in event["log_failure"].getTraceback()
    assert formatEvent(event) == "connection 0 is ended"
    assert event["log_namespace"] == "distbal.tested"
    assert bugs.counts == {place: int(place == "connection") for place in PLACES}


def test_a_thousand_connections_that_meet_one_bug_write_one_traceback(
    bugs: Bugs, clock: Clock, logged_errors: LoggedErrors
) -> None:
    meet(bugs, one_bug, 1000)
    assert len(logged_errors.flush()) == 1
    assert bugs.counts["connection"] == 1000
    bugs.tell()
    assert logged_errors.flush() == []
    clock.advance(PERIOD)
    meet(bugs, one_bug, 500)
    (line,) = texts(logged_errors)
    assert line.startswith("the same bug as before, 1000 times more in the last 60 s (connection): ValueError at ")
    assert "test_bugs.py:" in line
    clock.advance(PERIOD - 1)
    bugs.tell()
    assert logged_errors.flush() == []
    clock.advance(1)
    bugs.tell()
    (line,) = texts(logged_errors)
    assert "499 times more" in line
    clock.advance(PERIOD)
    bugs.tell()
    assert logged_errors.flush() == []
    assert bugs.counts["connection"] == 1500


def test_another_bug_and_the_same_elsewhere_are_news(bugs: Bugs, logged_errors: LoggedErrors) -> None:
    meet(bugs, one_bug, 3)
    meet(bugs, another_bug, 3)
    with bugs.survived("page", LOG, "a page"):
        one_bug()
    assert texts(logged_errors) == ["connection 0 is ended", "connection 0 is ended", "a page"]


def test_one_that_is_handed_over(bugs: Bugs, logged_errors: LoggedErrors) -> None:
    bugs.met("command", LOG, "{verb} could not be done", Failure(RuntimeError("told")), verb="drain")  # type: ignore[no-untyped-call]
    (event,) = logged_errors.flush()
    assert (formatEvent(event), event["log_failure"].type) == ("drain could not be done", RuntimeError)


def test_what_is_no_bug_is_let_through(bugs: Bugs) -> None:
    with pytest.raises(KeyboardInterrupt), bugs.survived("page", LOG, "a page"):
        raise KeyboardInterrupt
    assert bugs.counts["page"] == 0


def test_however_many_bugs_there_are_memory_and_log_are_bounded(bugs: Bugs, logged_errors: LoggedErrors) -> None:
    for line in range(3 * MOST_KNOWN):
        # each raised in a line of its own
        code = compile("\n" * line + "raise ValueError", "many.py", "exec")
        with bugs.survived("command", LOG, "a command"):
            exec(code)  # noqa: S102
    assert len(logged_errors.flush()) == MOST_KNOWN + 1
    assert bugs.counts["command"] == 3 * MOST_KNOWN


def test_begin_forgets_all(bugs: Bugs, logged_errors: LoggedErrors) -> None:
    meet(bugs, one_bug, 2)
    bugs.begin()
    meet(bugs, one_bug)
    assert len(logged_errors.flush()) == 2
    assert bugs.counts["connection"] == 1


def test_a_signature_names_the_place_and_the_line_of_ours_that_led_there() -> None:
    from distbal import wire

    try:
        wire.parse_status(None)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001
        told = signature(Failure())  # type: ignore[no-untyped-call]
    assert " at distbal/wire.py:" in told
    assert signature(Failure(ValueError())) == "ValueError at nowhere"  # type: ignore[no-untyped-call]
