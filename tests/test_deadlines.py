"""Deadlines that are all equally far away: who is late, when that is told, and that one timer does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from distbal.bugs import bugs
from distbal.deadlines import Deadlines
from tests.support import LoggedErrors

#: how much later than due it may be told
SLACK = 0.05


class Watch:
    """Deadlines of three seconds, and when each was told to be late."""

    def __init__(self, then: Callable[[str], object] | None = None) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, float]] = []
        self.then = then
        self.deadlines: Deadlines[str] = Deadlines(self.clock, 3.0, self._late)

    def _late(self, item: str) -> None:
        self.told.append((item, self.clock.seconds()))
        if self.then is not None:
            self.then(item)

    def late(self) -> list[str]:
        return [item for item, _ in self.told]

    def pass_time(self, seconds: float) -> None:
        """In small steps, as a clock goes."""
        for _ in range(round(seconds * 50)):
            self.clock.advance(0.02)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_what_takes_too_long_is_told_once_and_forgotten(watch: Watch) -> None:
    watch.deadlines.add("a")
    watch.pass_time(2.9)
    assert (watch.late(), len(watch.deadlines)) == ([], 1)
    watch.pass_time(0.2)
    assert (watch.late(), len(watch.deadlines)) == (["a"], 0)
    watch.pass_time(10)
    assert watch.late() == ["a"]
    assert watch.clock.getDelayedCalls() == []


def test_what_is_over_in_time_is_not_told(watch: Watch) -> None:
    for item in "abc":
        watch.deadlines.add(item)
    watch.deadlines.discard("b")
    watch.deadlines.discard("never begun")
    watch.pass_time(3.1)
    assert watch.late() == ["a", "c"]


def test_each_is_told_at_its_own_time(watch: Watch) -> None:
    for item in "abc":
        watch.deadlines.add(item)
        watch.clock.advance(1)
    watch.pass_time(4)
    assert [item for item, _ in watch.told] == ["a", "b", "c"]
    for (_, told), due in zip(watch.told, (3, 4, 5), strict=True):
        assert due <= told <= due + SLACK


def test_who_begins_anew_has_all_the_time_again(watch: Watch) -> None:
    watch.deadlines.add("a")
    watch.deadlines.add("b")
    watch.pass_time(2)
    watch.deadlines.add("a")
    watch.pass_time(1.1)
    assert watch.late() == ["b"]
    watch.pass_time(2)
    assert watch.late() == ["b", "a"]


def test_however_many_there_are_one_timer_does(watch: Watch) -> None:
    for number in range(100):
        watch.deadlines.add(str(number))
        watch.clock.advance(0.01)
        watch.deadlines.discard(str(number - 1))
    assert len(watch.clock.getDelayedCalls()) == 1
    watch.pass_time(10)
    assert watch.late() == ["99"]


def test_one_that_is_late_and_begins_anew_does_not_keep_the_others_waiting() -> None:
    """As a session whose host did not answer, and which is connecting to the next."""
    watch = Watch()
    watch.then = lambda item: watch.deadlines.add(item) if item == "a" and len(watch.told) == 1 else None
    watch.deadlines.add("a")
    watch.clock.advance(1)
    watch.deadlines.add("b")
    watch.pass_time(2.1)
    assert watch.late() == ["a"]
    watch.pass_time(1)
    assert watch.late() == ["a", "b"]
    watch.pass_time(2.1)
    assert watch.late() == ["a", "b", "a"]
    assert watch.clock.getDelayedCalls() == []


def test_one_that_cannot_be_told_keeps_nobody_else_waiting(logged_errors: LoggedErrors) -> None:
    """A bug meets one session alone."""

    def fails(item: str) -> None:
        if item == "a":
            raise RuntimeError("a bug")

    watch = Watch(fails)
    for item in "abc":
        watch.deadlines.add(item)
    watch.clock.advance(3.1)
    assert watch.late() == ["a", "b", "c"]
    assert [event["log_failure"].type for event in logged_errors.flush()] == [RuntimeError]
    assert bugs.counts["periodic"] == 1
    watch.deadlines.add("d")
    watch.pass_time(3.1)
    assert watch.late() == ["a", "b", "c", "d"]
    assert watch.clock.getDelayedCalls() == []


def test_stop_forgets_all(watch: Watch) -> None:
    watch.deadlines.stop()
    watch.deadlines.add("a")
    watch.deadlines.stop()
    assert (len(watch.deadlines), watch.clock.getDelayedCalls()) == (0, [])
    watch.deadlines.add("b")
    watch.pass_time(3.1)
    assert watch.late() == ["b"]


STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "discard", "wait"]), st.sampled_from("abcd"), st.floats(0, 2)), min_size=1, max_size=30
)


@given(STEPS, st.sets(st.sampled_from("abcd")))
def test_whatever_happens_each_is_told_when_it_is_late_and_only_then(
    steps: list[tuple[str, str, float]], stubborn: set[str]
) -> None:
    """The stubborn ones begin anew when they are told that they are late."""
    watch = Watch()
    due: dict[str, float] = {}
    late: list[str] = []

    def begins(item: str) -> None:
        watch.deadlines.add(item)
        due[item] = watch.clock.seconds() + 3

    def is_late(item: str) -> None:
        assert due[item] <= watch.clock.seconds() <= due.pop(item) + SLACK
        late.append(item)
        if item in stubborn and late.count(item) < 3:
            begins(item)

    watch.then = is_late
    for step, item, seconds in steps:
        if step == "add":
            begins(item)
        elif step == "discard":
            watch.deadlines.discard(item)
            due.pop(item, None)
        else:
            watch.pass_time(seconds)
        assert len(watch.deadlines) == len(due)
    stubborn.clear()
    watch.pass_time(3.2)
    assert due == {}
    assert watch.clock.getDelayedCalls() == []
