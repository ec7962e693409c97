"""Monitors that break their contract, and those that are slow to end: what rounds make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn

import pytest
from twisted.internet.defer import Deferred, succeed

from distbal.errors import MonitorTrouble
from distbal.interfaces import Fact, Reading
from tests.services import Lines
from tests.test_rounds import SILENT, gaps
from tests.watchers import PROOF, UP, Ground, Kind, Monitor, counter, ground


class Rigged(Mapping[str, Fact]):
    """A mapping that raises when it is looked at."""

    def __getitem__(self, name: str) -> NoReturn:
        raise RuntimeError("rigged")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("rigged")

    def __len__(self) -> int:
        return 1


class Unspeakable(MonitorTrouble):
    """Trouble whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("rigged")


def leaves() -> NoReturn:
    """What a parser of arguments does that is not content with them."""
    raise SystemExit(2)


class Halved(Monitor):
    """A monitor whose author has forgotten how it ends."""

    @property
    def stop(self) -> NoReturn:
        raise AttributeError("there is no stop")


@pytest.mark.parametrize("answer", [Reading(up=True, facts=Rigged()), Unspeakable(), leaves])
def test_answers_that_cannot_be_looked_at_are_bugs_and_hold_nobody_up(answer: object) -> None:
    with ground("a", "b") as one, Lines():
        kind = one.kind(most_at_once=1)
        kind.answers["a"] = answer
        one.watch(kind, interval=1)
        one.go(100)
        state = one.state("a")
        assert state.bugs == state.checks == 4
        assert "met a bug" in state.trouble
        assert len(kind.times("b")) > 90


def test_trouble_without_words_is_told_once() -> None:
    with ground() as one, Lines() as lines:
        kind = one.kind()
        kind.answer = MonitorTrouble("")
        one.watch(kind, interval=1)
        one.go(10)
        assert one.state().trouble == "could not be asked, and its monitor does not say why"
        assert len(lines.of("warn")) == 1


def test_a_monitor_that_cannot_even_be_stopped_harms_nobody() -> None:
    with ground("a", "b") as one, Lines() as lines:
        kind = one.kind()
        one.watch(kind, interval=1)
        one.go(3)
        for monitor in kind.made:
            monitor.__class__ = Halved
        one.watch(kind, "b", interval=1)
        assert [state.host for state in one.rounds.states()] == ["b"]
        assert "the monitor told of a could not be stopped: AttributeError: there is no stop" in lines


def broken_canceller(one: Ground, **traits: object) -> Kind:
    """A kind whose checks can be neither awaited nor cancelled."""

    def broken(_: Deferred[Reading]) -> None:
        raise RuntimeError("in the canceller")

    kind = one.kind(**traits)
    kind.answer = lambda: Deferred(broken)
    return kind


def test_a_canceller_that_raises_is_one_bug_and_no_silence() -> None:
    with ground() as one:
        kind = broken_canceller(one, most_at_once=1, **SILENT)
        one.watch(kind, interval=1, timeout=1, fall=1)
        one.go(10)
        state = one.state()
        assert (state.checks, state.bugs, state.late, state.failed) == (1, 1, 1, 0)
        assert state.trouble == "met a bug: RuntimeError: in the canceller"
        one.go(10)
        assert [round(gap, -1) for gap in gaps(kind.times())] == [10]


def test_a_canceller_that_raises_when_its_monitor_goes_is_no_verdict() -> None:
    with ground() as one:
        kind = broken_canceller(one, most_at_once=1)
        one.watch(kind, interval=1, timeout=60, fall=1, required=True)
        one.go(3)
        one.rounds.configure([])
        assert one.up()
        assert [monitor.stopped for monitor in kind.made] == [1]
        kind.answer = UP
        one.watch(kind, interval=1)
        one.go(2)
        assert one.state().checks > 0, "its place is free again"


def test_a_required_monitor_that_only_has_bugs_keeps_its_host_down_through_its_pauses() -> None:
    with ground() as one:
        kind = one.kind()
        kind.answer = counter(UP, RuntimeError("of its own making"))
        one.watch(kind, interval=10, timeout=3, fall=3, required=True)
        one.go(100)
        assert not one.up()
        for _ in range(400):
            one.go(10, step=1)
            assert not one.up()
        assert one.state().bugs > 8


