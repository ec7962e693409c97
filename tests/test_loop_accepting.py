"""The hot loop: who is accepted, how many at a time, and what happens when there is no room or no descriptor."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import capturedLogs, formatEvent

from distbal import listening
from distbal.loop import MOST_ACCEPTED, ONE_SHORTAGE, RETRY_ACCEPT, HotLoop
from distbal.outcomes import Outcome
from tests.loops import Client, Hand, hands
from tests.peers import PATIENCE, Peer, until
from tests.support import LoggedErrors, descriptors_left


@pytest.fixture
def make() -> Iterator[Callable[..., Hand]]:
    yield from hands()


@pytest.fixture
def hand(make: Callable[..., Hand]) -> Hand:
    return make()


# -- who is accepted


def test_the_address_is_handed_on(hand: Hand) -> None:
    addresses = []

    def accepted(descriptor: int, address: Any) -> None:
        addresses.append(address)
        os.close(descriptor)

    listener = hand.loop.listen(listening.listen_tcp("127.0.0.1", 0), accepted)
    with Peer(listener.sock.getsockname()) as peer:
        hand.serve()
        assert addresses == [("127.0.0.1", peer.port)]


def test_accepting_adapts_to_the_crowd(hand: Hand) -> None:
    turns: list[int] = []

    def accepted(descriptor: int, _: Any) -> None:
        turns.append(hand.loop._turn)
        os.close(descriptor)

    hand.listener.accepted = accepted
    with ExitStack() as peers:
        for _ in range(200):
            peers.enter_context(Peer(hand.where))
        hand.happened(1)
        while not hand.quiet():
            hand.loop.doRead()
        batches = [turns.count(turn) for turn in sorted(set(turns))]
        assert batches[:6] == [2, 4, 8, 16, 32, MOST_ACCEPTED]
        assert sum(batches) == 200
        assert max(batches) == MOST_ACCEPTED
        # and back: with one at a time, one is looked for
        del turns[:]
        for _ in range(3):
            peers.enter_context(Peer(hand.where))
            hand.serve()
    assert [turns.count(turn) for turn in sorted(set(turns))] == [1, 1, 1]


class Fallback:
    """A listening socket that has nothing but what socket.socket promises."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.fileno, self.accept, self.close = sock.fileno, sock.accept, sock.close


def test_accepting_needs_no_more_than_the_documented_socket(hand: Hand) -> None:
    sock = listening.listen_tcp("127.0.0.1", 0)
    where = sock.getsockname()
    hand.listen(Fallback(sock))  # type: ignore[arg-type]
    with Peer(where) as peer:
        hand.serve()
        (client,) = hand.clients
        os.write(client.descriptor, b"hello\n")
        assert select.select([peer.sock], [], [], PATIENCE)[0]
        assert peer.sock.recv(100) == b"hello\n"


class Moody(socket.socket):
    """A listening socket whose next connections the network takes back before they are accepted."""

    moods: list[int]

    def _accept(self) -> tuple[int, Any]:
        if self.moods:
            number = self.moods.pop()
            raise OSError(number, os.strerror(number))
        return super()._accept()  # type: ignore[misc,no-any-return]


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EHOSTUNREACH])
def test_who_is_gone_before_being_accepted_is_no_matter(hand: Hand, number: int) -> None:
    sock = Moody(fileno=listening.listen_tcp("127.0.0.1", 0).detach())
    sock.moods = [number] * 3
    hand.listener = hand.listen(sock)
    with capturedLogs() as events, Peer(hand.where):
        for _ in range(4):
            if not hand.clients:
                hand.serve()
        assert len(hand.clients) == 1
    assert not events


def test_a_bug_in_one_listener_meets_that_one_alone(hand: Hand, logged_errors: LoggedErrors) -> None:
    class Buggy(socket.socket):
        def _accept(self) -> tuple[int, Any]:
            raise ZeroDivisionError

    buggy = hand.listen(Buggy(fileno=listening.listen_tcp("127.0.0.1", 0).detach()))
    with Peer(buggy.sock.getsockname()), Peer(hand.where):
        hand.happened(2)
        hand.loop.doRead()
        assert len(hand.clients) == 1
        hand.loop.stop_listening(buggy)
    assert {event["log_failure"].type for event in logged_errors.flush()} == {ZeroDivisionError}


# -- who has to wait


def test_beyond_its_room_it_waits_until_one_leaves(make: Callable[..., Hand]) -> None:
    hand = make(room=2)
    with capturedLogs() as events, ExitStack() as stack:
        peers = [stack.enter_context(Peer(hand.where)) for _ in range(4)]
        hand.serve()
        assert len(hand.clients) == 2
        assert hand.quiet(), "those who wait outside do not keep the reactor busy"
        assert [formatEvent(event) for event in events] == [
            "not accepting more clients for now: there are as many clients as its descriptors allow"
        ]
        peers[0].close()
        hand.serve()
        assert len(hand.clients) == 3
        assert hand.quiet()
        peers[1].close()
        peers[2].close()
        hand.serve(2)
        assert len(hand.clients) == 4
        assert hand.loop.free() == 1


