"""What takes long is done in spells, with rests, and each of many has its turn."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from distbal.spells import SPELL, Spells, Steps, at_once
from distbal.verbs import VerbError


class Work:
    """Work whose every step takes two fifths of a spell."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.cpu = 0.0
        self.steps = 0
        self.spells = Spells(self.clock, lambda: self.cpu)

    def of(self, number: int) -> Steps[int]:
        for _ in range(number):
            self.cpu += SPELL * 0.4
            self.steps += 1
            yield
        return number


def test_after_a_spell_there_is_a_rest_as_long() -> None:
    work = Work()
    found: list[int] = []
    work.spells.do(work.of(7)).addCallback(found.append)
    assert work.steps == 0
    for steps in (3, 6, 7):
        work.clock.advance(SPELL)
        assert work.steps == steps
    assert found == [7]
    assert work.clock.getDelayedCalls() == []


def test_a_short_one_need_not_wait_for_a_long_one() -> None:
    work = Work()
    found: list[int] = []
    long = work.spells.do(work.of(100))
    work.spells.do(work.of(1)).addCallback(found.append)
    work.clock.advance(0)
    work.clock.advance(SPELL)
    assert found == [1]
    long.addErrback(lambda failure: found.append(0))
    work.spells.stop()
    assert found == [1, 0]


def test_what_goes_wrong_is_told() -> None:
    work = Work()

    def wrong() -> Steps[int]:
        yield
        raise ValueError("no")

    failed: Deferred[int] = work.spells.do(wrong())
    work.clock.advance(0)
    errors: list[object] = []
    failed.addErrback(lambda failure: errors.append(failure.type))
    stopped = work.spells.do(work.of(9))
    work.spells.stop()
    stopped.addErrback(lambda failure: errors.append(failure.type))
    assert errors == [ValueError, VerbError]
    assert work.clock.getDelayedCalls() == []
    with pytest.raises(ValueError, match="no"):
        at_once(wrong())
    assert at_once(work.of(3)) == 3


def test_all_that_are_on_their_way_hear_of_the_end_and_may_be_cancelled_after_it() -> None:
    work = Work()
    told: list[object] = []
    several = [work.spells.do(work.of(9)) for _ in range(5)]
    for one in several:
        one.addErrback(lambda failure: told.append(failure.type))
    work.clock.advance(0)
    work.spells.stop()
    assert told == [VerbError] * 5
    for one in several:
        one.cancel()
    work.spells.do(work.of(1)).addErrback(lambda failure: told.append(failure.type))
    assert told == [VerbError] * 6


def test_one_that_is_cancelled_is_not_gone_on_with() -> None:
    work = Work()
    told: list[object] = []
    one = work.spells.do(work.of(9))
    one.addErrback(lambda failure: told.append(failure.type))
    work.clock.advance(0)
    one.cancel()
    work.clock.advance(1)
    assert (told, work.steps) == ([CancelledError], 3)