def test_what_was_said_before_a_bug_expires_as_ever_where_it_is_not_required() -> None:
    with ground() as one:
        kind = one.kind()
        kind.answer = counter(PROOF, RuntimeError("of its own making"))
        one.watch(kind, interval=10, timeout=3)
        one.go(11)
        assert not one.up()
        one.go(35)
        assert one.up()


# -- checks that end late


def slow_to_end(one: Ground, **traits: object) -> tuple[Kind, list[Deferred[Reading]]]:
    """A kind whose checks end when a test says so, however they were cancelled."""
    running: list[Deferred[Reading]] = []

    def begin() -> Deferred[Reading]:
        outer: Deferred[Reading] = succeed(UP)
        inner: Deferred[Reading] = Deferred()
        inner.cancel = lambda: None  # type: ignore[method-assign]
        running.append(inner)
        return outer.addCallback(lambda _: inner)

    kind = one.kind(**traits)
    kind.answer = begin
    return kind, running


def test_a_monitor_is_stopped_when_its_last_check_has_ended() -> None:
    with ground() as one:
        kind, running = slow_to_end(one)
        one.watch(kind, interval=10, timeout=60)
        one.go(11)
        one.rounds.configure([])
        assert [monitor.stopped for monitor in kind.made] == [0]
        running[0].callback(PROOF)
        assert [monitor.stopped for monitor in kind.made] == [1]
        assert one.up(), "what a check says whose monitor has gone is not heard"


def test_a_monitor_whose_last_check_does_not_end_is_stopped_all_the_same() -> None:
    with ground() as one:
        kind, _ = slow_to_end(one)
        one.watch(kind, interval=10, timeout=60)
        one.go(11)
        one.rounds.configure([])
        one.go(5.2)
        assert [monitor.stopped for monitor in kind.made] == [1]


@pytest.mark.parametrize("overdue", [False, True])
def test_the_end_waits_for_checks_that_are_slow_to_end(overdue: bool) -> None:
    with ground() as one:
        kind, running = slow_to_end(one)
        one.watch(kind, interval=10, timeout=1 if overdue else 60)
        one.go(11.2)
        assert one.state().late == overdue
        over = one.rounds.stop()
        assert (over.called, kind.made[0].stopped) == (False, 0)
        running[0].callback(UP)
        assert (over.called, kind.made[0].stopped) == (True, 1)


def test_the_end_does_not_wait_for_ever_for_a_check() -> None:
    with ground() as one:
        kind, _ = slow_to_end(one)
        one.watch(kind, interval=10, timeout=60)
        one.go(11)
        over = one.rounds.stop()
        one.clock.advance(5.1)
        assert (over.called, kind.made[0].stopped) == (True, 1)


def test_who_begins_anew_waits_for_the_last_check_of_its_predecessor() -> None:
    with ground() as one:
        kind, running = slow_to_end(one)
        one.watch(kind, interval=1, timeout=60)
        one.go(3)
        one.watch(kind, interval=2, timeout=60)
        one.go(3)
        assert len(running) == 1
        running[0].callback(UP)
        assert len(running) == 2


# -- two of one kind


def test_two_of_one_kind_never_ask_one_host_at_once() -> None:
    with ground("a", "b") as one:
        kind = one.kind(most_at_once=3)
        running: list[str] = []

        def begin() -> Deferred[Reading]:
            host, _ = kind.checks[-1]
            assert host not in running
            running.append(host)
            check: Deferred[Reading] = Deferred()

            def end() -> None:
                running.remove(host)
                check.callback(UP)

            one.clock.callLater(1, end)
            return check

        kind.answer = begin
        one.watch(kind, interval=4, timeout=60, sources=("disk", "load", "users"))
        one.go(100)
        # each of them has its turn, and the hosts do not wait for each other
        assert all(state.checks >= 20 for state in one.rounds.states())


def test_who_waits_for_its_turn_and_goes_is_not_begun() -> None:
    with ground() as one:
        kind = one.kind()
        answer: Deferred[Reading] = Deferred()
        kind.answer = counter(UP)
        kind.answers["a"] = lambda: answer if len(kind.checks) == 1 else counter(UP)()
        one.watch(kind, interval=10, timeout=60, sources=("disk", "load"))
        one.go(12)
        assert len(kind.checks) == 1
        (first,) = [state.source for state in one.rounds.states() if state.checks]
        one.watch(kind, interval=10, timeout=60, sources=(first,))
        answer.callback(UP)
        assert len(kind.checks) == 1
        one.go(12)
        assert len(kind.checks) == 2
