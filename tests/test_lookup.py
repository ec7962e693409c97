"""Where hosts are: what is asked of the resolver, what is remembered, and in which order places are tried."""

from __future__ import annotations

import errno
import socket
import subprocess
import sys
import threading
from typing import NoReturn

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from distbal import lookup
from distbal.lookup import AGAIN, FRESH, MOST_AT_ONCE, Lookup, NotFoundError, Place, SystemResolver
from tests.peers import until, with_ipv6
from tests.support import LoggedErrors

BOX = ("box.invalid", 3632)
ONE: Place = (socket.AF_INET, ("127.0.0.1", 3632))
TWO: Place = (socket.AF_INET, ("127.0.0.2", 3632))
THREE: Place = (socket.AF_INET, ("127.0.0.3", 3632))


class Directory:
    """A resolver that answers when the test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.questions: list[tuple[str, int]] = []
        self._open: list[Deferred[list[Place]]] = []
        self.lookup = Lookup(self.clock, self._resolve)
        #: what those who asked were told
        self.told: list[list[Place] | str] = []

    def _resolve(self, host: str, port: int) -> Deferred[list[Place]]:
        self.questions.append((host, port))
        self._open.append(Deferred())
        return self._open[-1]

    def find(self, address: tuple[str, int] = BOX) -> None:
        def tell(found: list[Place] | Failure) -> None:
            self.told.append(found if isinstance(found, list) else found.getErrorMessage())

        self.lookup.find(address, tell)

    def answer(self, *places: Place) -> None:
        self._open.pop(0).callback(list(places))

    def fail(self, reason: str) -> None:
        self._open.pop(0).errback(NotFoundError(reason))

    def knows(self, *places: Place) -> None:
        """It has looked the box up."""
        self.find()
        self.answer(*places)
        del self.told[:], self.questions[:]


@pytest.fixture
def directory() -> Directory:
    return Directory()


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("127.0.0.1", (socket.AF_INET, ("127.0.0.1", 3632))),
        pytest.param("::1", (socket.AF_INET6, ("::1", 3632, 0, 0)), marks=with_ipv6),
    ],
)
def test_numeric_addresses_are_known(directory: Directory, host: str, place: Place) -> None:
    for _ in range(2):
        assert directory.lookup.known((host, 3632)) == [place]
        directory.clock.advance(10 * FRESH)
    assert directory.questions == []


@pytest.mark.parametrize("host", ["box.invalid", "x" * 300, "b\xfcx", "a..b"])
def test_names_are_not_known_before_they_were_found(directory: Directory, host: str) -> None:
    assert directory.lookup.known((host, 3632)) is None


def test_a_name_is_found_once_for_all_who_wait(directory: Directory) -> None:
    for _ in range(3):
        directory.find()
    directory.find(("other.invalid", 3632))
    assert directory.questions == [BOX, ("other.invalid", 3632)]
    assert directory.told == []
    directory.answer(ONE, TWO)
    assert directory.told == [[ONE, TWO]] * 3
    assert directory.lookup.known(BOX) == [ONE, TWO]
    directory.fail("no such name")
    assert directory.told[3:] == ["no such name"]


def test_what_was_found_is_good_for_a_while_and_then_still_for_those_who_come(directory: Directory) -> None:
    directory.knows(ONE)
    directory.clock.advance(FRESH - 1)
    assert directory.lookup.known(BOX) == [ONE]
    assert directory.questions == []
    directory.clock.advance(1)
    for _ in range(3):
        assert directory.lookup.known(BOX) == [ONE], "nobody waits for a slow resolver"
    assert directory.questions == [BOX], "which is asked once"
    directory.answer(TWO)
    assert directory.lookup.known(BOX) == [TWO]
    directory.clock.advance(FRESH - 1)
    assert directory.lookup.known(BOX) == [TWO]
    assert directory.questions == [BOX]


def test_a_machine_that_has_moved_is_found_within_a_minute(directory: Directory) -> None:
    directory.knows(ONE)
    directory.clock.advance(60)
    directory.lookup.known(BOX)
    directory.answer(TWO)
    assert directory.lookup.known(BOX) == [TWO]


def test_a_name_that_cannot_be_found_is_asked_for_again_by_the_next(directory: Directory) -> None:
    directory.find()
    directory.fail("try again later")
    assert directory.told == ["try again later"]
    assert directory.lookup.known(BOX) is None
    directory.find()
    directory.answer(ONE)
    assert directory.told[1:] == [[ONE]]


def test_a_name_that_was_found_and_is_gone(directory: Directory) -> None:
    directory.knows(ONE)
    directory.clock.advance(FRESH)
    directory.lookup.known(BOX)
    directory.find()
    assert directory.questions == [BOX], "the question that is open is theirs, too"
    directory.fail("gone")
    assert directory.told == ["gone"]
    assert directory.lookup.known(BOX) == [ONE], "a resolver that is out of order takes nobody's hosts away"
    assert directory.questions == [BOX]
    directory.clock.advance(AGAIN)
    assert directory.lookup.known(BOX) == [ONE]
    assert directory.questions == [BOX, BOX]
    directory.answer(TWO)
    assert directory.lookup.known(BOX) == [TWO]


def test_who_cannot_be_told_keeps_the_answer_from_nobody(directory: Directory, logged_errors: LoggedErrors) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("a bug")

    directory.find()
    directory.lookup.find(BOX, fail)
    directory.find()
    directory.answer(ONE)
    assert directory.told == [[ONE], [ONE]]
    (event,) = logged_errors.flush()
    assert event["log_format"] == "who asked for {host} could not be told where it is"


def test_the_place_that_was_reached_is_tried_first(directory: Directory) -> None:
    directory.knows(ONE, TWO, THREE)
    directory.lookup.reached(BOX, THREE)
    assert directory.lookup.known(BOX) == [THREE, ONE, TWO]
    directory.lookup.missed(BOX, THREE)
    assert directory.lookup.known(BOX) == [ONE, TWO, THREE]
    # also when it is looked up again, as far as the places are the same
    directory.lookup.reached(BOX, TWO)
    directory.clock.advance(FRESH)
    directory.lookup.known(BOX)
    four: Place = (socket.AF_INET, ("127.0.0.4", 3632))
    directory.answer(four, ONE, TWO)
    assert directory.lookup.known(BOX) == [TWO, ONE, four]


def test_what_is_not_among_its_places_is_no_matter(directory: Directory) -> None:
    directory.lookup.reached(BOX, ONE)
    directory.lookup.missed(BOX, ONE)
    assert directory.lookup.known(BOX) is None
    directory.knows(ONE)
    directory.lookup.reached(BOX, TWO)
    directory.lookup.missed(BOX, TWO)
    assert directory.lookup.known(BOX) == [ONE]


# -- the system's resolver


@pytest_twisted.ensureDeferred
async def test_the_system_is_asked_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    system = socket.getaddrinfo

    def asked(*args: object, **more: object) -> object:
        threads.append(threading.current_thread())
        # the same place twice, as from an /etc/hosts that says so
        return system(*args, **more) * 2  # type: ignore[arg-type]

    monkeypatch.setattr(lookup.socket, "getaddrinfo", asked)  # type: ignore[attr-defined]
    assert await SystemResolver(reactor)("127.0.0.1", 3632) == [ONE]
    assert threads
    assert threading.main_thread() not in threads


@pytest_twisted.ensureDeferred
async def test_what_the_system_cannot_find_fails_in_words() -> None:
    with pytest.raises(NotFoundError, match=r"\S"):
        await SystemResolver(reactor)("nowhere.invalid", 3632)
    with pytest.raises(NotFoundError, match=r"\S") as caught:
        await SystemResolver(reactor)("x" * 300, 3632)
    assert not caught.value.unasked


@pytest.mark.parametrize(
    ("problem", "unasked"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), False),
        (socket.gaierror(socket.EAI_NODATA, "No address associated with hostname"), False),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
    ],
)
@pytest_twisted.ensureDeferred
async def test_whether_the_name_is_at_fault_is_known(problem: OSError, unasked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object, **__: object) -> NoReturn:
        raise problem

    monkeypatch.setattr(lookup.socket, "getaddrinfo", asked)  # type: ignore[attr-defined]
    with pytest.raises(NotFoundError, match=str(problem.strerror)) as caught:
        await SystemResolver(reactor)("name", 3632)
    assert caught.value.unasked is unasked


@pytest_twisted.ensureDeferred
async def test_names_that_are_not_answered_hold_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of names that is gone holds each question up for half a minute."""
    system = socket.getaddrinfo
    hanging: list[threading.Thread] = []
    answers = threading.Event()

    def asked(host: str, *args: object, **more: object) -> object:
        if host == "slow.invalid":
            hanging.append(threading.current_thread())
            answers.wait()
        return system("127.0.0.1", *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(lookup.socket, "getaddrinfo", asked)  # type: ignore[attr-defined]
    resolver = SystemResolver(reactor)
    others: ThreadPool = reactor.getThreadPool()  # type: ignore[attr-defined]
    busy = len(others.working)
    slow = [resolver("slow.invalid", 3632) for _ in range(MOST_AT_ONCE - 1)]
    try:
        await until(lambda: len(hanging) == MOST_AT_ONCE - 1, "as many questions at once")
        assert await resolver("fast.invalid", 3632) == [ONE]
        assert len(others.working) == busy, "the reactor's threads are for others"
        more = [resolver("slow.invalid", 3632) for _ in range(10)]
        await until(lambda: len(hanging) == MOST_AT_ONCE, "one more")
        assert all(thread.daemon for thread in hanging), "nobody waits for them at the end"
    finally:
        answers.set()
    for one in slow + more:
        assert await one == [ONE]
    assert len(set(hanging)) <= MOST_AT_ONCE


#: a daemon that is told to stop while it looks a name up
STOPS = """
import socket, threading
from twisted.internet import reactor
from distbal.lookup import SystemResolver

def asked(*args, **more):
    reactor.callFromThread(reactor.stop)
    threading.Event().wait()

socket.getaddrinfo = asked
reactor.callWhenRunning(SystemResolver(reactor), "slow.invalid", 3632)
reactor.run()
print("stopped")
"""


def test_a_name_that_is_not_answered_does_not_hold_up_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", STOPS], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")
