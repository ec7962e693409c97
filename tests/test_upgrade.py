"""The steps of an upgrade: in which order, one at a time, and what goes on when one of them comes to nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from distbal import __version__
from distbal.errors import DistbalError
from distbal.execing import Command, HeldSignals, Start, UpgradeError
from distbal.trying import Trying, Verdict
from distbal.upgrade import LONGEST_LEAVE, LONGEST_SAVE, Going, HandsOver, Upgrader
from tests.services import Lines
from tests.support import LoggedErrors

START = Start(sys.executable, (), ("/bin/twistd",), ("-n", "distbal"), True, "/srv", 0o22)
YES = Verdict("0.6.0")


class Reactor(Clock):
    """A clock that can be called from a signal's handler."""

    def callFromThread(self, call: Callable[[], object]) -> None:
        self.callLater(0, call)


class Trial:
    """A trial whose end the test decides."""

    def __init__(self) -> None:
        self.verdict: Deferred[Verdict] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def when_gone(self) -> Deferred[None]:
        return self.gone


class House:
    """A service that hands over, whoever tries the new code for it, and what is exec'd: all are told what to do by the test.

    :ivar steps: what was asked for, in its order.
    :ivar waits: steps that are waited for, by name; the others are done at once.
    :ivar fails: steps that raise, by name.
    """

    def __init__(self, start: Start | UpgradeError = START) -> None:
        self.reactor = Reactor()
        self.steps: list[str] = []
        self.waits: dict[str, Deferred[Any]] = {}
        self.fails: dict[str, Exception] = {}
        self.trials: list[Trial] = []
        self.noted: list[str] = []
        self.troubles: list[str] = []
        self.execs: list[tuple[Command, Mapping[str, str], Sequence[int]]] = []
        self.masked: set[int] = set()
        self.upgrader = Upgrader(
            self.reactor,
            cast("HandsOver", self),
            start,
            "/srv/hosts.yaml",
            by_signal=self.noted.append,
            tried=self.troubles.append,
            try_out=cast("Callable[[Any, Start, str, tuple[int, int]], Trying]", self.try_out),
            replace=self.replace,  # type: ignore[arg-type]
        )

    def ask(self) -> list[Any]:
        """Ask for an upgrade; what comes of it will be in the list."""
        came: list[Any] = []
        self.upgrader.upgrade().addBoth(came.append)
        return came

    def turn(self, number: int = 1) -> None:
        for _ in range(number):
            self.reactor.advance(0)

    def _step(self, name: str) -> Deferred[Any]:
        self.steps.append(name)
        if name in self.fails:
            raise self.fails[name]
        return self.waits[name] if name in self.waits else succeed("")

    # -- the service

    def copy_of_the_ledger(self) -> tuple[int, int]:
        self._step("copy")
        return os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)

    def prepare_to_hand_over(self) -> Deferred[None]:
        return self._step("prepare")

    def saved(self) -> Deferred[str]:
        return self._step("saved")

    def take_leave(self) -> Deferred[None]:
        return self._step("leave")

    def hand_over(self) -> tuple[Mapping[str, str], Sequence[int]]:
        self._step("hand over")
        return {"DISTBAL_HANDOVER": "x"}, [3, 4]

    def go_on(self) -> None:
        self._step("go on")

    # -- the trial, and the exec

    def try_out(self, reactor: Any, start: Start, path: str, ledger: tuple[int, int]) -> Trial:
        assert (reactor, start, path) == (self.reactor, START, "/srv/hosts.yaml")
        self._step("try")
        for one in ledger:
            os.fstat(one)
        self.trials.append(Trial())
        return self.trials[-1]

    def replace(self, new: Command, variables: Mapping[str, str], fds: Sequence[int], held: HeldSignals) -> None:
        self._step("exec")
        self.masked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.execs.append((new, variables, fds))


ALL = ["copy", "try", "prepare", "saved", "leave", "hand over", "exec"]


def error_of(came: list[Any]) -> str:
    (failure,) = came
    assert isinstance(failure, Failure)
    assert isinstance(failure.value, UpgradeError)
    return str(failure.value)


def logged(errors: LoggedErrors) -> list[str]:
    return [event["log_format"].format(**event) for event in errors.flush()]


