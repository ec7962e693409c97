"""Answers that take long: made in spells, once for all who ask meanwhile, shown again for a while."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from distbal.briefports import DEAR, REST
from distbal.web.making import KEPT, Answers


class Work:
    """Pieces that take time, which is the clock's."""

    def __init__(self, clock: Clock, pieces: int, each: float, error: Exception | None = None) -> None:
        self.clock = clock
        self.number, self.each, self.error = pieces, each, error
        self.begun = 0

    def __call__(self) -> Iterator[bytes]:
        self.begun += 1
        for number in range(self.number):
            self.clock.rightNow += self.each
            yield b"%d," % number
        if self.error is not None:
            raise self.error


def result(waiter: Any) -> list[Any]:
    """What a Deferred will have come to, once it has."""
    assert isinstance(waiter, Deferred)
    got: list[Any] = []
    waiter.addBoth(got.append)
    return got


def whole(clock: Clock, waiter: Any) -> Any:
    """The same, when it has."""
    got = result(waiter)
    while not got:
        clock.advance(REST * DEAR)
    return got[0]


def test_a_quick_answer_is_there_at_once_and_made_anew_for_everybody() -> None:
    clock = Clock()
    answers, work = Answers(clock, clock.seconds), Work(clock, 3, DEAR / 10)
    assert answers.get("a", work) == answers.get("a", work) == b"0,1,2,"
    assert work.begun == 2
    assert clock.getDelayedCalls() == []


def test_one_that_took_long_is_shown_again_for_a_while() -> None:
    clock = Clock()
    answers, work = Answers(clock, clock.seconds), Work(clock, 3, 0.4 * DEAR)
    assert whole(clock, answers.get("a", work)) == b"0,1,2,"
    assert answers.get("a", work) == b"0,1,2,"
    assert work.begun == 1
    clock.advance(REST * 1.3 * DEAR)
    assert whole(clock, answers.get("a", work)) == b"0,1,2,"
    assert work.begun == 2


def test_a_long_one_is_made_in_spells_with_rests_and_once_for_all_who_ask() -> None:
    clock = Clock()
    answers, work = Answers(clock, clock.seconds), Work(clock, 10, 2 * DEAR)
    first, second = result(answers.get("a", work)), result(answers.get("a", work))
    began = clock.seconds()
    spells = 0
    while not first:
        (call,) = clock.getDelayedCalls()
        assert call.getTime() - clock.seconds() == pytest.approx(REST * 2 * DEAR)
        clock.advance(call.getTime() - clock.seconds())
        spells += 1
    assert first == second == [b"".join(b"%d," % number for number in range(10))]
    assert work.begun == 1
    assert spells >= 9
    assert clock.seconds() - began > 9 * REST * 2 * DEAR
    assert clock.getDelayedCalls() == []
    # and it is kept
    assert answers.get("a", work) == first[0]


def test_several_take_turns_and_a_short_one_does_not_wait_for_a_long_one_to_end() -> None:
    clock = Clock()
    answers = Answers(clock, clock.seconds)
    long = result(answers.get("long", Work(clock, 100, 2 * DEAR)))
    short = result(answers.get("short", Work(clock, 1, DEAR / 10)))
    assert short == []
    for _ in range(2):
        clock.advance(REST * 2 * DEAR)
        clock.advance(0)
    assert short == [b"0,"]
    assert long == []
    answers.stop()
    assert clock.getDelayedCalls() == []


def test_whoever_leaves_is_not_waited_for() -> None:
    clock = Clock()
    answers = Answers(clock, clock.seconds)
    work = Work(clock, 100, 2 * DEAR)
    waiter = answers.get("a", work)
    got = result(waiter)
    assert isinstance(waiter, Deferred)
    waiter.cancel()
    got[0].trap(CancelledError)
    clock.advance(REST * 2 * DEAR)
    clock.advance(REST * 2 * DEAR)
    assert clock.getDelayedCalls() == []
    # and whoever asks now begins anew
    result(answers.get("a", work))
    assert work.begun == 2
    answers.stop()


def test_an_error_reaches_all_who_wait_and_nothing_of_it_is_kept() -> None:
    clock = Clock()
    answers = Answers(clock, clock.seconds)
    work = Work(clock, 2, 2 * DEAR, ValueError("no"))
    waiting = [result(answers.get("a", work)) for _ in range(2)]
    while clock.getDelayedCalls():
        clock.advance(REST * 2 * DEAR)
    for (failure,) in waiting:
        failure.trap(ValueError)
    quick = Work(clock, 0, 0, ValueError("at once"))
    with pytest.raises(ValueError, match="at once"):
        answers.get("b", quick)
    assert clock.getDelayedCalls() == []


def test_few_are_kept() -> None:
    clock = Clock()
    answers = Answers(clock, clock.seconds)
    works = [Work(clock, 1, 2 * DEAR) for _ in range(KEPT + 1)]
    for number, work in enumerate(works):
        assert whole(clock, answers.get(number, work)) == b"0,"
    clock.rightNow = 0.0  # none has had its time
    for number in (1, KEPT):
        assert answers.get(number, works[number]) == b"0,"
        assert works[number].begun == 1
    got = answers.get(0, works[0])
    assert isinstance(got, Deferred)
    answers.stop()
