"""What takes long is done in spells, with rests, and each of many has its turn."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
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
