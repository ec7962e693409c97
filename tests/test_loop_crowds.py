"""Whatever comes to the hot loop at once, the reactor has its turn soon; and what goes wrong with one client stays with it.

The loop is turned by hand here: no reactor runs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import Logger

from distbal.access import AccessList
from distbal.complaints import Complaints
from distbal.hosts import Farm, HostSpec
from distbal.leases import LocalLeases, Taker
from distbal.listening import listen_tcp
from distbal.loop import BATCH, MOST_ACCEPTED, Connection, HotLoop
from distbal.outcomes import Outcome
from distbal.ports import BalancePort, Replies, Terms
from distbal.requests import Request, Ticket
from distbal.scheduler import Scheduler
from tests.support import LoggedErrors


class Guest(Connection):
    """A client that is counted."""

    __slots__ = ("descriptor", "loop")

    def __init__(self, loop: HotLoop, descriptor: int) -> None:
        self.loop = loop
        self.descriptor = descriptor

    def left(self, outcome: Outcome) -> None:
        self.loop.end(self)


@pytest.fixture
def loop() -> Iterator[HotLoop]:
    reactor = cast("Any", MemoryReactorClock())  # type: ignore[no-untyped-call]
    one = HotLoop(reactor, reactor, 10_000)
    yield one
    one.stop()


def crowd(stack: ExitStack, where: tuple[str, int], number: int) -> list[socket.socket]:
    """Clients in the backlog."""
    return [stack.enter_context(socket.create_connection(where)) for _ in range(number)]


def test_a_crowd_that_comes_at_once_is_taken_in_by_and_by(loop: HotLoop) -> None:
    sock = listen_tcp("127.0.0.1", 0)
    where = sock.getsockname()
    guests: list[Guest] = []

    def accepted(descriptor: int, address: object) -> None:
        guest = Guest(loop, descriptor)
        loop.watch(guest)
        guests.append(guest)

    loop.listen(sock, accepted)
    with ExitStack() as stack:
        crowd(stack, where, 700)
        turns = [0]
        while len(guests) < 700:
            loop.doRead()
            assert len(guests) > turns[-1]
            turns.append(len(guests))
    taken = [after - before for before, after in pairwise(turns)]
    # the batch is full at the latest by what one readiness brings
    assert max(taken) < BATCH + MOST_ACCEPTED
    assert len(taken) <= 700 // BATCH + 1


def test_a_crowd_that_is_turned_away_is_heard_out_by_and_by(loop: HotLoop) -> None:
    sock = listen_tcp("127.0.0.1", 0)
    where = sock.getsockname()
    came = 0

    def turned_away(descriptor: int, address: object) -> None:
        nonlocal came
        came += 1
        os.close(descriptor)

    loop.listen(sock, turned_away)
    with ExitStack() as stack:
        crowd(stack, where, 400)
        while came < 400:
            before = came
            loop.doRead()
            assert before < came < before + BATCH + MOST_ACCEPTED


def test_those_who_leave_are_served_while_a_crowd_comes(loop: HotLoop) -> None:
    sock = listen_tcp("127.0.0.1", 0)
    where = sock.getsockname()
    loop.listen(sock, lambda descriptor, address: loop.watch(Guest(loop, descriptor)))
    with ExitStack() as stack:
        first = crowd(stack, where, 100)
        while loop.free() > 10_000 - 100:
            loop.doRead()
        crowd(stack, where, 300)
        for client in first:
            client.close()
        loop.doRead()
        loop.doRead()
        # those who left are gone, and some of the crowd are in
        there = 10_000 - loop.free()
        assert 0 < there <= 2 * (BATCH + MOST_ACCEPTED) - 100
        while there < 300:
            loop.doRead()
            there = 10_000 - loop.free()


def test_a_client_that_cannot_be_watched_is_closed(
    loop: HotLoop, logged_errors: LoggedErrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    sock = listen_tcp("127.0.0.1", 0)
    loop.listen(sock, lambda descriptor, address: loop.watch(Guest(loop, descriptor)))

    def full(descriptor: int, events: int) -> None:
        raise OSError(28, "No space left on device")  # /proc/sys/fs/epoll/max_user_watches

    monkeypatch.setattr(loop, "_register", full)
    with socket.create_connection(sock.getsockname(), 5) as client:
        loop.doRead()
        assert client.recv(1) == b""
    assert loop.free() == 10_000
    (event,) = logged_errors.flush()
    assert event["log_failure"].check(OSError)


def test_end_leaves_a_reused_descriptor_alone(loop: HotLoop) -> None:
    here, there = socket.socketpair()
    guest = Guest(loop, here.detach())
    with there:
        loop.watch(guest)
        loop.end(guest)
        with Path(os.devnull).open() as other:
            if other.fileno() != guest.descriptor:
                os.dup2(other.fileno(), guest.descriptor)
            loop.end(guest)
            os.fstat(guest.descriptor)
            if other.fileno() != guest.descriptor:
                os.close(guest.descriptor)


class Faulty(LocalLeases):
    """A source with a bug, which shows before or after the lease is granted."""

    def __init__(self, when: str) -> None:
        clock = Clock()
        super().__init__(Scheduler(Farm((HostSpec("alpha", 1, 0),))), clock)
        self.when = when

    def ask(self, request: Request, taker: Taker) -> Ticket:
        if self.when == "before":
            raise ZeroDivisionError
        super().ask(request, taker)
        raise ZeroDivisionError


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_bug_met_by_a_new_client_ends_that_one(loop: HotLoop, logged_errors: LoggedErrors, when: str) -> None:
    terms = Terms()
    terms.replies, terms.allow_clients = Replies("{name}"), AccessList.parse(["loopback"])
    leases = Faulty(when)
    port = BalancePort(leases, terms, "default", Complaints(Logger(), lambda: 0.0))
    sock = listen_tcp("127.0.0.1", 0)
    loop.listen(sock, lambda descriptor, address: port.hot(loop, descriptor, address))
    with socket.create_connection(sock.getsockname(), 5) as client:
        loop.doRead()
        assert client.recv(100) == (b"" if when == "before" else b"alpha\r\n")
        assert client.recv(100) == b""
    assert loop.free() == 10_000
    assert leases.snapshot().leases == ()
    (event,) = logged_errors.flush()
    assert event["log_failure"].check(ZeroDivisionError)