def test_with_room_for_one_all_come_in_turn(make: Callable[..., Hand]) -> None:
    hand = make(room=1)
    with capturedLogs() as events:
        for peer in [Peer(hand.where) for _ in range(50)]:
            if not hand.clients or hand.clients[-1].outcomes:
                hand.serve()
            peer.close()
            hand.serve()
    assert [client.outcomes for client in hand.clients] == [[Outcome.CLOSED]] * 50
    assert len(events) <= 10, "and the log is not full of it"


def test_all_listeners_wait_and_go_on_together(make: Callable[..., Hand]) -> None:
    hand = make(room=1)
    other = hand.listen(listening.listen_tcp("127.0.0.1", 0))
    with capturedLogs(), ExitStack() as stack:
        first = stack.enter_context(Peer(hand.where))
        hand.serve()
        for where in (hand.where, other.sock.getsockname()):
            stack.enter_context(Peer(where))
        hand.serve()
        assert (len(hand.clients), hand.quiet()) == (1, True)
        assert len(hand.reactor.getDelayedCalls()) == 1, "one timer for both"
        first.close()
        hand.serve()
        assert (len(hand.clients), hand.quiet()) == (2, True)
        hand.loop.end(hand.clients[1])
        hand.serve()
        assert len(hand.clients) == 3
        assert {client.descriptor for client in hand.clients[1:]} == {hand.clients[1].descriptor}


def test_it_looks_again_after_a_moment(make: Callable[..., Hand]) -> None:
    hand = make(room=1)
    with Peer(hand.where), Peer(hand.where):
        hand.serve()
        assert (len(hand.clients), hand.quiet()) == (1, True)
        hand.loop.room = 2
        hand.reactor.advance(RETRY_ACCEPT)
        hand.serve()
        assert len(hand.clients) == 2


def test_one_shortage_is_told_once_however_long_it_lasts(make: Callable[..., Hand]) -> None:
    hand = make(room=1)
    with capturedLogs() as events, ExitStack() as stack:
        holder = stack.enter_context(Peer(hand.where))
        hand.serve()

        def wait(seconds: float) -> None:
            for _ in range(round(seconds / RETRY_ACCEPT)):
                hand.loop.doRead()
                assert hand.quiet()
                hand.reactor.advance(RETRY_ACCEPT)

        stack.enter_context(Peer(hand.where))
        wait(3 * ONE_SHORTAGE)
        assert len(events) == 1
        holder.close()
        hand.serve()
        hand.loop.doRead()
        assert len(hand.clients) == 2
        hand.reactor.advance(ONE_SHORTAGE + 1)
        stack.enter_context(Peer(hand.where))
        wait(3)
        assert len(events) == 2, "that is another one"


def test_without_a_descriptor_it_waits_until_one_leaves(hand: Hand) -> None:
    first_peer, first = hand.connect()
    with capturedLogs() as events, Peer(hand.where), Peer(hand.where):
        with descriptors_left(0):
            hand.serve()
            assert len(hand.clients) == 1
            assert hand.quiet()
            assert [formatEvent(event) for event in events] == [
                f"not accepting more clients for now: [Errno {errno.EMFILE}] Too many open files"
            ]
            first_peer.send(b"still served")
            hand.serve()
            assert first.outcomes == []
            first_peer.half_close()  # its own descriptor it keeps
            hand.serve()
            assert first.outcomes == [Outcome.CLOSED]
            hand.loop.doRead()
            assert len(hand.clients) == 2, "its descriptor goes to the next one at once"
            assert hand.quiet()
        hand.reactor.advance(RETRY_ACCEPT)
        hand.serve()
        assert len(hand.clients) == 3
        first_peer.close()


class Counted(HotLoop):
    """A hot loop that knows how often the reactor called it."""

    turns = 0

    def doRead(self) -> None:
        self.turns += 1
        super().doRead()


@pytest_twisted.ensureDeferred
async def test_a_full_house_does_not_keep_the_reactor_busy() -> None:
    loop = Counted(reactor, reactor, room=1)
    clients: list[Client] = []

    def accepted(descriptor: int, _: Any) -> None:
        clients.append(Client(loop, descriptor))
        loop.watch(clients[-1])

    listener = loop.listen(listening.listen_tcp("127.0.0.1", 0), accepted)
    try:
        with Peer(listener.sock.getsockname()) as first, Peer(listener.sock.getsockname()):
            await until(lambda: bool(clients) and loop.free() == 0, "the first")
            await until(lambda: listener in loop._paused, "the pause")
            before = loop.turns
            for _ in range(50):
                await deferLater(reactor, 0)
            assert loop.turns == before
            assert len(clients) == 1
            first.close()
            await until(lambda: len(clients) == 2, "the second")
    finally:
        loop.stop()


def test_an_accept_that_fails_for_another_reason_does_not_spin(hand: Hand) -> None:
    """As after a mistake of ours: somebody shut the listening socket down."""
    hand.listener.sock.shutdown(socket.SHUT_RDWR)
    with capturedLogs() as events:
        for _ in range(100):
            hand.loop.doRead()
        assert [formatEvent(event) for event in events] == [
            f"not accepting more clients for now: [Errno {errno.EINVAL}] Invalid argument"
        ]
        assert hand.quiet()
        for _ in range(50):
            hand.reactor.advance(RETRY_ACCEPT / 2)
            hand.loop.doRead()
        assert len(events) <= 10, "it says so again, but not for ever"