@pytest.fixture(autouse=True)
def same_signals() -> Iterator[None]:
    """Nothing is held back at the end that was not at the beginning, and the handlers are the same."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers = {one: signal.getsignal(one) for one in (signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP)}
    yield
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    assert {one: signal.getsignal(one) for one in handlers} == handlers


# -- yes


def test_the_steps_of_an_upgrade(descriptors_stay: None) -> None:
    house = House()
    came = house.ask()
    assert house.steps == ["copy", "try"]
    house.trials[0].verdict.callback(YES)
    # whoever asked is told before anybody's connection ends
    assert came == [Going(__version__, "0.6.0")]
    assert house.steps == ["copy", "try", "prepare"]
    house.turn()
    assert house.steps == ALL
    ((new, variables, descriptors),) = house.execs
    assert new.words == (sys.executable, "/bin/twistd", "--nodaemon", "distbal")
    assert (variables, descriptors) == ({"DISTBAL_HANDOVER": "x"}, [3, 4])
    assert house.masked >= {signal.SIGUSR2, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
    assert house.troubles == [""]


def test_each_step_is_waited_for() -> None:
    house = House()
    house.waits = {name: Deferred() for name in ("prepare", "saved", "leave")}
    came = house.ask()
    house.trials[0].verdict.callback(YES)
    for done, name in enumerate(("prepare", "saved", "leave")):
        house.turn(3)
        assert house.steps == ALL[: 3 + done]
        assert len(came) == (done > 0)
        house.waits[name].callback(None)
    house.turn()
    assert house.steps == ALL


def test_neither_a_slow_disk_nor_somebody_who_does_not_read_holds_it_up() -> None:
    house = House()
    house.waits = {name: Deferred() for name in ("saved", "leave")}
    house.ask()
    house.trials[0].verdict.callback(YES)
    house.turn()
    with Lines() as lines:
        house.reactor.advance(LONGEST_SAVE)
        house.reactor.advance(LONGEST_LEAVE)
    assert lines.of("warn") == [
        "what was decided is not on the disk yet, after 5 s: the upgrade goes on",
        "not everybody has gone who cannot be carried, after 8 s: the upgrade goes on",
    ]
    house.turn()
    assert house.steps == ALL
    assert house.reactor.getDelayedCalls() == []


def test_a_second_one_meanwhile_hears_so() -> None:
    house = House()
    house.ask()
    assert error_of(house.ask()) == "an upgrade is under way already"
    house.trials[0].verdict.callback(YES)
    assert error_of(house.ask()) == "an upgrade is under way already"
    house.turn(2)
    assert house.steps == ALL
    assert house.troubles == [""]


# -- no


def test_no_and_the_code_that_runs_goes_on(logged_errors: LoggedErrors) -> None:
    house = House()
    came = house.ask()
    with Lines() as lines:
        house.trials[0].verdict.callback(Verdict(why=("x.yaml:1: no", "x.yaml:2: no {this}"), said=("Traceback",)))
    assert error_of(came) == "x.yaml:1: no\nx.yaml:2: no {this}"
    assert lines.all == [
        ("info", "the new code said: Traceback"),
        ("error", "x.yaml:1: no"),
        ("error", "x.yaml:2: no {this}"),
        ("error", f"distbal is not upgraded: version {__version__} goes on"),
    ]
    logged_errors.flush()
    house.turn(3)
    # nothing had been stopped
    assert house.steps == ["copy", "try"]
    assert house.troubles == ["", "x.yaml:1: no\nx.yaml:2: no {this}"]
    # and the next may do better
    house.ask()
    house.trials[1].verdict.callback(YES)
    house.turn(2)
    assert house.steps == ["copy", "try", *ALL]
    assert house.troubles[2:] == [""]


@pytest.mark.parametrize(
    ("step", "error", "why"),
    [
        ("copy", OSError(24, "Too many open files"), "the system does not let it be: Too many open files"),
        ("try", UpgradeError("the new code could not be tried: no"), "the new code could not be tried: no"),
        ("prepare", DistbalError("a job does not end"), "a job does not end"),
        ("prepare", KeyError("x"), "a bug in distbal (KeyError): its log tells more"),
    ],
)
def test_a_step_that_cannot_be_done_before_the_answer(
    step: str, error: Exception, why: str, logged_errors: LoggedErrors
) -> None:
    house = House()
    house.fails[step] = error
    came = house.ask()
    if step == "prepare":
        house.trials[0].verdict.callback(YES)
    assert error_of(came) == why
    assert house.troubles == ["", why]
    assert ("go on" in house.steps) is (step == "prepare")
    assert why in logged(logged_errors)
    house.turn(3)
    assert house.execs == []
    house.fails = {}
    house.ask()
    house.trials[-1].verdict.callback(YES)
    house.turn(2)
    assert house.steps[-7:] == ALL


@pytest.mark.parametrize("step", ["saved", "leave", "hand over", "exec"])
def test_a_step_that_cannot_be_done_behind_the_answer(step: str, logged_errors: LoggedErrors) -> None:
    house = House()
    house.fails[step] = UpgradeError("it cannot be")
    came = house.ask()
    house.trials[0].verdict.callback(YES)
    house.turn(2)
    assert len(came) == 1
    assert house.steps == [*ALL[: ALL.index(step) + 1], "go on"]
    assert house.troubles == ["", "it cannot be"]
    assert logged(logged_errors) == ["it cannot be", f"distbal is not upgraded: version {__version__} goes on"]


def test_a_service_that_cannot_go_on_says_so(logged_errors: LoggedErrors) -> None:
    house = House()
    house.fails = {"exec": UpgradeError("no"), "go on": RuntimeError("neither")}
    house.ask()
    house.trials[0].verdict.callback(YES)
    house.turn(2)
    assert "a bug: distbal cannot go on as before; restart it" in [event["log_format"] for event in logged_errors.flush()]


def test_a_start_that_cannot_be_told_or_used_twice(logged_errors: LoggedErrors) -> None:
    assert error_of(House(UpgradeError("it cannot be told")).ask()) == "it cannot be told"
    behind = Start(sys.executable, (), ("/bin/twistd",), ("--chroot", "/x", "distbal"), True, "/srv", 0)
    house = House(behind)
    assert "chroot" in error_of(house.ask())
    assert house.steps == []
    logged_errors.flush()


# -- the service stops meanwhile


def test_a_stop_ends_the_trial() -> None:
    house = House()
    came = house.ask()
    stopped: list[None] = []
    house.upgrader.stop().addCallback(stopped.append)
    assert error_of(came) == "distbal stops"
    assert stopped == []
    house.trials[0].gone.callback(None)
    assert stopped == [None]
    assert error_of(house.ask()) == "distbal stops"
    house.turn(3)
    assert house.steps == ["copy", "try"]


@pytest.mark.parametrize("step", ["prepare", "saved", "leave"])
def test_a_stop_ends_what_follows_the_trial(step: str) -> None:
    house = House()
    house.waits = {step: Deferred()}
    house.ask()
    house.trials[0].verdict.callback(YES)
    house.turn()
    assert house.upgrader.stop().called
    house.turn(3)
    assert "exec" not in house.steps
    assert "hand over" not in house.steps
    assert "go on" not in house.steps, "it would serve again"
    assert house.reactor.getDelayedCalls() == []


def test_a_stop_by_a_signal_just_before_the_exec_is_heeded() -> None:
    """Held back from the other code, and heard: as SIGTERM is, whose handler asks the reactor to stop."""
    house = House()
    house.ask()
    house.trials[0].verdict.callback(YES)
    house.waits["leave"] = Deferred()
    house.turn()
    house.reactor.callFromThread(house.upgrader.stop)
    house.waits["leave"].callback(None)
    house.turn(3)
    assert house.execs == []


# -- SIGUSR2


def test_sigusr2(logged_errors: LoggedErrors) -> None:
    house = House()
    before = signal.getsignal(signal.SIGUSR2)
    house.upgrader.start()
    try:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert house.steps == []
        house.turn()
        assert house.steps == ["copy", "try"]
        with Lines() as lines:
            os.kill(os.getpid(), signal.SIGUSR2)
            house.turn()
        assert lines.of("warn") == ["SIGUSR2: an upgrade is under way already"]
        house.trials[0].verdict.callback(Verdict(why=("no",)))
        assert house.noted == []
        logged_errors.flush()
        os.kill(os.getpid(), signal.SIGUSR2)
        house.turn()
        house.trials[1].verdict.callback(YES)
        assert house.noted == [f"distbal {__version__} goes on as 0.6.0: the new code said yes"]
        house.turn(2)
        assert len(house.execs) == 1
    finally:
        house.upgrader.stop()
    assert signal.getsignal(signal.SIGUSR2) == before
