"""What is done again and again: it does not drift, and no bug ends it."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import formatEvent

from distbal.bugs import bugs
from distbal.periodic import Periodic
from tests.support import LoggedErrors


class Turns:
    def __init__(self, interval: float = 2.0) -> None:
        self.clock = Clock()
        self.clock.advance(100)
        self.at: list[float] = []
        self.late: list[float] = []
        self.fails = False
        self.periodic = Periodic(self.clock, interval, self.turn, "to count")

    def turn(self) -> None:
        self.at.append(self.clock.seconds() - 100)
        self.late.append(self.periodic.late)
        if self.fails:
            raise RuntimeError("a bug")


def test_it_is_done_at_equal_intervals_until_it_is_stopped() -> None:
    turns = Turns()
    assert not turns.periodic.running
    turns.periodic.start()
    turns.periodic.start()
    assert turns.periodic.running
    turns.clock.pump([0.5] * 16)
    assert turns.at == [2, 4, 6, 8]
    turns.periodic.stop()
    turns.periodic.stop()
    assert not turns.periodic.running
    turns.clock.pump([1] * 10)
    assert turns.at == [2, 4, 6, 8]
    assert turns.clock.getDelayedCalls() == []


def test_the_first_may_be_now() -> None:
    turns = Turns()
    turns.periodic.start(now=True)
    turns.clock.advance(2)
    assert turns.at == [0, 2]
    turns.periodic.stop()


def test_what_is_late_says_by_how_much_and_what_is_missed_is_left_out() -> None:
    turns = Turns()
    turns.periodic.start()
    turns.clock.advance(7.5)
    assert (turns.at, turns.late) == ([7.5], [5.5])
    turns.clock.advance(0.5)
    turns.clock.advance(2)
    assert (turns.at, turns.late) == ([7.5, 8, 10], [5.5, 0, 0])
    turns.periodic.stop()


def test_a_bug_ends_one_turn_is_logged_once_and_counted(logged_errors: LoggedErrors) -> None:
    turns = Turns()
    turns.periodic.start(now=True)
    turns.fails = True
    turns.clock.pump([2] * 5)
    turns.fails = False
    turns.clock.pump([2] * 2)
    assert turns.at == [0, 2, 4, 6, 8, 10, 12, 14]
    (event,) = logged_errors.flush()
    assert formatEvent(event) == "to count met a bug; the next turn comes"
    assert bugs.counts["periodic"] == 5
    turns.periodic.stop()


def test_one_that_stops_itself_has_stopped() -> None:
    turns = Turns()

    def last() -> None:
        turns.turn()
        turns.periodic.stop()

    turns.periodic = Periodic(turns.clock, 2.0, last, "to count once")
    turns.periodic.start()
    turns.clock.pump([1] * 9)
    assert turns.at == [2]
    assert turns.clock.getDelayedCalls() == []
