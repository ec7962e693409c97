"""Rounds that pause before another process goes on, that begin again where none did, and those of the process that went on."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from distbal.interfaces import Reading
from tests.watchers import DOWN, UP, Ground, ground


def down(one: Ground) -> None:
    """It is asked, and is down."""
    kind = one.kind()
    kind.answer = DOWN
    one.watch(kind, interval=10, fall=2, rise=2)
    one.go(25)
    assert not one.up()


def first(one: Ground) -> None:
    """The first check of the kind that was made last."""
    while not one.kinds[-1].times():
        one.go(0.1)


def test_nobody_is_asked_and_what_was_said_holds() -> None:
    with ground("a", "b") as one:
        down(one)
        (kind,) = one.kinds
        asked = len(kind.checks)
        assert one.rounds.suspend().called
        assert [monitor.stopped for monitor in kind.made] == [1, 1]
        one.go(5)
        assert len(kind.checks) == asked
        assert not one.up()
        assert list(one.rounds.states()) == []


def test_a_check_that_runs_is_broken_off() -> None:
    with ground() as one:
        kind = one.kind()
        kind.answer = check = Deferred[Reading]()
        one.watch(kind, interval=10)
        first(one)
        assert one.rounds.suspend().called
        assert check.called
        assert [monitor.stopped for monitor in kind.made] == [1]
        one.go(30)
        assert len(kind.checks) == 1
        assert one.leases.verdict("a", "told") is None


def test_they_begin_again_with_what_was_said() -> None:
    with ground() as one:
        down(one)
        one.rounds.suspend()
        kind = one.kind()
        one.watch(kind, interval=10, fall=2, rise=2)
        first(one)
        assert not one.up(), "one word more is not enough"
        one.go(11)
        assert one.up()


def test_what_an_earlier_process_heard_holds_until_enough_is_heard() -> None:
    with ground("a", "b") as one:
        one.leases.report("a", "told", up=False, reason="was broken", ttl=60)
        kind = one.kind()
        kind.answer = UP
        one.watch(kind, interval=10, fall=2, rise=2)
        assert not one.up()
        first(one)
        assert not one.up()
        one.go(11)
        assert one.up()
        assert one.up("b")


def test_what_an_earlier_process_heard_does_not_hold_for_ever() -> None:
    with ground() as one:
        one.leases.report("a", "told", up=False, reason="was broken", ttl=20)
        one.rounds.configure([])
        one.go(21)
        assert one.up()
